"""Drives of VMs: making, attaching and copying VBDs as the VM starts, stops and is copied."""

from typing import Any, Dict, List, Sequence, Set

from xscontainer.simulator.xapi.database.row import Row
from xscontainer.simulator.xapi.objects import vdis
from xscontainer.simulator.xapi.state.pool_data import PoolData
from xscontainer.simulator.xapi.wire.failures import XapiError
from xscontainer.simulator.xapi.wire.values import NULL

_MOST = 255


def _device(number: int) -> str:
    """Return the guest's name of a drive: xvda ... xvdz, xvdaa ..."""
    letters = chr(ord("a") + number % 26)
    return "xvd" + (letters if number < 26 else chr(ord("a") + number // 26 - 1) + letters)


def of_vm(pool: PoolData, vm: Row) -> List[Row]:
    """Return a VM's VBDs."""
    return [pool.db.find("VBD", ref) for ref in vm["VBDs"]]


def refresh(pool: PoolData, vbd: Row) -> None:
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


def free_devices(pool: PoolData, vm: Row) -> List[str]:
    """Return the positions that no VBD of the VM has."""
    taken = {drive["userdevice"] for drive in of_vm(pool, vm)}
    return [str(n) for n in range(_MOST) if str(n) not in taken]


def new_vbd(pool: PoolData, values: Dict[str, Any]) -> Row:
    """Make a VBD, not attached yet, of the checked values of VBD.create."""
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


def remove(pool: PoolData, vbd: Row) -> None:
    """Remove a VBD with its metrics."""
    metrics = pool.db.get("VBD_metrics", vbd["metrics"])
    if metrics is not None:
        pool.db.destroy(metrics)
    pool.db.destroy(vbd)
    vdi = pool.db.get("VDI", vbd["VDI"])
    if vdi is not None:
        vdis.refresh(pool, vdi)


def check_usable(pool: PoolData, vbd: Row, vdi: Row, host: str) -> None:
    """Raise unless the disk's SR is attached on the host and no other use of the disk conflicts."""
    if host not in vdis.attached_to(pool, pool.db.find("SR", vdi["SR"])):
        raise XapiError("SR_NOT_ATTACHED", vdi["SR"])
    if not vdi["sharable"]:
        vdis.check_free(pool, vdi, "attach", reading=vbd["mode"] == "RO")


def attach(pool: PoolData, vbd: Row) -> None:
    """Attach a drive to its running VM without any check."""
    with pool.db.lock:
        mark_attached(pool, vbd)
    if not vbd["empty"]:
        pool.disk_event(vbd["VM"], "attach", vbd.ref)


def mark_attached(pool: PoolData, vbd: Row) -> None:
    """Write that a drive is attached; the caller holds the lock."""
    pool.db.set(vbd, "device", _device(int(vbd["userdevice"])))
    pool.db.set(vbd, "currently_attached", True)
    refresh(pool, vbd)


def mark_detached(pool: PoolData, vbd: Row) -> None:
    """Write that a drive is not attached; the caller holds the lock."""
    pool.db.set(vbd, "currently_attached", False)
    refresh(pool, vbd)


def needed_srs(pool: PoolData, vm: Row) -> Set[str]:
    """Return the SRs (references) that must be attached where the VM runs."""
    disks = [pool.db.get("VDI", drive["VDI"]) for drive in of_vm(pool, vm)]
    return {disk["SR"] for disk in disks if disk is not None}


def missing_sr(pool: PoolData, vm: Row, host: str) -> str:
    """Return an SR that the VM needs and the host does not have attached, "" if there is none."""
    srs = needed_srs(pool, vm)
    return next((sr for sr in sorted(srs) if host not in vdis.attached_to(pool, pool.db.find("SR", sr))), "")


def check_start(pool: PoolData, vm: Row, host: str) -> None:
    """Raise VM_REQUIRES_SR or VDI_IN_USE unless the VM's drives can be attached on the host."""
    sr = missing_sr(pool, vm, host)
    if sr:
        raise XapiError("VM_REQUIRES_SR", vm.ref, sr)
    for drive in of_vm(pool, vm):
        disk = pool.db.get("VDI", drive["VDI"])
        if disk is not None and not drive["currently_attached"]:
            check_usable(pool, drive, disk, host)


def attach_all(pool: PoolData, vm: Row) -> None:
    """Attach the drives of a VM that starts."""
    for drive in of_vm(pool, vm):
        attach(pool, drive)


def detach_all(pool: PoolData, vm: Row) -> None:
    """Detach the drives of a VM that ends."""
    for drive in of_vm(pool, vm):
        if drive["currently_attached"]:
            if not drive["empty"]:
                pool.disk_event(vm.ref, "detach", drive.ref)
            with pool.db.lock:
                mark_detached(pool, drive)


def copy_drives(
    pool: PoolData, vm: Row, copy: Row, sr: str = "", snapshot: bool = False, without: Sequence[str] = ()
) -> None:
    """Give a copied VM copies of all disks but those in `without`, and the same discs in its CD drives."""
    for drive in reversed(of_vm(pool, vm)):
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
