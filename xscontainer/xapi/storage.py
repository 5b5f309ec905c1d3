"""Find the hosts that storage repositories are attached to."""

from typing import List

from xscontainer.core.vm_record import NULL_REF
from xscontainer.errors import StorageNotAttached
from xscontainer.xapi.session import Session


def attached_hosts(session: Session, sr_ref: str) -> "List[str]":
    """Return the hosts (refs, in a fixed order) that are up and have the storage repository attached.

    :raises ObjectGone: the repository does not exist.
    """
    xapi = session.xenapi
    plugs = [xapi.PBD.get_record(ref) for ref in xapi.SR.get_PBDs(sr_ref)]
    return sorted(plug["host"] for plug in plugs if plug["currently_attached"] and _is_up(session, plug["host"]))


def _is_up(session: Session, host_ref: str) -> bool:
    # A host that crashed leaves its PBDs attached.
    return bool(session.xenapi.host_metrics.get_live(session.xenapi.host.get_metrics(host_ref)))


def nearest_host(session: Session, sr_ref: str, here: str = "") -> str:
    """Return the host that should use a repository: ``here`` if it is attached there, else always the same host.

    :raises StorageNotAttached: it is attached to no host that is up.
    """
    hosts = attached_hosts(session, sr_ref)
    if not hosts:
        raise StorageNotAttached(f"The storage repository {label(session, sr_ref)} is attached to no host that is up.",
                                 "Attach the storage repository first.")
    return here if here in hosts else hosts[0]


def disk_host(session: Session, vdi_ref: str, here: str) -> str:
    """Return the host that should read a disk: the host of a VM that uses the disk, else :func:`nearest_host`.

    :raises StorageNotAttached: its repository is attached to no host that is up.
    """
    xapi = session.xenapi
    for vbd in xapi.VDI.get_VBDs(vdi_ref):
        if xapi.VBD.get_currently_attached(vbd):
            host = xapi.VM.get_resident_on(xapi.VBD.get_VM(vbd))
            if host != NULL_REF:
                return str(host)
    return nearest_host(session, xapi.VDI.get_SR(vdi_ref), here)


def label(session: Session, sr_ref: str) -> str:
    """Return how messages name a repository."""
    return f"{session.xenapi.SR.get_name_label(sr_ref)!r} ({session.xenapi.SR.get_uuid(sr_ref)})"
