"""Two sources of a log that is followed: an HTTP answer without end, and a request every two seconds."""

import http.client
import io
import threading
import time
from abc import abstractmethod
from typing import Any, Callable, List, Optional, Tuple

from xscontainer.core.log_follow import Position
from xscontainer.core.log_framing import FramingError, LogParser
from xscontainer.core.log_lines import MOST_LINES, RawLine
from xscontainer.engine import failures
from xscontainer.engine.connection import EngineStream
from xscontainer.engine.http import HEAD_BYTES, Answer
from xscontainer.engine.lines import ByteStream, ChunkDecoder, Subscription
from xscontainer.engine.logs import READING, LogOptions, RawLog
from xscontainer.errors import ContainerNotFound, EngineGarbage, EngineLost

POLL_SECONDS = 2.0


class LogRefused(Exception):
    """The engine answers the request for a stream with an error.

    :ivar answer: the engine's answer.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"HTTP status {answer.status}")
        self.answer = answer


class LogSource(Subscription):
    """Lines of a log as they are written."""

    @property
    @abstractmethod
    def ended(self) -> bool:
        """True if the engine ended the log, as it does when the container ends, and all its lines were returned."""

    @abstractmethod
    def get(self, timeout: Optional[float]) -> RawLog:
        """Return the lines that arrive within ``timeout`` seconds (None: wait) in one read; none after close()."""


class LogStream(ByteStream, LogSource):
    """An answer to GET /containers/{id}/logs?follow=1, of which the head may come late.

    podman sends the head together with the first line: for a silent container that may take days.
    """

    def __init__(self, stream: EngineStream, path: str) -> None:
        super().__init__(stream)
        self._head: Optional[bytearray] = bytearray()  # None: it is complete
        self._refused: Optional[Answer] = None
        self._body = bytearray()  # of a refusal
        self._chunks: Optional[ChunkDecoder] = None
        self._missing: Optional[int] = None  # bytes of the body that have not arrived, if the engine says how many
        self._parser = LogParser()
        self._pending: List[RawLine] = []
        self._over = False
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: engine\r\n\r\n".encode("ascii"))

    def wait_for_head(self, seconds: float) -> None:
        """Wait until the engine accepts or refuses the request, ``seconds`` at most.

        :raises LogRefused: if the engine refuses. :raises EngineError, ConnectError: if the stream fails.
        """
        deadline = time.monotonic() + seconds
        while (self._head is not None or self._refused is not None) and not self.closed:
            data = self._receive(max(0.0, deadline - time.monotonic()))
            if data is None:
                return
            self._pending += self._take(data)

    @property
    def ended(self) -> bool:
        return self._over and not self._pending

    def get(self, timeout: Optional[float]) -> RawLog:
        """Return the lines of one read.

        :raises LogRefused: if the engine refuses.
        :raises EngineLost, TransportLost, EngineGarbage: if the stream breaks off or is not a log.
        """
        lines, self._pending = self._pending, []
        if lines or self._over:
            return RawLog(lines)
        data = self._receive(timeout)
        return RawLog([] if data is None else self._take(data))

    def _take(self, data: bytes) -> List[RawLine]:
        if not data:
            return self._connection_ended()
        if self._head is not None:
            self._head += data
            head, found, data = bytes(self._head).partition(b"\r\n\r\n")
            if not found:
                if len(self._head) > HEAD_BYTES:
                    raise EngineGarbage(f"{READING} failed: the head of the answer is longer than {HEAD_BYTES} bytes.")
                return []
            self._head = None
            self._read_head(head + found)
        data, last = self._content(data)
        if self._refused is not None:
            self._body += data[:HEAD_BYTES - len(self._body)]
            if last or len(self._body) >= HEAD_BYTES:
                raise LogRefused(self._refused._replace(body=bytes(self._body)))
            return []
        try:
            lines = self._parser.feed(data)
            if last:
                self._over = True
                lines += self._parser.end()
        except FramingError as error:
            raise EngineGarbage(f"{READING} failed: {error}.") from error
        return lines

    def _read_head(self, head: bytes) -> None:
        with failures.translating(READING, failures.API_SIDE):
            response = http.client.HTTPResponse(_Bytes(head), method="GET")  # type: ignore[arg-type]
            response.begin()
        if response.chunked:
            self._chunks = ChunkDecoder()
        else:
            self._missing = response.length
        if response.status != 200:
            self._refused = Answer(response.status, response.reason, {}, b"", False)
        response.close()

    def _content(self, data: bytes) -> Tuple[bytes, bool]:
        """Return the content in ``data``, and whether it is the last."""
        if self._chunks is not None:
            content = self._chunks.feed(data)
            return content, self._chunks.ended
        if self._missing is None:
            return data, False
        data = data[:self._missing]
        self._missing -= len(data)
        return data, self._missing == 0

    def _connection_ended(self) -> List[RawLine]:
        if self._refused is not None:
            raise LogRefused(self._refused._replace(body=bytes(self._body)))
        if self._head is not None or self._chunks is not None or self._missing:
            raise EngineLost(f"{READING} failed: the engine ended the connection within the log.")
        self._over = True
        return self._parser.end()


class _Bytes:
    """A socket for http.client that has received these bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: Any) -> io.BytesIO:
        return io.BytesIO(self._data)


class LogPoller(LogSource):
    """Asks for new lines every two seconds, where the engine cannot follow a log.

    That is podman with the logging driver journald while it writes its events to a file (podman issues 11255 and
    18987), and a guest that allows one SSH session, which other requests need.

    :param read: reads the log once, with the options that it is given.
    :param runs: returns whether the container runs; when it does not, the log ends.
    :param position: the reader's place in the log.
    """

    def __init__(self, read: "Callable[[LogOptions], RawLog]", runs: "Callable[[], bool]", options: LogOptions,
                 position: Position, seconds: float = POLL_SECONDS) -> None:
        self._read, self._runs = read, runs
        self._options = options
        self._position = position
        self._seconds = seconds
        self._next = time.monotonic()
        self._first = True
        self._over = False
        self._closing = threading.Event()

    @property
    def ended(self) -> bool:
        return self._over

    def get(self, timeout: Optional[float]) -> RawLog:
        wait = max(0.0, self._next - time.monotonic())
        if timeout is not None and timeout < wait:
            self._closing.wait(timeout)
            return RawLog([])
        if self._closing.wait(wait) or self._over:
            return RawLog([])
        # Asked before the log, so that the last lines of a container that ended are read.
        running = self._runs()
        try:
            found = self._poll()
        except ContainerNotFound:
            running, found = False, RawLog([])
        self._over = not running
        self._next = time.monotonic() + self._seconds
        return found

    def _poll(self) -> RawLog:
        options, first, self._first = self._options, self._first, False
        if self._position.since is not None:
            self._position.reopened()
            return self._read(options._replace(since=self._position.since, tail=MOST_LINES))
        if not first:
            return self._read(options._replace(tail=MOST_LINES))
        if options.tail:
            return self._read(options)
        # Only new lines are wanted: the newest old one says where they begin, by the guest's clock.
        for line in self._read(options._replace(tail=1)).lines:
            self._position.is_new(line)
        return RawLog([])

    def close(self) -> None:
        self.closed = True
        self._closing.set()
