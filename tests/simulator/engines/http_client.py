"""A plain HTTP client on a Unix socket: it shows the bytes on the wire, which a library would hide."""

import http.client
import json
import socket
import threading
from typing import Any, Dict, List, NamedTuple, Optional


class Answer(NamedTuple):
    status: int
    headers: Dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body.decode("utf-8"))


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float = 20.0) -> None:
        super().__init__("docker", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def call(path: str, method: str, target: str, body: Any = None, timeout: float = 20.0) -> Answer:
    """Send one request on a new connection; return the answer."""
    connection = UnixConnection(path, timeout)
    try:
        data = None if body is None else json.dumps(body).encode("utf-8")
        headers = {} if data is None else {"Content-Type": "application/json"}
        connection.request(method, target, body=data, headers=headers)
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


class EventStream:
    """An open GET /events; next_event() reads one. A context manager."""

    def __init__(self, path: str, query: str = "", version: str = "", timeout: float = 20.0) -> None:
        self._connection = UnixConnection(path, timeout)
        self._connection.request("GET", version + "/events" + query)
        self._response = self._connection.getresponse()
        self.status = self._response.status

    def next_event(self) -> Optional[Dict[str, Any]]:
        """Return the next event, None at the end of the stream.

        :raises socket.timeout: no event comes.
        """
        line = self._response.readline()
        return json.loads(line.decode("utf-8")) if line else None

    def __enter__(self) -> "EventStream":
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()
        self._connection.close()


class EventCollector:
    """Reads a stream in a thread; take_until() returns the events up to a certain one."""

    def __init__(self, path: str) -> None:
        self._stream = EventStream(path)
        self._new = threading.Condition()
        self._events: List[Dict[str, Any]] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                event = self._stream.next_event()
            except (OSError, ValueError, http.client.HTTPException, AttributeError):
                return
            if event is None:
                return
            with self._new:
                self._events.append(event)
                self._new.notify_all()

    def take_until(self, action: str, name: str, timeout: float = 20.0) -> List[Dict[str, Any]]:
        """Return all events up to the first with this action of the container (or network endpoint) ``name``."""
        def position() -> int:
            for index, event in enumerate(self._events):
                if event["Action"] == action and name in event["Actor"]["Attributes"].values():
                    return index + 1
            return 0

        with self._new:
            assert self._new.wait_for(position, timeout), f"no {action} of {name}: {self._events}"
            end = position()
            taken, self._events = self._events[:end], self._events[end:]
            return taken

    def close(self) -> None:
        # A blocked readline holds the response's lock: wake it at the socket.
        sock = self._stream._connection.sock
        if sock is not None:
            sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._stream.__exit__()
