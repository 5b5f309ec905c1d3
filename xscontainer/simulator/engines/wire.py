"""A fast HTTP/1.1 server side on a stream socket, with only what an Engine API needs.

The standard library's http.server parses headers with the e-mail parser (0.2 ms a request), which would be
most of the measured time with a hundred engines in one process.
"""

import email.utils
import http
import socket
import struct
import threading
import time
from typing import Dict, Iterator, NamedTuple, Optional, Tuple
from urllib.parse import parse_qsl

from xscontainer.simulator.engines import relay
from xscontainer.simulator.engines.faults import Fault

MAX_HEAD = 65536
MAX_BODY = 64 << 20
SEND_SECONDS = 5
_CHUNK = 65536
_REASONS = {status.value: status.phrase for status in http.HTTPStatus}


class Request(NamedTuple):
    """One request: method, decoded path, query, headers in lower case, body."""

    method: str
    target: str
    path: str
    query: Dict[str, str]
    headers: Dict[str, str]
    body: bytes


class BadRequest(Exception):
    """The peer has sent something that this server does not understand as HTTP."""


class Connection:
    """One client's connection. One thread reads; any thread may send whole chunks (send_chunk locks)."""

    def __init__(self, sock: socket.socket, common_headers: str, stopping: threading.Event) -> None:
        self.sock = sock
        self.fault: Optional[Fault] = None
        self.stopping = stopping
        self._common = common_headers
        self._buffer = b""
        self._lock = threading.Lock()
        self.head_only = False
        self.close_after = False
        # A client that does not read must not block the engine for long.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_SECONDS, 0))

    # -- reading ----------------------------------------------------------------------------------------------------
    def read(self) -> Optional[Request]:
        """Return the next request; None at the end of the connection.

        :raises BadRequest: malformed or beyond the limits.
        """
        while b"\r\n\r\n" not in self._buffer:
            if len(self._buffer) > MAX_HEAD:
                raise BadRequest("header too long")
            data = self.sock.recv(_CHUNK)
            if not data:
                return None
            self._buffer += data
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        try:
            method, target, version = lines[0].split(" ")
            headers = {key.lower(): value.strip() for key, value in (line.split(":", 1) for line in lines[1:])}
        except ValueError as error:
            raise BadRequest("malformed header") from error
        path, _, query = target.partition("?")
        self.head_only = method == "HEAD"
        self.close_after = version == "HTTP/1.0" or headers.get("connection", "").lower() == "close"
        body = self._read_body(headers)
        return Request(method, target, path, dict(parse_qsl(query, keep_blank_values=True)), headers, body)

    def _read_body(self, headers: Dict[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return b"".join(self._read_chunks())
        try:
            length = int(headers.get("content-length") or 0)
        except ValueError as error:
            raise BadRequest("malformed Content-Length") from error
        return self._take(length)

    def _read_chunks(self) -> Iterator[bytes]:
        total = 0
        while True:
            try:
                size = int(self._take_line().split(b";")[0], 16)
            except ValueError as error:
                raise BadRequest("malformed chunk") from error
            total += size
            if total > MAX_BODY:
                raise BadRequest("body too long")
            yield self._take(size)
            self._take_line()
            if not size:
                return

    def _take(self, count: int) -> bytes:
        if not 0 <= count <= MAX_BODY:
            raise BadRequest("body too long")
        parts = [self._buffer]
        have = len(self._buffer)
        while have < count:
            data = self.sock.recv(_CHUNK)
            if not data:
                raise BadRequest("body ended early")
            parts.append(data)
            have += len(data)
        whole = b"".join(parts)
        self._buffer = whole[count:]
        return whole[:count]

    def _take_line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            data = self.sock.recv(_CHUNK)
            if not data or len(self._buffer) > MAX_HEAD:
                raise BadRequest("line too long or cut off")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def wait_closed(self, until: Optional[float] = None) -> None:
        """Block until the client closes or until that time.monotonic(); drop what it sends."""
        relay.wait_closed(self.sock, until)

    # -- sending ----------------------------------------------------------------------------------------------------
    def answer(
        self, status: int, body: bytes = b"", content_type: str = "application/json",
        more: Tuple[Tuple[str, str], ...] = (), common: Optional[str] = None,
    ) -> None:
        """Send an answer with Content-Length; ``common`` replaces the header lines of all answers."""
        lines = [self._head(status, content_type if status not in (204, 304) else "", common)]
        lines += [f"{key}: {value}\r\n" for key, value in more]
        if status not in (204, 304):
            lines.append(f"Content-Length: {len(body)}\r\n")
        if self.close_after:
            lines.append("Connection: close\r\n")
        lines.append("\r\n")
        head = "".join(lines).encode("latin-1")
        self.send(head if self.head_only or status in (204, 304) else head + body)

    def _head(self, status: int, content_type: str, common: Optional[str] = None) -> str:
        kind = f"Content-Type: {content_type}\r\n" if content_type else ""
        date = email.utils.formatdate(time.time(), usegmt=True)
        common = self._common if common is None else common
        return f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\n{common}{kind}Date: {date}\r\n"

    def start_stream(self, content_type: str = "application/json") -> None:
        """Send the head of an answer in chunks."""
        self.send((self._head(200, content_type) + "Transfer-Encoding: chunked\r\n\r\n").encode("latin-1"))

    def start_raw(self, content_type: str, upgrade: bool) -> None:
        """Send the head of an answer; the connection carries raw bytes then until it is closed."""
        head = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else "HTTP/1.1 200 OK\r\n"
        self.close_after = True
        self.send(f"{head}Content-Type: {content_type}\r\n{self._common}\r\n".encode("latin-1"))

    def send_chunk(self, data: bytes) -> None:
        """Send one chunk of a started stream."""
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def end_stream(self) -> None:
        self.send(b"0\r\n\r\n")

    def send(self, data: bytes) -> None:
        """Send bytes with the fault that is set.

        :raises OSError: the client has closed or does not read.
        """
        with self._lock:
            relay.send_badly(self.sock, data, self.fault, self.stopping)
