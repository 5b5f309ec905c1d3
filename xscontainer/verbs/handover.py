"""Hand certificates to a guest on a CD, which stays in its drive until somebody has run the script on it."""

import contextlib
import functools
import io
import logging
import os
import re
import time
from typing import ContextManager, Dict, Iterator, List, Mapping, NamedTuple, Tuple

from xscontainer.core.vm_record import NULL_REF, UUID, VMRecord
from xscontainer.errors import ArgumentError, DriveBusy, ObjectGone, XapiError, XSContainerError
from xscontainer.host import hostlock
from xscontainer.verbs.context import Context
from xscontainer.xapi import disk, lease, storage
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.disk import Drive
from xscontainer.xapi.session import Session

UPLOAD_SECONDS = 120.0
LET_GO_WITHIN = 30.0  # s that a guest has to release the disc
RETRY_SECONDS = 1.0  # between two attempts to eject it

NAME = "xscontainer TLS"  # of the disk

# Keys in a disk's other_config: the uuid of the VM that gets the certificates, the uuid of the host whose process made
# the disk, and when that process has surely ended: seconds since the epoch by the coordinator's clock.
DISC_FOR = "xscontainer-disc-for"
DISC_HOST = "xscontainer-disc-host"
DISC_UNTIL = "xscontainer-disc-until"
MOST_SECONDS = 3600  # that a hand-over takes: half an hour of waiting for a person, an upload, and some margin

log = logging.getLogger(__name__)


class Offer(NamedTuple):
    """The certificates that are in the guest's CD drive.

    :ivar other_config: the keys for the VM once its engine has the certificates.
    :ivar fingerprint: of the certificate that the engine shows then: SHA-256, hexadecimal.
    :ivar names: the addresses and names that the certificate is issued for.
    :ivar left: a sentence for each thing that could not be removed; known at the end.
    """

    other_config: Dict[str, str]
    fingerprint: str
    names: Tuple[str, ...]
    left: List[str]


@contextlib.contextmanager
def offered(context: Context, vm: VMRecord, sr_uuid: str) -> "Iterator[Offer]":
    """Put new certificates for the engine of a VM that runs here into its CD drive, until the end of the block.

    Afterwards only the guest has them, if somebody ran the script.

    :param vm: with the address for its other_config, if it gets one.
    :param sr_uuid: of the storage repository for the disc; "": one that is attached here.
    :raises DriveBusy, DriveMissing: the VM has no free drive.
    :raises VMError: the VM's address is not known or not allowed.
    :raises ArgumentError: no storage repository is attached here.
    """
    offer, content = _made(context, vm)
    here = context.this_host_ref()
    with _one_at_a_time(context, vm):
        drive = context.sessions.run(lambda session: _empty_drive(session, vm, here))
        vdi = context.sessions.run(lambda session: disk.create(
            session, _repository(session, here, sr_uuid), len(content), NAME,
            f"Certificates for {vm.name}; may be deleted", _mark(session, vm, here)))
        try:
            context.forwarding.run(lambda session: disk.upload(
                session, session.xenapi.VDI.get_uuid(vdi), io.BytesIO(content),
                len(content), UPLOAD_SECONDS))
            context.sessions.run(lambda session: disk.insert(session, drive, vdi))
            yield offer
        except XSContainerError as error:
            error.hint = " ".join([error.hint, *_taken_out(context, vm, drive, vdi)]).strip()
            raise
        except BaseException:
            _taken_out(context, vm, drive, vdi)
            raise
        offer.left.extend(_taken_out(context, vm, drive, vdi))


def give_drive(session: Session, vm_uuid: str) -> None:
    """Add a CD drive to a VM that is off and has none: a running VM takes no new drive."""
    vm = xapi_vm.record(session, vm_uuid)
    if vm.is_guest and vm.power_state == "Halted":
        disk.cd_drive(session, vm.ref, running=False)


def _made(context: Context, vm: VMRecord) -> "Tuple[Offer, bytes]":
    from xscontainer import certificates
    from xscontainer.configdrive import defaults, image

    names = certificates.names(vm, context.access.pool.state.host_addresses, context.settings.address.allow_loopback)
    try:
        issued = context.sessions.run(lambda session: certificates.issue(session, vm, names))
        files = {**issued.files, **certificates.scripts(str(defaults.directory()))}
    except ValueError as error:
        raise ArgumentError(f"No certificate can be made for the VM {vm.label}: {error}.") from error
    except OSError as error:
        raise ArgumentError(f"A part of the installation is missing on this host: {error}.",
                            "Install the supplemental pack again.") from error
    return Offer(dict(issued.other_config), issued.fingerprint, names, []), image.write(files, certificates.LABEL)


def _mark(session: Session, vm: VMRecord, here: str) -> "Dict[str, str]":
    return {DISC_FOR: vm.uuid, DISC_HOST: session.xenapi.host.get_uuid(here),
            DISC_UNTIL: str(int(lease.clock(session)) + MOST_SECONDS)}


@contextlib.contextmanager
def _one_at_a_time(context: Context, vm: VMRecord) -> "Iterator[None]":
    """Exclude all other threads and processes of this host. The kernel ends the lock with the process."""
    with _locked(context, vm.uuid) as held:
        if not held:
            raise DriveBusy(f"Another call is handing certificates to the VM {vm.label}.",
                            "Wait until it ends, or cancel its task.")
        yield


def _locked(context: Context, vm_uuid: str) -> "ContextManager[bool]":
    return hostlock.held(os.path.dirname(context.settings.daemon.socket), f"handover-{vm_uuid}.lock", 0.0)


def _empty_drive(session: Session, vm: VMRecord, here: str) -> Drive:
    """Return the VM's CD drive, empty. Removes a disc that a process of this host left: the caller holds the lock."""
    drive = disk.cd_drive(session, vm.ref, running=True)
    disc = disk.disc_in(session, drive)
    if disc == NULL_REF:
        return drive
    mark = session.xenapi.VDI.get_other_config(disc)
    if mark.get(DISC_FOR) != vm.uuid:
        raise DriveBusy(f"There is a disc in the CD drive of the VM {vm.label}.",
                        f"Eject it: xe vm-cd-eject uuid={vm.uuid}")
    if mark.get(DISC_HOST, "") not in ("", session.xenapi.host.get_uuid(here)) and not _ended(session, mark):
        raise DriveBusy(f"A call on another host is handing certificates to the VM {vm.label}.",
                        "Wait until it ends, or cancel its task. If that host is off, eject the CD and repeat the "
                        "call.")
    _clear(session, drive, disc)
    return drive


def _ended(session: Session, mark: "Mapping[str, str]") -> bool:
    """Tell whether the process that made the disc has surely ended, on whatever host it ran."""
    until = mark.get(DISC_UNTIL, "")
    return not re.match(r"[0-9]{1,12}\Z", until) or not 0 <= int(until) - lease.clock(session) <= MOST_SECONDS


def sweep(context: Context) -> None:
    """Eject and destroy the discs that dead processes of this host left."""
    sessions, this_host = context.sessions, context.this_host_ref()
    found = sessions.run(lambda session: session.xenapi.VDI.get_all_records_where(f'field "name__label" = "{NAME}"'))
    for vdi, record in found.items():
        mark = record["other_config"]
        if not UUID.match(mark.get(DISC_FOR, "")):
            continue
        with _locked(context, mark[DISC_FOR]) as held:
            try:
                if held and sessions.run(functools.partial(_is_left, this_host=this_host, vdi=vdi)):
                    sessions.run(functools.partial(_destroy, vdi=vdi))
                    log.info("destroyed the CD with certificates that a dead process had left: VM %s",
                             mark[DISC_FOR])
            except XSContainerError as error:
                log.warning("cannot remove a CD with certificates that a dead process has left: %s", error)


def _is_left(session: Session, this_host: str, vdi: str) -> bool:
    """Tell whether a disc was left. The caller holds its VM's lock: a call may just have made another disc."""
    try:
        mark = session.xenapi.VDI.get_other_config(vdi)
    except ObjectGone:
        return False
    return mark.get(DISC_HOST) == session.xenapi.host.get_uuid(this_host) or _ended(session, mark)


def _destroy(session: Session, vdi: str) -> None:
    with contextlib.suppress(ObjectGone):
        for vbd in session.xenapi.VDI.get_VBDs(vdi):
            with contextlib.suppress(ObjectGone):
                record = session.xenapi.VBD.get_record(vbd)
                if record["type"] == "CD" and record["VDI"] == vdi:
                    session.xenapi.VBD.eject(vbd)
        disk.destroy(session, vdi)


def _repository(session: Session, here: str, uuid: str) -> str:
    """Find a storage repository that is attached to this host.

    :raises ArgumentError: none is, or not the named one.
    """
    xapi = session.xenapi
    if uuid:
        wanted = [xapi.SR.get_by_uuid(uuid)]
    else:
        default = xapi.pool.get_default_SR(xapi.pool.get_all()[0])
        others = sorted(ref for ref, record in xapi.SR.get_all_records().items() if record["content_type"] == "user")
        wanted = [ref for ref in [default] if ref != NULL_REF] + others
    for ref in wanted:
        with contextlib.suppress(ObjectGone):
            if here in storage.attached_hosts(session, ref):
                return str(ref)
    raise ArgumentError(f"The storage repository {uuid} is not attached to the VM's host." if uuid else
                        "The VM's host has no storage repository attached that takes a disk.",
                        "Name another one with --sr (argument 'sruuid').")


def _clear(session: Session, drive: Drive, vdi: str) -> None:
    """Eject and destroy the disc.

    :raises DriveBusy: the guest does not release it.
    """
    with contextlib.suppress(ObjectGone):  # the VM has gone
        if disk.disc_in(session, drive) == vdi:
            disk.eject(session, drive)
    disk.destroy(session, vdi)


def _taken_out(context: Context, vm: VMRecord, drive: Drive, vdi: str) -> "List[str]":
    """Eject and destroy the disc, with retries; returns a sentence if it stays, because the engine's key is on it."""
    deadline = time.monotonic() + LET_GO_WITHIN
    while True:
        try:
            context.sessions.run(lambda session: _clear(session, drive, vdi))
            return []
        except DriveBusy as error:
            if time.monotonic() > deadline:
                why: XSContainerError = error
                break
        except XapiError as error:
            why = error
            break
        time.sleep(RETRY_SECONDS)
    text = f"The CD with the certificates could not be ejected from the VM's drive, or its disk not be deleted: {why}"
    log.warning("VM %s: %s", vm.label, text)
    return [text + f" Do it by hand: xe vm-cd-eject uuid={vm.uuid}, then delete the disk named '{NAME}'."]
