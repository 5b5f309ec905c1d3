"""Making and destroying VMs, and setters that change more than their field."""

import uuid
from typing import Any, Dict

from xscontainer.simulator.xapi.database.row import Row
from xscontainer.simulator.xapi.objects import drives, operations
from xscontainer.simulator.xapi.objects.generic import record_values
from xscontainer.simulator.xapi.objects.operations import operation_on
from xscontainer.simulator.xapi.state.call import Call
from xscontainer.simulator.xapi.state.pool_data import PoolData


def new_vm(pool: PoolData, values: Dict[str, Any]) -> Row:
    """Make a VM's records: add metrics, mac_seed and allowed operations."""
    values = dict(values)
    config = dict(values.get("other_config", {}))
    config.setdefault("mac_seed", str(uuid.uuid4()))
    with pool.db.lock:
        metrics = pool.db.create("VM_metrics", {"VCPUs_utilisation": {"0": 0.0}})
        values.update(other_config=config, metrics=metrics.ref)
        vm = pool.db.create("VM", values)
        operations.refresh(pool, vm)
    return vm


def create(call: Call, given: Dict[str, Any]) -> str:
    """VM.create."""
    values = record_values(call.pool.model.classes["VM"], given)
    values.update(
        power_state="Halted",
        memory_overhead=memory_overhead(values["VCPUs_max"]),
        has_vendor_device=True,
        hardware_platform_version=2,
        generation_id="0:0",
        domain_type="hvm",
    )
    operations.no_operations(values)
    return new_vm(call.pool, values).ref


def destroy(call: Call, ref: str) -> str:
    """VM.destroy: remove VIFs, VBDs and metrics, too."""
    pool = call.pool
    vm = pool.db.find("VM", ref)
    with operation_on(call, vm, "destroy"):
        pool.step()
        remove(pool, vm)
    return ""


def remove(pool: PoolData, vm: Row) -> None:
    """Remove a VM's records; its disks stay."""
    with pool.db.lock:
        for other in list(vm.values["VIFs"]):
            row = pool.db.get("VIF", other)
            if row is not None:
                pool.db.destroy(row)
        for drive in drives.of_vm(pool, vm):
            drives.remove(pool, drive)
        for cls, field in (("VM_metrics", "metrics"), ("VM_guest_metrics", "guest_metrics")):
            row = pool.db.get(cls, vm.values[field])
            if row is not None:
                pool.db.destroy(row)
        for child in list(vm.values["children"]):
            row = pool.db.get("VM", child)
            if row is not None:
                pool.db.set(row, "parent", vm.values["parent"])
        pool.db.destroy(vm)
        pool.saved.pop(vm.ref, None)


def set_is_a_template(call: Call, ref: str, value: bool) -> str:
    """VM.set_is_a_template."""
    vm = call.pool.db.find("VM", ref)
    with call.pool.db.lock:
        call.pool.db.set(vm, "is_a_template", value)
        operations.refresh(call.pool, vm)
    return ""


def set_vcpus_max(call: Call, ref: str, value: int) -> str:
    """VM.set_VCPUs_max: memory_overhead grows with it."""
    vm = call.pool.db.find("VM", ref)
    with call.pool.db.lock:
        call.pool.db.set(vm, "VCPUs_max", value)
        call.pool.db.set(vm, "memory_overhead", memory_overhead(value))
    return ""


def set_memory(call: Call, ref: str, value: int) -> str:
    """VM.set_memory: set all limits but memory_static_min."""
    vm = call.pool.db.find("VM", ref)
    with call.pool.db.lock:
        for field in ("memory_static_max", "memory_dynamic_max", "memory_dynamic_min", "memory_target"):
            call.pool.db.set(vm, field, value)
    return ""


def memory_overhead(vcpus: int) -> int:
    """Return the bytes that a VM with so many VCPUs needs beside its memory."""
    return (10 + vcpus) * 1048576


HANDLERS = {
    "VM.create": create,
    "VM.destroy": destroy,
    "VM.set_VCPUs_max": set_vcpus_max,
    "VM.set_memory": set_memory,
    "VM.set_is_a_template": set_is_a_template,
}
