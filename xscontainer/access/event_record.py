"""The record of a VM's last container events: written by its monitor, marked by actions, read by callers.

core.event_log keeps the events, core.event_causes knows which of them our own actions caused. A record outlives the
monitor and the connections of its VM; it ends with the daemon, or when the VM is no longer managed on this host.
"""

import threading
import time
from contextlib import contextmanager
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

from xscontainer.core.engine_event import EngineEvent
from xscontainer.core.event_causes import GRACE, Causes
from xscontainer.core.event_log import EventLog, Recorded
from xscontainer.errors import ContainerStopping, EngineTimeout, TransportLost, XSContainerError

SECOND = 1000000000  # nanoseconds
PAST = 3600 * SECOND  # how far back an engine is asked for its past events
OVERLAP = 2 * SECOND  # events that were sent out of order are asked for again
# How long an engine may go on with an action that it did not answer in time, seconds.
UNANSWERED = 60.0


class Missed(NamedTuple):
    """The time whose events the engine may still have, nanoseconds since the epoch by the engine's clock."""

    since_ns: int
    until_ns: int


class Shown(NamedTuple):
    """The part of a record that a caller asked for.

    :ivar events: oldest first.
    :ivar last: number of the last event of the record; 0 if there is none.
    :ivar complete_from: since when no event is missing, nanoseconds since the epoch by the engine's clock.
    """

    events: List[Recorded]
    last: int
    complete_from: int


class EventRecord:
    """The record of one VM. Thread-safe.

    :param clock: seconds since the epoch.
    """

    def __init__(self, clock: "Callable[[], float]" = time.time) -> None:
        self._clock = clock
        self._changed = threading.Condition()  # over all that follows
        self._log = EventLog()
        self._causes = Causes()
        self._missed: Optional[Missed] = None  # see take_missed
        self._streaming = False
        self._ended = False

    # --- the monitor ---------------------------------------------------------

    def since_ns(self) -> int:
        """Return the time from which on an event stream should begin with past events, by the engine's clock.

        0: it should not, because nothing is recorded yet. When a daemon starts, the past of all VMs would delay their
        lists: 60 engines with 200 events each took twice as long to be published.
        """
        with self._changed:
            newest = self._log.newest_ns
            return max(newest - OVERLAP, self._now() - PAST) if newest else 0

    def subscribed(self, began_at: Optional[float], replays: bool) -> None:
        """Take note that an event stream has begun, before its first event.

        :param began_at: when, seconds since the epoch by the engine's clock, or a second earlier; None: unknown.
        :param replays: the stream begins with the past events since :meth:`since_ns`.
        """
        with self._changed:
            now = self._now() if began_at is None else (int(began_at) + 1) * SECOND
            since = max(self._log.newest_ns - OVERLAP, now - PAST)
            self._log.subscribed(now, replays)
            self._streaming = True
            if not replays:
                self._missed = Missed(min(since, self._missed.since_ns if self._missed else since), now)
                self._changed.notify_all()  # who waits asks for what was missed

    def unsubscribed(self) -> None:
        """Take note that the event stream has ended."""
        with self._changed:
            self._streaming = False

    def heard(self, events: "Sequence[EngineEvent]", past: bool = False) -> None:
        """Record the events of an engine.

        :param past: the engine remembers them; oldest first.
        """
        wanted = [event for event in events if event.recorded]
        if not wanted:
            return
        with self._changed:
            last = self._log.last
            for event in wanted:
                self._add(event if event.time_ns else event._replace(time_ns=self._now()), past)
            if self._log.last != last:
                self._changed.notify_all()

    def _add(self, event: EngineEvent, past: bool) -> None:
        self._log.add(event, lambda: self._causes.of(event, self._clock(), past), past)

    # --- actions -------------------------------------------------------------

    @contextmanager
    def acting(self, container: str, action: str) -> "Iterator[None]":
        """Mark the events that an action causes, which is carried out within the block.

        :param container: whole id or name.
        :param action: start, stop, restart, pause or unpause.
        """
        with self._changed:
            cause = self._causes.begin(container, action, self._clock())
        grace = UNANSWERED
        try:
            yield
            grace = GRACE
        except (EngineTimeout, TransportLost, ContainerStopping):
            raise
        except XSContainerError:
            grace = 0.0
            raise
        finally:
            with self._changed:
                self._causes.end(cause, self._clock(), grace)

    # --- readers -------------------------------------------------------------

    def take_missed(self) -> Optional[Missed]:
        """Return the time whose events are missing and may be had of the engine now; None: there is none.

        The caller asks the engine, and hands the events in as past ones. No other caller gets that time.
        """
        with self._changed:
            if not self._streaming:
                return None  # a caller must not wait for an engine that is out of reach
            missed, self._missed = self._missed, None
            return missed

    def give_back(self, missed: Missed) -> None:
        """Let another caller ask the engine later."""
        with self._changed:
            self._missed = self._missed or missed

    def show(self, after: int = 0, since_ns: int = 0) -> Shown:
        """Return the events with greater numbers than ``after`` that are not older than ``since_ns``."""
        with self._changed:
            return Shown(self._log.events(after, since_ns), self._log.last, self._log.complete_from)

    def wait(self, after: int, seconds: float) -> bool:
        """Wait up to ``seconds`` for an event with a greater number than ``after``, or for one that was missed.

        :returns: whether the record goes on: events may follow.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._ended or self._missed and self._streaming or self._log.last > after, seconds)
            return not self._ended

    def end(self) -> None:
        """Wake all who wait, for good."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _now(self) -> int:
        return int(self._clock() * SECOND)


class EventRecords:
    """The records of this host's VMs. Thread-safe."""

    def __init__(self, clock: "Callable[[], float]" = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._records: Dict[str, EventRecord] = {}
        self._ended = False

    def of(self, vm_uuid: str) -> EventRecord:
        """Return the record of a VM, a new one if it has none."""
        with self._lock:
            record = self._records.get(vm_uuid)
            if record is None:
                record = self._records[vm_uuid] = EventRecord(self._clock)
                if self._ended:
                    record.end()
            return record

    def forget(self, vm_uuid: str) -> None:
        """Drop the record of a VM."""
        with self._lock:
            record = self._records.pop(vm_uuid, None)
        if record:
            record.end()

    def end(self) -> None:
        """Wake all who wait: the daemon is about to end."""
        with self._lock:
            self._ended = True
            records = list(self._records.values())
        for record in records:
            record.end()
