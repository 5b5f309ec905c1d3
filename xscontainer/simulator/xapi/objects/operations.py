"""current_operations and allowed_operations of a VM, by its power state."""

import contextlib
import random
import time
import uuid
from typing import Any, Dict, Iterator, List

from xscontainer.simulator.xapi.database.row import Row
from xscontainer.simulator.xapi.state.call import Call
from xscontainer.simulator.xapi.state.pool_data import PoolData
from xscontainer.simulator.xapi.wire.failures import XapiError
from xscontainer.simulator.xapi.wire.values import NULL

_HALTED = [
    "create_vtpm",
    "destroy",
    "metadata_export",
    "export",
    "make_into_template",
    "changing_NVRAM",
    "changing_shadow_memory",
    "changing_static_range",
    "changing_dynamic_range",
    "migrate_send",
    "start_on",
    "start",
    "copy",
    "clone",
    "snapshot",
]
_TEMPLATE = [
    "destroy",
    "metadata_export",
    "export",
    "changing_NVRAM",
    "changing_shadow_memory",
    "changing_static_range",
    "changing_dynamic_range",
    "migrate_send",
    "provision",
    "copy",
    "clone",
]
_SNAPSHOT = ["destroy", "metadata_export", "export", "revert", "copy", "clone"]
_PLAIN = ["sysprep", "metadata_export", "changing_dynamic_range", "hard_reboot", "hard_shutdown", "pause", "snapshot"]
_WITH_AGENT = [
    "sysprep",
    "metadata_export",
    "changing_VCPUs_live",
    "changing_dynamic_range",
    "migrate_send",
    "pool_migrate",
    "suspend",
    "hard_reboot",
    "hard_shutdown",
    "clean_reboot",
    "clean_shutdown",
    "pause",
    "checkpoint",
    "snapshot",
]
_SUSPENDED = [
    "destroy",
    "metadata_export",
    "export",
    "hard_shutdown",
    "resume_on",
    "resume",
    "copy",
    "checkpoint",
    "snapshot",
]
_PAUSED = ["metadata_export", "hard_reboot", "hard_shutdown", "unpause", "checkpoint", "snapshot"]
_CONTROL_DOMAIN = ["metadata_export", "changing_static_range", "changing_dynamic_range"]
# Operations that stay allowed while another one runs.
_DURING = {
    "hard_reboot": ["hard_shutdown"],
    "clean_shutdown": ["hard_reboot", "hard_shutdown"],
    "clean_reboot": ["hard_reboot", "hard_shutdown"],
    "pause": ["hard_reboot", "hard_shutdown"],
    "pool_migrate": ["hard_reboot", "hard_shutdown"],
    "suspend": ["hard_reboot", "hard_shutdown"],
}
# The power states in which XAPI accepts an operation, in XAPI's words and order.
STATES = {
    "start": ["halted"],
    "start_on": ["halted"],
    "clean_shutdown": ["running"],
    "clean_reboot": ["running"],
    "hard_shutdown": ["paused", "suspended", "running"],
    "hard_reboot": ["paused", "running"],
    "suspend": ["running"],
    "resume": ["suspended"],
    "resume_on": ["suspended"],
    "pause": ["running"],
    "unpause": ["paused"],
    "pool_migrate": ["running"],
    "checkpoint": ["paused", "suspended", "running"],
    "destroy": ["halted", "suspended"],
    "clone": ["halted"],
    "copy": ["halted", "suspended"],
}
_NOT_FOR_TEMPLATES = frozenset(
    [
        "start",
        "start_on",
        "clean_shutdown",
        "clean_reboot",
        "hard_shutdown",
        "hard_reboot",
        "suspend",
        "resume",
        "resume_on",
        "pause",
        "unpause",
        "pool_migrate",
        "checkpoint",
    ]
)
_NEED_AGENT = frozenset(["clean_shutdown", "clean_reboot", "suspend", "pool_migrate"])


def allowed(pool: PoolData, vm: Row) -> List[str]:
    """Return the operations that a VM's state allows."""
    values = vm.values
    running = list(values["current_operations"].values())
    if values["is_control_domain"]:
        return _CONTROL_DOMAIN
    if running:
        during = _DURING.get(running[0], [])
        return during if len(running) == 1 else []
    if values["is_a_snapshot"]:
        return _SNAPSHOT
    if values["is_a_template"]:
        return _TEMPLATE
    state = values["power_state"]
    if state == "Running":
        return _WITH_AGENT if pool.has_agent(vm) else _PLAIN
    return {"Halted": _HALTED, "Suspended": _SUSPENDED, "Paused": _PAUSED}[state]


def refresh(pool: PoolData, vm: Row) -> None:
    """Bring allowed_operations up to date."""
    pool.db.set(vm, "allowed_operations", list(allowed(pool, vm)))


def check_state(vm: Row, operation: str) -> None:
    """Raise VM_BAD_POWER_STATE or VM_IS_TEMPLATE unless the VM's state allows the operation."""
    if operation in _NOT_FOR_TEMPLATES and vm.values["is_a_template"]:
        raise XapiError("VM_IS_TEMPLATE", vm.ref, operation)
    states = STATES.get(operation)
    state = vm.values["power_state"].lower()
    if states and state not in states:
        raise XapiError("VM_BAD_POWER_STATE", vm.ref, ", ".join(states), state)


def live_owner(pool: PoolData, device: Row) -> Row:
    """Return the VM of a drive or an interface; raise VM_BAD_POWER_STATE unless it runs or is paused."""
    vm = pool.db.find("VM", device["VM"])
    if vm["power_state"] not in ("Running", "Paused"):
        raise XapiError("VM_BAD_POWER_STATE", vm.ref, "running", vm["power_state"].lower())
    return vm


def _blocked_by(vm: Row) -> List[str]:
    """Return [key, operation] of the operation that must end first, [] if there is none."""
    return list(next(iter(vm.values["current_operations"].items()), ()))


def _wait_turn(call: Call, vm: Row, operation: str) -> None:
    """Wait for other operations on the VM. A second plugin call gives up after a random time, as recorded."""
    pool = call.pool
    low, high = pool.plugin_patience
    patience = random.uniform(low, high) if operation == "call_plugin" else 3600.0
    deadline = time.monotonic() + patience
    while True:
        other = _blocked_by(vm)
        if not other:
            return
        if other[1] != "call_plugin":
            raise XapiError("OTHER_OPERATION_IN_PROGRESS", "VM", vm.ref, other[1], other[0])
        left = deadline - time.monotonic()
        if left <= 0 or not call.serving():
            raise XapiError("OTHER_OPERATION_IN_PROGRESS", "VM", vm.ref, other[1], other[0])
        pool.operations_ended.wait(min(left, 1.0))


@contextlib.contextmanager
def operation_on(call: Call, vm: Row, operation: str) -> Iterator[str]:
    """Keep `operation` in the VM's current_operations during the block; yield its key."""
    pool = call.pool
    key = call.task or "OpaqueRef:" + str(uuid.uuid4())
    with pool.db.lock:
        check_state(vm, operation)
        if operation == "hard_shutdown" and vm.values["current_operations"]:
            # It is listed at once, and waits for the operations that run.
            pool.db.add_to(vm, "current_operations", key, operation)
            pool.db.set(vm, "allowed_operations", [])
            _wait_for_others(call, vm)
        else:
            _wait_turn(call, vm, operation)
            pool.db.add_to(vm, "current_operations", key, operation)
            refresh(pool, vm)
    try:
        if operation in _NEED_AGENT and not pool.has_agent(vm):
            raise XapiError("VM_LACKS_FEATURE", vm.ref)
        yield key
    finally:
        with pool.db.lock:
            if pool.db.get("VM", vm.ref) is vm:
                pool.db.remove_from(vm, "current_operations", key)
                refresh(pool, vm)
            pool.operations_ended.notify_all()


def _wait_for_others(call: Call, vm: Row) -> None:
    while len(vm.values["current_operations"]) > 1 and call.serving():
        call.pool.operations_ended.wait(1.0)


def no_operations(values: Dict[str, Any]) -> None:
    """Make a record that of a halted VM without operations."""
    values.update(
        {
            "current_operations": {},
            "resident_on": NULL,
            "scheduled_to_be_resident_on": NULL,
            "domid": -1,
            "power_state": "Halted",
        }
    )
