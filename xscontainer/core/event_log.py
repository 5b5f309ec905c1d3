"""The last container events of one VM, in bounded memory. Pure: no clock and no threads.

Events that were missed while there was no event stream are added later if the engine still has them (``past``). They
come with events that the record has already, which are dropped. An engine forgets its oldest events first: one that
still has an event from before the gap has all events of the gap, so the record is complete over the gap, too.
"""

import sys
from collections import deque
from typing import Any, Callable, Deque, List, NamedTuple, Optional, Tuple

from xscontainer.core.engine_event import EngineEvent

MOST_EVENTS = 200
MOST_BYTES = 48 * 1024  # of memory, for one VM: 200 events of 15 containers take 36 KiB
MOST_SPANS = 8
# Memory of one event without the parts that it shares with others: a tuple, an integer and a place in the queue.
_ENTRY_BYTES = 144


class Subject(NamedTuple):
    """The container that an event is about."""

    id: str
    name: str
    image: str


class Happening(NamedTuple):
    """The facts of an event that are the same in many events.

    :ivar by: who caused it, if that was xscontainer; else "".
    """

    action: str
    exit_code: Optional[int]
    signal: str
    health: Optional[str]
    by: str


class Recorded(NamedTuple):
    """One event of the record.

    :ivar number: greater than the numbers of all events that were recorded before.
    """

    number: int
    time_ns: int
    subject: Subject
    happening: Happening


class _Entry(NamedTuple):
    time_ns: int
    subject: Subject
    happening: Happening


class EventLog:
    """The last events of one VM.

    Numbers are milliseconds since the epoch, by the event's own time, made greater where they would not increase. So
    they also increase over a restart of the process, after which the engine's past events get the same numbers again.
    """

    def __init__(self) -> None:
        self._entries: Deque[_Entry] = deque()
        self._first = self.last = 0  # numbers of the first and last event
        self._bytes = 0
        self._newest = 0  # the latest time of an event
        self._evicted_to = 0  # the latest time of an event that was dropped
        self._complete_from = 0
        self._replay_begins = False  # the next event is the oldest that the engine remembers
        # The times over which the record is complete, before the last one: its beginning, its last event.
        self._spans: Deque[Tuple[int, int]] = deque(maxlen=MOST_SPANS)

    @property
    def newest_ns(self) -> int:
        """The latest time of an event, by the engine's clock; 0 if there was none."""
        return self._newest

    @property
    def complete_from(self) -> int:
        """Since when no event is missing, nanoseconds since the epoch by the engine's clock."""
        return max(self._complete_from, self._evicted_to + 1 if self._evicted_to else 0)

    def subscribed(self, now_ns: int, replays: bool = False) -> None:
        """An event stream has begun: events before it may be missing, unless they are added as past ones.

        :param now_ns: by the engine's clock.
        :param replays: the stream begins with all that the engine remembers.
        """
        self._replay_begins = replays
        if self._newest >= self._complete_from > 0:
            self._spans.append((self._complete_from, self._newest))
        self._complete_from = now_ns

    def add(self, event: EngineEvent, by: "Callable[[], str]" = lambda: "", past: bool = False) -> bool:
        """Record an event; returns whether it is a new one.

        :param by: returns who caused a new event, if that was xscontainer; else "".
        :param past: the engine sends it from its memory, oldest event first.
        """
        if past or self._replay_begins:
            self._replay_begins = False
            self._remembered(event.time_ns)
        if past and event.time_ns <= self._evicted_to or self._known(event):
            return False
        if event.kind == "health_status" and self._health_of(event.id) == event.health:
            return False
        self._append(event.time_ns, Subject(event.id, event.name, event.image),
                     Happening(event.kind, event.exit_code, event.signal, event.health, by()))
        return True

    def events(self, after: int = 0, since_ns: int = 0) -> "List[Recorded]":
        """Return the events with greater numbers than ``after`` that are not older than ``since_ns``, oldest first."""
        found = []
        number = self._first - 1
        for entry in self._entries:
            number = _next(number, entry.time_ns)
            if number > after and entry.time_ns >= since_ns:
                found.append(Recorded(number, *entry))
        return sorted(found, key=lambda event: event.time_ns)

    def _remembered(self, time_ns: int) -> None:
        """The engine has all events from this time on."""
        self._complete_from = min(self._complete_from, time_ns)
        for begin, end in self._spans:
            if end >= time_ns:
                self._complete_from = min(self._complete_from, begin)

    def _known(self, event: EngineEvent) -> bool:
        return event.time_ns <= self._newest and any(
            entry.time_ns == event.time_ns and entry.subject.id == event.id and entry.happening.action == event.kind
            for entry in self._entries)

    def _health_of(self, container: str) -> Optional[str]:
        """Return the container's health as its last event said. Podman sends an event for each check."""
        for entry in reversed(self._entries):
            if entry.subject.id == container and entry.happening.action in ("health_status", "start", "create"):
                return entry.happening.health
        return None

    def _append(self, time_ns: int, *values: "Tuple[Any, ...]") -> None:
        # A few containers make most events, so entries share equal values.
        shared: List[Any] = [time_ns]
        size = _ENTRY_BYTES
        for place, value in enumerate(values, 1):
            same = next((entry[place] for entry in reversed(self._entries) if entry[place] == value), None)
            shared.append(same or value)
            size += 0 if same else _size(value)
        self.last = _next(self.last, time_ns)
        if not self._entries:
            self._first = self.last
        self._entries.append(_Entry(*shared))
        self._bytes += size
        self._newest = max(self._newest, time_ns)
        while len(self._entries) > 1 and (len(self._entries) > MOST_EVENTS or self._bytes > MOST_BYTES):
            self._evict()

    def _evict(self) -> None:
        entry = self._entries.popleft()
        self._first = _next(self._first, self._entries[0].time_ns)
        self._evicted_to = max(self._evicted_to, entry.time_ns)
        self._bytes -= _ENTRY_BYTES
        for place, value in enumerate(entry[1:], 1):
            if not any(other[place] is value for other in self._entries):
                self._bytes -= _size(value)


def _next(number: int, time_ns: int) -> int:
    """Return the number of an event that follows the one with ``number``."""
    return max(number + 1, time_ns // 1000000)


def _size(value: "Tuple[Any, ...]") -> int:
    """Return the bytes of memory that a subject or a happening takes."""
    return sys.getsizeof(value) + 24 + sum(sys.getsizeof(member) for member in value if isinstance(member, str))
