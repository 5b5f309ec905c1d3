"""Storage repositories: where they are attached."""

from typing import List

from xscontainer.errors import StorageNotAttached
from xscontainer.vmrecord import NULL_REF
from xscontainer.xapi.session import Session


def attached_hosts(session: Session, sr_ref: str) -> "List[str]":
    """The hosts (refs, in a fixed order) that are up and have a storage repository attached.

    :raises ObjectGone: there is no such repository.
    """
    xapi = session.xenapi
    plugs = [xapi.PBD.get_record(ref) for ref in xapi.SR.get_PBDs(sr_ref)]
    return sorted(plug["host"] for plug in plugs if plug["currently_attached"] and _is_up(session, plug["host"]))


def _is_up(session: Session, host_ref: str) -> bool:
    # A host that went down without a word leaves its plugs as they were.
    return bool(session.xenapi.host_metrics.get_live(session.xenapi.host.get_metrics(host_ref)))


def nearest_host(session: Session, sr_ref: str, here: str = "") -> str:
    """The host from which to use a repository: ``here`` if it is attached there, else always the same.

    :raises StorageNotAttached: it is attached nowhere.
    """
    hosts = attached_hosts(session, sr_ref)
    if not hosts:
        raise StorageNotAttached(f"The storage repository {label(session, sr_ref)} is attached to no host that is up.",
                                 "Attach it first.")
    return here if here in hosts else hosts[0]


def disk_host(session: Session, vdi_ref: str, here: str) -> str:
    """The host from which to read a disk: where a VM has it, else as :func:`nearest_host`.

    :raises StorageNotAttached:
    """
    xapi = session.xenapi
    for vbd in xapi.VDI.get_VBDs(vdi_ref):
        if xapi.VBD.get_currently_attached(vbd):
            host = xapi.VM.get_resident_on(xapi.VBD.get_VM(vbd))
            if host != NULL_REF:
                return str(host)
    return nearest_host(session, xapi.VDI.get_SR(vdi_ref), here)


def label(session: Session, sr_ref: str) -> str:
    """How messages name it."""
    return f"{session.xenapi.SR.get_name_label(sr_ref)!r} ({session.xenapi.SR.get_uuid(sr_ref)})"
