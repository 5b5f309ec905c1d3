"""The event stream of a connected engine, begun again when it ends, and polling while an engine gives no events.

Events come from engine.events; the follower takes them, and asks for the list when they or a poll make it due.
"""

import logging
import time
from itertools import takewhile
from typing import Callable, List, NamedTuple, Optional

from xscontainer.access.event_record import SECOND, EventRecord
from xscontainer.core.engine_event import EngineEvent
from xscontainer.core.pacing import Backoff
from xscontainer.engine.api import Engine
from xscontainer.engine.events import EventStream
from xscontainer.errors import (
    EngineError,
    EngineForbidden,
    EngineRefused,
    EngineTimeout,
    EngineTooOld,
    EngineUnavailable,
    EngineWithoutEvents,
)

log = logging.getLogger(__name__)

# How long an engine may take to begin its event stream, seconds. No list is read before that.
BEGIN_WITHIN = 3.0
# A stream that ends sooner than this after its beginning counts as failed, seconds.
STEADY = 5.0
# How many streams in a row have to fail until the engine counts as one without events: a restart fails one, too.
ENDS = 3
# How long to wait before an engine without events is asked for them again, seconds: at first, at most.
RETRY_FIRST, RETRY_MOST = 1.0, 300.0
RETRY_REFUSED = 10.0  # at least, if it refuses them or does not answer
# How often the list of an engine without events is polled, seconds: after a change, and while nothing changes.
POLL_FIRST, POLL_MOST = 2.0, 6.0
# Events that are taken from the stream before the list is read, even if there are more.
MOST_EVENTS = 1000
# Past events are told from new ones by their times. Those of the last second before the stream count as new,
# nanoseconds: the list that is read when the stream has begun may not show them.
REPLAY_MARGIN = SECOND


class Heard(NamedTuple):
    """Events that came.

    :ivar drained: whether no more events are waiting to be read.
    """

    events: List[EngineEvent]
    drained: bool


class Feed:
    """The events of one connection, for one thread.

    :param wait: sleeps for so many seconds, or until the monitor is woken.
    :param record: gets all events.
    :ivar missing: why there are no events, so that the list is polled; None while events come.
    :ivar poll_at: when to read the list even if no event comes.
    """

    def __init__(self, engine: Engine, label: str, wait: "Callable[[float], object]",
                 clock: "Callable[[], float]" = time.monotonic, record: Optional[EventRecord] = None) -> None:
        self._engine = engine
        self._label = label
        self._wait = wait
        self._clock = clock
        self._record = record or EventRecord()
        self._replayed_to = 0  # while the engine sends past events: these are older, nanoseconds by its clock
        self._stream: Optional[EventStream] = None
        self._backoff = Backoff(RETRY_FIRST, RETRY_MOST)
        self._begun = clock()
        self._again_at = float("-inf")
        self._poll_after = POLL_FIRST
        self._ends = 0  # streams that failed in a row
        self.poll_at = float("inf")
        self.missing: Optional[EngineWithoutEvents] = None

    def begin(self) -> None:
        """Subscribe if that is due; the list has to be read after that.

        :raises XSContainerError: the engine cannot be reached at all.
        """
        if self._stream is not None or self._clock() < self._again_at:
            if self.missing and self._steady:
                log.info("VM %s: its engine sends events now, so its list is no longer polled", self._label)
                self.missing, self._ends = None, 0
                self._backoff.succeed(self._clock())
            return
        try:
            stream = self._stream = self._engine.events(BEGIN_WITHIN, self._record.since_ns())
        except (EngineUnavailable, EngineForbidden, EngineTooOld):
            raise
        except EngineError as error:
            if self._engine.connection.closed:
                raise
            # An engine that is slow once, as when many VMs start, is asked again before anybody is told.
            self._ends = max(self._ends, ENDS - 2) if isinstance(error, EngineTimeout) else ENDS
            self._lost(error)
            if self.missing and isinstance(error, (EngineRefused, EngineTimeout, EngineWithoutEvents)):
                self._again_at = max(self._again_at, self._clock() + RETRY_REFUSED)
        else:
            self._begun = self.poll_at = self._clock()
            self._record.subscribed(stream.began_at, stream.replays)
            self._replayed_to = (stream.began_at or 0) * SECOND - REPLAY_MARGIN if stream.replays else 0

    @property
    def _steady(self) -> bool:
        return self._stream is not None and self._clock() - self._begun >= STEADY

    @property
    def due(self) -> float:
        """Return when to call :meth:`begin`."""
        if self._stream is None:
            return self._again_at
        return self._begun + STEADY if self.missing else float("inf")

    @property
    def closed(self) -> bool:
        """Return whether the stream was ended by us."""
        return self._engine.hung_up if self._stream is None else self._stream.closed

    def take(self, timeout: float) -> Heard:
        """Return the events that come within ``timeout`` seconds, as soon as there are any.

        A stream that ends is no error: :meth:`begin` begins it again, and the list is polled meanwhile.

        :raises TransportLost: the connection to the guest is lost.
        """
        if self._stream is None:
            self._wait(timeout)
            return Heard([], True)
        events: List[EngineEvent] = []
        try:
            began = self._clock()
            event = self._stream.get(timeout)
            drained = event is None and self._clock() - began >= timeout
            while event is not None:
                events.append(event)
                # No event that was taken is dropped: the last one may be the one that matters.
                event = self._stream.get(0.0) if len(events) < MOST_EVENTS else None
        except EngineError as error:
            if self._engine.connection.closed:
                raise
            events = self._recorded(events, False)
            self._lost(error)
            return Heard(events, False)
        return Heard(self._recorded(events, drained), drained)

    def _recorded(self, events: "List[EngineEvent]", drained: bool) -> "List[EngineEvent]":
        """Record events. Return those that the engine does not send from its memory: lists show the others already."""
        past = list(takewhile(lambda event: 0 < event.time_ns < self._replayed_to, events)) if self._replayed_to else []
        if drained or len(past) < len(events):
            # The guest's clock may be set back at any time. From here on that cannot make new events look old.
            self._replayed_to = 0
        self._record.heard(past, past=True)
        new = events[len(past):]
        self._record.heard(new)
        return new

    def listed(self, changed: bool, expected: bool = True) -> None:
        """Take note that the list was read.

        :param changed: whether it differs from the one before. If nothing announced that (``expected``), the stream is
            broken and is begun again.
        """
        if self._stream is not None:
            self.poll_at = float("inf")
        else:
            self._poll_after = POLL_FIRST if changed else min(POLL_MOST, 1.5 * self._poll_after)
            self.poll_at = self._clock() + self._poll_after
        if changed and not expected:
            log.warning("VM %s: its list changed without an event, so its event stream is begun again", self._label)
            self.close()
            self._again_at = self._clock()

    def _lost(self, error: EngineError) -> None:
        now, steady = self._clock(), self._steady
        if self._stream is not None:
            self.close()
            self.poll_at = now
        if steady:
            self._again_at, self.missing, self._ends = now, None, 0
            self._backoff.succeed(now)
            log.debug("VM %s: its event stream is begun again: %s", self._label, error)
            return
        self._again_at = now + self._backoff.fail(now)
        self._ends += 1
        if self._ends < ENDS:
            return
        if self.missing is None:
            log.warning("VM %s: its engine sends no events, so its list is polled: %s", self._label, error)
        self.missing = EngineWithoutEvents(
            f"The list is up to {POLL_MOST:g} s old, because the engine sends no events. {error.message}",
            error.hint if isinstance(error, EngineWithoutEvents) else "")

    def close(self) -> None:
        """End the stream."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
        self._record.unsubscribed()
