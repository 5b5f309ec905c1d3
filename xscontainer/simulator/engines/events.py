"""An engine's events. The last ones are kept; new ones are sent to listeners in the thread that causes them."""

import collections
import contextlib
import json
import socket
import threading
import time
from typing import Any, Deque, Dict, List, NamedTuple, Optional, Set, Tuple

from xscontainer.simulator.engines.container import Version
from xscontainer.simulator.engines.wire import Connection

KEPT = 256
WITHOUT_DEPRECATED = (1, 52)
Filters = Dict[str, List[str]]


class Event(NamedTuple):
    """One event, encoded for API versions with ``status``, ``id`` and ``from`` and for those without."""

    kind: str
    action: str
    actor: str
    attributes: Dict[str, str]
    time_nano: int
    old: bytes
    new: bytes


def make_event(kind: str, action: str, actor: str, attributes: Dict[str, str], time_nano: int) -> Event:
    """Encode an event once for all listeners."""
    fresh: Dict[str, Any] = {
        "Type": kind, "Action": action, "Actor": {"ID": actor, "Attributes": attributes}, "scope": "local",
        "time": time_nano // 1000000000, "timeNano": time_nano,
    }
    deprecated: Dict[str, Any] = {}
    if kind in ("container", "image"):
        deprecated = {"status": action, "id": actor}
        if kind == "container":
            deprecated["from"] = attributes.get("image", "")
    new = _encode(fresh)
    old = _encode({**deprecated, **fresh}) if deprecated else new
    return Event(kind, action, actor, attributes, time_nano, old, new)


def _encode(value: Dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n"


class Listener:
    """One open event stream."""

    def __init__(self, connection: Connection, version: Version, filters: Filters, most: Optional[int],
                 not_before: int = 0) -> None:
        """:param not_before: podman's ``since`` also holds for new events; nanoseconds."""
        self._not_before = not_before
        self.connection = connection
        self._new = version >= WITHOUT_DEPRECATED
        self._filters = filters
        self._left = most
        self.ended = False

    def send(self, event: Event) -> None:
        """Send the event if it passes the filters.

        A client that has gone, or that reads nothing for 5 s, loses its connection: part of the event may have been
        sent already, so the stream cannot go on.
        """
        if self.ended or event.time_nano < self._not_before or not passes(event, self._filters):
            return
        try:
            self.connection.send_chunk(event.new if self._new else event.old)
            if self._left is not None:
                self._left -= 1
                if self._left <= 0:
                    self.ended = True
                    self.connection.end_stream()
                    self.connection.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            self.ended = True
            with contextlib.suppress(OSError):
                self.connection.sock.shutdown(socket.SHUT_RDWR)


def passes(event: Event, filters: Filters) -> bool:
    """Return whether an event passes an Engine API filter; unknown filters are ignored."""
    for key, wanted in filters.items():
        if key == "type":
            fits = event.kind in wanted
        elif key == "event":
            fits = any(event.action == want or event.action.split(":")[0] == want for want in wanted)
        elif key == "container":
            name = event.attributes.get("name", "")
            fits = event.kind == "container" and any(event.actor.startswith(want) or name == want for want in wanted)
        elif key == "image":
            fits = any(want in (event.attributes.get("image"), event.attributes.get("name")) for want in wanted)
        elif key == "label":
            fits = all(_has_label(event.attributes, want) for want in wanted)
        elif key == "scope":
            fits = "local" in wanted
        else:
            fits = True
        if wanted and not fits:
            return False
    return True


def _has_label(attributes: Dict[str, str], want: str) -> bool:
    key, equals, value = want.partition("=")
    return key in attributes and (not equals or attributes[key] == value)


class EventLog:
    """The last events and the open streams of one engine. Events are published in one order for all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: Deque[Event] = collections.deque(maxlen=KEPT)
        self._listeners: Set[Listener] = set()
        self._last = 0
        self.published = 0

    def publish(self, kind: str, action: str, actor: str, attributes: Dict[str, str]) -> int:
        """Send an event to all listeners; return its time in nanoseconds, which never repeats."""
        with self._lock:
            self._last = max(self._last + 1, int(time.time() * 1e9))
            event = make_event(kind, action, actor, attributes, self._last)
            self._kept.append(event)
            self.published += 1
            for listener in list(self._listeners):
                listener.send(event)
                if listener.ended:
                    self._listeners.discard(listener)
            return self._last

    def follow(self, listener: Listener, since: Optional[int], until: Optional[int], live: bool) -> None:
        """Open a stream of the kept events from ``since`` to ``until`` (nanoseconds) and, if ``live``, of new ones.

        A client that has read the answer's head misses nothing. (A real engine sends the head a moment before it
        begins to listen: use ``since`` there.)
        """
        with self._lock:
            listener.connection.start_stream()
            if since is not None:
                for event in self._kept:
                    if since <= event.time_nano and (until is None or event.time_nano <= until):
                        listener.send(event)
            if live and not listener.ended:
                self._listeners.add(listener)

    def forget(self, listener: Listener) -> None:
        with self._lock:
            self._listeners.discard(listener)

    def forget_past(self) -> None:
        """Forget the kept events, as a real engine does when it ends."""
        with self._lock:
            self._kept.clear()

    @property
    def listeners(self) -> int:
        """Return the number of open event streams."""
        with self._lock:
            return len(self._listeners)


def parse_time(text: str) -> Tuple[int, int]:
    """Parse ``seconds[.nanoseconds]`` of a since or until parameter to (nanoseconds, whole seconds).

    :raises ValueError: it is no number; the text is an engine's.
    """
    whole, _, part = text.partition(".")
    try:
        seconds = int(whole)
        nanoseconds = int((part + "000000000")[:9]) if part else 0
    except ValueError as error:
        raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax') from error
    return seconds * 1000000000 + nanoseconds, seconds
