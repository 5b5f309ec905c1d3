"""TLS without a real engine: each fault of a server has its own error and is noticed in time."""

import math
import socket
import ssl
import threading
import time
from functools import partial
from typing import Any, Callable, Iterator, List, Tuple, Type

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.engine.peers import OK_PING, Script, Server, http_answer, read_head
from tests.engine.tls_peers import ENGINE, NOW, QUICK, YEAR, Authority, connect, over_tls, server_context
from tests.waiting import until
from xscontainer.certificates import making
from xscontainer.engine import api
from xscontainer.engine.connection import EngineStream
from xscontainer.engine.tls import certs
from xscontainer.engine.tls import connection as tls
from xscontainer.errors import (
    EngineLost,
    EngineTimeout,
    EngineTooMuch,
    GuestSilent,
    GuestUnreachable,
    TLSCertificateInvalid,
    TLSClientRefused,
    TLSCredentialsInvalid,
    TLSProtocol,
    TransportLost,
)

VERSIONS = ["1.2", "1.3"]
Make = Callable[..., Server]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new()


@pytest.fixture
def serve(authority: Authority, tmp_path: Any) -> Iterator[Make]:
    """Start a server: (behaviour over TLS, version="", pair=its own, raw=behaviour without TLS)."""
    servers: List[Server] = []

    def make(does: Any, raw: bool = False, **options: Any) -> Server:
        servers.append(Server(does if raw else over_tls(
            server_context(str(tmp_path), options.pop("of", authority), **options), does)))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def opened() -> Iterator[List[tls.TLSConnection]]:
    """Close these connections after the test."""
    connections: List[tls.TLSConnection] = []
    yield connections
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_request_reaches_the_engine(authority: Authority, serve: Make, opened: List[tls.TLSConnection],
                                      version: str) -> None:
    script = Script({"/containers/json": http_answer(b'[{"Id": "one"}]')})
    server = serve(script, version=version)
    opened.append(connect(authority.credentials, server.port))
    engine = api.Engine(opened[0], ENGINE)
    assert engine.containers() == [{"Id": "one"}] == engine.containers()[:1]
    engine.close()
    # The stream that proved the connection carries the requests, too.
    assert server.connections == 1 and script.asked[0] == "GET /_ping"
    assert opened[0].describe() == f"127.0.0.1 port {server.port} (TLS)" and opened[0].method == "tls"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("fault", ["another CA", "another address", "ended", "not begun", "no address at all",
                                   "another purpose", "the CA ended"])
def test_each_fault_of_a_certificate_is_named(authority: Authority, serve: Make, version: str, fault: str) -> None:
    other = Authority.new("another CA")
    good, ended = _with_an_older_certificate("an old CA")
    pair, words = {
        "another CA": (other.server, "is issued by CN=another CA, which is not the CA"),
        "another address": (making.new_server(authority.ca, "x", ["10.0.0.1", "a.b"], NOW),
                            "is for 10.0.0.1, a.b, not for 127.0.0.1"),
        "ended": (making.new_server(authority.ca, "x", ["127.0.0.1"], NOW - 3 * YEAR), "expired on 20"),
        "not begun": (making.new_server(authority.ca, "x", ["127.0.0.1"], NOW + YEAR), "is not valid before 20"),
        # Only a common name, which older clients accept as the name.
        "no address at all": (making._leaf(authority.ca, "127.0.0.1", ExtendedKeyUsageOID.SERVER_AUTH, NOW, None),
                              "is for no name or address"),
        "another purpose": (authority.client, "(CN=a host) is refused: "),
        "the CA ended": (making.new_server(good, "x", ["127.0.0.1"], NOW), "CN=an old CA, which expired on 20"),
    }[fault]
    server = serve(Script(), version=version, pair=pair)
    ca = ended if fault == "the CA ended" else authority.ca.certificate
    with pytest.raises(TLSCertificateInvalid) as caught:
        connect(authority.credentials._replace(ca=other.client.certificate + ca), server.port)
    assert words in caught.value.message and caught.value.hint


def test_a_certificate_that_names_a_vm_is_valid_for_that_vm_only(authority: Authority, serve: Make,
                                                                 opened: List[tls.TLSConnection]) -> None:
    pair = making.new_server(authority.ca, "x", ["127.0.0.1"], NOW, "4a1b2c3d-0000-4000-8000-123456789abc")
    port = serve(Script(), pair=pair).port
    for vm in ("", "4a1b2c3d-0000-4000-8000-123456789abd"):
        with pytest.raises(TLSCertificateInvalid, match="is for VM 4a1b2c3d-.*, not for this VM"):
            connect(authority.credentials, port, vm=vm)
    opened.append(connect(authority.credentials, port, vm="4a1b2c3d-0000-4000-8000-123456789abc"))
    # A certificate that names no VM, as of other CAs, is bound to its address only.
    opened.append(connect(authority.credentials, serve(Script()).port, vm="4a1b2c3d-0000-4000-8000-123456789abc"))


def test_a_certificate_of_the_pools_ca_without_a_vm_is_valid_for_no_vm(serve: Make) -> None:
    pools = Authority.new(certs.POOL_CA)
    with pytest.raises(TLSCertificateInvalid, match="is for no VM, not for this VM"):
        connect(pools.credentials, serve(Script(), of=pools).port, vm="4a1b2c3d-0000-4000-8000-123456789abc")


def test_a_connection_reports_when_its_certificates_expire(serve: Make, opened: List[tls.TLSConnection]) -> None:
    foreign = Authority.new()
    day = 86400.0
    ca = making.new_ca("a CA", NOW - (making.CA_DAYS - 9) * day)
    before, after = making.new_ca("another", NOW), making.new_ca("a third", NOW)
    pair = making.new_server(ca, "x", ["127.0.0.1"], NOW)
    credentials = foreign.credentials._replace(ca=before.certificate + ca.certificate + after.certificate)
    opened.append(connect(credentials, serve(Script(), of=foreign, pair=pair).port))
    found = {end.whose: round((end.at - NOW) / day) for end in opened[0].ends()}
    assert found.pop("engine") in (8, 9) and found == {"ca": 9, "client": making.LEAF_DAYS}
    # An unreadable certificate, or one with intermediate certificates, causes no warning.
    assert certs.ca_end(b"x", ca.certificate) == math.inf
    stranger = ssl.PEM_cert_to_DER_cert(foreign.server.certificate)
    assert round((certs.ca_end(stranger, ca.certificate + after.certificate) - NOW) / day) == making.CA_DAYS


def _odd(ca: making.Pair, fault: str) -> making.Pair:
    """Return a malformed certificate whose issuer has the name of the CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    signer = making._load(ca)
    builder = making._builder(making._name("odd"), signer.certificate.subject, key, NOW, 10)
    for last in (100, 101):
        builder = builder.add_extension(x509.UnrecognizedExtension(
            x509.ObjectIdentifier(f"2.5.29.{last}"), b"0\x06\x87\x04\x7f\0\0\1"), critical=False)
    der = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    before, after = {
        "a version of its own": (b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07"),
        "an unknown signature": (b"\x2a\x86\x48\xce\x3d\x04\x03\x02", b"\x2a\x86\x48\xce\x3d\x04\x03\x7f"),
        "an extension twice": (b"\x06\x03\x55\x1d\x64", b"\x06\x03\x55\x1d\x65"),
    }[fault]
    assert before in der
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                serialization.NoEncryption())
    return making.Pair(ssl.DER_cert_to_PEM_cert(der.replace(before, after)), private.decode())


def test_a_malformed_certificate_is_refused_like_any_other(authority: Authority, serve: Make) -> None:
    """A guest can show any bytes as its certificate."""
    server = serve(Script(), pair=_odd(authority.ca, "a version of its own"))
    with pytest.raises(TLSCertificateInvalid, match="is refused: "):
        connect(authority.credentials, server.port)


def test_a_malformed_certificate_raises_only_value_errors(authority: Authority) -> None:
    with pytest.raises(ValueError):
        certs.load(_odd(authority.ca, "a version of its own").certificate)
    with pytest.raises(ValueError):
        certs.facts(certs.load(_odd(authority.ca, "an extension twice").certificate))
    assert certs.signer_of(certs.load(_odd(authority.ca, "an unknown signature").certificate),
                           authority.ca.certificate) is None


def _with_an_older_certificate(label: str) -> Tuple[making.Pair, str]:
    """Return a CA, and an expired certificate of the same key."""
    pair = making.new_ca(label, NOW)
    loaded = making._load(pair)
    name = loaded.certificate.subject
    older = making._builder(name, name, loaded.key, NOW - 11 * YEAR, making.CA_DAYS).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(loaded.key, hashes.SHA256())
    return pair, older.public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_refused_client_certificate_is_reported(authority: Authority, serve: Make, version: str) -> None:
    server = serve(Script(), version=version)
    stranger = Authority.new("another CA").client
    credentials = authority.credentials._replace(certificate=stranger.certificate, key=stranger.key)
    for _ in range(10):  # with TLS 1.3 the alert follows the handshake and races with the request
        with pytest.raises(TLSClientRefused) as caught:
            connect(credentials, server.port)
        assert "refuses our client certificate" in str(caught.value)


def test_an_expired_client_certificate_is_named_as_the_reason(authority: Authority, serve: Make) -> None:
    old = making.new_client(authority.ca, "old", NOW - 3 * YEAR)
    server = serve(Script())
    with pytest.raises(TLSClientRefused, match="it is valid from .* to .* new client certificate"):
        connect(authority.credentials._replace(certificate=old.certificate, key=old.key), server.port)


@pytest.mark.parametrize("does, error", [
    (lambda peer: (peer.recv(65536), peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")), TLSProtocol),
    (lambda peer: peer.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"), TLSProtocol),
    (lambda peer: peer.recv(65536), GuestSilent),  # and closes the connection
    (lambda peer: _reset(peer), GuestSilent),
    (lambda peer: _until_closed(peer), GuestSilent),
    (lambda peer: _trickle(peer), GuestSilent),
], ids=["http", "ssh", "end", "reset", "silent", "trickle"])
def test_a_server_without_tls_is_reported(authority: Authority, serve: Make, does: Any, error: Any) -> None:
    server = serve(does, raw=True)
    started = time.monotonic()
    with pytest.raises(error):
        connect(authority.credentials, server.port, QUICK._replace(handshake_timeout=0.5))
    assert time.monotonic() - started < 2.5


def _failing_clients(monkeypatch: pytest.MonkeyPatch, method: str, kind: "Type[OSError]") -> None:
    """Let ``method`` of each client's TLS socket raise ``kind``. Servers' sockets work."""
    real = getattr(ssl.SSLSocket, method)

    def fail(sock: ssl.SSLSocket, *args: Any, **options: Any) -> Any:
        if sock.server_side:
            return real(sock, *args, **options)
        raise kind(6, "TLS/SSL connection has been closed (EOF) (_ssl.c:992)")

    monkeypatch.setattr(ssl.SSLSocket, method, fail)


@pytest.mark.parametrize("kind", [
    ssl.SSLError, ssl.SSLZeroReturnError, ssl.SSLEOFError, ssl.SSLSyscallError, ssl.SSLWantReadError,
    ssl.SSLWantWriteError, ConnectionResetError, BrokenPipeError, socket.timeout, OSError])
def test_a_failed_handshake_has_the_same_error_for_each_exception_of_python(authority: Authority, serve: Make,
                                                                            monkeypatch: pytest.MonkeyPatch,
                                                                            kind: "Type[OSError]") -> None:
    """CPython 3.11.2 raises SSLZeroReturnError where other releases raise SSLEOFError."""
    server = serve(lambda peer: peer.recv(1), raw=True)
    _failing_clients(monkeypatch, "do_handshake", kind)
    with pytest.raises(TLSProtocol if kind is ssl.SSLError else GuestSilent):
        connect(authority.credentials, server.port)


@pytest.mark.parametrize("kind", [ssl.SSLZeroReturnError, ssl.SSLEOFError, ssl.SSLSyscallError, BrokenPipeError])
def test_a_closed_connection_has_the_same_error_for_each_exception_of_python(authority: Authority, serve: Make,
                                                                             opened: List[tls.TLSConnection],
                                                                             monkeypatch: pytest.MonkeyPatch,
                                                                             kind: "Type[OSError]") -> None:
    opened.append(connect(authority.credentials, serve(Script()).port))
    stream = opened[-1].open_stream(5.0)
    for method in ("send", "recv"):
        _failing_clients(monkeypatch, method, kind)
    with pytest.raises(EngineLost, match="closed the connection while the request was sent"):
        stream.sendall(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(EngineLost, match="closed the connection while the answer was read"):
        stream.receive(100, 5.0)


def _reset(peer: socket.socket) -> None:
    peer.recv(65536)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def _until_closed(peer: socket.socket) -> None:
    while peer.recv(65536):
        pass


def _trickle(peer: socket.socket) -> None:
    """Send the head of an endless record byte by byte, so that no single read takes long."""
    peer.settimeout(0.05)
    for byte in b"\x16\x03\x03\x40\x00" + bytes(500):
        peer.sendall(bytes([byte]))
        try:
            if not peer.recv(65536):
                return
        except socket.timeout:
            pass


@pytest.mark.parametrize("other_machine", ["another CA", "silent", "no TLS"])
def test_another_machine_at_the_first_address_is_passed_over(
        authority: Authority, tmp_path: Any, opened: List[tls.TLSConnection], other_machine: str) -> None:
    other = Authority.new("another CA")
    (tmp_path / "other").mkdir()
    does = {"another CA": over_tls(server_context(str(tmp_path / "other"), other), Script()),
            "silent": lambda peer: peer.recv(100000) and peer.recv(1),
            "no TLS": lambda peer: peer.sendall(b"220 ftp.example\r\n")}[other_machine]
    with Server(over_tls(server_context(str(tmp_path), authority), Script())) as engine, \
            Server(does, at=("127.0.0.2", engine.port)):
        for _ in range(2):
            opened.append(tls.connect(tls.Target(("127.0.0.2", "127.0.0.1"), engine.port), authority.credentials,
                                      QUICK._replace(handshake_timeout=1.0), ENGINE))
            assert opened[-1].address == "127.0.0.1"
        with pytest.raises((TLSCertificateInvalid, GuestSilent, TLSProtocol), match=r"127\.0\.0\.2"):
            tls.connect(tls.Target(("127.0.0.2", "127.0.0.3"), engine.port), authority.credentials,
                        QUICK._replace(handshake_timeout=0.5), ENGINE)


def test_a_closed_port_is_unreachable(authority: Authority) -> None:
    with socket.socket() as idle:
        idle.bind(("127.0.0.1", 0))
        with pytest.raises(GuestUnreachable, match="the engine listens"):
            connect(authority.credentials, idle.getsockname()[1])


def test_an_engine_without_an_answer_times_out(authority: Authority, serve: Make) -> None:
    server = serve(_until_closed)
    with pytest.raises(EngineTimeout):
        connect(authority.credentials, server.port, QUICK._replace(login_timeout=0.3))


@pytest.mark.parametrize("version", VERSIONS)
def test_closing_a_stream_wakes_its_reader(authority: Authority, serve: Make, opened: List[tls.TLSConnection],
                                           version: str) -> None:
    opened.append(connect(authority.credentials, serve(Script(), version=version).port))
    for end in ("stream", "connection"):
        stream = opened[0].open_stream(3.0)
        got: List[Any] = []
        reader = threading.Thread(target=partial(_receive_into, got, stream))
        reader.start()
        until(partial(getattr, stream, "_users", 0), "the reader waits")
        (stream if end == "stream" else opened[0]).close()
        reader.join(3.0)
        assert not reader.is_alive() and got == [b""]
        assert stream.stale and stream.receive(10, None) == b""
        with pytest.raises(EngineLost):
            stream.sendall(b"x")
    with pytest.raises(TransportLost):
        opened[0].open_stream(1.0)
    assert opened[0].closed


def _receive_into(got: List[Any], stream: EngineStream) -> None:
    got.append(stream.receive(10, None))


def test_the_number_of_connections_is_limited(authority: Authority, serve: Make,
                                              opened: List[tls.TLSConnection]) -> None:
    server = serve(Script())
    opened.append(connect(authority.credentials, server.port, engine=ENGINE._replace(max_channels=3)))
    streams = [opened[0].open_stream(3.0) for _ in range(3)]
    with pytest.raises(EngineTimeout):
        opened[0].open_stream(0.1)
    streams[1].close()
    streams[1].close()
    opened[0].open_stream(1.0)
    with pytest.raises(EngineTimeout):
        opened[0].open_stream(0.1)
    assert server.connections == 4


def test_extra_connections_are_not_limited(authority: Authority, serve: Make, opened: List[tls.TLSConnection]) -> None:
    server = serve(Script())
    opened.append(connect(authority.credentials, server.port, engine=ENGINE._replace(max_channels=2)))
    extra = [opened[0].open_extra(3.0) for _ in range(5)]
    streams = [opened[0].open_stream(3.0) for _ in range(2)]
    for stream in [*extra, *extra, *streams]:
        stream.close()
    opened[0].open_stream(3.0)
    opened[0].open_extra(3.0)
    opened[0].close()
    with pytest.raises(TransportLost):
        opened[0].open_extra(3.0)


def test_an_idle_stream_that_ended_is_stale(authority: Authority, serve: Make, opened: List[tls.TLSConnection]) -> None:
    ends: List[threading.Event] = []

    def hang_up_later(peer: Any) -> None:
        end = threading.Event()
        ends.append(end)
        read_head(peer)
        peer.sendall(OK_PING)
        end.wait(10)

    opened.append(connect(authority.credentials, serve(hang_up_later).port))
    first = opened[0].open_stream(3.0)
    assert not first.stale and not first.stale
    ends[0].set()
    until(lambda: first.stale, "it ended")
    first.close()
    # The stream that proved the connection ended, too: another is opened.
    again = connect(authority.credentials, serve(hang_up_later).port)
    opened.append(again)
    ends[1].set()
    kept = again._proven
    assert kept is not None
    until(lambda: kept.stale, "it ended")
    other = again.open_stream(3.0)
    assert other is not kept and not other.stale
    until(lambda: len(ends) == 3)
    ends[2].set()


@pytest.mark.parametrize("how, error", [("end", EngineLost), ("reset", EngineLost), ("farewell", EngineLost)])
def test_an_incomplete_answer_is_an_error(authority: Authority, serve: Make, opened: List[tls.TLSConnection], how: str,
                                          error: Any) -> None:
    def half(peer: Any, head: str) -> None:
        peer.sendall(http_answer(b'[{"Id": "one"}]')[:-5])
        if how == "farewell":
            peer.settimeout(5)
            try:
                peer.unwrap()
            except OSError:
                pass  # ours closes the connection without one
        elif how == "reset":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        raise OSError(how)

    opened.append(connect(authority.credentials, serve(Script({"/containers/json": half})).port))
    with pytest.raises(error):
        api.Engine(opened[0], ENGINE).containers()


def test_an_endless_answer_ends_at_the_deadline(authority: Authority, serve: Make,
                                                opened: List[tls.TLSConnection]) -> None:
    def much(peer: Any, head: str) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            peer.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")

    opened.append(connect(authority.credentials, serve(Script({"/containers/json": much})).port))
    with pytest.raises(EngineTooMuch):
        api.Engine(opened[0], ENGINE._replace(max_response_bytes=1 << 20)).containers()


def test_large_requests_and_answers_pass(authority: Authority, serve: Make, opened: List[tls.TLSConnection]) -> None:
    body = b"[" + b",".join([b'{"Id": "%064d"}' % number for number in range(20000)]) + b"]"
    opened.append(connect(authority.credentials, serve(Script({"/containers/json": http_answer(body)})).port))
    assert len(api.Engine(opened[0], ENGINE).containers()) == 20000

    def echo(peer: Any) -> None:
        read_head(peer)
        peer.sendall(OK_PING)
        for _ in range(100):
            peer.sendall(peer.recv(65536))

    opened.append(connect(authority.credentials, serve(echo).port))
    stream = opened[1].open_stream(3.0)
    stream.deadline = time.monotonic() + 5.0
    stream.sendall(bytes(1 << 16))
    got = 0
    while got < 1 << 16:
        got += len(stream.receive(1 << 20, 5.0) or b"")
    assert stream.receive(10, 0.0) is None and stream.receive(10, 0.05) is None
    assert stream.received == got + len(OK_PING)
    stream.budget = 0
    with pytest.raises(EngineTooMuch):
        stream.receive(10, 0.0)


def test_a_server_that_reads_nothing_times_out(authority: Authority, serve: Make,
                                               opened: List[tls.TLSConnection]) -> None:
    taken = threading.Event()

    def deaf(peer: Any) -> None:
        read_head(peer)
        peer.sendall(OK_PING)
        taken.wait(20)

    opened.append(connect(authority.credentials, serve(deaf).port))
    stream = opened[0].open_stream(3.0)
    stream.deadline = time.monotonic() + 0.5
    try:
        with pytest.raises(EngineTimeout):
            stream.sendall(bytes(64 << 20))
    finally:
        taken.set()


def test_each_stream_verifies_the_certificate_again(authority: Authority, tmp_path: Any,
                                                    opened: List[tls.TLSConnection]) -> None:
    """The engine restarts with another certificate, which the open connection does not accept."""
    context = server_context(str(tmp_path), authority)
    with Server(over_tls(context, Script())) as server:
        opened.append(connect(authority.credentials, server.port))
        context.load_cert_chain(_file(tmp_path, Authority.new("another CA").server))
        opened[0].open_stream(1.0).close()  # the stream that is open already
        with pytest.raises(TLSCertificateInvalid):
            opened[0].open_stream(3.0)
        opened[0].close()


def _file(directory: Any, pair: making.Pair) -> str:
    path = directory / "other.pem"
    path.write_text(pair.certificate + pair.key)
    return str(path)


def test_the_kernel_notices_a_dead_guest(authority: Authority, serve: Make, opened: List[tls.TLSConnection]) -> None:
    opened.append(connect(authority.credentials, serve(Script()).port,
                          QUICK._replace(keepalive=15.0, dead_after=45.0)))
    sock = opened[0].open_stream(1.0)._sock
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    options = [sock.getsockopt(socket.IPPROTO_TCP, option) for option in (
        socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT, socket.TCP_NODELAY)]
    assert options[:4] == [15, 10, 3, 45000] and options[4]


@pytest.mark.parametrize("change, words", [
    ({"ca": ""}, "CA certificate holds no certificate"),
    ({"ca": "-----BEGIN CERTIFICATE-----\nsecret\n-----END CERTIFICATE-----"}, "CA certificate holds no certificate"),
    ({"ca": "x" * 70000}, "CA certificate holds no certificate"),
    ({"certificate": ""}, "do not hold"),
    ({"certificate": "secret \u00e9"}, "do not hold"),
    ({"key": ""}, "do not hold"),
    ({"key": "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----"}, "do not hold"),
    ({"key": "k" * 70000}, "too long"),
])
def test_unusable_credentials_are_refused(authority: Authority, change: Any, words: str) -> None:
    with pytest.raises(TLSCredentialsInvalid) as caught:
        certs.client_context(authority.credentials._replace(**change))
    assert words in caught.value.message
    assert "secret \u00e9" not in str(caught.value) and "c2VjcmV0" not in str(caught.value)


def test_a_key_of_another_certificate_or_with_a_password_is_refused(authority: Authority) -> None:
    with pytest.raises(TLSCredentialsInvalid, match="do not match"):
        certs.client_context(authority.credentials._replace(key=authority.server.key))
    key = serialization.load_pem_private_key(authority.client.key.encode(), None)
    encrypted = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                  serialization.BestAvailableEncryption(b"secret")).decode()
    with pytest.raises(TLSCredentialsInvalid, match="encrypted"):
        certs.client_context(authority.credentials._replace(key=encrypted))


def test_the_repr_of_credentials_hides_the_key(authority: Authority) -> None:
    assert "PRIVATE" not in repr((authority.credentials, authority.client, [authority]))


def test_tls_1_2_is_the_oldest_allowed_version(authority: Authority) -> None:
    context = certs.client_context(authority.credentials)
    if hasattr(context, "minimum_version"):  # novm
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2  # novm
    else:
        assert context.options & ssl.OP_NO_TLSv1 and context.options & ssl.OP_NO_TLSv1_1
    assert context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname
    assert context.cert_store_stats()["x509"] == 1  # none of the system's CAs
