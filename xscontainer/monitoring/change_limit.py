"""A rate limit for the changes of a VM: each one can mean a new connection."""

import time
from typing import Callable, Dict, List, Tuple

from xscontainer.core.pacing import Pacer
from xscontainer.core.vm_record import VMChange, VMRecord

# How many changes of a VM's settings or addresses are applied at once, and the seconds between two of them after that.
CHANGES, CHANGES_INTERVAL = 10, 5.0


class ChangeLimit:
    """Defers changes that a guest or an administrator can cause at any rate; the last one is applied at last.

    Starts, migrations and what xscontainer itself writes are never deferred.
    """

    def __init__(self, clock: "Callable[[], float]" = time.monotonic) -> None:
        self._clock = clock
        self._paces: Dict[str, Pacer] = {}  # by VM uuid
        self._deferred: Dict[str, VMChange] = {}  # by VM uuid

    def defers(self, change: VMChange, known: "VMRecord") -> bool:
        """Return whether the change was put off; :meth:`due` returns it later, unless a newer change replaces it.

        :param known: the VM as its monitor knows it.
        """
        self._deferred.pop(change.uuid, None)
        vm = change.record
        if vm is None or _place(vm) != _place(known) or _choices(vm) == _choices(known):
            return False
        pace, now = self._paces.setdefault(vm.uuid, Pacer(CHANGES, CHANGES_INTERVAL)), self._clock()
        if pace.delay(now) <= 0.0:
            pace.spend(now)
            return False
        self._deferred[vm.uuid] = change
        return True

    def forget(self, vm_uuid: str, gone: bool) -> None:
        """Forget the deferred change of a VM without a monitor.

        :param gone: the VM does not exist any more: forget its rate, too.
        """
        self._deferred.pop(vm_uuid, None)
        if gone:
            self._paces.pop(vm_uuid, None)

    def due(self) -> "List[VMChange]":
        """Return the deferred changes that may be applied now."""
        now = self._clock()
        return [change for uuid, change in self._deferred.items() if self._paces[uuid].delay(now) <= 0.0]

    def next_due(self) -> float:
        """Return when :meth:`due` has something next, by the clock; infinity if nothing is deferred."""
        now = self._clock()
        return min((now + self._paces[uuid].delay(now) for uuid in self._deferred), default=float("inf"))


def _place(vm: VMRecord) -> Tuple[object, ...]:
    """Return where the VM runs, if it does."""
    return (vm.ref, vm.power_state, vm.resident_on, vm.domid, vm.guest_metrics, vm.is_guest)


def _choices(vm: VMRecord) -> Tuple[object, ...]:
    """Return what a guest or an administrator can change at any rate: addresses and settings."""
    return (vm.networks, vm.connection_config)
