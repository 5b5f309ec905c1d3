"""The way through xapi to a daemon's socket, as a real xapi 26.1.4 was seen to go it."""

import base64
import contextlib
import os
import socket
import ssl
import threading
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import pytest

from tests.waiting import until
from xscontainer.simulator.xapi import ROOT_PASSWORD, Pool, SimHost
from xscontainer.simulator.xapi.state.session_store import Session

DEADLINE = 10.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Service:
    """A daemon: keeps each request and answers it."""

    def __init__(self, directory: str, answer: "Callable[[socket.socket], None]") -> None:
        os.makedirs(directory, exist_ok=True)
        self.requests: List[bytes] = []
        self.left = threading.Event()
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(os.path.join(directory, "some"))
        self._listener.listen(8)
        self._thread = threading.Thread(target=self._run, name="service")
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(DEADLINE)
                    self.requests.append(head(connection))
                    self._answer(connection)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(DEADLINE)


def head(connection: Any) -> bytes:
    found = b""
    while b"\r\n\r\n" not in found:
        data = connection.recv(4096)
        if not data:
            break
        found += data
    return found


@pytest.fixture(scope="module")
def pool(tmp_path_factory: Any) -> Iterator[Pool]:
    with Pool(str(tmp_path_factory.mktemp("p")), hosts=2, https=True) as made:
        made.add_user("reader", "pw", "read-only")
        yield made


@pytest.fixture
def serve(pool: Pool) -> Iterator[Callable[..., Service]]:
    services: List[Tuple[Service, str]] = []

    def start(answer: Any = OK, number: int = 0) -> Service:
        send = answer if callable(answer) else lambda connection: connection.sendall(answer)
        place = pool.hosts[number].service_dir
        services.append((Service(place, send), os.path.join(place, "some")))
        return services[-1][0]

    yield start
    for service, path in services:
        service.close()
        os.unlink(path)


def session(pool: Pool, user: str = "") -> Session:
    return pool.sessions.open(pool.coordinator, pool.sessions.users.get(user), user or "root", "")


@contextlib.contextmanager
def connected(host: SimHost, encrypted: bool = True) -> "Iterator[Any]":
    address = (host.address, host.https_port) if encrypted else ("127.0.0.1", host.tcp_port)
    with socket.create_connection(address, DEADLINE) as plain:
        if not encrypted:
            yield plain
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(plain) as secure:
            yield secure


def send(connection: Any, method: str = "GET", path: str = "/services/plugin/some/x", body: bytes = b"",
         **headers: str) -> None:
    lines = [f"{method} {path} HTTP/1.1", "Host: pool"]
    lines += [f"{name.replace('_', '-') if name != 'STUNNEL_PROXY' else name}: {value}"
              for name, value in headers.items()]
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)


def rest(connection: Any) -> bytes:
    found = b""
    while True:
        data = connection.recv(65536)
        if not data:
            return found
        found += data


def ask(host: SimHost, encrypted: bool = True, **more: Any) -> bytes:
    with connected(host, encrypted) as connection:
        send(connection, **more)
        return rest(connection)


def test_a_request_arrives_rewritten(pool: Pool, serve: "Callable[..., Service]") -> None:
    service = serve()
    ref = session(pool).ref
    answer = ask(pool.coordinator, path="/services/plugin/some/a/b?c=1&d=%20", Cookie=f"session_id={ref}; other=a b",
                 Last_Event_ID="7", STUNNEL_PROXY="forged", User_Agent="me", Accept="*/*", Connection="keep-alive")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b"\r\n\r\nok")
    lines = service.requests[0].decode().split("\r\n")
    cookie = f"session_id={ref.replace(':', '%3a')}&%20other=a%20b"
    assert lines[:6] == ["GET /services/plugin/some/a/b?c=1&d=%20 HTTP/1.1", f"cookie: {cookie}", "accept: */*",
                         "host: pool", "user-agent: me", "connection: close"]
    assert lines[6].startswith("STUNNEL_PROXY: TCP6 ::ffff:127.")
    assert lines[7:] == ["last-event-id: 7", "stunnel_proxy: forged", "", ""]


def test_without_tls_there_is_no_proxy_header(pool: Pool, serve: "Callable[..., Service]") -> None:
    service = serve()
    ask(pool.coordinator, encrypted=False, path=f"/services/plugin/some?session_id={session(pool).ref}")
    assert b"STUNNEL_PROXY" not in service.requests[0]


def test_a_session_of_the_coordinator_is_valid_at_a_member(pool: Pool, serve: "Callable[..., Service]") -> None:
    serve(number=1)
    assert ask(pool.hosts[1], path=f"/services/plugin/some?session_id={session(pool).ref}").endswith(b"ok")


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


@pytest.mark.parametrize("headers, status", [
    ({}, b"401"), ({"Cookie": "other=1; session_id={ref}"}, b"401"), ({"Cookie": "session_id={ref}"}, b"200"),
    ({"Authorization": basic("reader", "pw")}, b"200"), ({"Authorization": basic("reader", "no")}, b"401"),
    ({"Authorization": basic("root", ROOT_PASSWORD)}, b"200"), ({"Authorization": "Basic !"}, b"401"),
    ({"Cookie": "session_id=OpaqueRef%3agone"}, b"500")])
def test_credentials_decide_whether_a_request_arrives(pool: Pool, serve: "Callable[..., Service]",
                                                      headers: "Dict[str, str]", status: bytes) -> None:
    service = serve()
    ref = session(pool, "reader").ref
    more: Dict[str, Any] = {name: value.format(ref=ref) for name, value in headers.items()}
    answer = ask(pool.coordinator, **more)
    assert answer.split(b" ")[1] == status
    assert len(service.requests) == (status == b"200")
    assert (b'www-authenticate: Basic realm="xapi"' in answer) == (status == b"401")


@pytest.mark.parametrize("user, method, status", [("reader", "POST", b"403"), ("reader", "PUT", b"403"),
                                                 ("", "POST", b"200"), ("", "DELETE", b"501")])
def test_the_method_needs_its_permission(pool: Pool, serve: "Callable[..., Service]", user: str, method: str,
                                         status: bytes) -> None:
    def take(connection: socket.socket) -> None:
        while not service.requests[0].endswith(b"hello"):
            service.requests[0] += connection.recv(5)
        connection.sendall(OK)

    service = serve(take)
    ref = session(pool, user).ref
    answer = ask(pool.coordinator, method=method, path=f"/services/plugin/some?session_id={ref}", body=b"hello",
                 Content_Length="5")
    assert answer.split(b" ")[1] == status


@pytest.mark.parametrize("written, seen", [
    (b"HTTP/1.1 200 OK\r\nA-B: 1\r\nWhen: 12:30\r\nContent-Length: 2\r\nC: 2\r\n\r\nokmore",
     b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nc: 2\r\n: \r\na-b: 1\r\n\r\nok"),
    (b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone",
     b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\n"),
    (b"HTTP/1.1 200 OK\r\n\r\nto the end", b"HTTP/1.1 200 OK\r\n\r\nto the end")])
def test_an_answer_is_relayed_with_xapis_losses(pool: Pool, serve: "Callable[..., Service]", written: bytes,
                                                seen: bytes) -> None:
    serve(written)
    assert ask(pool.coordinator, path=f"/services/plugin/some?session_id={session(pool).ref}") == seen


def test_an_answer_streams_also_after_the_session_has_ended(pool: Pool, serve: "Callable[..., Service]") -> None:
    go, gone = threading.Event(), threading.Event()

    def stream(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        connection.sendall(b"one\n")
        go.wait(DEADLINE)
        try:
            while True:
                connection.sendall(b":\n")
                gone.wait(0.01)
        except OSError:
            gone.set()

    serve(stream)
    login = session(pool)
    with connected(pool.coordinator) as connection:
        send(connection, path=f"/services/plugin/some?session_id={login.ref}")
        assert head(connection).startswith(b"HTTP/1.1 200 OK")
        pool.sessions.end([login])
        go.set()
        found = b""
        while b":\n:\n" not in found:
            found += connection.recv(100)
        assert not gone.is_set()
    assert gone.wait(DEADLINE)  # the client has left


@pytest.mark.parametrize("stale, statuses", [(False, [b"404"]), (True, [b"404", b"500"])])
def test_a_service_that_is_not_there(pool: Pool, stale: bool, statuses: "List[bytes]") -> None:
    place = os.path.join(pool.coordinator.service_dir, "some")
    os.makedirs(pool.coordinator.service_dir, exist_ok=True)
    if stale:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
            left.bind(place)
    try:
        answer = ask(pool.coordinator, path=f"/services/plugin/some?session_id={session(pool).ref}")
    finally:
        if stale:
            os.unlink(place)
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == statuses


@pytest.mark.parametrize("size, answered", [(1006, True), (1007, False)])
def test_a_long_head_is_closed_without_a_word(pool: Pool, serve: "Callable[..., Service]", size: int,
                                              answered: bool) -> None:
    serve()
    ref = session(pool).ref
    start = f"GET /services/plugin/some?session_id={ref} HTTP/1.1\r\nX: "
    with connected(pool.coordinator) as connection:
        connection.sendall(start.encode() + b"a" * (size - len(start) - 4) + b"\r\n\r\n")
        try:
            found = rest(connection)
        except OSError:
            found = b""
        assert bool(found) == answered


def test_a_restart_of_xapi_ends_the_streams(tmp_path: Path) -> None:
    ended = threading.Event()

    def stream(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        connection.recv(1)
        ended.set()

    with Pool(str(tmp_path), hosts=1, https=True) as pool:
        service = Service(pool.coordinator.service_dir, stream)
        try:
            with connected(pool.coordinator) as connection:
                send(connection, path=f"/services/plugin/some?session_id={session(pool).ref}")
                head(connection)
                pool.coordinator.restart()
                until(ended.is_set, "the daemon was not left", DEADLINE)
        finally:
            service.close()


# --- static files -------------------------------------------------------------


@pytest.mark.parametrize("path, status, kind", [
    ("/page/", b"200", "text/html"), ("/page/app.js?v=1", b"200", "application/javascript"),
    ("/page/none", b"404", None),
    ("/page/../../host1/pool.conf", b"404", None), ("/page/%2e%2e/%2e%2e/host1/pool.conf", b"404", None)])
def test_files_are_served_over_https(pool: Pool, path: str, status: bytes, kind: Optional[str]) -> None:
    place = Path(pool.web_dir) / "page"
    place.mkdir(parents=True, exist_ok=True)
    (place / "index.html").write_text("<p>")
    (place / "app.js").write_text("1")
    answer = ask(pool.coordinator, path=path, Connection="close") if kind is None else first(pool, path)
    assert answer.split(b" ")[1] == status
    if kind is not None:
        assert f"content-type: {kind}\r\n".encode() in answer and b"cache-control" not in answer
    assert ask(pool.coordinator, encrypted=False, path=path).startswith(b"HTTP/1.1 403")


def first(pool: Pool, path: str) -> bytes:
    with connected(pool.coordinator) as connection:
        send(connection, path=path)
        return head(connection)
