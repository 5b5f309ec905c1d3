"""The events that an engine remembers: 256 of all kinds with Docker, all that is in the journal or file with Podman."""

from collections import deque
from typing import TYPE_CHECKING, Deque, List

from xscontainer.core import current_call
from xscontainer.core.engine_event import EngineEvent
from xscontainer.core.event_log import MOST_EVENTS
from xscontainer.core.target import PODMAN
from xscontainer.engine import api_version, events, failures
from xscontainer.engine.http import message_of
from xscontainer.engine.lines import LineFeeder
from xscontainer.errors import EngineTooMuch

if TYPE_CHECKING:
    from xscontainer.engine.api import Engine

SECONDS = 5.0
MOST_BYTES = 4 << 20  # a Podman with twenty containers and health checks sends 1 MB for an hour

_READING = "Reading the engine's past events"


class _Last:
    """Keeps the last recorded events of an answer that may be long. See engine.listing.Sink."""

    def __init__(self) -> None:
        self._feeder = LineFeeder(False)
        self._size = 0
        self.events: Deque[EngineEvent] = deque(maxlen=MOST_EVENTS)

    def feed(self, data: bytes) -> int:
        self._size += len(data)
        if self._size > MOST_BYTES:
            raise EngineTooMuch(f"The engine remembers more than {MOST_BYTES >> 20} MiB of events.")
        for line in self._feeder.feed(data):
            event = events.event_of(line)
            if event.recorded:
                self.events.append(event)
        return 0  # no more than the stream of an engine's events takes

    def end(self) -> None:
        pass


def read(engine: "Engine", since_ns: int, until_ns: int) -> List[EngineEvent]:
    """Return the last events that a record keeps, oldest first; at most MOST_EVENTS.

    :param until_ns: a time that has passed by the engine's clock, or the engine's answer waits for it. Podman returns
        later events, too.
    :raises XSContainerError: the engine does not give them.
    """
    engine.calls.find_version()
    # Podman 4.3 gives nothing if there is an "until" in the past.
    end = {"stream": "false"} if engine.kind == PODMAN else {"until": events.timestamp(until_ns)}
    rest = "/events" + events.query(since_ns=since_ns, **end)

    def once(version: str) -> List[EngineEvent]:
        last = _Last()
        with engine.calls.lease(version, timeout=SECONDS) as client, \
                failures.translating(_READING, failures.API_SIDE):
            answer = client.get_raw(api_version.path(version, rest), current_call.remaining(SECONDS), lambda: last)
        if answer.status != 200:
            raise failures.refusal(answer.status, message_of(answer.body), _READING)
        return list(last.events)

    return engine.calls.with_version(once)
