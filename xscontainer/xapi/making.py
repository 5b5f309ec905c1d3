"""A VM out of a template."""

import contextlib
import time
from typing import List
from xml.etree import ElementTree

from xscontainer.errors import ArgumentError, ObjectGone
from xscontainer.vmrecord import NULL_REF
from xscontainer.xapi import disk, longcall
from xscontainer.xapi.session import Session

# In a template's other_config: the disks that VM.provision makes.
DISKS = "disks"
LONGEST_DISKS = 65536

# s in which a VM is shut down the hard way.
ENDED_WITHIN = 120.0


def clone(session: Session, template_ref: str, name: str, sr_ref: str, until: float) -> str:
    """A VM like the template, with its disks (if it has any) in that repository; still a template itself.

    :param until: deadline, by time.monotonic(); so below.
    """
    if any(session.xenapi.VDI.get_SR(vdi) != sr_ref for vdi in disks_of(session, template_ref)):
        return longcall.run(session, "VM.copy", template_ref, name, sr_ref, until=until)
    return longcall.run(session, "VM.clone", template_ref, name, until=until)


def disks_of(session: Session, vm_ref: str) -> "List[str]":
    """The disks (VDIs) of a VM."""
    drives = disk.drives(session, vm_ref)
    return [drive.vdi for drive in drives if drive.kind == "Disk" and drive.vdi != NULL_REF]


def check_bootable(session: Session, template_ref: str, has_image: bool) -> None:
    """See that a VM of the template has one disk to boot: the template's, or a copy of an image.

    :raises ArgumentError:
    """
    has_disk = bool(disks_of(session, template_ref))
    if has_image and has_disk:
        raise ArgumentError("The template has a disk of its own, so it takes no image.", "Leave the image out.")
    if not has_image and not has_disk:
        name = session.xenapi.VM.get_name_label(template_ref)
        raise ArgumentError(f"The template {name!r} has no disk with a system to boot.",
                            "Give an image: --image of 'xscontainer create', imageuuid of the function. The README "
                            "says where there are some.")


def provision(session: Session, vm_ref: str, sr_uuid: str, without_first: bool, until: float) -> int:
    """Make the disks that the template asks for, and a VM of it.

    :param without_first: leave out the one that it boots from.
    :returns: the size that this one was to have, bytes; 0 if none is asked for.
    :raises ArgumentError: the template's list of disks cannot be read.
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
    longcall.run(session, "VM.provision", vm_ref, until=until)
    return size


def _parse(text: str) -> ElementTree.Element:
    try:
        # Without a document type there are no entities that could grow.
        if len(text) > LONGEST_DISKS or "<!" in text:
            raise ValueError()
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise ArgumentError("The template's list of disks cannot be read.") from error


def _size(element: ElementTree.Element) -> int:
    try:
        return int(element.get("size", "0"))
    except ValueError as error:
        raise ArgumentError("The template's list of disks cannot be read.") from error


def image_disk(session: Session, vm_ref: str, image_ref: str, sr_ref: str, size: int, name: str, until: float) -> str:
    """Have the VM boot from a copy of an image, at least ``size`` bytes large; the copy's ref. The image stays."""
    if session.xenapi.VDI.get_SR(image_ref) == sr_ref:
        vdi = longcall.run(session, "VDI.clone", image_ref, {}, until=until)
    else:
        vdi = longcall.run(session, "VDI.copy", image_ref, sr_ref, NULL_REF, NULL_REF, until=until)
    try:
        session.xenapi.VDI.set_name_label(vdi, name)
        if int(session.xenapi.VDI.get_virtual_size(vdi)) < size:
            longcall.run(session, "VDI.resize", vdi, str(size), until=until)
        session.xenapi.VBD.create({
            "VM": vm_ref, "VDI": vdi, "userdevice": "0", "bootable": True, "mode": "RW", "type": "Disk",
            "unpluggable": False, "empty": False, "other_config": {"owner": ""}, "qos_algorithm_type": "",
            "qos_algorithm_params": {}})
    except BaseException:
        disk.destroy(session, vdi)
        raise
    return vdi


def add_interface(session: Session, vm_ref: str, network_ref: str) -> None:
    """Put the VM on a network with its first interface, which is made anew if the template gave it another network's.

    Further ones stay as they are.
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
    """End a VM and destroy it, with the disks that nobody else has."""
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
    """The same with what was made under a name that nothing else has, if anything was."""
    for ref in session.xenapi.VM.get_by_name_label(name):
        remove(session, ref)
