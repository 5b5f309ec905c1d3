"""One VM's life: connect to its engine, publish, follow its events, and begin again when that ends.

A monitor decides nothing about the pool: :mod:`xscontainer.registry` starts it,
tells it of changes and stops it.
"""

import copy
import logging
import threading
import time
from typing import Callable, NamedTuple, Optional, Tuple

from xscontainer import addresses, keys
from xscontainer.access import hang_up, remembered_of
from xscontainer.certificates import renewal
from xscontainer.documents import Documents
from xscontainer.engine.api import Engine
from xscontainer.engine.connection import End
from xscontainer.engine.events import EventStream
from xscontainer.errors import (
    AddressUnknown,
    ArgumentError,
    EngineError,
    GuestSilent,
    GuestUnreachable,
    ModeUnsupported,
    NameUnresolved,
    TransportLost,
    XapiError,
    XSContainerError,
)
from xscontainer.model import Container
from xscontainer.pacing import Awaited, Backoff, CPUShare, Pacer
from xscontainer.publish import Publication
from xscontainer.reach import Reach, Remembered
from xscontainer.settings import Settings
from xscontainer.vmrecord import VMRecord

log = logging.getLogger(__name__)

# Errors that a short outage shows too; the others are as true in ten seconds as now.
_PASSING = (AddressUnknown, EngineError, GuestSilent, GuestUnreachable, NameUnresolved, TransportLost, XapiError)

# The event stream is sure to be complete this long after it was opened, seconds.
_SUBSCRIBED_AFTER = 1.0

# How long a guest may stay silent that reports another address than the one it is connected at, seconds.
_SIGN_OF_LIFE = 3.0

# Events taken from the stream before the list is asked for, however many more there are.
_MOST_EVENTS = 1000

# How often an engine is asked for its list, however much happens there: at once for the first, seconds from then on.
_LISTS_AT_ONCE = 20
_LIST_INTERVAL = 0.1

# What one guest may keep busy of a core: a list of 50 containers takes 5 ms, one of 5000 half a second.
_CPU_SHARE = 0.1
_CPU_AT_ONCE = 0.2  # seconds


class Opener(NamedTuple):
    """What a monitor needs of the world.

    :ivar open: (VM, what worked last time) -> an open engine and what worked this time.
    :ivar slots: bounds how many monitors connect at once.
    :ivar unsettled: called with the VM's uuid when a write to XAPI failed.
    :ivar ending: called, again and again, with a VM and which certificates need successors; may raise XapiError.
    """

    open: "Callable[[VMRecord, Remembered], Tuple[Engine, Remembered]]"
    slots: threading.Semaphore
    unsettled: "Callable[[str], None]"
    ending: "Callable[[VMRecord, Tuple[End, ...]], None]" = lambda vm, ends: None


class Monitor:
    """The life of one VM's monitor, in a thread of its own from :meth:`start` to :meth:`stop`."""

    def __init__(self, vm: VMRecord, opener: Opener, publication: Publication, settings: Settings,
                 clock: "Callable[[], float]" = time.monotonic) -> None:
        self._vm = vm
        self._opener = opener
        self.publication = publication
        self._settings = settings
        self._clock = clock
        self._backoff = Backoff(settings.monitor.backoff_min, settings.monitor.backoff_max)
        self._writes = Pacer(settings.publish.burst, settings.publish.interval)
        self._lists = Pacer(_LISTS_AT_ONCE, _LIST_INTERVAL)
        self._cpu = CPUShare(_CPU_SHARE, _CPU_AT_ONCE)
        self._cpu_used = 0.0  # by the thread until it last rested, seconds
        self._remembered = Remembered()
        self._engine: Optional[Engine] = None
        self._engine_of: Tuple[object, ...] = ()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._woken = threading.Event()
        self._documents = Documents(settings.publish)
        self._last_error: Optional[XSContainerError] = None
        self._thread = threading.Thread(target=self._run, name=f"monitor-{vm.uuid[:8]}", daemon=True)

    # --- from other threads --------------------------------------------------

    def start(self) -> None:
        """Begin; returns at once, and may be called once."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether its thread runs: one that ended without stop() is to be replaced."""
        return self._thread.is_alive()

    @property
    def vm(self) -> VMRecord:
        """As events told of it last."""
        return self._vm

    def update(self, vm: VMRecord) -> None:
        """The VM changed. Ends a wait for the next try; ends a connection that is to another place now."""
        with self._lock:
            before, self._vm = self._vm, vm
            engine = self._engine
            elsewhere = engine is not None and self._engine_of != self._place(vm)
        self.publication.observe(vm)
        if elsewhere and engine is not None:
            engine.hang_up()  # our own thread closes it: who calls has other VMs to tell of
        elif engine is not None and before.networks != vm.networks and addresses.left(
                vm.networks, engine.connection.address):
            # Or an address that is set, which nobody reports; then it answers.
            engine.connection.doubt(_SIGN_OF_LIFE)
        if _reach_facts(before) != _reach_facts(vm):
            self._woken.set()

    def engine(self) -> Engine:
        """The open engine, for an action.

        :raises XSContainerError: there is none at the moment; says why.
        """
        engine = self._engine
        if engine is None or engine.connection.closed:
            error = self._last_error
            # A copy: an error that is raised again and again keeps every call it ever went through.
            raise copy.copy(error) if error else GuestSilent(
                f"VM {self._vm.label} is being connected to.", "Repeat the call.")
        return engine

    def stop(self) -> None:
        """End soon; see :meth:`join`. The publication is closed first, so that nothing is written any more."""
        self.publication.close()
        self._stopped.set()
        self._woken.set()
        engine = self._engine
        if engine is not None:
            engine.hang_up()

    def join(self, timeout: float) -> bool:
        """Wait for the end; whether it came in time."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    # --- the thread ----------------------------------------------------------

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._live()
            except Exception:
                if not self._stopped.is_set():
                    log.exception("VM %s: its monitor failed and begins again", self._vm.label)
                    self._disconnect()
                    self._wait(self._backoff.fail(self._clock()))
        self._disconnect()

    def _live(self) -> None:
        while not self._stopped.is_set():
            if self._woken.is_set():
                self._woken.clear()
                self._backoff.hurry(self._clock())
            try:
                self._follow(self._connected())
            except XSContainerError as exc:
                if self._stopped.is_set():
                    return
                self._failed(exc)

    def _failed(self, error: XSContainerError) -> None:
        news = self._last_error is None or self._last_error.code != error.code
        (log.warning if news else log.debug)("VM %s: %s: %s", self._vm.label, error.code, error)
        self._last_error = error
        if not isinstance(error, EngineError) or self._engine is None or self._engine.connection.closed:
            self._disconnect()
        now = self._clock()
        wait = self._backoff.fail(now)
        stale_in = self._settings.publish.stale_after - self._backoff.outage(now)
        if stale_in <= 0 or not isinstance(error, _PASSING):
            self._documents.failure(error)
            self._publish()
        else:
            # Awake in time to say so, should it last.
            wait = min(wait, max(0.01, stale_in))
        self._wait(wait)

    def _wait(self, seconds: float) -> None:
        """Until ``seconds`` have passed or the VM changed; but changes, too, can be many."""
        least = min(seconds, self._settings.monitor.backoff_min)
        if not self._stopped.wait(least):
            self._woken.wait(seconds - least)

    def _place(self, vm: VMRecord) -> Tuple[object, ...]:
        """Where the engine of this VM is: it changes with a reboot and with its settings."""
        try:
            return (vm.domid, Reach.of(vm.other_config, self._settings))
        except (ArgumentError, ModeUnsupported) as exc:
            return (vm.domid, str(exc))

    def _connected(self) -> Engine:
        if self._engine is not None and not self._engine.connection.closed:
            return self._engine
        self._disconnect()
        vm = self._vm
        # A herd after a start shares the CPU in turns; a guest that hangs holds nobody up for long.
        slot = self._opener.slots.acquire(timeout=2.0)
        try:
            engine, self._remembered = self._opener.open(vm, self._remembered)
        finally:
            if slot:
                self._opener.slots.release()
        with self._lock:
            self._engine, self._engine_of = engine, self._place(vm)
            elsewhere = self._place(self._vm) != self._engine_of
        if elsewhere or self._stopped.is_set():
            hang_up(engine)
        return engine

    def _disconnect(self) -> None:
        with self._lock:
            engine, self._engine = self._engine, None
        if engine is not None:
            hang_up(engine)

    def _follow(self, engine: Engine) -> None:
        """Publish, then follow events until the stream or something else breaks."""
        events = engine.events()
        self._remembered = remembered_of(engine.connection, self._remembered.reach)
        try:
            # A guest that connects and breaks again and again writes no more often than another.
            self._stopped.wait(self._writes.delay(self._clock()))
            self._rest()
            # Subscribed first and listed then: what happens in between is told, not missed.
            self._list(engine)
            self._refresh_info(engine)
            self._publish()
            log.info("VM %s: its containers are shown%s (%s)", self._vm.label,
                     "" if self._last_error is None else " again", engine.connection.describe())
            self._last_error = None
            self._backoff.succeed(self._clock())
            self._serve(engine, events)
        finally:
            events.close()

    def _serve(self, engine: Engine, events: EventStream) -> None:
        reread = self._clock() + self._settings.monitor.info_interval
        # dockerd accepts a subscription a moment before it tells the subscriber anything: what
        # happened in that moment, and after the first list, no event will tell.
        awaited = Awaited(self._clock() + _SUBSCRIBED_AFTER)
        while not self._stopped.is_set():
            self._rest()
            now = self._clock()
            due = max(min(awaited.due, reread), now + self._writes.delay(now), now + self._lists.delay(now))
            if now < due:
                event = events.get(due - now)
                if events.closed:  # by update() or stop()
                    return
                for _ in range(_MOST_EVENTS):
                    if event is None:
                        break
                    if event.changes_list:
                        awaited.add(event, now)
                    if event.changes_info:
                        reread = now
                    event = events.get(0.0)
                continue
            self._lists.spend(now)
            awaited.listed(self._list(engine), self._clock())
            if now >= reread:
                reread = now + self._settings.monitor.info_interval
                self._refresh_info(engine)
            self._publish()

    def _rest(self) -> None:
        """Leave the CPU to the others when this guest has had its share. Events wait, too: to read them takes some."""
        before, self._cpu_used = self._cpu_used, time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID)
        self._cpu.spend(self._cpu_used - before, self._clock())
        self._stopped.wait(self._cpu.delay(self._clock()))

    def _list(self, engine: Engine) -> "Tuple[Container, ...]":
        before = self._documents.shortened
        found = self._documents.list(engine.containers())
        left_out, dropped = self._documents.shortened
        if self._documents.shortened != before and (left_out or dropped):
            log.info("VM %s: its list is shortened: %d containers and the fields %s are left out",
                     self._vm.label, left_out, ", ".join(dropped) or "none")
        return found

    def _refresh_info(self, engine: Engine) -> None:
        self._documents.facts(engine.version(), engine.info())
        self._look_at_ends(engine.connection.ends())

    def _look_at_ends(self, ends: "Tuple[End, ...]") -> None:
        due = tuple(end for end in ends if renewal.due(end.at, time.time()))
        if due:
            try:
                self._opener.ending(self._vm, due)
            except XapiError as exc:
                log.warning("VM %s: %s", self._vm.label, exc)

    def _publish(self) -> None:
        try:
            written = self.publication.show(self._documents.texts)
        except XapiError as exc:
            # The engine is fine; the caretaker writes it as soon as XAPI takes it.
            log.warning("VM %s: %s", self._vm.label, exc)
            self._opener.unsettled(self._vm.uuid)
            written = True
        if written:
            self._writes.spend(self._clock())


def _reach_facts(vm: VMRecord) -> Tuple[object, ...]:
    """What decides whether a new try may fare better than the last: all but what we publish ourselves."""
    config = {key: value for key, value in vm.other_config.items()
              if key not in keys.PUBLISHED and key not in (keys.OWNER, keys.TLS_WARNED)}
    return (vm.networks, vm.domid, vm.guest_metrics, vm.power_state, config)
