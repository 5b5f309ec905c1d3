"""An action reaches the right container even if the name of one looks like the id of another."""

from typing import Any, Iterator

import pytest

from tests.engine.conftest import ENGINE
from tests.engine.peers import SocketConnection
from xscontainer.engine import api, container_lookup
from xscontainer.errors import ContainerConflict, ContainerNotFound
from xscontainer.simulator.engines import EmbeddedEngine

A, B = "abcdef0123456789" + "0" * 48, "b" * 64


def entry(whole: str, *names: str) -> Any:
    return {"Id": whole, "Names": [f"/{name}" for name in names]}


@pytest.mark.parametrize("called, listed, meant", [
    (A[:10], [entry(A, "web"), entry(B, A[:10])], A),  # the short id that the published list shows
    (A[:10], [entry(B, A[:10]), entry(A, "web")], A),
    (A[:12], [entry(A, "web"), entry(B, A[:12])], B),  # not a published id, but a published name
    (A[:12], [entry(A), entry(B, A[:12])], A),  # published instead of a name
    (A[:3], [entry(A, "web"), entry(B, A[:3])], B),
    (A[:3], [entry(A, "web"), entry(B, "db")], A),
    ("bbb", [entry(A, "bbbb"), entry(B, "db")], B),  # the beginning of a name means nothing
    ("cafe", [entry(A, "web", "web/cafe"), entry(B, "cafe")], B),
    (A[:10], [{"Id": 7}, {"Id": A, "Names": None}, {"Names": [7]}], A),
])
def test_published_ids_and_names_come_before_other_names(called: str, listed: Any, meant: str) -> None:
    assert container_lookup.is_ambiguous(called)
    assert container_lookup.resolve(called, listed) == meant


def test_an_ambiguous_beginning_of_an_id_is_refused() -> None:
    with pytest.raises(ContainerConflict, match="2 containers"):
        container_lookup.resolve(A[:10], [entry(A, "web"), entry(A[:63] + "1", "db")])


@pytest.mark.parametrize("called", ["dead", A[:9] + "f"])
def test_an_unknown_container_is_not_found(called: str) -> None:
    with pytest.raises(ContainerNotFound, match=called):
        container_lookup.resolve(called, [entry(A, "web"), entry(B, "deadbeef")])


@pytest.mark.parametrize("called", [A, "web", "Cafe", "c-0", "cafe.", "g0"])
def test_an_unambiguous_name_needs_no_list(called: str) -> None:
    assert not container_lookup.is_ambiguous(called)


@pytest.fixture
def engine(tmp_path: Any, plain: SocketConnection, socket_path: str) -> Iterator[EmbeddedEngine]:
    with EmbeddedEngine(str(tmp_path / "e"), socket_path) as made:
        yield made


@pytest.mark.parametrize("verb", ["stop", "restart", "pause"])
def test_a_container_named_like_the_short_id_of_another_is_not_touched(engine: EmbeddedEngine, plain: SocketConnection,
                                                                       verb: str) -> None:
    honest = engine.run("web")
    engine.run(honest[:10])
    called = api.Engine(plain, ENGINE)
    getattr(called, verb)(honest[:10])
    assert called.inspect(honest[:10])["Id"] == honest
    assert called.top(honest[:10]).processes if verb == "restart" else True
    called.close()
    acted = {"stop": "exited", "restart": "running", "pause": "paused"}[verb]
    states = {found["Names"][0]: found["State"] for found in engine.list()}
    assert states == {"/web": acted, f"/{honest[:10]}": "running"}
    assert engine.requests[f"POST /containers/{{}}/{verb}"] == 1


def test_a_name_of_hexadecimal_digits_works(engine: EmbeddedEngine, plain: SocketConnection) -> None:
    engine.run("cafe")
    called = api.Engine(plain, ENGINE)
    called.pause("cafe")
    called.unpause("cafe")
    with pytest.raises(ContainerNotFound, match="beef"):
        called.stop("beef")
    called.close()
    assert [found["State"] for found in engine.list()] == ["running"]
