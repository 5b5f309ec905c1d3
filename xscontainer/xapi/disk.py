"""Create, attach, detach and destroy disks (VDIs) and drives (VBDs).

Their content is transferred by :func:`upload` and :func:`download` of xapi.transfer.
"""

import contextlib
import time
from typing import Dict, List, Mapping, NamedTuple

from xscontainer.core.vm_record import NULL_REF
from xscontainer.errors import DriveBusy, DriveMissing, ObjectGone, XapiError, XapiUnavailable
from xscontainer.xapi import longcall
from xscontainer.xapi.session import Session
from xscontainer.xapi.transfer import download, upload

__all__ = ["Drive", "attach", "cd_drive", "create", "destroy", "detach", "disc_in", "download", "drives", "eject",
           "free_device", "insert", "plug", "settled_drives", "upload"]

# s within which a disk that is attached nowhere must become free.
RELEASED_WITHIN = 5.0

# s for a repository to create a disk, for a host to plug it into a guest, and for a guest to release it.
MADE_WITHIN, PLUGGED_WITHIN, LET_GO_WITHIN = 120.0, 60.0, 60.0

# s that an operation on a drive may continue after its caller stopped waiting.
SETTLED_WITHIN = 60.0

# XAPI does not plug a read-only disk into a running HVM guest. The guest sees the disk after its next start.
_NO_READ_ONLY = "DISK_VBD_MUST_BE_READWRITE_FOR_HVM"
_HELD = ("DEVICE_DETACH_REJECTED", "DEVICE_DETACH_TIMEOUT")

# Positions that our disks leave free: guests boot from the first, and XenCenter and Xen Orchestra use the fourth for
# the CD drive.
_LEFT_FREE = ("0", "3")


class Drive(NamedTuple):
    """A VBD. ``vdi`` is NULL_REF for an empty CD drive."""

    ref: str
    vdi: str
    kind: str  # "Disk" | "CD" | "Floppy"
    mode: str  # "RO" | "RW"
    device: str  # position, as text: "0" is the first
    attached: bool
    other_config: Dict[str, str]


def create(session: Session, sr_ref: str, size: int, name: str, description: str = "",
           other_config: "Mapping[str, str]" = {}) -> str:  # noqa: B006 - it is copied
    """Create a disk and return its ref.

    :param size: bytes; the repository rounds up.
    """
    return longcall.run(session, "VDI.create", {
        "name_label": name, "name_description": description, "SR": sr_ref, "virtual_size": str(size), "type": "user",
        "sharable": False, "read_only": False, "other_config": dict(other_config), "xenstore_data": {}, "sm_config": {},
        "tags": []}, until=time.monotonic() + MADE_WITHIN)


def destroy(session: Session, vdi_ref: str) -> None:
    """Destroy a disk; no error if it does not exist. Waits a moment for an interrupted transfer to end."""
    deadline = time.monotonic() + RELEASED_WITHIN
    while True:
        try:
            session.xenapi.VDI.destroy(vdi_ref)
        except ObjectGone:
            pass
        except XapiError as error:
            if error.details[:1] == ["VDI_IN_USE"] and time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            raise
        return


def drives(session: Session, vm_ref: str) -> "List[Drive]":
    """Return the drives of a VM, by position."""
    found = []
    for ref in session.xenapi.VM.get_VBDs(vm_ref):
        with contextlib.suppress(ObjectGone):
            vbd = session.xenapi.VBD.get_record(ref)
            found.append(Drive(ref, vbd["VDI"], vbd["type"], vbd["mode"], vbd["userdevice"], vbd["currently_attached"],
                               dict(vbd["other_config"])))
    return sorted(found, key=lambda drive: (len(drive.device), drive.device))


def settled_drives(session: Session, vm_ref: str) -> "List[Drive]":
    """Return the drives once no operation on them is running; an abandoned call may have left one.

    After SETTLED_WITHIN seconds the drives are returned as they are.
    """
    deadline = time.monotonic() + SETTLED_WITHIN
    for ref in session.xenapi.VM.get_VBDs(vm_ref):
        with contextlib.suppress(ObjectGone):
            while session.xenapi.VBD.get_current_operations(ref) and time.monotonic() < deadline:
                time.sleep(0.1)
    return drives(session, vm_ref)


def free_device(session: Session, vm_ref: str) -> str:
    """Return a free position for a disk, "" if there is none."""
    allowed = session.xenapi.VM.get_allowed_VBD_devices(vm_ref)
    return next((device for device in allowed if device not in _LEFT_FREE), "")


def attach(session: Session, vm_ref: str, vdi_ref: str, device: str, read_only: bool, running: bool,
           other_config: "Mapping[str, str]" = {}) -> str:  # noqa: B006 - it is copied
    """Attach a disk to a VM and return the drive's ref.

    :param device: position; "": any.
    :param running: also plug it into the guest, see :func:`plug`.
    :raises XapiError: it failed, and the drive was removed again.
    """
    ref = str(session.xenapi.VBD.create({
        "VM": vm_ref, "VDI": vdi_ref, "userdevice": device or "autodetect", "bootable": False,
        "mode": "RO" if read_only else "RW", "type": "Disk", "unpluggable": True, "empty": False,
        "other_config": dict(other_config), "qos_algorithm_type": "", "qos_algorithm_params": {}}))
    try:
        if running:
            plug(session, ref)
    except XapiError:
        with contextlib.suppress(XapiError):
            session.xenapi.VBD.destroy(ref)
        raise
    return ref


def plug(session: Session, vbd_ref: str) -> bool:
    """Plug a drive into the running guest. Return False if XAPI does so only at the VM's next start."""
    try:
        _plug(session, vbd_ref)
    except XapiError as error:
        if error.details[:1] != [_NO_READ_ONLY]:
            raise
        return False
    return True


def _plug(session: Session, vbd_ref: str) -> None:
    longcall.run(session, "VBD.plug", vbd_ref, until=time.monotonic() + PLUGGED_WITHIN)


def detach(session: Session, drive: Drive) -> None:
    """Unplug a drive from the guest, if it is running, and remove the drive from the VM. The disk stays.

    :raises DriveBusy: the guest does not release the disk; the drive stays.
    """
    try:
        if drive.attached:
            _unplug(session, drive.ref)
        session.xenapi.VBD.destroy(drive.ref)
    except ObjectGone:
        pass


def _unplug(session: Session, vbd_ref: str) -> None:
    until = time.monotonic() + LET_GO_WITHIN
    try:
        longcall.run(session, "VBD.unplug", vbd_ref, until=until)
    except XapiError as error:
        called_off = isinstance(error, XapiUnavailable) and time.monotonic() > until
        if error.details[:1] == ["DEVICE_ALREADY_DETACHED"]:
            return
        if called_off or error.details[:1] and error.details[0] in _HELD:
            raise DriveBusy("The guest does not release the disk.",
                            "Unmount it in the guest, or shut the VM down.") from error
        raise


# --- CD drives ----------------------------------------------------------------------------------


def cd_drive(session: Session, vm_ref: str, running: bool) -> Drive:
    """Return the CD drive of a VM; add one if it has none.

    :raises DriveMissing: the VM has none, and none can be added while the VM runs.
    """
    found = next((drive for drive in drives(session, vm_ref) if drive.kind == "CD"), None)
    if found is not None:
        return found
    allowed = session.xenapi.VM.get_allowed_VBD_devices(vm_ref)
    ref = session.xenapi.VBD.create({
        "VM": vm_ref, "VDI": NULL_REF, "userdevice": "3" if "3" in allowed else "autodetect", "bootable": False,
        "mode": "RO", "type": "CD", "unpluggable": False, "empty": True, "other_config": {}, "qos_algorithm_type": "",
        "qos_algorithm_params": {}})
    try:
        if running:
            _plug(session, ref)
    except XapiError as error:
        with contextlib.suppress(XapiError):
            session.xenapi.VBD.destroy(ref)
        raise DriveMissing("The VM has no CD drive, and none can be added while the VM runs.") from error
    return next(drive for drive in drives(session, vm_ref) if drive.ref == ref)


def insert(session: Session, drive: Drive, vdi_ref: str) -> None:
    """Insert a disc into an empty CD drive.

    :raises DriveBusy: the drive is not empty.
    """
    try:
        session.xenapi.VBD.insert(drive.ref, vdi_ref)
    except XapiError as error:
        if error.details[:1] == ["VBD_NOT_EMPTY"]:
            raise DriveBusy("Another disc is in the VM's CD drive.", "Eject it and repeat the call.") from error
        raise


def disc_in(session: Session, drive: Drive) -> str:
    """Return the disc (VDI) that is in a CD drive now, NULL_REF if it is empty: the guest may have ejected it."""
    return str(session.xenapi.VBD.get_VDI(drive.ref))


def eject(session: Session, drive: Drive) -> None:
    """Eject the disc from a CD drive; no error if the drive is empty.

    :raises DriveBusy: the guest has locked the drive.
    """
    try:
        session.xenapi.VBD.eject(drive.ref)
    except XapiError as error:
        if error.details[:1] == ["VBD_TRAY_LOCKED"]:
            raise DriveBusy("The guest has locked its CD drive.", "Unmount the CD in the guest.") from error
        if error.details[:1] != ["VBD_IS_EMPTY"]:
            raise
