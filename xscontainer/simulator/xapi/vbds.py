"""Drives of VMs (VBDs): disks and CD drives, and what they do as the VM starts, stops, is copied."""

import contextlib
import uuid
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Sequence, Set

from . import vdis
from .database import Row
from .failures import XapiError
from .generic import record_values
from .values import NULL

if TYPE_CHECKING:
    from .dispatch import Call
    from .pool import Pool

_MOST = 255
_LIVE = ("Running", "Paused")


def _device(number: int) -> str:
    """The guest's name of a drive: xvda ... xvdz, xvdaa ..."""
    letters = chr(ord("a") + number % 26)
    return "xvd" + (letters if number < 26 else chr(ord("a") + number // 26 - 1) + letters)


def drives(pool: "Pool", vm: Row) -> List[Row]:
    """A VM's VBDs."""
    return [pool.db.find("VBD", ref) for ref in vm["VBDs"]]


def refresh(pool: "Pool", vbd: Row) -> None:
    """Bring allowed_operations of a VBD, and of its disk, up to date."""
    vm = pool.db.find("VM", vbd["VM"])
    allowed = ["attach"]
    if vm["power_state"] == "Running" and vbd["type"] == "Disk":
        allowed += ["unpause", "pause", "unplug", "unplug_force"] if vbd["currently_attached"] else ["plug"]
    if vbd["type"] == "CD" and vm["power_state"] in ("Running", "Halted"):
        allowed.append("insert" if vbd["empty"] else "eject")
    pool.db.set(vbd, "allowed_operations", allowed)
    vdi = pool.db.get("VDI", vbd["VDI"])
    if vdi is not None:
        vdis.refresh(pool, vdi)


def free_devices(pool: "Pool", vm: Row) -> List[str]:
    """The positions that no VBD of the VM has."""
    taken = {drive["userdevice"] for drive in drives(pool, vm)}
    return [str(n) for n in range(_MOST) if str(n) not in taken]


def new_vbd(pool: "Pool", values: Dict[str, Any]) -> Row:
    """A VBD, not attached yet; `values` as VBD.create takes them, checked."""
    database = pool.db
    vm = database.find("VM", values["VM"])
    removable = values["type"] != "Disk"
    if values["type"] == "CD" and values["mode"] != "RO":
        raise XapiError("VBD_CDS_MUST_BE_READONLY")
    if values["empty"] and not removable:
        raise XapiError("VBD_NOT_REMOVABLE_MEDIA", "in constructor")
    vdi = NULL
    if not values["empty"]:
        disk = database.find("VDI", values["VDI"])
        vdi = disk.ref
        if values["mode"] == "RW" and disk["read_only"]:
            raise XapiError("VDI_READONLY", vdi)
    wanted = values["userdevice"]
    with database.lock:
        free = free_devices(pool, vm)
        if wanted == "autodetect":
            wanted = free[0]
        elif not wanted.isdigit() or int(wanted) >= _MOST:
            raise XapiError("INVALID_VALUE", "userdevice", wanted)
        elif wanted not in free:
            raise XapiError("DEVICE_ALREADY_EXISTS", wanted)
        metrics = database.create("VBD_metrics", {})
        row = database.create(
            "VBD",
            dict(values, VDI=vdi, userdevice=wanted, device="", currently_attached=False, metrics=metrics.ref),
        )
        refresh(pool, row)
    return row


def create(call: "Call", given: Dict[str, Any]) -> str:
    """VBD.create: a running VM sees the drive only once it is plugged."""
    return new_vbd(call.pool, record_values(call.pool.model.classes["VBD"], given)).ref


def destroy(call: "Call", ref: str) -> str:
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
        remove(pool, vbd)
    return ""


def remove(pool: "Pool", vbd: Row) -> None:
    """Remove a VBD with its metrics."""
    metrics = pool.db.get("VBD_metrics", vbd["metrics"])
    if metrics is not None:
        pool.db.destroy(metrics)
    pool.db.destroy(vbd)
    vdi = pool.db.get("VDI", vbd["VDI"])
    if vdi is not None:
        vdis.refresh(pool, vdi)


def _check_usable(pool: "Pool", vbd: Row, vdi: Row, host: str) -> None:
    """Raise unless the disk's SR is attached on the host and nobody else holds the disk in a way that hinders."""
    if host not in vdis.attached_to(pool, pool.db.find("SR", vdi["SR"])):
        raise XapiError("SR_NOT_ATTACHED", vdi["SR"])
    if not vdi["sharable"]:
        vdis.check_free(pool, vdi, "attach", reading=vbd["mode"] == "RO")


def _live(pool: "Pool", vbd: Row) -> Row:
    """The VM of a drive, which must run."""
    vm = pool.db.find("VM", vbd["VM"])
    if vm["power_state"] not in _LIVE:
        raise XapiError("VM_BAD_POWER_STATE", vm.ref, "running", vm["power_state"].lower())
    return vm


def attach(pool: "Pool", vbd: Row) -> None:
    """Attach a drive to its running VM, whatever hinders."""
    with pool.db.lock:
        _attach(pool, vbd)
    if not vbd["empty"]:
        pool.disk_event(vbd["VM"], "attach", vbd.ref)


def _attach(pool: "Pool", vbd: Row) -> None:
    pool.db.set(vbd, "device", _device(int(vbd["userdevice"])))
    pool.db.set(vbd, "currently_attached", True)
    refresh(pool, vbd)


def _detach(pool: "Pool", vbd: Row) -> None:
    pool.db.set(vbd, "currently_attached", False)
    refresh(pool, vbd)


def _check_hotplug(vbd: Row, vm: Row) -> None:
    """The hardware that a VM sees emulated has the CD drives that it had at its start."""
    if vbd["type"] != "Disk" and vm["domain_type"] == "hvm":
        raise XapiError("OPERATION_NOT_ALLOWED", "CD drives of a running VM can be neither plugged nor unplugged")


@contextlib.contextmanager
def _busy(call: "Call", vbd: Row, operation: str) -> Iterator[None]:
    """The VBD's current_operations holds `operation` meanwhile."""
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


def plug(call: "Call", ref: str) -> str:
    """VBD.plug: a disk of a running VM."""
    pool = call.pool
    vbd = pool.db.find("VBD", ref)
    with _busy(call, vbd, "plug"):
        with pool.db.lock:
            vm = _live(pool, vbd)
            _check_hotplug(vbd, vm)
            if vbd["mode"] == "RO" and vbd["type"] == "Disk" and vm["domain_type"] == "hvm":
                raise XapiError("DISK_VBD_MUST_BE_READWRITE_FOR_HVM", ref)
            if vbd["currently_attached"]:
                raise XapiError("DEVICE_ALREADY_ATTACHED", ref)
            if not vbd["empty"]:
                _check_usable(pool, vbd, pool.db.find("VDI", vbd["VDI"]), vm["resident_on"])
            _attach(pool, vbd)
        pool.disk_event(vm.ref, "attach", ref)
    return ""


def _unplug(forced: bool) -> Any:
    def run(call: "Call", ref: str) -> str:
        pool = call.pool
        vbd = pool.db.find("VBD", ref)
        vm = _live(pool, vbd)
        if not vbd["currently_attached"]:
            raise XapiError("DEVICE_ALREADY_DETACHED", ref)
        _check_hotplug(vbd, vm)
        with _busy(call, vbd, "unplug_force" if forced else "unplug"):
            if not forced and (vm["uuid"] in pool.refusing_detach or not vbd["unpluggable"]):
                raise XapiError("DEVICE_DETACH_REJECTED", "VBD", ref,
                                "the guest rejected the attempt to detach the device")
            pool.disk_event(vm.ref, "detach", ref)
            with pool.db.lock:
                _detach(pool, vbd)
        return ""

    return run


def _removable(pool: "Pool", ref: str) -> Row:
    vbd = pool.db.find("VBD", ref)
    if vbd["type"] == "Disk":
        raise XapiError("VBD_NOT_REMOVABLE_MEDIA", ref)
    vm = pool.db.find("VM", vbd["VM"])
    if vm["power_state"] not in ("Running", "Halted"):
        raise XapiError("VM_BAD_POWER_STATE", vm.ref, "running, halted", vm["power_state"].lower())
    return vbd


def insert(call: "Call", ref: str, vdi: str) -> str:
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
            _check_usable(pool, vbd, disc, vm["resident_on"])
        pool.db.set(vbd, "VDI", disc.ref)
        pool.db.set(vbd, "empty", False)
        refresh(pool, vbd)
    if running:
        pool.disk_event(vm.ref, "insert", ref)
    return ""


def eject(call: "Call", ref: str) -> str:
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
        refresh(pool, vbd)
        if disc is not None:
            vdis.refresh(pool, disc)
    return ""


def needed_srs(pool: "Pool", vm: Row) -> Set[str]:
    """The SRs (references) that must be attached where the VM runs."""
    disks = [pool.db.get("VDI", drive["VDI"]) for drive in drives(pool, vm)]
    return {disk["SR"] for disk in disks if disk is not None}


def missing_sr(pool: "Pool", vm: Row, host: str) -> str:
    """An SR that the VM needs and the host does not have attached, "" if none."""
    srs = needed_srs(pool, vm)
    return next((sr for sr in sorted(srs) if host not in vdis.attached_to(pool, pool.db.find("SR", sr))), "")


def check_start(pool: "Pool", vm: Row, host: str) -> None:
    """Raise VM_REQUIRES_SR or VDI_IN_USE unless the VM's drives can be attached on the host."""
    sr = missing_sr(pool, vm, host)
    if sr:
        raise XapiError("VM_REQUIRES_SR", vm.ref, sr)
    for drive in drives(pool, vm):
        disk = pool.db.get("VDI", drive["VDI"])
        if disk is not None and not drive["currently_attached"]:
            _check_usable(pool, drive, disk, host)


def attach_all(pool: "Pool", vm: Row) -> None:
    """The drives of a VM that starts."""
    for drive in drives(pool, vm):
        attach(pool, drive)


def detach_all(pool: "Pool", vm: Row) -> None:
    """The drives of a VM that ends."""
    for drive in drives(pool, vm):
        if drive["currently_attached"]:
            if not drive["empty"]:
                pool.disk_event(vm.ref, "detach", drive.ref)
            with pool.db.lock:
                _detach(pool, drive)


def copy_drives(
    pool: "Pool", vm: Row, copy: Row, sr: str = "", snapshot: bool = False, without: Sequence[str] = ()
) -> None:
    """Give a copied VM copies of the disks, but of those in `without`; discs in CD drives are the same ones."""
    for drive in reversed(drives(pool, vm)):
        if drive["VDI"] in without:
            continue
        values = dict(drive.values)
        disk = pool.db.get("VDI", drive["VDI"])
        if disk is not None and drive["type"] == "Disk":
            made = vdis.snapshot_of(pool, disk) if snapshot else vdis.copy_of(pool, disk, sr)
            values["VDI"] = made.ref
        metrics = pool.db.create("VBD_metrics", {})
        values.update(uuid="", VM=copy.ref, currently_attached=False, device="", metrics=metrics.ref)
        refresh(pool, pool.db.create("VBD", values))


def get_allowed_devices(call: "Call", ref: str) -> List[str]:
    """VM.get_allowed_VBD_devices."""
    return free_devices(call.pool, call.pool.db.find("VM", ref))


def assert_attachable(call: "Call", ref: str) -> str:
    """VBD.assert_attachable."""
    pool = call.pool
    vbd = pool.db.find("VBD", ref)
    vm = pool.db.find("VM", vbd["VM"])
    if not vbd["empty"] and vm["resident_on"] != NULL:
        _check_usable(pool, vbd, pool.db.find("VDI", vbd["VDI"]), vm["resident_on"])
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
