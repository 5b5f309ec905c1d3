"""Disks (VDIs) and drives (VBDs): make, fill, attach, detach, destroy.

Content goes by :func:`upload` and :func:`download`, which say more in xapi.transfer.
"""

import contextlib
import time
from typing import Dict, List, Mapping, NamedTuple

from xscontainer.errors import DriveBusy, DriveMissing, ObjectGone, XapiError
from xscontainer.vmrecord import NULL_REF
from xscontainer.xapi.session import Session
from xscontainer.xapi.transfer import download, upload

__all__ = ["Drive", "attach", "cd_drive", "create", "destroy", "detach", "disc_in", "download", "drives", "eject",
           "free_device", "insert", "upload"]

# s after which a disk that nobody has attached must be free.
RELEASED_WITHIN = 5.0

# Devices that a disk of ours does not take while there are others: guests boot from the first, and
# XenCenter and Xen Orchestra give the fourth to the CD drive.
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
    """A new disk's ref. :param size: bytes; the repository rounds up."""
    return str(session.xenapi.VDI.create({
        "name_label": name, "name_description": description, "SR": sr_ref, "virtual_size": str(size), "type": "user",
        "sharable": False, "read_only": False, "other_config": dict(other_config), "xenstore_data": {}, "sm_config": {},
        "tags": []}))


def destroy(session: Session, vdi_ref: str) -> None:
    """No error if it is gone already. Waits a moment for a transfer that was broken off to end."""
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
    """The drives of a VM, by position."""
    found = []
    for ref in session.xenapi.VM.get_VBDs(vm_ref):
        with contextlib.suppress(ObjectGone):
            vbd = session.xenapi.VBD.get_record(ref)
            found.append(Drive(ref, vbd["VDI"], vbd["type"], vbd["mode"], vbd["userdevice"], vbd["currently_attached"],
                               dict(vbd["other_config"])))
    return sorted(found, key=lambda drive: (len(drive.device), drive.device))


def free_device(session: Session, vm_ref: str) -> str:
    """A position for one more disk."""
    allowed = session.xenapi.VM.get_allowed_VBD_devices(vm_ref)
    return next((device for device in allowed if device not in _LEFT_FREE), "autodetect")


def attach(session: Session, vm_ref: str, vdi_ref: str, device: str, read_only: bool, running: bool,
           other_config: "Mapping[str, str]" = {}) -> str:  # noqa: B006 - it is copied
    """Give a VM a disk, and its guest at once if it is running; returns the drive.

    :raises XapiError: nothing of it is left then.
    """
    ref = str(session.xenapi.VBD.create({
        "VM": vm_ref, "VDI": vdi_ref, "userdevice": device, "bootable": False, "mode": "RO" if read_only else "RW",
        "type": "Disk", "unpluggable": True, "empty": False, "other_config": dict(other_config),
        "qos_algorithm_type": "", "qos_algorithm_params": {}}))
    try:
        if running:
            session.xenapi.VBD.plug(ref)
    except XapiError:
        with contextlib.suppress(XapiError):
            session.xenapi.VBD.destroy(ref)
        raise
    return ref


def detach(session: Session, drive: Drive) -> None:
    """Take a drive from its VM, and from its guest if it is running. The disk stays.

    :raises DriveBusy: the guest does not let go; the drive stays.
    """
    try:
        if drive.attached:
            _unplug(session, drive.ref)
        session.xenapi.VBD.destroy(drive.ref)
    except ObjectGone:
        pass


def _unplug(session: Session, vbd_ref: str) -> None:
    try:
        session.xenapi.VBD.unplug(vbd_ref)
    except XapiError as error:
        if error.details[:1] == ["DEVICE_DETACH_REJECTED"]:
            raise DriveBusy("The guest does not let go of the disk.",
                            "Unmount it in the guest, or shut the VM down.") from error
        if error.details[:1] != ["DEVICE_ALREADY_DETACHED"]:
            raise


# --- CD drives ----------------------------------------------------------------------------------


def cd_drive(session: Session, vm_ref: str, running: bool) -> Drive:
    """The CD drive of a VM, which is given one if it has none.

    :raises DriveMissing: it has none, and takes none while it is running.
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
            session.xenapi.VBD.plug(ref)
    except XapiError as error:
        with contextlib.suppress(XapiError):
            session.xenapi.VBD.destroy(ref)
        raise DriveMissing("The VM has no CD drive, and takes none while it is running.") from error
    return next(drive for drive in drives(session, vm_ref) if drive.ref == ref)


def insert(session: Session, drive: Drive, vdi_ref: str) -> None:
    """Put a disc into an empty CD drive.

    :raises DriveBusy: there is one in it.
    """
    try:
        session.xenapi.VBD.insert(drive.ref, vdi_ref)
    except XapiError as error:
        if error.details[:1] == ["VBD_NOT_EMPTY"]:
            raise DriveBusy("There is a disc in the VM's CD drive.", "Eject it and repeat the call.") from error
        raise


def disc_in(session: Session, drive: Drive) -> str:
    """The disc (VDI) in a CD drive now, NULL_REF if it is empty: a guest may have ejected it."""
    return str(session.xenapi.VBD.get_VDI(drive.ref))


def eject(session: Session, drive: Drive) -> None:
    """No error if the drive is empty."""
    try:
        session.xenapi.VBD.eject(drive.ref)
    except XapiError as error:
        if error.details[:1] != ["VBD_IS_EMPTY"]:
            raise
