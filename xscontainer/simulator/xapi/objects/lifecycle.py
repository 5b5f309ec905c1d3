"""Power and migration of VMs, with the events in the order that was recorded from a real xapi."""

import random
from typing import Any, Callable, Dict, Optional

from xscontainer.simulator.xapi.database.clock import now
from xscontainer.simulator.xapi.database.row import Row
from xscontainer.simulator.xapi.objects import drives, networks, operations
from xscontainer.simulator.xapi.objects.operations import operation_on
from xscontainer.simulator.xapi.objects.placement import choose_host
from xscontainer.simulator.xapi.state.call import Call
from xscontainer.simulator.xapi.state.pool_data import PoolData
from xscontainer.simulator.xapi.wire.failures import XapiError
from xscontainer.simulator.xapi.wire.values import NULL, Time

CPU_FLAGS = {"vendor": "GenuineIntel", "features": ""}


def generation_id() -> str:
    """Return a VM generation id: two random numbers."""
    return "{}:{}".format(random.getrandbits(62), random.getrandbits(62))


def _drop_metrics(pool: PoolData, vm: Row) -> None:
    old = vm.values["guest_metrics"]
    pool.db.set(vm, "guest_metrics", NULL)
    row = pool.db.get("VM_guest_metrics", old)
    if row is not None:
        pool.db.destroy(row)


def _new_metrics(pool: PoolData, vm: Row) -> None:
    """Give the VM a new VM_guest_metrics record with what its guest agent reports."""
    row = pool.db.create(
        "VM_guest_metrics",
        {
            "last_updated": now(),
            "live": True,
            "networks": dict(pool.guest_networks.get(vm.ref, {})),
            "can_use_hotplug_vbd": "unspecified",
            "can_use_hotplug_vif": "unspecified",
        },
    )
    pool.db.set(vm, "guest_metrics", row.ref)


def boot(pool: PoolData, vm: Row, host: Row, step: Callable[[], None]) -> None:
    """Write the fields of a VM that starts on `host`; `step` runs between the writes."""
    database = pool.db
    with database.lock:
        database.set(vm, "scheduled_to_be_resident_on", host.ref)
        _drop_metrics(pool, vm)
        if "device-model" not in vm.values["platform"]:
            database.set(vm, "platform", dict(vm.values["platform"], **{"device-model": "qemu-upstream-compat"}))
        if not vm.values["bios_strings"]:
            database.set(vm, "bios_strings", dict(pool.model.records["bios_strings"]))
    step()
    if vm.values["generation_id"] == "0:0":
        database.set(vm, "generation_id", generation_id())
        step()
    with database.lock:
        database.set(vm, "resident_on", host.ref)
        database.set(vm, "scheduled_to_be_resident_on", NULL)
    step()
    with database.lock:
        database.set(vm, "xenstore_data", {})
        database.set(vm, "power_state", "Running")
    step()
    with database.lock:
        database.set(vm, "allowed_operations", ["hard_reboot", "hard_shutdown"])
        _new_metrics(pool, vm)
        database.set(vm, "domid", pool.next_domid())
        metrics = database.get("VM_metrics", vm.values["metrics"])
        if metrics is not None:
            database.set(metrics, "start_time", now())
            database.set(metrics, "VCPUs_number", vm.values["VCPUs_at_startup"])
        database.set(vm, "last_boot_CPU_flags", CPU_FLAGS)
    networks.attach_all(pool, vm)
    drives.attach_all(pool, vm)
    step()


def power_off(pool: PoolData, vm: Row, step: Callable[[], None], state: str = "Halted") -> None:
    """Write the fields of a VM that ends (or, with `state`, is suspended)."""
    database = pool.db
    database.set(vm, "power_state", state)
    networks.detach_all(pool, vm)
    drives.detach_all(pool, vm)
    step()
    with database.lock:
        database.set(vm, "resident_on", NULL)
        database.set(vm, "domid", -1)
        metrics = database.get("VM_metrics", vm.values["metrics"])
        if metrics is not None:
            database.set(metrics, "VCPUs_number", 0)
    step()


def _start(call: Call, vm: Row, host: Optional[Row], operation: str, paused: bool) -> str:
    pool = call.pool
    with operation_on(call, vm, operation) as key:
        target = host or choose_host(pool, vm)
        drives.check_start(pool, vm, target.ref)
        pool.db.add_to(target, "current_operations", key, "vm_start")
        try:
            pool.step()
            boot(pool, vm, target, pool.step)
            if paused:
                pool.db.set(vm, "power_state", "Paused")
            pool.power_event(vm.ref, "start")
            pool.report(
                "VM_STARTED", vm, "{} started on host: " + "{} (uuid: {})".format(target["name_label"], target["uuid"])
            )
        finally:
            pool.db.remove_from(target, "current_operations", key)
    return ""


def start(call: Call, ref: str, start_paused: bool, _force: bool) -> str:
    """VM.start: on a host of the pool's choice."""
    return _start(call, call.pool.db.find("VM", ref), None, "start", start_paused)


def start_on(call: Call, ref: str, host: str, start_paused: bool, _force: bool) -> str:
    """VM.start_on: on that host."""
    vm = call.pool.db.find("VM", ref)
    operations.check_state(vm, "start_on")
    return _start(call, vm, call.pool.db.find("host", host), "start_on", start_paused)


def _stop(operation: str) -> Callable[[Call, str], str]:
    def run(call: Call, ref: str) -> str:
        pool = call.pool
        vm = pool.db.find("VM", ref)
        with operation_on(call, vm, operation):
            pool.step()
            pool.power_event(ref, "stop")
            power_off(pool, vm, pool.step)
            pool.report("VM_SHUTDOWN", vm, "{} shutdown forcibly" if operation == "hard_shutdown" else "{} shut down")
        return ""

    return run


def _reboot(operation: str) -> Callable[[Call, str], str]:
    def run(call: Call, ref: str) -> str:
        pool = call.pool
        vm = pool.db.find("VM", ref)
        with operation_on(call, vm, operation):
            pool.step()
            pool.power_event(ref, "reboot")
            pool.db.set(vm, "power_state", "Running")
            pool.db.set(vm, "domid", pool.next_domid())
            pool.step()
            with pool.db.lock:
                _drop_metrics(pool, vm)
            pool.step()
            with pool.db.lock:
                _new_metrics(pool, vm)
            pool.step()
        return ""

    return run


def suspend(call: Call, ref: str) -> str:
    """VM.suspend."""
    pool = call.pool
    vm = pool.db.find("VM", ref)
    with operation_on(call, vm, "suspend"):
        pool.step()
        pool.power_event(ref, "suspend")
        power_off(pool, vm, pool.step, "Suspended")
    return ""


def _resume(call: Call, vm: Row, host: Optional[Row], operation: str) -> str:
    pool = call.pool
    with operation_on(call, vm, operation):
        target = host or choose_host(pool, vm)
        drives.check_start(pool, vm, target.ref)
        pool.step()
        pool.db.set(vm, "resident_on", target.ref)
        pool.step()
        pool.db.set(vm, "power_state", "Running")
        with pool.db.lock:
            pool.db.set(vm, "domid", pool.next_domid())
            _drop_metrics(pool, vm)
            _new_metrics(pool, vm)
        networks.attach_all(pool, vm)
        drives.attach_all(pool, vm)
        pool.power_event(vm.ref, "resume")
        pool.step()
    return ""


def resume(call: Call, ref: str, _start_paused: bool, _force: bool) -> str:
    """VM.resume: on a host of the pool's choice."""
    return _resume(call, call.pool.db.find("VM", ref), None, "resume")


def resume_on(call: Call, ref: str, host: str, _start_paused: bool, _force: bool) -> str:
    """VM.resume_on: on that host."""
    return _resume(call, call.pool.db.find("VM", ref), call.pool.db.find("host", host), "resume_on")


def _switch(operation: str, state: str) -> Callable[[Call, str], str]:
    def run(call: Call, ref: str) -> str:
        pool = call.pool
        vm = pool.db.find("VM", ref)
        with operation_on(call, vm, operation):
            pool.step()
            pool.db.set(vm, "power_state", state)
            pool.power_event(ref, operation)
        return ""

    return run


def pool_migrate(call: Call, ref: str, host: str, _options: Dict[str, Any]) -> str:
    """VM.pool_migrate: the VM runs on the target `pool.migrate_lag` seconds before resident_on says so."""
    pool = call.pool
    vm = pool.db.find("VM", ref)
    target = pool.db.find("host", host)
    with operation_on(call, vm, "pool_migrate"):
        if vm.values["resident_on"] == host:
            return ""
        missing = drives.missing_sr(pool, vm, host)
        if missing:
            raise XapiError("VM_REQUIRES_SR", ref, missing)
        pool.db.set(vm, "scheduled_to_be_resident_on", host)
        pool.workers.pause(pool.migrate_copy)
        pool.power_event(ref, "migrate")
        pool.workers.pause(pool.migrate_lag)
        with pool.db.lock:
            pool.db.set(vm, "resident_on", target.ref)
            pool.db.set(vm, "scheduled_to_be_resident_on", NULL)
            pool.db.set(vm, "domid", pool.next_domid())
        pool.step()
        metrics = pool.db.get("VM_guest_metrics", vm.values["guest_metrics"])
        if metrics is not None:
            pool.db.set(metrics, "last_updated", Time(now()))
    return ""


def assert_can_migrate(call: Call, ref: str, *_params: Any) -> str:
    """VM.assert_can_migrate: any running VM can."""
    vm = call.pool.db.find("VM", ref)
    if vm.values["power_state"] != "Running":
        raise XapiError("VM_BAD_POWER_STATE", ref, "running", vm.values["power_state"].lower())
    return ""


HANDLERS = {
    "VM.start": start,
    "VM.start_on": start_on,
    "VM.clean_shutdown": _stop("clean_shutdown"),
    "VM.hard_shutdown": _stop("hard_shutdown"),
    "VM.shutdown": _stop("hard_shutdown"),
    "VM.clean_reboot": _reboot("clean_reboot"),
    "VM.hard_reboot": _reboot("hard_reboot"),
    "VM.suspend": suspend,
    "VM.resume": resume,
    "VM.resume_on": resume_on,
    "VM.pause": _switch("pause", "Paused"),
    "VM.unpause": _switch("unpause", "Running"),
    "VM.pool_migrate": pool_migrate,
    "VM.assert_can_migrate": assert_can_migrate,
}
