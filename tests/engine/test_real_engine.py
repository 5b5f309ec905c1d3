"""The verbs and the events on a real dockerd behind a real sshd."""

import time
from typing import Any, Callable, Iterator

import pytest

from tests.engine import real
from tests.engine.conftest import ENGINE
from tests.engine.listing import check_list, listed
from tests.engine.peers import Sshd
from tests.engine.real import actions, lost_and_found, running, state_of
from tests.waiting import until
from xscontainer.engine import api
from xscontainer.engine.ssh import connection as ssh
from xscontainer.errors import ContainerConflict, ContainerNotFound, EngineUnavailable
from xscontainer.simulator.engines.real import RealEngine

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def dockerd(tmp_path_factory: Any) -> Iterator[RealEngine]:
    with running(RealEngine(str(tmp_path_factory.mktemp("docker")))) as engine:
        yield engine


@pytest.fixture
def connection(dockerd: RealEngine, make_sshd: Callable[..., Sshd],
               connect: Callable[..., ssh.SSHConnection]) -> ssh.SSHConnection:
    return connect(make_sshd(), socket=dockerd.socket_path)


@pytest.fixture
def engine(connection: ssh.SSHConnection) -> Iterator[api.Engine]:
    engine = api.Engine(connection, ENGINE)
    yield engine
    engine.close()


@pytest.fixture
def container(dockerd: RealEngine) -> Iterator[str]:
    with real.container(dockerd, "Web_1.a-b") as identifier:
        yield identifier


@pytest.mark.parametrize("named", ["id", "short id", "name"])
def test_each_verb_does_what_it_says(engine: api.Engine, container: str, named: str) -> None:
    called = {"id": container, "short id": container[:12], "name": "Web_1.a-b"}[named]
    with engine.events() as stream:
        for verb, event, state in (("pause", "pause", "paused"), ("unpause", "unpause", "running"),
                                   ("stop", "stop", "exited"), ("start", "start", "running"),
                                   ("restart", "restart", "running")):
            getattr(engine, verb)(called)
            assert event in actions(stream, event)
            assert engine.inspect(called)["State"]["Status"] == state
            # dockerd sends an event some milliseconds before its list shows the change.
            until(lambda state=state: state_of(engine.containers(), container) == state, f"not {state}")
    assert engine.inspect(called)["Id"] == container
    top = engine.top(called)
    assert "PID" in top.titles and any("sleep" in " ".join(row) for row in top.processes)


def test_repeated_actions_succeed_and_impossible_ones_conflict(engine: api.Engine, container: str) -> None:
    for verb in ("start", "unpause", "pause", "pause", "unpause", "unpause", "stop", "stop"):
        getattr(engine, verb)(container)
    with pytest.raises(ContainerConflict):
        engine.top(container)
    with pytest.raises(ContainerConflict):
        engine.pause(container)
    with pytest.raises(ContainerConflict):
        engine.unpause(container)
    for verb in ("inspect", "start", "top"):
        with pytest.raises(ContainerNotFound):
            getattr(engine, verb)("no-such-container")


@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_the_stop_timeout_of_a_container_is_observed(engine: api.Engine, dockerd: RealEngine, verb: str) -> None:
    """The container ignores SIGTERM, as the first process does by default, and is killed after its own timeout."""
    container = dockerd.run("deaf-" + verb, StopTimeout=2)
    try:
        started = time.monotonic()
        getattr(engine, verb)(container)
        assert 1.5 < time.monotonic() - started < 8.0  # otherwise the engine's 10 s were used, or ours
    finally:
        dockerd.do("remove", container)
        dockerd.client().close()


def test_the_seconds_of_a_call_replace_the_stop_timeout_of_a_container(engine: api.Engine,
                                                                       dockerd: RealEngine) -> None:
    container = dockerd.run("hasty", StopTimeout=50)
    try:
        started = time.monotonic()
        engine.stop(container, 0)
        assert time.monotonic() - started < 8.0
    finally:
        dockerd.do("remove", container)
        dockerd.client().close()


def test_the_facts_of_a_real_engine_are_read(engine: api.Engine) -> None:
    assert engine.version()["ApiVersion"] and engine.info()["Name"]


def test_irrelevant_events_are_filtered_in_the_guest(engine: api.Engine, dockerd: RealEngine, container: str,
                                                     connection: ssh.SSHConnection) -> None:
    with engine.events() as stream:
        before = stream._stream.received
        client = dockerd.client()
        for _ in range(3):
            client.exec_start(client.exec_create(container, ["true"])["Id"])
        client.top(container)
        client.stats(container, stream=False)
        client.resize(container, 10, 10)
        assert stream.get(0.3) is None
        assert stream._stream.received == before
        dockerd.do("pause", container)
        assert actions(stream, "pause") == ["pause"]
        dockerd.do("unpause", container)


def test_an_engine_works_again_after_a_restart(tmp_path_factory: Any, make_sshd: Callable[..., Sshd],
                                               connect: Callable[..., ssh.SSHConnection]) -> None:
    with running(RealEngine(str(tmp_path_factory.mktemp("d")))) as dockerd:
        connection = connect(make_sshd(), socket=dockerd.socket_path)
        engine = api.Engine(connection, ENGINE)
        lost_and_found(dockerd, engine, dockerd.stop, EngineUnavailable)
        assert not connection.closed
        engine.close()


def test_the_list_has_groups_start_times_and_details(dockerd: RealEngine, engine: api.Engine) -> None:
    check_list(dockerd, engine)
    with real.container(dockerd, "networked"):
        assert [network.name for network in listed(engine)["networked"].networks or ()] == ["none"]
