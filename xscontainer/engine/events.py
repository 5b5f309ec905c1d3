"""What happens to the containers of an engine, as it happens."""

import json
import time
from collections import deque
from typing import Deque, Iterator, Optional
from urllib.parse import urlencode

from xscontainer.engine import failures
from xscontainer.engine.connection import Connection, EngineStream
from xscontainer.engine.exchange import begin, parse_json
from xscontainer.engine.lines import LineFeeder
from xscontainer.engineevent import EngineEvent
from xscontainer.errors import EngineGarbage, EngineLost, EngineTooOld, XSContainerError

# The rest (exec_*, top, attach, resize ...) is noise, and must not wake anybody; "died" and "remove" are podman's.
ACTIONS = ("create", "start", "restart", "stop", "die", "died", "destroy", "remove", "rename", "pause", "unpause",
           "oom", "update", "health_status", "reload")
FILTERS = json.dumps({"type": ["container", "daemon"], "event": list(ACTIONS)})

_READ_BYTES = 65536


class EventStream:
    """Iterates over EngineEvents that may change the container list or the engine's facts.

    One thread reads; close() may come from any. Ends with an error (EngineLost, TransportLost ...) unless it was
    closed: an engine that ends the stream by itself is always a loss.
    """

    def __init__(self, stream: EngineStream, chunked: bool, begun: bytes) -> None:
        self.closed = False
        self._stream = stream
        self._feeder = LineFeeder(chunked)
        self._pending: Deque[EngineEvent] = deque()
        self._take(begun)

    def get(self, timeout: Optional[float] = None) -> Optional[EngineEvent]:
        """The next event; None when there is none within ``timeout`` s (None: wait), or after close().

        :raises EngineLost, TransportLost, EngineGarbage, EngineTooMuch: the stream is over.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._pending:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            # A budget for each read, not for the stream: it is to last for months.
            self._stream.budget = _READ_BYTES
            try:
                data = self._stream.receive(_READ_BYTES, left)
            except XSContainerError:
                if self.closed:
                    return None
                raise
            if data is None or self.closed:
                return None
            self._take(data)
            if not self._pending and (not data or self._feeder.ended):
                raise EngineLost("The engine ended its event stream.")
        return self._pending.popleft()

    def __iter__(self) -> Iterator[EngineEvent]:
        return self

    def __next__(self) -> EngineEvent:
        event = self.get()
        if event is None:
            raise StopIteration
        return event

    def _take(self, data: bytes) -> None:
        for line in self._feeder.feed(data):
            event = EngineEvent.from_api(parse_json(line))
            if event.changes_list or event.changes_info:
                self._pending.append(event)

    def close(self) -> None:
        """End it; a get() under way returns None at once. More than once is harmless."""
        self.closed = True
        self._stream.close()

    def __enter__(self) -> "EventStream":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def subscribe(connection: Connection, version: str, timeout: float, filters: str = FILTERS) -> EventStream:
    """Follow the engine's events from now on.

    :param version: API version, as "1.41".
    :param timeout: seconds until the engine must have accepted.
    :raises XSContainerError: as Connection.open_stream and ``exchange``.
    """
    deadline = time.monotonic() + timeout
    stream = connection.open_stream(timeout)
    stream.deadline = deadline
    try:
        query = "?" + urlencode({"filters": filters}) if filters else ""
        answer = begin(stream, "GET", f"/v{version}/events{query}", {"Host": "engine"})
        if answer.status == 200:
            stream.deadline = None
            return EventStream(stream, answer.chunked, answer.body)
    except BaseException:
        stream.close()
        raise
    stream.close()
    error = failures.refusal(answer.status, _said(answer.body), "Following the engine's events")
    if answer.status == 400 and filters and not isinstance(error, EngineTooOld):
        # An engine that does not know one of the filters; EventStream sifts by itself too.
        return subscribe(connection, version, max(0.0, deadline - time.monotonic()), "")
    raise error


def _said(body: bytes) -> object:
    """The engine's own words in the body of a refusal."""
    try:
        return parse_json(body)["message"]
    except (EngineGarbage, LookupError, TypeError):
        return body
