"""Create a VM from a template."""

import contextlib
import time
from typing import Callable, List, NamedTuple
from xml.etree import ElementTree

from xscontainer.core.bounded import xml_from
from xscontainer.core.vm_record import NULL_REF
from xscontainer.errors import ArgumentError, ObjectGone
from xscontainer.xapi import disk, longcall
from xscontainer.xapi.session import Session

Progress = Callable[[float], None]

# In a template's other_config: the disks that VM.provision creates.
DISKS = "disks"
LONGEST_DISKS = 65536

# Fields that a drive keeps when its disk is replaced.
_DRIVE_FIELDS = ("userdevice", "bootable", "mode", "type", "unpluggable", "empty", "other_config", "qos_algorithm_type",
               "qos_algorithm_params")

# s for VM.hard_shutdown.
ENDED_WITHIN = 120.0


def _unwatched(fraction: float) -> None:
    pass


def clone(session: Session, template_ref: str, name: str, until: float, progress: Progress = _unwatched) -> str:
    """Clone a template, with its disks (if any) in the same repositories, and return the ref of the new template.

    :param until: deadline, by time.monotonic(); likewise in the functions below.
    :param progress: see longcall.run; likewise in the functions below.
    """
    return longcall.run(session, "VM.clone", template_ref, name, until=until, progress=progress)


def move_disks(session: Session, vm_ref: str, sr_ref: str, until: float, mark: "Callable[[str], object]",
               progress: Progress = _unwatched, name: str = "") -> "List[str]":
    """Replace each disk of a halted VM by a full copy in another repository, and return the copies.

    VM.copy would do that in one call, but it leaves an unmarked disk if XAPI is killed in the middle.

    :param mark: see :func:`copied`; also called with each disk that is replaced.
    :param name: of a disk that is not attached yet, or not any more.
    """
    xapi = session.xenapi
    made = []
    for vbd_ref in xapi.VM.get_VBDs(vm_ref):
        drive = xapi.VBD.get_record(vbd_ref)
        old = drive["VDI"]
        if drive["type"] != "Disk" or old == NULL_REF or xapi.VDI.get_SR(old) == sr_ref:
            continue
        label = xapi.VDI.get_name_label(old)
        vdi = copied(session, old, Copy(sr_ref, name), until, mark, progress)
        try:
            mark(old)
            xapi.VDI.set_name_label(old, name)
            xapi.VBD.destroy(vbd_ref)
            xapi.VBD.create(dict({field: drive[field] for field in _DRIVE_FIELDS}, VM=vm_ref, VDI=vdi))
        except BaseException:
            disk.destroy(session, vdi)
            raise
        finally:
            if not xapi.VDI.get_VBDs(old):
                disk.destroy(session, old)
        xapi.VDI.set_name_label(vdi, label)
        made.append(vdi)
    return made


def disks_of(session: Session, vm_ref: str) -> "List[str]":
    """Return the disks (VDIs) of a VM."""
    drives = disk.drives(session, vm_ref)
    return [drive.vdi for drive in drives if drive.kind == "Disk" and drive.vdi != NULL_REF]


def check_bootable(session: Session, template_ref: str, has_image: bool) -> None:
    """Check that a VM of the template gets exactly one disk to boot from: the template's, or a copy of an image.

    :raises ArgumentError: it gets none, or two.
    """
    has_disk = bool(disks_of(session, template_ref))
    if has_image and has_disk:
        raise ArgumentError("The template has a disk of its own, so no image can be used.", "Leave out the image.")
    if not has_image and not has_disk:
        name = session.xenapi.VM.get_name_label(template_ref)
        raise ArgumentError(f"The template {name!r} has no disk with a system to boot.",
                            "Name an image: --image of 'xscontainer create', imageuuid of the function. docs/create.md "
                            "says where to get one.")


def provision(session: Session, vm_ref: str, sr_uuid: str, without_first: bool, until: float,
              progress: Progress = _unwatched) -> int:
    """Create the disks that the template lists, and turn it into a VM.

    :param without_first: leave out the boot disk.
    :returns: the size of the boot disk as listed, bytes; 0 if none is listed.
    :raises ArgumentError: the template's list of disks is malformed.
    """
    xapi = session.xenapi
    text = xapi.VM.get_other_config(vm_ref).get(DISKS)
    size = 0
    if text is not None:
        root = _parse(text)
        disks = sorted(root.findall("disk"), key=lambda element: element.get("device", ""))
        for element in disks:
            element.set("sr", sr_uuid)
        if disks:
            size = _size(disks[0])
            if without_first:
                root.remove(disks[0])
        xapi.VM.remove_from_other_config(vm_ref, DISKS)
        xapi.VM.add_to_other_config(vm_ref, DISKS, ElementTree.tostring(root, encoding="unicode"))
    longcall.run(session, "VM.provision", vm_ref, until=until, progress=progress)
    return size


def _parse(text: str) -> ElementTree.Element:
    try:
        # Without a document type declaration there are no entities that could expand.
        if len(text) > LONGEST_DISKS or "<!" in text:
            raise ValueError()
        return xml_from(text)
    except ValueError as error:
        raise ArgumentError("The template's list of disks cannot be read.") from error


def _size(element: ElementTree.Element) -> int:
    try:
        return int(element.get("size", "0"))
    except ValueError as error:
        raise ArgumentError("The template's list of disks cannot be read.") from error


class Copy(NamedTuple):
    """The disk that a copy becomes.

    :ivar size: bytes that it has at least, if it has to be copied in full.
    """

    sr_ref: str
    name: str = ""
    size: int = 0


def copied(session: Session, image_ref: str, wanted: Copy, until: float, mark: "Callable[[str], object]",
           progress: Progress = _unwatched) -> str:
    """Make a disk with the content of an image and return its ref; the image stays.

    :param mark: called with the disk's ref: before a full copy begins, or right after a clone was made.
    """
    beside = session.xenapi.VDI.get_SR(image_ref) == wanted.sr_ref
    if beside:
        vdi = longcall.run(session, "VDI.clone", image_ref, {}, until=until, progress=progress,
                           discard=lambda made: disk.destroy(session, made))
    else:
        # Into an existing, marked disk: if XAPI creates the disk itself, it has no mark until the copy is complete.
        vdi = disk.create(session, wanted.sr_ref, max(wanted.size, int(session.xenapi.VDI.get_virtual_size(image_ref))),
                          wanted.name)
    try:
        session.xenapi.VDI.set_name_label(vdi, wanted.name)
        mark(vdi)
        if not beside:
            longcall.run(session, "VDI.copy", image_ref, NULL_REF, NULL_REF, vdi, until=until, progress=progress)
    except BaseException:
        disk.destroy(session, vdi)
        raise
    return vdi


def image_disk(session: Session, vm_ref: str, vdi: str, size: int, name: str, until: float) -> None:
    """Make the VM boot from a disk, enlarged to at least ``size`` bytes. If that fails the disk is destroyed."""
    try:
        if int(session.xenapi.VDI.get_virtual_size(vdi)) < size:
            longcall.run(session, "VDI.resize", vdi, str(size), until=until)
        session.xenapi.VBD.create({
            "VM": vm_ref, "VDI": vdi, "userdevice": "0", "bootable": True, "mode": "RW", "type": "Disk",
            "unpluggable": False, "empty": False, "other_config": {"owner": ""}, "qos_algorithm_type": "",
            "qos_algorithm_params": {}})
        session.xenapi.VDI.set_name_label(vdi, name)
    except BaseException:
        disk.destroy(session, vdi)
        raise


def add_interface(session: Session, vm_ref: str, network_ref: str) -> None:
    """Connect the VM's first interface to a network. It is created again if the template gave it another network.

    Further interfaces stay as they are.
    """
    xapi = session.xenapi
    first = {"VM": vm_ref, "network": network_ref, "device": "0", "MAC": "", "MTU": "1500", "other_config": {},
             "qos_algorithm_type": "", "qos_algorithm_params": {}}
    found = {int(record["device"]): (ref, record) for ref, record in (
        (ref, xapi.VIF.get_record(ref)) for ref in xapi.VM.get_VIFs(vm_ref))}
    if found:
        ref, record = found[min(found)]
        if record["network"] == network_ref:
            return
        xapi.VIF.destroy(ref)
        first.update({name: record[name] for name in ("device", "MTU", "other_config", "qos_algorithm_type",
                                                      "qos_algorithm_params")})
    xapi.VIF.create(first)


def remove(session: Session, vm_ref: str) -> None:
    """Shut a VM down and destroy it, with the disks that are not attached to any other VM."""
    xapi = session.xenapi
    with contextlib.suppress(ObjectGone):
        if xapi.VM.get_power_state(vm_ref) != "Halted":
            longcall.run(session, "VM.hard_shutdown", vm_ref, until=time.monotonic() + ENDED_WITHIN)
        own = disks_of(session, vm_ref)
        xapi.VM.destroy(vm_ref)
        for vdi in own:
            with contextlib.suppress(ObjectGone):
                if not xapi.VDI.get_VBDs(vdi):
                    disk.destroy(session, vdi)


def remove_named(session: Session, name: str) -> None:
    """Remove the VMs with a name that is unique to one creation, as :func:`remove` does."""
    for ref in session.xenapi.VM.get_by_name_label(name):
        remove(session, ref)
