"""Which VMs this host monitors: starts, stops and looks after their monitors.

Runs in one thread, fed by a queue: the event stream only hands its batches in,
and never waits for a VM.
"""

import logging
import queue
import threading
import time
from typing import TYPE_CHECKING, Callable, Dict, List, NamedTuple, Optional, Tuple, Union

from xscontainer import eligibility
from xscontainer.errors import VMNotRegistered, XapiError, XapiUnavailable
from xscontainer.pacing import Backoff
from xscontainer.vmrecord import NULL_REF, VMChange, VMRecord
from xscontainer.xapi.events import Batch

if TYPE_CHECKING:
    from xscontainer.monitor import Monitor  # it is handed in

log = logging.getLogger(__name__)

# How often monitors are looked after when nothing else happens, seconds.
ROUND = 5.0
# How long XAPI is left alone when it does not answer, seconds.
XAPI_PAUSE = 1.0
# How long writes to XAPI may take before what else has happened is looked at, seconds.
WRITING = 1.0
# How soon everything is delivered anew after an error that nobody expected, seconds: at first, and if it stays.
ANEW_FIRST, ANEW_MOST = 1.0, 600.0
# How long a monitor may take to end before that is an error worth a line in the log, seconds.
ENDING = 45.0
# How long the end of the service waits for its monitors, seconds: one that is just connecting has
# nothing to lose, and ends with the process.
PATIENCE = 1.5


class Host:
    """Who we are in the pool; the daemon keeps it up to date."""

    def __init__(self, ref: str = "", is_coordinator: bool = False) -> None:
        self.ref = ref
        self.is_coordinator = is_coordinator


class _Wipe(NamedTuple):
    """What is published of a VM has to go, since ``due``. ``run`` is called with the VM as it is now."""

    vm: VMRecord
    run: "Callable[[VMRecord], None]"
    due: float


class Registry:
    """The monitors of this host's VMs.

    :param host: read at each decision.
    :param make_monitor: makes (does not start) the monitor of a VM.
    :param wipe: removes what is published of a VM that has no monitor; may raise XapiError.
    :param resync: has every VM delivered afresh, soon.
    """

    def __init__(self, host: Host, make_monitor: "Callable[[VMRecord], Monitor]",
                 wipe: "Callable[[VMRecord], None]", resync: "Callable[[], None]",
                 clock: "Callable[[], float]" = time.monotonic) -> None:
        self._host = host
        self._make_monitor = make_monitor
        self._wipe = wipe
        self._resync = resync
        self._clock = clock
        self._queue: "queue.Queue[Union[Batch, str, None]]" = queue.Queue()
        self._monitors: "Dict[str, Monitor]" = {}  # by VM uuid; changed by our thread only
        self._records: Dict[str, VMRecord] = {}
        self._checks: Dict[str, float] = {}  # VM uuid -> when to look at what it has published
        self._ending: "List[Tuple[Monitor, float]]" = []
        self._unwiped: Dict[str, _Wipe] = {}  # by VM uuid
        self._xapi_away_until = clock()
        self._anew = Backoff(ANEW_FIRST, ANEW_MOST)
        self._anew_at = float("inf")  # when to have everything delivered afresh
        self._well = True  # since everything was delivered last
        self.turned_at = clock()  # when the thread last got on with something: the watchdog looks at it

    # --- from other threads --------------------------------------------------

    def deliver(self, batch: Batch) -> None:
        """What XAPI's events told, in their order."""
        self._queue.put(batch)

    def check(self, vm_uuid: str) -> None:
        """See to it that what is published of a VM reaches XAPI."""
        self._queue.put(vm_uuid)

    def stop(self) -> None:
        """Have the thread end; does not wait for it."""
        self._queue.put(None)

    def monitor(self, vm_uuid: str) -> "Monitor":
        """:raises VMNotRegistered: this host does not monitor the VM."""
        try:
            return self._monitors[vm_uuid]
        except KeyError:
            raise VMNotRegistered(f"The containers of VM {vm_uuid} are not managed on this host.") from None

    def records(self) -> "List[VMRecord]":
        """The VMs monitored at the moment."""
        return [monitor.vm for monitor in list(self._monitors.values())]

    # --- the thread ----------------------------------------------------------

    def run(self) -> None:
        """Until :meth:`stop`; then every monitor is ended. What is published stays: a
        restart of the service must not make containers vanish from every client."""
        while self._take():
            self._look_after()
            self.turned_at = self._clock()
        self._end()

    def _pause(self) -> float:
        due = min(self._checks.values(), default=float("inf"))
        if self._unwiped:
            due = self._clock()
        due = min(max(due, self._xapi_away_until), self._anew_at)
        return min(max(due - self._clock(), 0.01), ROUND)

    def _take(self) -> bool:
        """All that was handed in, before anything is written: a VM that boots waits for no other's list.
        Whether to go on."""
        wait = self._pause()
        for number in range(max(1, self._queue.qsize())):
            try:
                item = self._queue.get(timeout=wait)
            except queue.Empty:
                break
            wait = 0.0
            if item is None:
                if number == 0:
                    return False
                self._queue.put(None)  # what came before it is seen to first
            elif isinstance(item, Batch):
                self._apply(item)
            else:
                self._checks[item] = self._clock()
        return True

    def _apply(self, batch: Batch) -> None:
        if batch.full:
            if self._well:
                self._anew.succeed(self._clock())
            self._well = True
        for change in batch.changes:
            try:
                self._decide(change)
            except Exception:  # noqa: BLE001 - logged there
                self._in_trouble(change.record.label if change.record else change.uuid)
            self.turned_at = self._clock()
        if batch.full:
            log.info("the pool has %d VMs with container management, %d of them are monitored here",
                     sum(map(eligibility.enabled, self._records.values())), len(self._monitors))

    def _in_trouble(self, who: str) -> None:
        """Something went wrong about one VM that nobody expected: the others are none the worse, and whatever
        was not done is done when it is delivered afresh. To be called where the error is handled."""
        log.exception("VM %s: what had to be done about it failed, and will be tried again", who)
        self._well = False
        now = self._clock()
        self._anew_at = min(self._anew_at, now + self._anew.fail(now))

    def _decide(self, change: VMChange) -> None:
        monitor = self._monitors.get(change.uuid)
        vm = change.record
        if vm is None:
            self._records.pop(change.uuid, None)
            self._unwiped.pop(change.uuid, None)
            if monitor:
                self._drop(monitor, "it is gone")
            return
        if eligibility.enabled(vm) or vm.published:
            self._records[vm.uuid] = vm
        else:
            self._records.pop(vm.uuid, None)
        decision = eligibility.decide(vm, self._host.ref, self._host.is_coordinator, monitor is not None)
        if decision.action == eligibility.MONITOR:
            if monitor is None:
                self._start(vm)
            else:
                monitor.update(vm)
                self._checks[vm.uuid] = self._clock()
            return
        if monitor:
            self._drop(monitor, decision.reason)
        pending = self._unwiped.pop(vm.uuid, None)
        if decision.action == eligibility.WIPE:
            # The monitor knows what it wrote, which the snapshot may not show yet.
            run = monitor.publication.wipe if monitor else pending.run if pending else self._wipe
            self._unwiped[vm.uuid] = _Wipe(vm, run, pending.due if pending else self._clock())
        elif pending and vm.resident_on in (NULL_REF, self._host.ref):
            # Not done yet, and due until it runs elsewhere: whoever runs it may have published.
            self._unwiped[vm.uuid] = pending._replace(vm=vm)

    def _start(self, vm: VMRecord) -> None:
        self._unwiped.pop(vm.uuid, None)
        monitor = self._make_monitor(vm)
        try:
            monitor.start()
        except RuntimeError as exc:  # no thread to be had; the next round tries again
            log.error("VM %s: cannot be monitored now: %s", vm.label, exc)
        self._monitors[vm.uuid] = monitor
        log.debug("VM %s: monitored from now on", vm.label)

    def _drop(self, monitor: "Monitor", reason: str) -> None:
        monitor.stop()
        del self._monitors[monitor.vm.uuid]
        self._checks.pop(monitor.vm.uuid, None)
        self._ending.append((monitor, self._clock() + ENDING))
        log.info("VM %s: no longer monitored here: %s", monitor.vm.label, reason)

    def _look_after(self) -> None:
        self._write_what_is_due()
        for monitor in list(self._monitors.values()):
            if not monitor.alive:
                log.error("VM %s: its monitor ended by itself and is started again", monitor.vm.label)
                try:
                    self._start(monitor.vm)
                except Exception:  # noqa: BLE001 - logged there
                    self._in_trouble(monitor.vm.label)
        self._ending = [(monitor, due) for monitor, due in self._ending if not self._ended(monitor, due)]
        if self._clock() >= self._anew_at:
            self._anew_at = float("inf")
            self._resync()

    def _write_what_is_due(self) -> None:
        """Wipe and settle, what is due longest first, and for a while only; all of it later if XAPI is away:
        each try would wait for it."""
        now = begun = self._clock()
        if now < self._xapi_away_until:
            return
        due = [(wipe.due, uuid, self._run_wipe) for uuid, wipe in self._unwiped.items()]
        due += [(at, uuid, self._settle) for uuid, at in self._checks.items() if at <= now]
        for _, uuid, write in sorted(due, key=lambda entry: entry[0]):
            try:
                write(uuid)
            except XapiUnavailable as exc:
                log.debug("%s", exc)
                self._xapi_away_until = self._clock() + XAPI_PAUSE
                return
            except Exception:  # noqa: BLE001 - logged there
                self._in_trouble(self._records[uuid].label if uuid in self._records else uuid)
            now = self.turned_at = self._clock()
            if now - begun >= WRITING:
                return

    def _run_wipe(self, uuid: str) -> None:
        wipe = self._unwiped.pop(uuid)
        try:
            wipe.run(wipe.vm)
        except XapiUnavailable:
            self._unwiped[uuid] = wipe._replace(due=self._clock())
            raise
        except XapiError as exc:
            # Not worth a storm; the next resync finds what is left.
            log.warning("VM %s: its container list could not be removed: %s", wipe.vm.label, exc)

    def _settle(self, uuid: str) -> None:
        del self._checks[uuid]
        monitor = self._monitors.get(uuid)
        if monitor is None:
            return
        again: Optional[float] = None
        try:
            again = monitor.publication.settle()
        except XapiError as exc:
            again = ROUND
            if isinstance(exc, XapiUnavailable):
                again = 0.0
                raise
            log.debug("VM %s: %s", monitor.vm.label, exc)
        finally:
            if again is not None:
                self._checks[uuid] = self._clock() + again

    def _ended(self, monitor: "Monitor", due: float) -> bool:
        if monitor.join(0):
            return True
        if self._clock() > due:
            log.error("VM %s: its monitor does not end", monitor.vm.label)
            return True
        return False

    def _end(self) -> None:
        for monitor in self._monitors.values():
            monitor.stop()
        deadline = self._clock() + PATIENCE
        for monitor in list(self._monitors.values()) + [monitor for monitor, _ in self._ending]:
            if not monitor.join(max(0.0, deadline - self._clock())):
                log.debug("VM %s: its monitor was left behind", monitor.vm.label)
        self._monitors = {}


def start_thread(name: str, run: "Callable[[], None]") -> threading.Thread:
    """A thread of the daemon; its owner stops and joins it."""
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread
