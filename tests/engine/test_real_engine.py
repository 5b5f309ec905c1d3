"""The verbs and the events on a real dockerd behind a real sshd."""

import gc
import time
import warnings
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List

import pytest

from tests.engine.conftest import ENGINE
from tests.engine.peers import Sshd
from tests.need import need
from xscontainer.engine import api, ssh
from xscontainer.engine.events import EventStream
from xscontainer.errors import (
    ContainerConflict,
    ContainerNotFound,
    EngineLost,
    EngineUnavailable,
)
from xscontainer.simulator.engines.real import RealEngine

pytestmark = pytest.mark.real


def start(engine: RealEngine) -> None:
    """docker's client drops its socket unclosed each time dockerd is not up yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        engine.start()
        gc.collect()


@contextmanager
def running(directory: str) -> Iterator[RealEngine]:
    need(not RealEngine.missing(), RealEngine.missing())
    engine = RealEngine(directory)
    try:
        start(engine)
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="module")
def dockerd(tmp_path_factory: Any) -> Iterator[RealEngine]:
    with running(str(tmp_path_factory.mktemp("docker"))) as engine:
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
    identifier = dockerd.run("Web_1.a-b", StopSignal="SIGKILL")
    yield identifier
    dockerd.do("remove", identifier)
    dockerd.client().close()


def actions(stream: EventStream, until: str) -> List[str]:
    """Actions up to ``until``."""
    seen: List[str] = []
    deadline = time.monotonic() + 20
    while until not in seen:
        event = stream.get(max(0.0, deadline - time.monotonic()))
        assert event is not None, seen
        seen.append(event.action)
    return seen


def state_of(entries: List[Dict[str, Any]], identifier: str) -> str:
    return str([entry["State"] for entry in entries if entry["Id"] == identifier][0])


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
            assert state_of(engine.containers(), container) == state
    assert engine.inspect(called)["Id"] == container
    top = engine.top(called)
    assert "PID" in top.titles and any("sleep" in " ".join(row) for row in top.processes)


def test_what_is_already_so_and_what_cannot_be(engine: api.Engine, container: str) -> None:
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
def test_a_container_says_how_long_it_may_take_to_end(engine: api.Engine, dockerd: RealEngine, verb: str) -> None:
    """One that is deaf to SIGTERM, as the first process of a container is by default: killed after its own time."""
    container = dockerd.run("deaf-" + verb, StopTimeout=2)
    try:
        started = time.monotonic()
        getattr(engine, verb)(container)
        assert 1.5 < time.monotonic() - started < 8.0  # else it is the engine's 10 s, or ours
    finally:
        dockerd.do("remove", container)
        dockerd.client().close()


def test_facts(engine: api.Engine) -> None:
    assert engine.version()["ApiVersion"] and engine.info()["Name"]


def test_the_engines_noise_stays_in_the_guest(engine: api.Engine, dockerd: RealEngine, container: str,
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


def test_an_engine_restart_is_a_loss_and_then_forgotten(tmp_path_factory: Any, make_sshd: Callable[..., Sshd],
                                                        connect: Callable[..., ssh.SSHConnection]) -> None:
    with running(str(tmp_path_factory.mktemp("d"))) as dockerd:
        container = dockerd.run("web", start=False)
        connection = connect(make_sshd(), socket=dockerd.socket_path)
        engine = api.Engine(connection, ENGINE)
        stream = engine.events()
        dockerd.stop()
        with pytest.raises(EngineLost):
            while True:
                assert stream.get(20) is not None
        with pytest.raises(EngineUnavailable):
            engine.containers()
        start(dockerd)
        assert engine.containers()
        with engine.events() as again:
            engine.start(container)
            assert "start" in actions(again, "start")
        assert not connection.closed
        engine.close()
