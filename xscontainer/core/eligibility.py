"""Decide whether this host monitors a VM, wipes its published keys, or leaves it alone. Pure.

The hand-over of a VM between hosts is decided here, and tested without a pool.
"""

from typing import NamedTuple

from xscontainer import keys
from xscontainer.core.vm_record import NULL_REF, VMRecord

MONITOR = "monitor"
WIPE = "wipe"
WIPE_LATER = "wipe later"
IGNORE = "ignore"


class Decision(NamedTuple):
    """An action of this host about a VM."""

    action: str  # MONITOR | WIPE | WIPE_LATER | IGNORE
    reason: str  # for the log


def enabled(vm: VMRecord) -> bool:
    """Return whether container management is on, as clients show it: any value but "False" and the empty string."""
    return vm.other_config.get(keys.MONITOR, "") not in ("", "False")


def running_here(vm: VMRecord, this_host: str) -> bool:
    """Return whether the VM runs on the host of this ref."""
    return vm.power_state == "Running" and vm.resident_on == this_host


def running_elsewhere(vm: VMRecord, this_host: str) -> bool:
    """Return whether the VM runs on another host than the one of this ref."""
    return vm.power_state == "Running" and vm.resident_on not in (this_host, NULL_REF)


def decide(vm: VMRecord, this_host: str, is_coordinator: bool, monitored: bool) -> Decision:
    """Decide what this host does about a VM.

    Only a running VM's own host does anything about it. The list of a VM that does not run is wiped by the host that
    monitored the VM, and by the coordinator, for hosts that died and for VMs that were cloned with a list. If neither
    has done so after a while, because their daemons are off, any other host does (WIPE_LATER). Removing a key twice
    does no harm. After a migration the old host never wipes: the new host may have published already.

    :param this_host: ref of the host that this process runs on.
    :param is_coordinator: whether that host is the pool's coordinator.
    :param monitored: whether this host monitors the VM at the moment.
    """
    if not vm.is_guest:
        return Decision(IGNORE, "template, snapshot or control domain")
    if vm.power_state == "Running":
        if vm.resident_on == NULL_REF:
            return Decision(IGNORE, "starting or migrating")
        if not running_here(vm, this_host):
            return Decision(IGNORE, "runs on another host")
        if enabled(vm):
            return Decision(MONITOR, "runs here and is enabled")
        reason = "container management is off"
    else:
        reason = f"power state is {vm.power_state}"
        if not (monitored or is_coordinator):
            return Decision(WIPE_LATER if vm.published else IGNORE, reason)
    if vm.published or monitored:
        return Decision(WIPE, reason)
    return Decision(IGNORE, reason)
