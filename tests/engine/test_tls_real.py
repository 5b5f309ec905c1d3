"""A real dockerd with --tlsverify: verbs, events and refused certificates."""

import ssl
from typing import Any, Iterator, List

import pytest

from tests.engine import real, tls_peers
from tests.engine.real import actions, lost_and_found, running, state_of
from tests.engine.tls_peers import ADDRESS, ENGINE, NAME, NOW, YEAR, Authority, connect
from xscontainer.certificates import making
from xscontainer.engine import api
from xscontainer.engine.tls import certs
from xscontainer.errors import (
    GuestUnreachable,
    TLSCertificateInvalid,
    TLSClientRefused,
    TLSProtocol,
    XSContainerError,
)
from xscontainer.simulator.engines.real import RealEngine
from xscontainer.simulator.guests.tls import Certificates, free_port

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new()


@pytest.fixture(scope="module")
def dockerd(authority: Authority, tmp_path_factory: Any) -> Iterator[Any]:
    with running(tls_peers.dockerd(str(tmp_path_factory.mktemp("docker")), authority.engine_side)) as engine:
        yield engine


@pytest.fixture
def container(dockerd: Any) -> Iterator[str]:
    with real.container(dockerd, "web") as identifier:
        yield identifier


@pytest.fixture(params=["1.2", "1.3"])
def version(request: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Allow only this version of TLS."""
    restrict = certs._restrict
    chosen: str = request.param

    def narrower(context: ssl.SSLContext) -> None:
        restrict(context)
        tls_peers.only(context, chosen)

    monkeypatch.setattr(certs, "_restrict", narrower)
    return chosen


def test_each_verb_does_what_it_says(authority: Authority, dockerd: Any, container: str, version: str) -> None:
    connection = connect(authority.credentials, dockerd.tls_port)
    assert connection._proven is not None and connection._proven._sock.version() == "TLSv" + version
    engine = api.Engine(connection, ENGINE)
    try:
        assert engine.version()["ApiVersion"] and engine.info()["Name"]
        with engine.events() as stream:
            for verb, event, state in (("pause", "pause", "paused"), ("unpause", "unpause", "running"),
                                       ("stop", "stop", "exited"), ("start", "start", "running"),
                                       ("restart", "restart", "running")):
                getattr(engine, verb)(container)
                assert event in actions(stream, event)
                assert state_of(engine.containers(), container) == state
        assert any("sleep" in " ".join(row) for row in engine.top("web").processes)
    finally:
        engine.close()
        connection.close()


def test_a_certificate_for_a_name_is_accepted(authority: Authority, dockerd: Any) -> None:
    connect(authority.credentials, dockerd.tls_port, name=NAME).close()
    with pytest.raises(TLSCertificateInvalid, match=f"is for {ADDRESS}, ::1, {NAME}, not for other.example"):
        connect(authority.credentials, dockerd.tls_port, name="other.example")


def _others(authority: Authority) -> List[making.Pair]:
    return [Authority.new("another CA").client,
            making.new_client(authority.ca, "it has ended", NOW - 3 * YEAR),
            making.new_client(authority.ca, "it has not begun", NOW + YEAR),
            authority.server]  # the certificate of an engine is no client certificate


@pytest.mark.parametrize("number", range(4))
def test_a_client_without_the_right_certificate_is_refused(authority: Authority, dockerd: Any, version: str,
                                                           number: int) -> None:
    pair = _others(authority)[number]
    for _ in range(10):  # the refusal races with the request
        with pytest.raises(TLSClientRefused):
            connect(authority.credentials._replace(certificate=pair.certificate, key=pair.key), dockerd.tls_port)


def test_an_engine_without_the_right_certificate_is_refused(authority: Authority, dockerd: Any, version: str) -> None:
    with pytest.raises(TLSCertificateInvalid, match="is issued by CN=a CA, which is not"):
        connect(authority.credentials._replace(ca=Authority.new("another CA").ca.certificate), dockerd.tls_port)


def test_an_engine_without_tls_is_reported(authority: Authority, tmp_path: Any) -> None:
    port = free_port(ADDRESS)
    with running(RealEngine(str(tmp_path / "d"), flags=[f"--host=tcp://{ADDRESS}:{port}", "--tls=false"])):
        with pytest.raises(TLSProtocol):
            connect(authority.credentials, port)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_an_engine_works_again_after_a_restart(authority: Authority, tmp_path: Any, how: str) -> None:
    dockerd: Any
    with running(tls_peers.dockerd(str(tmp_path / "d"), authority.engine_side)) as dockerd:
        connection = connect(authority.credentials, dockerd.tls_port)
        engine = api.Engine(connection, ENGINE)
        lost_and_found(dockerd, engine, getattr(dockerd, how), GuestUnreachable)
        engine.close()
        connection.close()


def test_more_callers_than_connections_are_all_served(authority: Authority, dockerd: Any, container: str) -> None:
    """Each caller waits until a connection is free."""
    from concurrent.futures import ThreadPoolExecutor

    connection = connect(authority.credentials, dockerd.tls_port)
    engine = api.Engine(connection, ENGINE)
    try:
        with ThreadPoolExecutor(24) as executor:
            found = list(executor.map(lambda _: _inspect(engine, container), range(120)))
        assert found == [container] * 120
    finally:
        engine.close()
        connection.close()


def _inspect(engine: api.Engine, container: str) -> str:
    try:
        return str(engine.inspect(container)["Id"])
    except XSContainerError as error:
        return str(error)


def test_two_cas_with_one_name_are_both_trusted(tmp_path_factory: Any) -> None:
    """While the pool's CA is replaced, certificates of both CAs are valid on both sides."""
    older, newer = Authority.new("a CA"), Authority.new("a CA")
    both = newer.ca.certificate + older.ca.certificate
    for server in (older.server, newer.server):
        given = Certificates(both, server.certificate, server.key)
        with running(tls_peers.dockerd(str(tmp_path_factory.mktemp("docker")), given)) as engine:
            for client in (older.client, newer.client):
                connect(certs.Credentials(both, client.certificate, client.key), engine.tls_port).close()
