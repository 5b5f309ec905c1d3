"""Handing certificates to a guest: on a disc in its CD drive, for as long as somebody needs to run the script there."""

import contextlib
import io
import logging
import threading
import time
from typing import Dict, Iterator, List, NamedTuple, Set, Tuple

from xscontainer.actions.context import Context
from xscontainer.errors import ArgumentError, DriveBusy, ObjectGone, XapiError, XSContainerError
from xscontainer.vmrecord import NULL_REF, VMRecord
from xscontainer.xapi import disk, storage
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.disk import Drive
from xscontainer.xapi.session import Session

UPLOAD_SECONDS = 120.0
LET_GO_WITHIN = 30.0  # s in which a guest lets go of the disc
PAUSE = 1.0  # s between two tries to take it

# In a disk's other_config: the uuid of the VM that the certificates on it are for.
DISC_FOR = "xscontainer-disc-for"

log = logging.getLogger(__name__)
_at_work: Set[str] = set()  # uuids of the VMs
_lock = threading.Lock()


class Offer(NamedTuple):
    """:ivar other_config: what the VM's says once its engine has the certificates.

    :ivar fingerprint: of the certificate that its engine shows then: SHA-256, hexadecimal.
    :ivar names: what that is made out to: addresses, names.
    :ivar left: what could not be cleared away, a sentence each; known at the end.
    """

    other_config: Dict[str, str]
    fingerprint: str
    names: Tuple[str, ...]
    left: List[str]


@contextlib.contextmanager
def offered(context: Context, vm: VMRecord, sr_uuid: str) -> "Iterator[Offer]":
    """New certificates for the engine of a VM that runs here are in its CD drive, until the end of the block.

    Nobody has them afterwards but the guest, if somebody ran the script.

    :param vm: with the address that it is to have in its other_config, if it is given one.
    :param sr_uuid: of the repository for the disc; "": one that is attached here.
    :raises DriveBusy, DriveMissing: there is no drive for it.
    :raises VMError: nobody knows where it answers, or it must not be dialled there.
    :raises ArgumentError: no repository is attached here.
    """
    offer, content = _made(context, vm)
    here = context.this_host_ref()
    with _one_at_a_time(vm):
        drive = context.sessions.run(lambda session: _empty_drive(session, vm))
        vdi = context.sessions.run(lambda session: disk.create(
            session, _repository(session, here, sr_uuid), len(content), "xscontainer TLS",
            f"Certificates for {vm.name}; may be deleted", {DISC_FOR: vm.uuid}))
        try:
            context.forwarding.run(lambda session: disk.upload(
                session, context.settings.xapi.socket, session.xenapi.VDI.get_uuid(vdi), io.BytesIO(content),
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
    """A VM that is off gets the CD drive that it lacks: one that runs takes none."""
    vm = xapi_vm.record(session, vm_uuid)
    if vm.is_guest and vm.power_state == "Halted":
        disk.cd_drive(session, vm.ref, running=False)


def _made(context: Context, vm: VMRecord) -> "Tuple[Offer, bytes]":
    from xscontainer import certificates
    from xscontainer.configdrive import defaults, image

    names = certificates.names(vm, context.access.facts.host_addresses, context.settings.address.allow_loopback)
    try:
        issued = context.sessions.run(lambda session: certificates.issue(session, vm, names))
        files = {**issued.files, **certificates.scripts(str(defaults.directory()))}
    except ValueError as error:
        raise ArgumentError(f"No certificate can be made: {error}.") from error
    except OSError as error:
        raise ArgumentError(f"A part of the installation is missing: {error}.") from error
    return Offer(dict(issued.other_config), issued.fingerprint, names, []), image.write(files, certificates.LABEL)


@contextlib.contextmanager
def _one_at_a_time(vm: VMRecord) -> "Iterator[None]":
    with _lock:
        if vm.uuid in _at_work:
            raise DriveBusy(f"Another call is handing certificates to VM {vm.label}.", "Wait for it, or call it off.")
        _at_work.add(vm.uuid)
    try:
        yield
    finally:
        with _lock:
            _at_work.discard(vm.uuid)


def _empty_drive(session: Session, vm: VMRecord) -> Drive:
    drive = disk.cd_drive(session, vm.ref, running=True)
    disc = disk.disc_in(session, drive)
    if disc == NULL_REF:
        return drive
    if session.xenapi.VDI.get_other_config(disc).get(DISC_FOR) != vm.uuid:
        raise DriveBusy(f"There is a disc in the CD drive of VM {vm.label}.", "Eject it first.")
    _clear(session, drive, disc)  # whoever put it there died before the end
    return drive


def _repository(session: Session, here: str, uuid: str) -> str:
    """:raises ArgumentError: this host has none attached, or not that one."""
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
    raise ArgumentError("The VM's host has no such storage repository attached." if uuid else
                        "The VM's host has no storage repository attached that takes a disk.",
                        "Name another one with --sr (argument 'sruuid').")


def _clear(session: Session, drive: Drive, vdi: str) -> None:
    """The disc is out of the drive, and gone.

    :raises DriveBusy: the guest does not let go of it.
    """
    with contextlib.suppress(ObjectGone):  # the VM has gone
        if disk.disc_in(session, drive) == vdi:
            disk.eject(session, drive)
    disk.destroy(session, vdi)


def _taken_out(context: Context, vm: VMRecord, drive: Drive, vdi: str) -> "List[str]":
    """Sentences about what is left, if anything is: the key of the guest's engine is on it, somebody has to know."""
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
        time.sleep(PAUSE)
    text = f"The CD with the certificates could not be taken out of the VM's drive, or not be deleted: {why}"
    log.warning("VM %s: %s", vm.label, text)
    return [text + f" Then, by hand: xe vm-cd-eject uuid={vm.uuid}, and delete its disk, named 'xscontainer TLS'."]
