"""Marks on disks and VMs that are still being created, so that leftovers of a dead process are found and removed.

A mark names the host, the creation and the object itself. Clones, copies and snapshots inherit other_config, so only an
object that is marked with its own uuid is ever removed.
"""

import contextlib
from typing import List, NamedTuple

from xscontainer.errors import ObjectGone
from xscontainer.xapi import disk, provision
from xscontainer.xapi.session import Session

KEY = "xscontainer-unfinished"  # in other_config: "<host uuid> <creation id> <own uuid>"
DISK = "xscontainer: unfinished disk"  # a disk's name until it is complete, by which XAPI finds it


class Making(NamedTuple):
    """One creation of a VM with its disks.

    :ivar host: uuid of the host that does it. :ivar id: a uuid of its own.
    """

    host: str
    id: str


class Left(NamedTuple):
    """An object that was left unfinished.

    :ivar cls: "VDI" or "VM". :ivar making: Making.id.
    """

    cls: str
    ref: str
    making: str


def mark(session: Session, cls: str, ref: str, by: Making) -> None:
    """Mark an object as unfinished, until :func:`unmark`."""
    xapi = getattr(session.xenapi, cls)
    xapi.remove_from_other_config(ref, KEY)  # an inherited mark
    xapi.add_to_other_config(ref, KEY, f"{by.host} {by.id} {xapi.get_uuid(ref)}")


def unmark(session: Session, cls: str, ref: str) -> None:
    getattr(session.xenapi, cls).remove_from_other_config(ref, KEY)


def passing_name(name: str, making_id: str) -> str:
    """Return a unique name, by which a VM is found before it can be marked."""
    return f"{name} ({making_id})"


def found(session: Session, host: str, ended: "List[str]") -> "List[Left]":
    """List the objects that this host has not finished, or is still creating.

    :param host: uuid.
    :param ended: ids of creations of this host that ended without clean-up.
    """
    left = []
    vms = session.xenapi.VM.get_all_records_where('field "power_state" = "Halted"')
    disks = session.xenapi.VDI.get_all_records_where(f'field "name__label" = "{DISK}"')
    for cls, records in (("VM", vms), ("VDI", disks)):
        for ref, record in records.items():
            if cls == "VDI" and record["VBDs"] or record.get("is_a_snapshot"):
                continue
            words = record["other_config"].get(KEY, "").split(" ")
            if len(words) == 3 and words[0] == host and words[2] == record["uuid"]:
                left.append(Left(cls, ref, words[1]))
            elif cls == "VM" and not words[0]:
                left += [Left(cls, ref, making_id) for making_id in ended
                         if record["name_label"].endswith(passing_name("", making_id))]
    return left


def remove(session: Session, left: Left) -> None:
    """Destroy an unfinished object, a VM with its own disks. No error if it is gone, or started or in use by now.

    :raises XapiError: XAPI refuses it.
    """
    with contextlib.suppress(ObjectGone):
        if left.cls == "VM":
            if session.xenapi.VM.get_power_state(left.ref) == "Halted":
                provision.remove(session, left.ref)
        elif not session.xenapi.VDI.get_VBDs(left.ref):
            disk.destroy(session, left.ref)
