"""The HTTP server of a simulated host: one thread for each connection, keep-alive, TCP_NODELAY."""

import contextlib
import os
import socket
import ssl
import struct
import threading
import time
from typing import Callable, Dict, List, NamedTuple, Optional, Set, Tuple

from xscontainer.simulator.xapi.wire.exchange import Exchange
from xscontainer.simulator.xapi.wire.failures import Dropped, HttpError
from xscontainer.simulator.xapi.wire.static_files import read as read_file

BODY_LIMIT = 307200
_HEAD_LIMIT = 65536
_TCP_HEAD_LIMIT = 1006  # bytes; xapi closes the connection without an answer
_DISCARD_LIMIT = 64 * 1024 * 1024
# Seconds that a client may go on sending its body after the answer.
_LINGER = 5.0
_HANDSHAKE = 5.0  # seconds
_RESET = struct.pack("ii", 1, 0)
_REASONS = {200: "OK", 401: "Unauthorised", 403: "Forbidden", 404: "Not Found", 500: "Internal Error",
            501: "Method Not Implemented"}
_PAGE_500 = (
    "<html><body><h1>HTTP 500 internal server error</h1>An unexpected error occurred; please wait a while and "
    "try again. If the problem persists, please contact your support representative."
    "<h1> Additional information </h1>{}</body></html>"
)
_PAGE_403 = "<html><body><h1>HTTP 403 forbidden</h1>Access to the requested resource is forbidden.</body></html>"
_PAGE_401 = "<html><body><h1>HTTP 401 unauthorised</h1>Please check your credentials and retry.</body></html>"
_PAGE_404 = (
    '<!DOCTYPE HTML PUBLIC "-//IETF//DTD HTML 2.0//EN"> <html><head> <title>404 Not Found</title> </head>'
    "<body> <h1>Not Found</h1> <p>The requested URL {} was not found on this server.</p> "
    "<hr><address>Xapi Server</address></body></html>"
)
_PAGE_501 = "<html><body><h1>HTTP 501 Method Not Implemented</h1><p>Unknown {} not supported.<br /></p></body></html>"


class HttpRequest(NamedTuple):
    """A request whose body has been read; `local` is True on the Unix socket."""

    path: str
    body: bytes
    local: bool


class Answer(NamedTuple):
    """A complete answer; `no_store`: it forbids caches to keep it."""

    status: int
    content_type: str
    body: bytes
    no_store: bool = True


Responder = Callable[[HttpRequest], Answer]
Streamer = Callable[[Exchange], None]


def _html(text: str) -> str:
    for char, entity in (("&", "&amp;"), (">", "&gt;"), ("<", "&lt;"), ("'", "&apos;"), ('"', "&quot;")):
        text = text.replace(char, entity)
    return text


def error_answer(error: HttpError) -> Answer:
    """Return XAPI's page for an HTTP error."""
    page = {401: _PAGE_401, 403: _PAGE_403, 501: _PAGE_501.format(error.text)}.get(error.status)
    return Answer(error.status, "text/html", (page or _PAGE_500.format(_html(error.text))).encode("utf-8", "replace"))


class Connection:
    """One client's connection and the thread that serves it."""

    def __init__(self, server: "Server", sock: socket.socket, local: bool, tls: Optional[ssl.SSLContext]) -> None:
        self._server = server
        self._sock = sock
        self._tls = tls
        self._local = local
        self._buffer = b""
        self.thread = threading.Thread(target=self._run, name="xapi-connection", daemon=True)

    def close(self, reset: bool) -> None:
        """End the connection from outside; with `reset` the client sees it break."""
        try:
            if reset and not self._local:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)  # also of TLS: its thread may be reading
        except OSError:
            pass  # closed already

    def _run(self) -> None:
        try:
            if self._tls is not None:
                self._sock.settimeout(_HANDSHAKE)
                self._sock = self._tls.wrap_socket(self._sock, server_side=True)
                self._sock.settimeout(None)
            while self._serve_one():
                pass
            self._end_tls()
        except (OSError, Dropped):
            pass
        finally:
            self._sock.close()
            self._server.forget(self)

    def _serve_one(self) -> bool:
        head = self._read_head()
        if head is None:
            return False
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split()
        headers = {}
        for line in lines[1:]:
            name, _colon, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        name = " ".join((words[0], words[1].partition("?")[0])) if len(words) > 1 else ""
        streamer = self._server.streamer_of(name)
        if streamer is not None:
            self._stream(streamer, words, headers)
            return False
        keep = len(words) == 3 and words[2] != "HTTP/1.0" and headers.get("connection", "").lower() != "close"
        try:
            answer = self._answer(words, headers)
            keep = keep and answer.status == 200
        except HttpError as error:
            answer, keep = error_answer(error), False
        self._send(answer, keep)
        return keep

    def _stream(self, streamer: Streamer, words: List[str], headers: Dict[str, str]) -> None:
        proxy = ""
        if self._tls is not None:
            (client, port), (own, own_port) = self._sock.getpeername(), self._sock.getsockname()
            proxy = f"TCP6 ::ffff:{client} ::ffff:{own} {port} {own_port}"  # stunnel's line
        exchange = Exchange(words[0], words[1], headers, self._local, self._read_some, self._sock.sendall, proxy)
        try:
            streamer(exchange)
        except HttpError as error:
            self._send(error_answer(error), keep=False)
        # A client that is still sending would get EPIPE instead of the answer.
        self._end_tls()
        self._sock.shutdown(socket.SHUT_WR)
        self._sock.settimeout(_LINGER)
        for _chunk in range(_DISCARD_LIMIT // 262144):
            if not self._sock.recv(262144):
                break

    def _end_tls(self) -> None:
        """Tell the client that this is the end, as stunnel does."""
        if isinstance(self._sock, ssl.SSLSocket):
            self._sock.settimeout(_LINGER)
            with contextlib.suppress(OSError, ValueError):  # the client has left; or this was done before
                self._sock.unwrap()

    def _read_some(self, most: int) -> bytes:
        if not self._buffer:
            return self._sock.recv(most)
        data, self._buffer = self._buffer[:most], self._buffer[most:]
        return data

    def _answer(self, words: List[str], headers: Dict[str, str]) -> Answer:
        if len(words) < 2:
            raise Dropped()
        method, path = words[0], words[1].partition("?")[0]
        if method == "GET":
            if not self._local and self._tls is None:
                raise HttpError(403)
            found = read_file(self._server.web_dir, path) if self._tls is not None else None
            if found is not None:
                return Answer(200, found[0], found[1], no_store=False)
            return Answer(404, "", _PAGE_404.format(path).encode())
        if method == "OPTIONS":
            return Answer(200, "", b"")
        if method == "PUT":
            raise HttpError(403)
        if method != "POST":
            raise HttpError(501, method)
        length = headers.get("content-length", "")
        if not length.isdigit():
            raise HttpError(500, 'Failure("We require a content-length: HTTP header")')
        if int(length) > BODY_LIMIT:
            # A client that is still sending would get EPIPE instead of the answer.
            self._discard(int(length))
            raise HttpError(500, "Http_svr.Client_requested_size_over_limit")
        return self._server.respond(HttpRequest(path, self._read_body(int(length)), self._local))

    def _read_head(self) -> Optional[bytes]:
        """Return the request line and headers, None at the end of the stream."""
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if end >= 0 and len(self._buffer[:end].split(b"\r\n")[0].split()) >= 2:
                head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
                return head if self._local or end + 4 <= _TCP_HEAD_LIMIT else None
            data = self._sock.recv(65536)
            if not data or len(self._buffer) > (_HEAD_LIMIT if self._local else _TCP_HEAD_LIMIT):
                return None
            self._buffer += data

    def _read_body(self, length: int) -> bytes:
        parts = [self._buffer]
        missing = length - len(self._buffer)
        while missing > 0:
            data = self._sock.recv(min(missing, 262144))
            if not data:
                raise Dropped()
            parts.append(data)
            missing -= len(data)
        whole = b"".join(parts)
        self._buffer = whole[length:]
        return whole[:length]

    def _discard(self, length: int) -> None:
        missing = min(length, _DISCARD_LIMIT) - len(self._buffer)
        while missing > 0:
            data = self._sock.recv(262144)
            if not data:
                raise Dropped()
            missing -= len(data)

    def _send(self, answer: Answer, keep: bool) -> None:
        head = [
            "HTTP/1.1 {} {}".format(answer.status, _REASONS[answer.status]),
            "connection: " + ("keep-alive" if keep else "close"),
        ]
        if answer.no_store:
            head.append("cache-control: no-cache, no-store")
        if answer.status == 401:
            head.append('www-authenticate: Basic realm="xapi"')
        if answer.content_type:
            head.append("content-type: " + answer.content_type)
        head.append("content-length: {}".format(len(answer.body)))
        self._sock.sendall(("\r\n".join(head) + "\r\n\r\n").encode() + answer.body)


class Server:
    """The listening sockets of a host; start() and stop() may alternate.

    :param respond: answers a request whose body has been read.
    :param streamer_of: gives, by method and path ("PUT /x"), the handler of a request whose body is not read before.
    :param web_dir: directory of the files that are served over HTTPS.
    """

    def __init__(
        self, respond: Responder, streamer_of: Callable[[str], Optional[Streamer]] = lambda name: None,
        web_dir: str = os.devnull,
    ) -> None:
        self.respond = respond
        self.web_dir = web_dir
        self.streamer_of = streamer_of
        self._lock = threading.Lock()
        self._listeners: List[socket.socket] = []
        self._threads: List[threading.Thread] = []
        self._connections: Set[Connection] = set()
        self._running = False
        self._encrypted: Optional[Tuple[socket.socket, ssl.SSLContext]] = None

    def start(
        self, listeners: List[socket.socket], encrypted: "Optional[Tuple[socket.socket, ssl.SSLContext]]" = None
    ) -> None:
        """Serve on sockets that are bound and listening; they are closed by stop().

        :param encrypted: one more socket, for HTTPS.
        """
        self._running = True
        self._encrypted = encrypted
        self._listeners = listeners = listeners + ([encrypted[0]] if encrypted else [])
        self._threads = [
            threading.Thread(target=self._accept, args=(s,), name="xapi-accept", daemon=True) for s in listeners
        ]
        for thread in self._threads:
            thread.start()

    def stop(self, reset: bool = False, timeout: float = 10.0) -> None:
        """Close everything and wait up to `timeout` seconds for the threads; with `reset` connections break."""
        with self._lock:
            self._running = False
            connections = list(self._connections)
        for listener in self._listeners:
            try:
                listener.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # not every platform can shut a listening socket down; it is closed anyway
            listener.close()
        for connection in connections:
            connection.close(reset)
        deadline = time.monotonic() + timeout
        for thread in self._threads + [c.thread for c in connections]:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        self._listeners, self._threads = [], []

    def forget(self, connection: Connection) -> None:
        """Remove a connection that has ended."""
        with self._lock:
            self._connections.discard(connection)

    def _accept(self, listener: socket.socket) -> None:
        local = listener.family == socket.AF_UNIX
        tls = self._encrypted[1] if self._encrypted and self._encrypted[0] is listener else None
        while True:
            try:
                sock, _address = listener.accept()
            except OSError:
                return
            if not local:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(self, sock, local, tls)
            with self._lock:
                if not self._running:
                    sock.close()
                    return
                self._connections.add(connection)
                connection.thread.start()
