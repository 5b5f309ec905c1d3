"""Stats of many containers in one reading: against scripted engines, real dockerd and real podman."""

import json
import os
import socket
import threading
import time
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest

from tests.clock import Clock
from tests.core.test_usage import PODMAN_4, STOPPED, docker
from tests.engine import real
from tests.engine.conftest import ENGINE
from tests.engine.peers import VERSION_BODY, Script, Server, Sshd, engine_at, http_answer
from tests.engine.real import running
from tests.engine.test_podman import VERSION as PODMAN_VERSION
from tests.engine.test_podman import rootless  # noqa: F401 - a fixture
from xscontainer.core import memory_budget
from xscontainer.engine import api
from xscontainer.engine.bulk import MOST_ANSWER
from xscontainer.engine.calls import DEFAULT_LIMITS
from xscontainer.engine.connection import EXTRA_UNREAD
from xscontainer.engine.logs import read_logs
from xscontainer.engine.sampling import AT_ONCE, WAITING
from xscontainer.engine.ssh import connection as ssh
from xscontainer.engine.stats import MOST_CONTAINERS, MOST_TWICE, Stats
from xscontainer.errors import (
    ArgumentError,
    EngineGarbage,
    EngineLost,
    EngineTimeout,
    EngineTooMuch,
    StatsUnavailable,
    TransportLost,
    XSContainerError,
)
from xscontainer.simulator.engines.podman import PodmanEngine
from xscontainer.simulator.engines.real import RealEngine

MODERN = b'{"ApiVersion": "1.44", "MinAPIVersion": "1.24", "Version": "25.0.0"}'


def identifier(number: int) -> str:
    return f"{number:064x}"


class Docker:
    """An engine that counts what it is asked, and how many at a time."""

    def __init__(self) -> None:
        self.asked: List[str] = []
        self.at_once = self.most_at_once = 0
        self.delay = 0.0
        self.used, self.step = 10 ** 9, 0
        self.refusals: Dict[str, bytes] = {}
        self._lock = threading.Lock()

    def wait(self) -> None:
        time.sleep(self.delay)

    def __call__(self, peer: socket.socket, head: str) -> None:
        path = head.split()[1]
        container = path.split("/")[-2]
        with self._lock:
            self.asked.append(path.partition("?")[2])
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.wait()
        with self._lock:
            self.at_once -= 1
            self.used += self.step
        peer.sendall(self.refusals.get(container) or http_answer(json.dumps(
            docker(self.used, self.used * 4, id=container)).encode()))


class Tick(Docker):
    """An engine whose stats wait until so many requests do."""

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self.when_ticking: Callable[[], Any] = lambda: None
        self._barrier = threading.Barrier(wanted, lambda: self.when_ticking())

    def wait(self) -> None:
        self._barrier.wait(20)


class Listing:
    """The list of an engine's running containers."""

    def __init__(self, ids: List[str]) -> None:
        self.ids = ids
        self.asked: List[str] = []

    def __call__(self, peer: socket.socket, head: str) -> None:
        self.asked.append(head.split()[1].partition("?")[2])
        peer.sendall(http_answer(json.dumps([{"Id": each, "Names": ["/x"], "State": "running"} for each in self.ids]
                                            ).encode()))


@contextmanager
def speaking(socket_path: str, answers: Dict[str, Any], version: bytes = VERSION_BODY,
             limits: api.Limits = DEFAULT_LIMITS) -> Iterator[api.Engine]:
    with Server(Script({"/version": http_answer(version), **answers}), socket_path), \
            engine_at(socket_path, ENGINE, limits) as engine:
        yield engine


def test_an_engine_that_answers_at_once_is_asked_a_few_at_a_time(socket_path: str) -> None:
    server = Docker()
    server.delay = 0.02
    with speaking(socket_path, {"/stats": server}, MODERN) as engine:
        wanted = [identifier(number) for number in range(30)]
        found = Stats(engine.calls, interval=0.0).read(wanted)
        assert [usage.sample.id for usage in found.usages] == wanted and not found.failed
        assert server.most_at_once == AT_ONCE
        assert server.asked == ["stream=false&one-shot=true"] * 30


def test_an_engine_that_waits_for_a_tick_is_asked_for_all_at_once(socket_path: str) -> None:
    server = Tick(30)
    with speaking(socket_path, {"/stats": server}) as engine:
        wanted = [identifier(number) for number in range(30)]
        found = Stats(engine.calls).read(wanted)
        assert [usage.sample.id for usage in found.usages] == wanted and not found.failed
        assert server.asked == ["stream=false"] * 30
        assert server.most_at_once == 30


def test_a_large_reading_is_bounded(socket_path: str) -> None:
    server = Docker()
    server.delay = 0.02
    with speaking(socket_path, {"/stats": server}) as engine:
        wanted = [identifier(number) for number in range(MOST_CONTAINERS)]
        assert len(Stats(engine.calls).read(wanted).usages) == MOST_CONTAINERS
        assert AT_ONCE < server.most_at_once <= WAITING


def test_the_streams_of_a_reading_are_claimed_and_released(socket_path: str) -> None:
    budget = memory_budget.Budget(most=10 << 20, each=10 << 20)
    server = Tick(20)
    held: List[int] = []
    server.when_ticking = lambda: held.append(budget.total)
    with speaking(socket_path, {"/stats": server}, limits=api.Limits(memory=budget)) as engine:
        Stats(engine.calls).read([identifier(number) for number in range(20)])
        assert held == [20 * EXTRA_UNREAD] and budget.total == 0
        streams = engine.connection._streams
        assert len([stream for stream in streams if not stream.stale]) <= 2, "those of two warm clients at most"


@pytest.mark.parametrize("version", [VERSION_BODY, MODERN])
def test_an_absurdly_long_answer_does_not_hide_the_others(socket_path: str, version: bytes) -> None:
    server = Docker()
    server.refusals = {identifier(3): http_answer(b'{"name": "' + b"x" * MOST_ANSWER + b'"}')}
    with speaking(socket_path, {"/stats": server}, version) as engine:
        found = Stats(engine.calls, interval=0.0).read([identifier(number) for number in range(10)])
        assert len(found.usages) == 9
        assert [(container, type(error)) for container, error in found.failed] == [(identifier(3), EngineTooMuch)]


@pytest.mark.parametrize("version", [VERSION_BODY, MODERN])
def test_channels_are_left_for_other_requests(socket_path: str, version: bytes) -> None:
    server = Docker()
    server.delay = 0.02
    with speaking(socket_path, {"/stats": server}, version) as engine:
        engine.connection.room = 5
        assert len(Stats(engine.calls).read([identifier(number) for number in range(8)]).usages) == 8
        assert server.most_at_once <= 2


def test_a_reading_waits_for_its_turn_where_sessions_are_limited(socket_path: str) -> None:
    server = Docker()
    with speaking(socket_path, {"/stats": server}) as engine:
        engine.connection.room = 2
        engine.calls.find_version()
        with engine.calls.lease("1.41"), engine.calls.lease("1.41"), pytest.raises(EngineTimeout, match="sessions"):
            Stats(engine.calls).read([identifier(1)], timeout=0.2)
        assert len(Stats(engine.calls).read([identifier(1)]).usages) == 1
        assert engine.calls._in_use == 0


def test_one_hanging_container_does_not_hide_the_others(socket_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xscontainer.engine.sampling.AT_ONCE_SECONDS", 0.3)
    server, released = Docker(), threading.Event()

    def serve(peer: socket.socket, head: str) -> None:
        if identifier(0) in head:
            released.wait(20)
        else:
            server(peer, head)

    with speaking(socket_path, {"/stats": serve}, MODERN) as engine:
        try:
            found = Stats(engine.calls, interval=0.0).read([identifier(number) for number in range(10)])
        finally:
            released.set()
        assert len(found.usages) == 9
        assert [(container, type(error)) for container, error in found.failed] == [(identifier(0), EngineTimeout)]


def test_a_first_look_takes_a_second_sample_for_the_cpu(socket_path: str) -> None:
    server = Docker()
    server.step = 10 ** 9
    with speaking(socket_path, {"/stats": server}, MODERN) as engine:
        stats = Stats(engine.calls, cached_seconds=0.0, interval=0.01)
        assert stats.read([identifier(1)]).usages[0].cpu_percent == 50.0
        assert len(server.asked) == 2
        stats.read([identifier(1)])
        assert len(server.asked) == 3


def test_a_first_look_at_many_containers_takes_one_sample(socket_path: str) -> None:
    server = Docker()
    with speaking(socket_path, {"/stats": server}, MODERN) as engine:
        wanted = [identifier(number) for number in range(MOST_TWICE + 1)]
        assert {usage.cpu_percent for usage in Stats(engine.calls).read(wanted).usages} == {None}
        assert len(server.asked) == MOST_TWICE + 1


def test_a_container_that_was_restarted_is_sampled_again(socket_path: str) -> None:
    server = Docker()
    server.step = 10 ** 9
    with speaking(socket_path, {"/stats": server}, MODERN) as engine:
        stats = Stats(engine.calls, cached_seconds=0.0, interval=0.01)
        stats.read([identifier(1)])
        server.used = 1
        assert stats.read([identifier(1)]).usages[0].cpu_percent == 50.0


def test_cpu_is_known_from_the_second_reading_on(socket_path: str, clock: Clock) -> None:
    server = Docker()
    with speaking(socket_path, {"/stats": server}, MODERN) as engine:
        stats = Stats(engine.calls, clock=clock, interval=0.0)
        assert stats.read([identifier(1)]).usages[0].cpu_percent is None
        server.used += 10 ** 9
        clock.now += 3.0
        assert stats.read([identifier(1)]).usages[0].cpu_percent == 50.0


def test_running_containers_are_found_by_the_engines_list(socket_path: str, clock: Clock) -> None:
    server = Docker()
    listed = Listing([identifier(number) for number in range(MOST_CONTAINERS + 7)])
    with speaking(socket_path, {"/stats": server, "/containers/json": listed}) as engine:
        stats = Stats(engine.calls, clock=clock)
        found = stats.read_running()
        assert len(found.usages) == MOST_CONTAINERS and found.left_out == 7
        assert all("all=0" in query for query in listed.asked)
        assert stats.read_running() == found
        assert (len(listed.asked), len(server.asked)) == (1, MOST_CONTAINERS)
        clock.now += 2.1
        listed.ids = []
        assert stats.read_running().usages == ()


def test_nothing_is_asked_unless_somebody_looks_and_once_for_all_who_do(socket_path: str, clock: Clock) -> None:
    server = Docker()
    server.delay = 0.05
    with speaking(socket_path, {"/stats": server}) as engine:
        stats = Stats(engine.calls, clock=clock)
        assert server.asked == []
        found: List[Any] = []
        wanted = [identifier(1), identifier(2)]
        lookers = [threading.Thread(target=lambda: found.append(stats.read(wanted))) for _ in range(5)]
        for looker in lookers:
            looker.start()
        for looker in lookers:
            looker.join(20)
        assert len(found) == 5 and len(server.asked) == 2 and len(set(found)) == 1
        clock.now += 1.9
        assert len(stats.read([*wanted, identifier(3)]).usages) == 3 and len(server.asked) == 3
        clock.now += 0.2
        stats.read(wanted)
        assert len(server.asked) == 5


def test_a_container_that_fails_does_not_hide_the_others(socket_path: str) -> None:
    server = Docker()
    gone, odd, stopped = (identifier(number) for number in (100, 101, 102))
    server.refusals = {
        gone: http_answer(b'{"message": "No such container"}', "404 Not Found"), odd: http_answer(b"<html>"),
        stopped: http_answer(json.dumps({"read": "0001-01-01T00:00:00Z", "cpu_stats": {}, "id": stopped}).encode())}
    with speaking(socket_path, {"/stats": server}) as engine:
        found = Stats(engine.calls).read([gone, identifier(1), odd, stopped])
        assert [usage.sample.id for usage in found.usages] == [identifier(1)]
        assert [(container, type(error)) for container, error in found.failed] == [(odd, EngineGarbage)]


def test_the_error_is_raised_if_it_is_that_of_every_container(socket_path: str) -> None:
    server = Docker()
    server.refusals = {identifier(1): http_answer(b"<html>")}
    with speaking(socket_path, {"/stats": server}) as engine, pytest.raises(EngineGarbage):
        Stats(engine.calls).read([identifier(1)])


def test_a_lost_connection_ends_a_reading(socket_path: str) -> None:
    opened: List[api.Engine] = []
    with speaking(socket_path, {"/stats": lambda peer, head: opened[0].connection.close()}) as engine:
        opened.append(engine)
        with pytest.raises((TransportLost, EngineLost)):
            Stats(engine.calls).read([identifier(number) for number in range(50)])


def test_a_slow_engine_is_given_up_at_the_deadline(socket_path: str) -> None:
    server = Docker()
    server.delay = 0.3
    with speaking(socket_path, {"/stats": server}, MODERN) as engine:
        found = Stats(engine.calls).read([identifier(number) for number in range(40)], timeout=1.2)
        assert found.usages and {type(error) for _, error in found.failed} == {EngineTimeout}
        assert len(found.usages) + len(found.failed) == 40


@pytest.mark.parametrize("containers", [[identifier(0)] * (MOST_CONTAINERS + 1), ["web"], ["../version"]])
def test_only_whole_ids_and_not_too_many_are_read(socket_path: str, containers: List[str]) -> None:
    with speaking(socket_path, {}) as engine, pytest.raises(ArgumentError):
        Stats(engine.calls).read(containers)


def test_an_engine_without_one_shot_gives_the_rate_at_once(socket_path: str) -> None:
    answer = docker(2 * 10 ** 9, 10 ** 12 + 2 * 10 ** 9, preread="2026-12-01T00:20:29Z", precpu_stats={
        "cpu_usage": {"total_usage": 10 ** 9}, "system_cpu_usage": 10 ** 12, "online_cpus": 2}, id=identifier(1))
    with speaking(socket_path, {"/stats": http_answer(json.dumps(answer).encode())}) as engine:
        assert Stats(engine.calls).read([identifier(1)]).usages[0].cpu_percent == 100.0


# --- podman


@contextmanager
def podman_says(socket_path: str, answer: Any) -> "Iterator[Tuple[api.Engine, List[str]]]":
    asked: List[str] = []

    def serve(peer: socket.socket, head: str) -> None:
        asked.append(head.split()[1])
        peer.sendall(answer if isinstance(answer, bytes) else http_answer(json.dumps(answer).encode()))

    with speaking(socket_path, {"/libpod/containers/stats": serve}, json.dumps(PODMAN_VERSION).encode()) as engine:
        yield engine, asked


def test_podman_is_asked_once_for_all_containers(socket_path: str, clock: Clock) -> None:
    entries = [{**PODMAN_4, "ContainerID": identifier(number)} for number in range(30)]
    entries.append({**STOPPED, "ContainerID": identifier(30)})
    with podman_says(socket_path, {"Error": None, "Stats": entries}) as (engine, asked):
        stats = Stats(engine.calls, clock=clock, interval=0.0)
        wanted = [identifier(number) for number in (3, 30, 5, 77)]
        assert [usage.sample.id for usage in stats.read(wanted).usages] == [identifier(3), identifier(5)]
        assert len(stats.read([identifier(number) for number in range(30)]).usages) == 30
        assert asked == ["/v1.41/libpod/containers/stats?stream=false"]
        clock.now += 2.1
        stats.read(wanted)
        assert len(asked) == 2


@pytest.mark.parametrize("said", [
    "stats is not supported in rootless mode without cgroups v2",
    "Container stats resource only available for cgroup v2"])
def test_a_rootless_podman_on_cgroup_v1_says_so(socket_path: str, said: str) -> None:
    answer = http_answer(json.dumps({"message": said, "response": 409}).encode(), "409 Conflict")
    with podman_says(socket_path, answer) as (engine, _), pytest.raises(StatsUnavailable) as raised:
        Stats(engine.calls).read([identifier(1)])
    assert said in raised.value.message and "cgroup v2" in raised.value.hint


@pytest.mark.parametrize("answer, error", [
    ({"Error": {}, "Stats": None}, StatsUnavailable), (http_answer(b"nothing"), EngineGarbage),
    (http_answer(b'{"message": "x"}', "500 Internal Server Error"), XSContainerError)])
def test_an_answer_of_podman_that_is_none_is_an_error(socket_path: str, answer: Any, error: Any) -> None:
    with podman_says(socket_path, answer) as (engine, _), pytest.raises(error):
        Stats(engine.calls).read([identifier(1)])


# --- real engines


BUSY = ["sh", "-c", "while true; do :; done"]


@pytest.fixture(scope="module")
def dockerd(tmp_path_factory: Any) -> Iterator[RealEngine]:
    with running(RealEngine(str(tmp_path_factory.mktemp("d")))) as engine:
        yield engine


@pytest.fixture(scope="module")
def podman(tmp_path_factory: Any) -> Iterator[PodmanEngine]:
    with running(PodmanEngine(str(tmp_path_factory.mktemp("p")))) as engine:
        yield engine


def check(server: RealEngine, engine: api.Engine) -> None:
    """A busy container uses CPU, a sleeping one memory and no CPU, a stopped one is left out."""
    busy = server.run("busy", BUSY, StopSignal="SIGKILL")
    stopped = server.run("stopped", start=False)
    try:
        with real.container(server, "sleeps") as sleeps:
            stats = Stats(engine.calls, cached_seconds=0.0)
            first = {usage.sample.id: usage for usage in stats.read([busy, sleeps, stopped]).usages}
            assert set(first) == {busy, sleeps}
            deadline = time.monotonic() + 20
            while True:
                found = {usage.sample.id: usage for usage in stats.read([busy, sleeps]).usages}
                if (found[busy].cpu_percent or 0.0) > 1.0 or time.monotonic() > deadline:
                    break
            assert 1.0 < (found[busy].cpu_percent or 0.0) <= 100.0 * (found[busy].sample.cpus or 4096)
            assert (found[sleeps].cpu_percent or 0.0) < (found[busy].cpu_percent or 0.0)
            sample = found[sleeps].sample
            assert sample.name == "sleeps" and sample.pids == 1
            assert 0 < (sample.memory or 0) < (sample.limit or 0) and sample.memory is not None
    finally:
        for one in (busy, stopped):
            server.do("remove", one)
        server.client().close()


@pytest.mark.real
def test_a_real_dockerd_is_measured(dockerd: RealEngine, make_sshd: Callable[..., Sshd],
                                    connect: Callable[..., ssh.SSHConnection]) -> None:
    engine = api.Engine(connect(make_sshd(), socket=dockerd.socket_path), ENGINE)
    check(dockerd, engine)
    engine.close()


@pytest.mark.real
def test_a_real_podman_is_measured(podman: PodmanEngine, make_sshd: Callable[..., Sshd],
                                   connect: Callable[..., ssh.SSHConnection]) -> None:
    engine = api.Engine(connect(make_sshd(), socket=podman.socket_path), ENGINE)
    check(podman, engine)
    engine.close()


@pytest.mark.real
def test_docker_and_podman_show_the_numbers_of_their_own_clients(dockerd: RealEngine, podman: PodmanEngine) -> None:
    for server in (dockerd, podman):
        with engine_at(server.socket_path, ENGINE) as engine, real.container(server, "shown") as shown:
            theirs = server.client().stats(shown, stream=False)
            sample = Stats(engine.calls).read([shown]).usages[0].sample
            inactive = theirs["memory_stats"].get("stats", {}).get("total_inactive_file", 0)
            assert abs((sample.memory or 0) - (theirs["memory_stats"]["usage"] - inactive)) < 1 << 20
            assert sample.limit == theirs["memory_stats"]["limit"]
            assert sample.pids == theirs["pids_stats"]["current"]
            assert (sample.cpu or 0) >= theirs["cpu_stats"]["cpu_usage"]["total_usage"]


@pytest.mark.real
def test_a_real_rootless_podman_is_measured_or_says_what_it_needs(rootless: PodmanEngine) -> None:  # noqa: F811
    """Stats need cgroup v2 there; logs are read in any case."""
    with engine_at(rootless.socket_path, ENGINE) as engine, real.container(rootless, "mine") as mine:
        if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
            assert [usage.sample.id for usage in Stats(engine.calls).read([mine]).usages] == [mine]
        else:
            with pytest.raises(StatsUnavailable) as raised:
                Stats(engine.calls).read([mine])
            assert "cgroup" in raised.value.message and "cgroup v2" in raised.value.hint
        assert read_logs(engine, mine).lines == ()
