"""The methods of VBDs: disks and CD drives."""

import contextlib
import uuid
from typing import Any, Dict, Iterator, List

from xscontainer.simulator.xapi.database.row import Row
from xscontainer.simulator.xapi.objects import drives, operations, vdis
from xscontainer.simulator.xapi.objects.generic import record_values
from xscontainer.simulator.xapi.state.call import Call
from xscontainer.simulator.xapi.state.pool_data import PoolData
from xscontainer.simulator.xapi.wire.failures import XapiError
from xscontainer.simulator.xapi.wire.values import NULL


def create(call: Call, given: Dict[str, Any]) -> str:
    """VBD.create: a running VM sees the drive only once it is plugged."""
    return drives.new_vbd(call.pool, record_values(call.pool.model.classes["VBD"], given)).ref


def destroy(call: Call, ref: str) -> str:
    """VBD.destroy: not while it is attached."""
    pool = call.pool
    with pool.db.lock:
        vbd = pool.db.find("VBD", ref)
        if vbd["current_operations"]:
            key, operation = next(iter(vbd["current_operations"].items()))
            raise XapiError("OTHER_OPERATION_IN_PROGRESS", "VBD", ref, operation, key)
        if vbd["currently_attached"]:
            owner = pool.db.find("VM", vbd["VM"])["uuid"]
            raise XapiError("OPERATION_NOT_ALLOWED", "VBD '{}' still attached to '{}'".format(vbd["uuid"], owner))
        drives.remove(pool, vbd)
    return ""


def _check_hotplug(vbd: Row, vm: Row) -> None:
    """Refuse CD drives of HVM VMs: emulated hardware keeps the CD drives that it had at its start."""
    if vbd["type"] != "Disk" and vm["domain_type"] == "hvm":
        raise XapiError("OPERATION_NOT_ALLOWED", "CD drives of a running VM can be neither plugged nor unplugged")


@contextlib.contextmanager
def _busy(call: Call, vbd: Row, operation: str) -> Iterator[None]:
    """Keep `operation` in the VBD's current_operations during the block."""
    key = call.task or "OpaqueRef:" + str(uuid.uuid4())
    pool = call.pool
    with pool.db.lock:
        other = next(iter(vbd["current_operations"].items()), None)
        if other is not None:
            raise XapiError("OTHER_OPERATION_IN_PROGRESS", "VBD", vbd.ref, other[1], other[0])
        pool.db.add_to(vbd, "current_operations", key, operation)
    try:
        yield
    finally:
        with pool.db.lock:
            if pool.db.get("VBD", vbd.ref) is vbd:
                pool.db.remove_from(vbd, "current_operations", key)


def plug(call: Call, ref: str) -> str:
    """VBD.plug: a disk of a running VM."""
    pool = call.pool
    vbd = pool.db.find("VBD", ref)
    with _busy(call, vbd, "plug"):
        with pool.db.lock:
            vm = operations.live_owner(pool, vbd)
            _check_hotplug(vbd, vm)
            if vbd["mode"] == "RO" and vbd["type"] == "Disk" and vm["domain_type"] == "hvm":
                raise XapiError("DISK_VBD_MUST_BE_READWRITE_FOR_HVM", ref)
            if vbd["currently_attached"]:
                raise XapiError("DEVICE_ALREADY_ATTACHED", ref)
            if not vbd["empty"]:
                drives.check_usable(pool, vbd, pool.db.find("VDI", vbd["VDI"]), vm["resident_on"])
            drives.mark_attached(pool, vbd)
        pool.disk_event(vm.ref, "attach", ref)
    return ""


def _unplug(forced: bool) -> Any:
    def run(call: Call, ref: str) -> str:
        pool = call.pool
        vbd = pool.db.find("VBD", ref)
        vm = operations.live_owner(pool, vbd)
        if not vbd["currently_attached"]:
            raise XapiError("DEVICE_ALREADY_DETACHED", ref)
        _check_hotplug(vbd, vm)
        with _busy(call, vbd, "unplug_force" if forced else "unplug"):
            if not forced and (vm["uuid"] in pool.refusing_detach or not vbd["unpluggable"]):
                raise XapiError("DEVICE_DETACH_REJECTED", "VBD", ref,
                                "the guest rejected the attempt to detach the device")
            pool.disk_event(vm.ref, "detach", ref)
            with pool.db.lock:
                drives.mark_detached(pool, vbd)
        return ""

    return run


def _removable(pool: PoolData, ref: str) -> Row:
    vbd = pool.db.find("VBD", ref)
    if vbd["type"] == "Disk":
        raise XapiError("VBD_NOT_REMOVABLE_MEDIA", ref)
    vm = pool.db.find("VM", vbd["VM"])
    if vm["power_state"] not in ("Running", "Halted"):
        raise XapiError("VM_BAD_POWER_STATE", vm.ref, "running, halted", vm["power_state"].lower())
    return vbd


def insert(call: Call, ref: str, vdi: str) -> str:
    """VBD.insert: a disc into an empty drive."""
    pool = call.pool
    vbd = _removable(pool, ref)
    with pool.db.lock:
        if not vbd["empty"]:
            raise XapiError("VBD_NOT_EMPTY", ref)
        disc = pool.db.find("VDI", vdi)
        vm = pool.db.find("VM", vbd["VM"])
        running = vm["power_state"] == "Running" and vbd["currently_attached"]
        if running:
            drives.check_usable(pool, vbd, disc, vm["resident_on"])
        pool.db.set(vbd, "VDI", disc.ref)
        pool.db.set(vbd, "empty", False)
        drives.refresh(pool, vbd)
    if running:
        pool.disk_event(vm.ref, "insert", ref)
    return ""


def eject(call: Call, ref: str) -> str:
    """VBD.eject: the disc out of a drive."""
    pool = call.pool
    vbd = _removable(pool, ref)
    if vbd["empty"]:
        raise XapiError("VBD_IS_EMPTY", ref)
    vm = pool.db.find("VM", vbd["VM"])
    if vm["power_state"] == "Running" and vbd["currently_attached"]:
        pool.disk_event(vm.ref, "eject", ref)
    with pool.db.lock:
        disc = pool.db.get("VDI", vbd["VDI"])
        pool.db.set(vbd, "VDI", NULL)
        pool.db.set(vbd, "empty", True)
        drives.refresh(pool, vbd)
        if disc is not None:
            vdis.refresh(pool, disc)
    return ""


def get_allowed_devices(call: Call, ref: str) -> List[str]:
    """VM.get_allowed_VBD_devices."""
    return drives.free_devices(call.pool, call.pool.db.find("VM", ref))


def assert_attachable(call: Call, ref: str) -> str:
    """VBD.assert_attachable."""
    pool = call.pool
    vbd = pool.db.find("VBD", ref)
    vm = pool.db.find("VM", vbd["VM"])
    if not vbd["empty"] and vm["resident_on"] != NULL:
        drives.check_usable(pool, vbd, pool.db.find("VDI", vbd["VDI"]), vm["resident_on"])
    return ""


HANDLERS = {
    "VBD.create": create,
    "VBD.destroy": destroy,
    "VBD.plug": plug,
    "VBD.unplug": _unplug(forced=False),
    "VBD.unplug_force": _unplug(forced=True),
    "VBD.insert": insert,
    "VBD.eject": eject,
    "VBD.assert_attachable": assert_attachable,
    "VM.get_allowed_VBD_devices": get_allowed_devices,
}
