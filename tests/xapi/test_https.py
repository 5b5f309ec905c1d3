"""Sessions over HTTPS: certificates, the pool's coordinator, and servers that misbehave."""

import datetime
import io
import re
import socket
import ssl
import threading
from pathlib import Path
from typing import Any, Iterator, List

import pytest

from tests.need import need
from tests.waiting import until
from tests.xapi.tls_server import serving, trusting
from xscontainer.errors import ArgumentError, NotPermitted, TransferFailed, XapiNotTrusted, XapiUnavailable
from xscontainer.settings import XapiSettings
from xscontainer.simulator.xapi import ROOT_PASSWORD, Pool
from xscontainer.simulator.xapi.wire import certificate
from xscontainer.xapi import https, pipeline, remote, transfer
from xscontainer.xapi.address import Address
from xscontainer.xapi.https import HttpsServer
from xscontainer.xapi.known_servers import KnownServers
from xscontainer.xapi.session import Session
from xscontainer.xapi.trust import ByAuthority, ByFingerprint, Trust, fingerprint_in, fingerprint_of

SETTINGS = XapiSettings(timeout=20.0, login_timeout=20.0)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with Pool(str(tmp_path_factory.mktemp("p")), hosts=2, tcp=False, https=True) as made:
        made.add_user("reader", "reader-pw", "read-only")
        yield made


def fingerprint(host: Any) -> str:
    return fingerprint_of(ssl.PEM_cert_to_DER_cert(host.certificate))


def of(host: Any) -> Address:
    return Address(host.address, host.https_port)


def login(server: HttpsServer, password: remote.Password = ROOT_PASSWORD, user: str = "root",
          moves: Any = None) -> Session:
    found = [] if moves is None else moves
    return remote.login(server, user, password, SETTINGS, lambda *addresses: found.append(addresses))


def works(address: Address, trust: Trust) -> None:
    session = login(HttpsServer(address, trust))
    assert len(session.xenapi.host.get_all()) == 2
    session.logout()


# --- the certificate -------------------------------------------------------------------------------


def test_a_server_with_the_given_fingerprint_is_trusted(pool: Pool) -> None:
    works(of(pool.coordinator), trusting(fingerprint(pool.coordinator)))
    assert pool.sessions.count(remote.ORIGINATOR) == 0


def test_another_fingerprint_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with serving(tmp_path, lambda stream: None) as served:
        with pytest.raises(XapiNotTrusted) as caught:
            login(HttpsServer(served.address, trusting("00" * 32)))
    assert served.fingerprint in str(caught.value) and "--fingerprint" in str(caught.value)
    assert served.requests in ([], [b""])


def test_a_certificate_is_confirmed_once(pool: Pool, tmp_path: Path) -> None:
    asked: List[Any] = []
    path = str(tmp_path / "sub" / "known_servers")
    for _ in range(2):
        works(of(pool.coordinator), ByFingerprint((), KnownServers(path), lambda *found: asked.append(found)))
    assert asked == [(of(pool.coordinator), fingerprint(pool.coordinator))]


def test_a_changed_certificate_is_refused_with_both_fingerprints(pool: Pool, tmp_path: Path) -> None:
    known = KnownServers(str(tmp_path / "known_servers"))
    known.add(of(pool.coordinator), fingerprint(pool.hosts[1]))
    with pytest.raises(XapiNotTrusted) as caught:
        login(HttpsServer(of(pool.coordinator), ByFingerprint((), known, lambda *found: pytest.fail("asked"))))
    message = str(caught.value)
    assert fingerprint(pool.coordinator) in message and fingerprint(pool.hosts[1]) in message
    assert known.path in message and str(of(pool.coordinator)) in message
    assert known.fingerprint(of(pool.coordinator)) == fingerprint(pool.hosts[1])


def test_an_unconfirmed_certificate_is_not_stored(pool: Pool, tmp_path: Path) -> None:
    def refuse(*found: Any) -> None:
        raise XapiNotTrusted("No.")

    known = KnownServers(str(tmp_path / "known_servers"))
    with pytest.raises(XapiNotTrusted):
        login(HttpsServer(of(pool.coordinator), ByFingerprint((), known, refuse)))
    assert known.fingerprint(of(pool.coordinator)) is None


def authority(directory: Path, pem: str) -> ByAuthority:
    path = directory / "ca.pem"
    path.write_text(pem)
    return ByAuthority(str(path))


def test_a_server_is_trusted_if_the_ca_file_has_its_certificate(pool: Pool, tmp_path: Path) -> None:
    works(of(pool.coordinator), authority(tmp_path, pool.coordinator.certificate))


def test_a_certificate_of_no_ca_in_the_file_is_refused(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(XapiNotTrusted, match="not valid"):
        login(HttpsServer(of(pool.coordinator), authority(tmp_path, pool.hosts[1].certificate)))


def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    key = str(tmp_path / "named.pem")
    pem = certificate.make(key, "127.0.0.9", "host9")
    with serving(tmp_path, lambda stream: None, key=key) as served:
        with pytest.raises(XapiNotTrusted, match="match|127.0.0.1"):
            login(HttpsServer(served.address, authority(tmp_path, pem)))
    assert served.requests in ([], [b""])


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    key = str(tmp_path / "old.pem")
    pem = certificate.make(key, "127.0.0.1", "localhost", datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc))
    with serving(tmp_path, lambda stream: None, key=key) as served:
        with pytest.raises(XapiNotTrusted, match="expired"):
            login(HttpsServer(served.address, authority(tmp_path, pem)))


@pytest.mark.parametrize("content", ["", "no certificate\n"])
def test_a_ca_file_without_certificates_is_an_argument_error(tmp_path: Path, content: str) -> None:
    with pytest.raises(ArgumentError, match="CA file"):
        authority(tmp_path, content)
    with pytest.raises(ArgumentError, match="No such file"):
        ByAuthority(str(tmp_path / "none"))


@pytest.mark.parametrize("text", [
    "ab" * 32, "AB:" * 31 + "ab", "SHA256:" + "Ab" * 32, " sha256 Fingerprint=" + "ab" * 32])
def test_fingerprints_are_read_as_tools_print_them(text: str) -> None:
    assert fingerprint_in(text) == "AB:" * 31 + "AB"


@pytest.mark.parametrize("text", ["", "ab", "ab" * 31, "ab" * 33, "xy" * 32, "SHA256:" + "A" * 43])
def test_other_texts_are_no_fingerprints(text: str) -> None:
    with pytest.raises(ArgumentError, match="fingerprint"):
        fingerprint_in(text)


# --- the login -------------------------------------------------------------------------------------


def test_a_member_leads_to_the_coordinator(pool: Pool) -> None:
    moves: List[Any] = []
    trust = trusting(fingerprint(pool.hosts[0]), fingerprint(pool.hosts[1]))
    session = login(HttpsServer(of(pool.hosts[1]), trust), moves=moves)
    assert session.endpoint.name == str(of(pool.hosts[0])) and len(session.xenapi.host.get_all()) == 2
    session.logout()
    assert moves == [(str(of(pool.hosts[1])), str(of(pool.hosts[0])))]


def test_the_certificate_of_the_coordinator_is_checked_too(pool: Pool) -> None:
    with pytest.raises(XapiNotTrusted, match=str(of(pool.hosts[0]))):
        login(HttpsServer(of(pool.hosts[1]), trusting(fingerprint(pool.hosts[1]))))


@pytest.mark.parametrize("address, said", [
    ("no address", "no usable address"), ("", "no usable address"), ("127.0.0.1", "is not the coordinator")])
def test_a_member_that_leads_nowhere_is_an_error(tmp_path: Path, address: str, said: str) -> None:
    body = b'{"jsonrpc":"2.0","error":{"code":1,"message":"HOST_IS_SLAVE","data":["%s"]},"id":1}' % address.encode()
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    with serving(tmp_path, lambda stream: stream.sendall(answer)) as served:
        with pytest.raises(XapiUnavailable, match=said):
            login(HttpsServer(served.address, trusting(served.fingerprint)))


@pytest.mark.parametrize("user, password", [("root", "wrong-and-secret"), ("nobody", ROOT_PASSWORD), ("", "")])
def test_a_refused_login_is_not_permitted(pool: Pool, user: str, password: str) -> None:
    with pytest.raises(NotPermitted) as caught:
        login(HttpsServer(of(pool.coordinator), trusting(fingerprint(pool.coordinator))), password, user)
    assert repr(user) in str(caught.value) and not (password and password in str(caught.value))


def test_the_password_is_asked_for_after_the_certificate_was_checked(pool: Pool) -> None:
    asked: List[str] = []

    def ask() -> str:
        asked.append("asked")
        return ROOT_PASSWORD

    with pytest.raises(XapiNotTrusted):
        login(HttpsServer(of(pool.coordinator), trusting("00" * 32)), ask)
    assert asked == []
    login(HttpsServer(of(pool.coordinator), trusting(fingerprint(pool.coordinator))), ask).logout()
    assert asked == ["asked"]


# --- a session -------------------------------------------------------------------------------------


@pytest.fixture
def session(pool: Pool) -> Iterator[Session]:
    made = login(HttpsServer(of(pool.coordinator), trusting(fingerprint(pool.coordinator))))
    yield made
    made.logout()


def test_calls_are_pipelined_over_one_connection(pool: Pool, session: Session) -> None:
    ref = pool.create_vm("web", host=pool.hosts[0])
    labels = session.together(("VM.get_name_label", (ref,)), ("VM.get_name_label", ("OpaqueRef:none",)),
                              ("VM.get_power_state", (ref,)))
    assert (labels[0], labels[2]) == ("web", "Running") and labels[1].details[0] == "HANDLE_INVALID"


def test_a_connection_that_the_server_closed_is_opened_again(tmp_path: Path) -> None:
    with Pool(str(tmp_path / "p"), hosts=1, tcp=False, https=True) as pool:
        session = login(HttpsServer(of(pool.coordinator), trusting(fingerprint(pool.coordinator))))
        pool.coordinator.stop()  # its sessions stay
        pool.coordinator.start()
        assert len(session.xenapi.host.get_all()) == 1
        session.logout()


def test_a_call_can_be_interrupted_from_another_thread(tmp_path: Path) -> None:
    left = threading.Event()
    errors: List[Exception] = []
    with serving(tmp_path, lambda stream: _wait(left)) as served:
        session = Session(HttpsServer(served.address, trusting(served.fingerprint)), 60.0)

        def call() -> None:
            try:
                session.xenapi.host.get_all()
            except XapiUnavailable as error:
                errors.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        try:
            until(lambda: served.requests)
            session.interrupt()
            thread.join(15.0)
        finally:
            left.set()
    assert not thread.is_alive() and "cancelled" in str(errors[0])


def _wait(left: threading.Event) -> None:
    left.wait(60.0)


def test_an_interrupted_session_is_logged_out(pool: Pool, session: Session) -> None:
    session.interrupt()
    with pytest.raises(XapiUnavailable, match="cancelled"):
        session.xenapi.host.get_all()
    session.logout()
    assert pool.sessions.count(remote.ORIGINATOR) == 0


# --- servers that misbehave ------------------------------------------------------------------------


def refused(address: Address, trust: Trust, seconds: float = 10.0) -> str:
    with pytest.raises(XapiUnavailable) as caught:
        remote.login(HttpsServer(address, trust), "root", "pw", XapiSettings(timeout=seconds, login_timeout=seconds),
                     lambda *addresses: None)
    return str(caught.value)


def endlessly(*pieces: bytes) -> Any:
    """Return a server that sends the first piece, and then the second one until nobody reads."""
    def answer(stream: ssl.SSLSocket) -> None:
        stream.sendall(pieces[0])
        while True:
            stream.sendall(pieces[1])

    return answer


@pytest.mark.parametrize("pieces", [
    (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 1000), (b"HTTP/1.1 200 OK\r\nx: ", b"y" * 9999),
    (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 500), (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", b"[" * 9999),
    (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"2\r\n[[\r\n" * 1000),
    (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffff\r\n", b"[" * 9999),
    (b"", b"\0" * 9999), (b"", b"\r\n" * 5000)],
    ids=["headers", "a header", "continue", "body", "chunks", "a chunk", "bytes", "lines"])
def test_an_endless_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: Any) -> None:
    for module in (https, pipeline):
        monkeypatch.setattr(module, "MOST_ANSWER", 1 << 20)
    with serving(tmp_path, endlessly(*pieces)) as served:
        assert "did not answer" in refused(served.address, trusting(served.fingerprint))


def test_a_huge_answer_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    answer = endlessly(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n", b"x" * 9999)
    with serving(tmp_path, answer) as served:
        assert "1000000000000 bytes" in refused(served.address, trusting(served.fingerprint))


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n"])
def test_a_server_that_sends_one_byte_after_the_other_is_given_up(tmp_path: Path, begun: bytes) -> None:
    left = threading.Event()

    def drip(stream: ssl.SSLSocket) -> None:
        stream.sendall(begun)
        while not left.wait(0.02):
            stream.sendall(b"1")

    with serving(tmp_path, drip) as served:
        try:
            assert re.search("took too long|timed out", refused(served.address, trusting(served.fingerprint), 0.5))
        finally:
            left.set()


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n" + b"[" * 200000,
    b"HTTP/1.1 500 Internal Error\r\ncontent-length: 0\r\n\r\n", b"nonsense\r\n\r\n", b"",
    b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnull", b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{}"],
    ids=["short", "nested", "500", "nonsense", "nothing", "null", "negative"])
def test_an_answer_that_is_none_is_an_error(tmp_path: Path, answer: bytes) -> None:
    with serving(tmp_path, lambda stream: stream.sendall(answer)) as served:
        refused(served.address, trusting(served.fingerprint))


@pytest.mark.parametrize("result", [b"null", b"7", b"{}", b'""', b'"a\\r\\nX: y"', b'"' + b"x" * 201 + b'"'])
def test_a_session_that_is_none_is_an_error(tmp_path: Path, result: bytes) -> None:
    body = b'{"jsonrpc":"2.0","result":%s,"id":1}' % result
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    with serving(tmp_path, lambda stream: stream.sendall(answer)) as served:
        assert "no session" in refused(served.address, trusting(served.fingerprint))


def test_a_server_that_drips_the_answer_to_an_upload_is_given_up(tmp_path: Path) -> None:
    left = threading.Event()

    def serve(stream: ssl.SSLSocket) -> None:
        head = served.requests[-1]
        if b"PUT" in head:
            while not left.wait(0.02):
                stream.sendall(b"H")
        body = b'{"jsonrpc":"2.0","result":"pending","id":1}'
        stream.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    with serving(tmp_path, serve) as served:
        session = Session(HttpsServer(served.address, trusting(served.fingerprint)), 10.0)
        try:
            with pytest.raises(TransferFailed):
                transfer.upload(session, "disk", io.BytesIO(bytes(5)), 5, 0.5)
        finally:
            left.set()
            session.close()


def test_a_server_without_tls_is_reported(tmp_path: Path) -> None:
    with serving(tmp_path, lambda sock: sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), encrypted=False) as served:
        assert "makes no TLS connection" in refused(served.address, trusting("00" * 32))


def test_a_server_that_is_silent_during_the_handshake_is_given_up(tmp_path: Path) -> None:
    left = threading.Event()
    with serving(tmp_path, lambda sock: _wait(left), encrypted=False) as served:
        try:
            assert "timed out" in refused(served.address, trusting("00" * 32), 0.3)
        finally:
            left.set()


def test_a_server_that_does_not_answer_is_unavailable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        message = refused(Address("127.0.0.1", unused.getsockname()[1]), trusting("00" * 32))
    assert "refused" in message and "Check the address" in message
    assert "nonexistent.invalid" in refused(Address("nonexistent.invalid"), trusting("00" * 32))


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False


def test_all_addresses_of_a_name_are_tried(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address without a listener comes first, as with IPv6 that leads nowhere."""
    real = socket.getaddrinfo

    def found(host: str, *more: Any, **options: Any) -> Any:
        return real("127.15.0.99", *more, **options) + real(host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", found)
    works(of(pool.coordinator), trusting(fingerprint(pool.coordinator)))


def test_an_ipv6_address_works(tmp_path: Path) -> None:
    need(has_ipv6(), "IPv6 on the loopback interface")
    body = b'{"jsonrpc":"2.0","result":"OpaqueRef:x","id":1}'
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    with serving(tmp_path, lambda stream: stream.sendall(answer), host="::1") as served:
        login(HttpsServer(served.address, trusting(served.fingerprint))).close()
    assert b"Host: [::1]:" in served.requests[0]
