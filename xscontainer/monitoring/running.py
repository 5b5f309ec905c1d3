"""The monitors that run on this host: their start, their replacement and their end."""

import logging
import time
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Tuple

from xscontainer.core.vm_record import VMRecord
from xscontainer.errors import shortage

if TYPE_CHECKING:
    from xscontainer.monitoring.monitor import Monitor
    from xscontainer.publish import Publication

log = logging.getLogger(__name__)

# How long a stopped monitor may take to end before that is logged as an error, seconds.
ENDING = 45.0
# How long the end of the service waits for its monitors, seconds. A monitor that is connecting has nothing to lose
# and ends with the process.
PATIENCE = 1.5


class RunningMonitors:
    """One monitor for each VM. Changed by the registry's thread only; every thread may read.

    :param make: makes, but does not start, the monitor of a VM.
    """

    def __init__(self, make: "Callable[[VMRecord], Monitor]",
                 clock: "Callable[[], float]" = time.monotonic) -> None:
        self._make = make
        self._clock = clock
        self._monitors: "Dict[str, Monitor]" = {}  # by VM uuid
        self._ending: "List[Tuple[Monitor, float]]" = []  # each with the time at which it should have ended

    def get(self, vm_uuid: str) -> "Optional[Monitor]":
        """Return the monitor of a VM, None if the VM is not monitored here."""
        return self._monitors.get(vm_uuid)

    def publication(self, vm_uuid: str) -> "Optional[Publication]":
        """Return the publication of a VM, None if the VM is not monitored here."""
        monitor = self._monitors.get(vm_uuid)
        return monitor.publication if monitor else None

    def all(self) -> "List[Monitor]":
        """Return the monitors that were started and not stopped since."""
        return list(self._monitors.values())

    def start(self, vm: VMRecord) -> None:
        """Start a monitor for the VM, in place of one that ended by itself."""
        monitor = self._make(vm)
        try:
            monitor.start()
        except RuntimeError as exc:  # there is no thread for it; the next round tries again
            log.error("VM %s: its monitor cannot be started now: %s", vm.label, shortage(exc) or exc)
        self._monitors[vm.uuid] = monitor
        log.debug("VM %s: monitored from now on", vm.label)

    def drop(self, monitor: "Monitor", reason: str) -> None:
        """Stop a monitor without waiting for its end."""
        monitor.stop()
        del self._monitors[monitor.vm.uuid]
        self._ending.append((monitor, self._clock() + ENDING))
        log.info("VM %s: no longer monitored here: %s", monitor.vm.label, reason)

    def reap(self) -> None:
        """Forget the stopped monitors that have ended, and those that should have ended long ago."""
        self._ending = [(monitor, due) for monitor, due in self._ending if not self._ended(monitor, due)]

    def _ended(self, monitor: "Monitor", due: float) -> bool:
        if monitor.join(0):
            return True
        if self._clock() > due:
            log.error("VM %s: its monitor does not end", monitor.vm.label)
            return True
        return False

    def end(self) -> None:
        """Stop all monitors and wait up to PATIENCE seconds for their end."""
        for monitor in self.all():
            monitor.stop()
        deadline = self._clock() + PATIENCE
        for monitor in self.all() + [monitor for monitor, _ in self._ending]:
            if not monitor.join(max(0.0, deadline - self._clock())):
                log.debug("VM %s: its monitor was left behind", monitor.vm.label)
        self._monitors = {}
