"""GET, POST and PUT on /services/plugin/NAME/...: xapi's way to a daemon's Unix socket in dom0.

As in xapi 26.1: the request is authenticated, written anew and sent to the socket; the answer is relayed as it comes.
The traps are kept, because a daemon and a page must live with them:

* only the first cookie can be a session, since the others keep the blank before their name
* a header of the answer with a second colon is lost
* an answer whose status is not 200 loses its body
* a client that has left is noticed at the next write only, and a session that has ended goes on streaming
* a socket at which nobody listens gives two answers, 404 and 500
"""

import base64
import binascii
import os
import select
import socket
from typing import List, NamedTuple, Optional, Tuple

from xscontainer.simulator.xapi.state.host_data import HostData
from xscontainer.simulator.xapi.state.pool_data import PoolData
from xscontainer.simulator.xapi.wire.exchange import Exchange
from xscontainer.simulator.xapi.wire.failures import Dropped, HttpError, XapiError

PREFIX = "/services/plugin/"
# The permission that a caller needs, by method.
PERMISSIONS = {"GET": "http/get_services", "POST": "http/post_services", "PUT": "http/put_services"}
# xapi writes these in this order; all other headers follow.
_ORDER = ("transfer-encoding", "accept", "content-length", "authorization", "task-id", "subtask-of", "content-type",
          "host", "user-agent")
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~")
_CHUNK = 65536
_LONGEST_HEAD = 65536
_LOOK = 0.1  # s between two looks whether this xapi still runs


def serve(pool: PoolData, host: HostData, exchange: Exchange) -> None:
    """Serve one request that came in at ``host``.

    :raises HttpError: it fails before the answer has begun.
    """
    method = exchange.name.split(" ", 1)[0]
    name = exchange.path[len(PREFIX):].split("/")[0]
    _authorise(pool, exchange, PERMISSIONS[method])
    pool.stats.count(f"{method} {PREFIX}{name}", "", exchange.length or 0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as service:
        try:
            _connect(service, host.service_dir, name)
        except OSError as error:
            exchange.begin(404, {})
            if isinstance(error, ConnectionRefusedError):
                raise HttpError(500, "Unix.Unix_error(Unix.ECONNREFUSED, &quot;connect&quot;, &quot;&quot;)") from error
            return
        try:
            service.sendall(_request(method, exchange))
            _send_body(method, exchange, service)
            _relay(host, exchange, service)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Dropped() from error


def _connect(service: socket.socket, directory: str, name: str) -> None:
    # A directory of a test may have a longer path than a socket's address holds.
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        service.connect(f"/proc/self/fd/{descriptor}/{name}")
    finally:
        os.close(descriptor)


# --- the request --------------------------------------------------------------


def _authorise(pool: PoolData, exchange: Exchange, permission: str) -> None:
    ref = dict(_cookies(exchange)).get("session_id") or exchange.query.get("session_id")
    if ref:
        try:
            role = pool.sessions.find(ref).role
        except XapiError as failed:
            raise HttpError(500, f"Server_error({failed.description[0]}, [ {ref} ])") from failed
    else:
        role = _role_of(pool, exchange.headers.get("authorization", ""))
    if role is not None and role not in pool.model.roles[permission]:
        raise HttpError(403)


def _role_of(pool: PoolData, authorization: str) -> Optional[str]:
    """Return the role of a user who sends name and password; None: root."""
    kind, _space, word = authorization.partition(" ")
    try:
        name, _colon, password = base64.b64decode(word.encode(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeError):
        raise HttpError(401) from None
    user = pool.sessions.users.get(name)
    if kind.lower() != "basic" or user is None or user.password != password:
        raise HttpError(401)
    return user.role


def _cookies(exchange: Exchange) -> "List[Tuple[str, str]]":
    text = exchange.headers.get("cookie", "")
    pairs = (each.partition("=") for each in text.split(";")) if text else ()
    return [(name, value) for name, _equals, value in pairs]


def _encoded(text: str) -> str:
    return "".join(chr(byte) if chr(byte) in _PLAIN else f"%{byte:02x}" for byte in text.encode("latin-1", "replace"))


def _request(method: str, exchange: Exchange) -> bytes:
    """Return the request as xapi writes it for the daemon."""
    lines = [f"{method} {exchange.target} HTTP/1.1"]
    cookies = _cookies(exchange)
    if cookies:
        lines.append("cookie: " + "&".join(f"{_encoded(name)}={_encoded(value)}" for name, value in cookies))
    lines += [f"{name}: {exchange.headers[name]}" for name in _ORDER if name in exchange.headers]
    lines.append("connection: close")
    if exchange.proxy:
        lines.append(f"STUNNEL_PROXY: {exchange.proxy}")  # a client's own header of that name is in lower case
    lines += [f"{name}: {value}" for name, value in exchange.headers.items()
              if name not in _ORDER and name not in ("cookie", "connection")]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def _send_body(method: str, exchange: Exchange, service: socket.socket) -> None:
    left = exchange.length
    while method != "GET" and left != 0:
        data = exchange.read(_CHUNK if left is None else min(_CHUNK, left))
        if not data:
            return
        service.sendall(data)
        left = None if left is None else left - len(data)


# --- the answer ---------------------------------------------------------------


class _Head(NamedTuple):
    """The head of an answer, as xapi passes it on."""

    status: int
    text: bytes
    length: Optional[int]


def _head(lines: "List[str]") -> _Head:
    words = lines[0].split(None, 2)
    if len(words) < 2 or not words[1].isdigit():
        raise HttpError(500, "Failed to parse HTTP response status line")
    known: List[str] = []
    others: List[str] = []
    length = None
    for line in lines[1:]:
        parts = line.split(":")
        name, value = (parts[0].strip().lower(), parts[1].strip()) if len(parts) == 2 else ("", "")
        if name == "content-length" and value.isdigit():
            length = int(value)
        (known if name in ("content-length", "task-id") else others).append(f"{name}: {value}")
    text = "\r\n".join([lines[0], *known, *reversed(others)]) + "\r\n\r\n"
    return _Head(int(words[1]), text.encode("latin-1"), length)


def _relay(host: HostData, exchange: Exchange, service: socket.socket) -> None:
    buffer = b""
    while b"\r\n\r\n" not in buffer:
        data = _receive(host, service, _CHUNK)
        if not data or len(buffer) > _LONGEST_HEAD:
            raise HttpError(500, "Http_client.Http_request_rejected")
        buffer += data
    raw, _end, body = buffer.partition(b"\r\n\r\n")
    head = _head(raw.decode("latin-1").split("\r\n"))
    exchange.begun = True
    exchange.write(head.text)
    left = head.length if head.status == 200 else 0
    while left is None or left > 0:
        data, body = body or _receive(host, service, _CHUNK), b""
        if not data:
            return
        data = data if left is None else data[:left]
        exchange.write(data)
        left = None if left is None else left - len(data)


def _receive(host: HostData, service: socket.socket, most: int) -> bytes:
    """Return what the daemon sends next; b"": it, or this xapi, has ended."""
    life = host.life
    waiting = select.poll()
    waiting.register(service, select.POLLIN)
    while host.up and host.life == life:
        if waiting.poll(int(_LOOK * 1000)):
            return service.recv(most)
    return b""
