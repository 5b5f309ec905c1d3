"""Decide which VMs this host monitors, for each change of a VM that XAPI's events report.

Data comes from xapi.watch (batches of changes, through a queue, so that the event stream never waits for a VM) and goes
to the monitors (monitor.update) and to XAPI (pending_writes). Everything but the methods for other threads runs in one
thread.
"""

import logging
import queue
import threading
import time
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Union

from xscontainer.access.pool_state import CurrentPool
from xscontainer.core import eligibility
from xscontainer.core.pacing import Backoff
from xscontainer.core.vm_record import VMChange, VMRecord
from xscontainer.errors import VMNotRegistered
from xscontainer.monitoring.change_limit import ChangeLimit
from xscontainer.monitoring.pending_writes import PendingWrites
from xscontainer.monitoring.running import RunningMonitors
from xscontainer.xapi.watch import Batch

if TYPE_CHECKING:
    from xscontainer.monitoring.monitor import Monitor  # it is handed in

log = logging.getLogger(__name__)

# How often the monitors are checked when nothing else happens, seconds.
ROUND = 5.0
# How soon all VMs are delivered again after an unexpected error, seconds: after the first error, and if it persists.
RESYNC_FIRST, RESYNC_MOST = 1.0, 600.0


class Registry:
    """The monitors of this host's VMs.

    :param pool: the state of the pool, looked at for each decision.
    :param make_monitor: makes (does not start) the monitor of a VM.
    :param wipe: removes what is published of a VM that has no monitor; may raise XapiError.
    :param resync: has all VMs delivered again, soon.
    :param forget: called with the uuid of a VM that does not exist any more.
    :param not_ours: called with the uuid of a VM that is not managed, or runs on another host; often for the same VM.
    """

    def __init__(self, pool: CurrentPool, make_monitor: "Callable[[VMRecord], Monitor]",
                 wipe: "Callable[[VMRecord], None]", resync: "Callable[[], None]",
                 forget: "Callable[[str], None]" = lambda vm_uuid: None,
                 clock: "Callable[[], float]" = time.monotonic,
                 not_ours: "Callable[[str], None]" = lambda vm_uuid: None) -> None:
        self._pool = pool
        self._not_ours = not_ours
        self._resync = resync
        self._forget = forget
        self._clock = clock
        self._queue: "queue.Queue[Union[Batch, str, None]]" = queue.Queue()
        self._running = RunningMonitors(make_monitor, clock)
        self._records: Dict[str, VMRecord] = {}  # of VMs that are switched on or published, by uuid
        self._limit = ChangeLimit(clock)
        self._writes = PendingWrites(wipe, self._running.publication, self._failed, self._turned, clock)
        self._failures = Backoff(RESYNC_FIRST, RESYNC_MOST)
        self._resync_at = float("inf")  # when to have all VMs delivered again
        self._well = True  # no unexpected error since all VMs were delivered last
        self.turned_at = clock()  # when the thread last made progress: the watchdog looks at it

    # --- from other threads --------------------------------------------------

    def deliver(self, batch: Batch) -> None:
        """Hand in changes of VMs, in the order of XAPI's events. Returns at once."""
        self._queue.put(batch)

    def check(self, vm_uuid: str) -> None:
        """Make sure that what a monitor wants published reaches XAPI. Returns at once."""
        self._queue.put(vm_uuid)

    def stop(self) -> None:
        """Let the thread end, without waiting for it."""
        self._queue.put(None)

    def monitor(self, vm_uuid: str) -> "Monitor":
        """Return the monitor of a VM.

        :raises VMNotRegistered: this host does not monitor the VM.
        """
        monitor = self._running.get(vm_uuid)
        if monitor is None:
            raise VMNotRegistered(f"The containers of VM {vm_uuid} are not managed on this host.")
        return monitor

    def records(self) -> "List[VMRecord]":
        """Return the VMs that are monitored at the moment."""
        return [monitor.vm for monitor in self._running.all()]

    # --- the thread ----------------------------------------------------------

    def run(self) -> None:
        """Decide until :meth:`stop`, then end every monitor.

        Published lists stay: a restart of the service must not make containers vanish from every client.
        """
        while self._take(self._pause()):
            self._look_after()
            self._turned()
        self._running.end()

    def _turned(self) -> None:
        self.turned_at = self._clock()

    def _pause(self) -> float:
        due = min(self._writes.next_due(), self._limit.next_due(), self._resync_at)
        return min(max(due - self._clock(), 0.01), ROUND)

    def _take(self, wait: float = 0.0) -> bool:
        """Handle all that was handed in before anything is written: a VM that boots waits for no other VM's list.

        :param wait: seconds to wait if nothing was handed in.
        :returns: whether to go on.
        """
        for number in range(max(1, self._queue.qsize())):
            try:
                item = self._queue.get(timeout=wait)
            except queue.Empty:
                break
            wait = 0.0
            if item is None:
                if number == 0:
                    return False
                self._queue.put(None)  # what was handed in before is handled first
            elif isinstance(item, Batch):
                if item.full:
                    if self._well:
                        self._failures.succeed(self._clock())
                    self._well = True
                self._apply(item.changes)
                if item.full:
                    log.info("the pool has %d VMs with container management, %d of them are monitored here",
                             sum(map(eligibility.enabled, self._records.values())), len(self._running.all()))
            else:
                self._writes.check(item)
        return True

    def _apply(self, changes: "List[VMChange]") -> None:
        for change in changes:
            try:
                monitor = self._running.get(change.uuid)
                if monitor is None or change.record is None:
                    self._limit.forget(change.uuid, gone=change.record is None)
                elif self._limit.defers(change, monitor.vm):
                    monitor.publication.observe(change.record)
                    continue
                self._decide(change, monitor)
            except Exception:  # noqa: BLE001 - logged there
                self._failed(change.uuid)
            self._turned()

    def _failed(self, vm_uuid: str) -> None:
        """Log an unexpected error about one VM, in its handler, and have all VMs delivered again soon.

        So an action that failed is repeated later. The other VMs are not affected.
        """
        known = self._records.get(vm_uuid)
        log.exception("VM %s: a change could not be handled and is handled again later",
                      known.label if known else vm_uuid)
        self._well = False
        now = self._clock()
        self._resync_at = min(self._resync_at, now + self._failures.fail(now))

    def _decide(self, change: VMChange, monitor: "Optional[Monitor]") -> None:
        vm = change.record
        if vm is None:
            self._records.pop(change.uuid, None)
            self._writes.wipes.pop(change.uuid, None)
            if monitor:
                self._running.drop(monitor, "the VM does not exist any more")
            self._forget(change.uuid)
            return
        if eligibility.enabled(vm) or vm.published:
            self._records[vm.uuid] = vm
        else:
            self._records.pop(vm.uuid, None)
        state = self._pool.state
        decision = eligibility.decide(vm, state.this_host, state.is_coordinator, monitor is not None)
        if decision.action == eligibility.MONITOR:
            self._writes.wipes.pop(vm.uuid, None)
            if monitor is None:
                self._running.start(vm)
            else:
                if monitor.update(vm):
                    self._writes.check(vm.uuid)
            return
        if monitor:
            self._running.drop(monitor, decision.reason)
        if not eligibility.enabled(vm) or eligibility.running_elsewhere(vm, state.this_host):
            self._not_ours(vm.uuid)
        # The monitor knows what it wrote, which the snapshot may not show yet.
        self._writes.plan_wipe(vm, decision.action, monitor.publication.wipe if monitor else None, state.this_host)

    def _look_after(self) -> None:
        self._apply(self._limit.due())
        for monitor in self._running.all():
            if monitor.replace_if_stale():
                self._writes.check(monitor.vm.uuid)
        self._writes.write()
        for monitor in self._running.all():
            if not monitor.alive:
                log.error("VM %s: its monitor ended by itself and is started again", monitor.vm.label)
                try:
                    self._running.start(monitor.vm)
                except Exception:  # noqa: BLE001 - logged there
                    self._failed(monitor.vm.uuid)
        self._running.reap()
        if self._clock() >= self._resync_at:
            self._resync_at = float("inf")
            self._resync()


def start_thread(name: str, run: "Callable[[], None]") -> threading.Thread:
    """Start a thread of the daemon; its owner stops and joins it."""
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread
