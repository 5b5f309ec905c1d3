"""The event stream of an engine: GET /events, decoded into EngineEvents."""

import email.utils
import json
import re
import time
from collections import deque
from typing import Deque, Iterator, Optional
from urllib.parse import urlencode

from xscontainer import sanitize
from xscontainer.core.engine_event import UNREAD, EngineEvent
from xscontainer.engine import api_version, failures
from xscontainer.engine.connection import Connection, EngineStream
from xscontainer.engine.http import Begun, begin, message_of, parse_json
from xscontainer.engine.lines import MOST_READS, ByteStream, CutLine, LineFeeder
from xscontainer.errors import EngineGarbage, EngineLost, EngineTooOld, XSContainerError

# All other actions (exec_*, top, attach, resize ...) change no list; "kill" is only recorded. "died" and "remove" are
# Podman's names.
ACTIONS = (
    "kill", "create", "start", "restart", "stop", "die", "died", "destroy", "remove", "rename", "pause",
    "unpause", "oom", "update", "health_status", "reload")
FILTERS = json.dumps({"type": ["container", "daemon"], "event": list(ACTIONS)})

_READ_BYTES = 65536

# Labels can make an event long. They are at its end.
_ATTRIBUTES = re.compile(rb'"Attributes"\s*:\s*\{')


class EventStream(ByteStream):
    """Iterates over the EngineEvents that may change the container list or the engine's facts, or that are recorded.

    One thread reads; any thread may call close(). Unless it was closed, the stream ends with an error (EngineLost,
    TransportLost ...), also if the engine ends it. A line that is not an event ends it, too: it may be an error message
    of the engine.

    :param replays: the engine was asked for past events, too, which it sends first.
    :ivar began_at: when the stream began, whole seconds since the epoch by the engine's clock; None: unknown.
    """

    def __init__(self, stream: EngineStream, begun: Begun, replays: bool = False) -> None:
        super().__init__(stream)
        self.replays = replays
        self.began_at = _seconds(begun.date)
        self._feeder = LineFeeder(begun.chunked)
        self._missing = begun.length  # bytes of the body that have not arrived, if the engine announced its length
        self._pending: Deque[EngineEvent] = deque()
        self._error: Optional[XSContainerError] = None  # why no event follows those that are pending
        self._decode(begun.body)

    def get(self, timeout: Optional[float] = None) -> Optional[EngineEvent]:
        """Return the next event; None if there is none.

        That is the case after ``timeout`` s (None: wait), after much data without an event, and after close().

        :raises EngineLost, TransportLost, EngineGarbage, EngineTooMuch: if the stream has ended.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        received = reads = 0
        while not self._pending:
            if self._error is not None:
                raise self._error
            if received >= _READ_BYTES or reads >= MOST_READS:
                return None
            remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
            data = self._receive(remaining)
            if data is None:
                return None
            received, reads = received + len(data), reads + 1
            if data:
                self._decode(data)
            else:
                self._error = self._error or EngineLost("The engine ended its event stream.")
        return self._pending.popleft()

    def __iter__(self) -> Iterator[EngineEvent]:
        return self

    def __next__(self) -> EngineEvent:
        while not self.closed:
            event = self.get()
            if event is not None:
                return event
        raise StopIteration

    def _decode(self, data: bytes) -> None:
        if self._missing is not None:
            data = data[:self._missing]
            self._missing -= len(data)
        try:
            for line in self._feeder.feed(data):
                event = event_of(line)
                if event.changes_list or event.changes_info or event.recorded:
                    self._pending.append(event)
        except XSContainerError as error:
            self._error = error
            return
        if self._feeder.ended or self._missing == 0:
            self._error = EngineLost("The engine ended its event stream.")

    def __enter__(self) -> "EventStream":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _seconds(date: str) -> Optional[int]:
    try:
        found = email.utils.parsedate_tz(date[:64])
        return sanitize.integer(email.utils.mktime_tz(found), 1, sanitize.LATEST) if found else None
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def event_of(line: bytes) -> EngineEvent:
    """Return the event in a line; UNREAD if the line was too long.

    :raises EngineGarbage: if the line is not an event.
    """
    if not isinstance(line, CutLine):
        event = EngineEvent.from_api(parse_json(line))
        if not event.action:
            raise EngineGarbage(f"The engine sends {failures.words(line)} where an event was expected.")
        return event
    attributes = _ATTRIBUTES.search(line)
    try:
        event = EngineEvent.from_api(parse_json(line[:attributes.end()] + b"}}}" if attributes else b""))
    except EngineGarbage:
        return UNREAD
    return event if event.action else UNREAD


def timestamp(nanoseconds: int) -> str:
    """Return a time since the epoch as engines read it."""
    return f"{nanoseconds // 1000000000}.{nanoseconds % 1000000000:09d}"


def query(filters: str = FILTERS, since_ns: int = 0, **more: str) -> str:
    """Return the query of a request for events.

    :param since_ns: ask for the events that the engine remembers from that time on; 0: do not.
    """
    parameters = dict(more)
    if filters:
        parameters["filters"] = filters
    if since_ns:
        parameters["since"] = timestamp(since_ns)
    return "?" + urlencode(parameters) if parameters else ""


def subscribe(connection: Connection, version: str, timeout: float, since_ns: int = 0,
              filters: str = FILTERS) -> EventStream:
    """Return a stream of the engine's events from now on.

    :param version: API version, as "1.41"; "": the engine's newest.
    :param timeout: seconds until the engine must have accepted.
    :param since_ns: begin with the past events from that time on, which are bounded by what the engine remembers: 256
        events of all kinds with Docker. For Docker only: Podman also compares new events with it, so that it would send
        none after its clock was set back.
    :raises XSContainerError: as Connection.open_stream and ``exchange``.
    """
    deadline = time.monotonic() + timeout
    stream = connection.open_stream(timeout)
    stream.deadline = deadline
    try:
        answer = begin(stream, "GET", api_version.path(version, "/events") + query(filters, since_ns),
                       {"Host": "engine"})
        if answer.status == 200:
            stream.deadline = None
            return EventStream(stream, answer, bool(since_ns))
    except BaseException:
        stream.close()
        raise
    stream.close()
    error = failures.refusal(answer.status, message_of(answer.body), "Following the engine's events")
    if answer.status == 400 and filters and not isinstance(error, EngineTooOld):
        # The engine does not know one of the filters. EventStream filters, too.
        return subscribe(connection, version, max(0.0, deadline - time.monotonic()), since_ns, "")
    raise error
