"""Whether this host monitors a VM, wipes what is published of it, or leaves it alone.

Pure: the whole hand-over of a VM between hosts is decided here and tested
without a pool.
"""

from typing import NamedTuple

from xscontainer import keys
from xscontainer.vmrecord import NULL_REF, VMRecord

MONITOR = "monitor"
WIPE = "wipe"
IGNORE = "ignore"


class Decision(NamedTuple):
    action: str  # MONITOR | WIPE | IGNORE
    reason: str  # for the log


def enabled(vm: VMRecord) -> bool:
    """Whether container management is switched on: anything but exactly "False" is, as Xen Orchestra shows it."""
    return vm.other_config.get(keys.MONITOR, "False") != "False"


def decide(vm: VMRecord, this_host: str, is_coordinator: bool, monitored: bool) -> Decision:
    """What this host does about ``vm``.

    :param this_host: ref of the host we run on.
    :param is_coordinator: whether that host coordinates the pool.
    :param monitored: whether this host monitors the VM at the moment.

    A VM that runs is its host's business alone. One that runs nowhere is wiped by
    the host that monitored it, which hears of it first, and by the coordinator,
    which covers hosts that died and VMs that were cloned with a list. Removing a
    key twice does no harm. A host that a VM migrated away from never wipes: the
    new host may have published already.
    """
    if not vm.is_guest:
        return Decision(IGNORE, "template, snapshot or control domain")
    if vm.power_state == "Running":
        if vm.resident_on == NULL_REF:
            return Decision(IGNORE, "starting or migrating")
        if vm.resident_on != this_host:
            return Decision(IGNORE, "runs on another host")
        if enabled(vm):
            return Decision(MONITOR, "runs here and is enabled")
        reason = "container management is off"
    else:
        if not (monitored or is_coordinator):
            return Decision(IGNORE, "not running")
        reason = f"power state is {vm.power_state}"
    if vm.published or monitored:
        return Decision(WIPE, reason)
    return Decision(IGNORE, reason)
