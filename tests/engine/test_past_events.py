"""Past events of engines: asked for, told from new ones, and bounded; against scripted engines and real ones."""

import contextlib
import json
import socket
import tempfile
import time
from typing import Any, Callable, Dict, Iterator, List, Sequence
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.engine.conftest import ENGINE
from tests.engine.peers import Script, Server, engine_at, http_answer
from tests.engine.real import running
from tests.engine.test_api import chunk
from tests.engine.test_podman import VERSION as PODMAN_VERSION
from tests.waiting import until
from xscontainer.access.event_record import EventRecord, Missed
from xscontainer.core.engine_event import EngineEvent
from xscontainer.core.event_log import MOST_EVENTS
from xscontainer.engine.api import Engine
from xscontainer.errors import EngineGarbage, EngineRefused, EngineTooMuch
from xscontainer.monitoring.vm.feed import Feed
from xscontainer.simulator.engines import EmbeddedEngine, Identity
from xscontainer.simulator.engines.podman import PodmanEngine
from xscontainer.simulator.engines.real import RealEngine

S = 1000000000
NOW = 1796097641
DATE = "Tue, 01 Dec 2026 04:00:41 GMT"
PODMAN = http_answer(json.dumps(PODMAN_VERSION).encode())


def line(action: str, at: float, container: str = "1") -> bytes:
    return json.dumps({
        "status": action, "id": container * 64, "from": "busybox", "Type": "container", "Action": action,
        "Actor": {"ID": container * 64, "Attributes": {"name": "web", "image": "busybox"}}, "scope": "local",
        "time": int(at), "timeNano": int(at * S)}).encode() + b"\n"


class Stream:
    """Serves GET /events: a head, and then what the test sends."""

    def __init__(self, date: str = DATE, first: bytes = b"") -> None:
        self.date, self.first = date, first
        self.heads: List[str] = []
        self.peer: Any = None

    def __call__(self, peer: socket.socket, head: str) -> None:
        self.heads.append(head)
        peer.sendall(f"HTTP/1.1 200 OK\r\n{self.date and 'Date: ' + self.date}\r\nTransfer-Encoding: chunked\r\n\r\n"
                     .replace("\r\n\r\nT", "\r\nT").encode() + (chunk(self.first) if self.first else b""))
        self.peer = peer
        peer.recv(1)

    def query(self, number: int = -1) -> Dict[str, List[str]]:
        return parse_qs(urlsplit(self.heads[number].split()[1]).query)


class Following:
    """A feed with its record, at a scripted engine."""

    def __init__(self, engine: Engine) -> None:
        self.record = EventRecord(lambda: float(NOW))
        self.feed = Feed(engine, "the VM", time.sleep, record=self.record)

    def new(self, wait: float = 0.3) -> List[str]:
        """Return the actions of new events."""
        found: List[str] = []
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline:
            found += [event.action for event in self.feed.take(max(0.0, deadline - time.monotonic())).events]
        return found

    def recorded(self) -> List[str]:
        return [event.happening.action for event in self.record.show().events]


@pytest.fixture
def follow(socket_path: str) -> Iterator[Callable[..., Following]]:
    with contextlib.ExitStack() as stack:
        def begin(stream: Stream, before: Sequence[str] = (), **answers: bytes) -> Following:
            script = Script({"/events": stream, **{f"/{name}": answer for name, answer in answers.items()}})
            stack.enter_context(Server(script, socket_path))
            made = Following(stack.enter_context(engine_at(socket_path, ENGINE)))
            if before:
                made.record.subscribed(NOW - 101, True)
                made.record.heard([EngineEvent.from_api(json.loads(line(action, NOW - 60).decode()))
                                   for action in before])
            stack.callback(made.feed.close)
            made.feed.begin()
            return made

        yield begin


def test_docker_is_asked_for_an_outage_with_the_stream(follow: Callable[..., Following]) -> None:
    stream = Stream(first=line("create", NOW - 60) + line("start", NOW - 50) + line("die", NOW + 1))
    following = follow(stream, before=["create"])
    assert following.new() == ["die"], "what the first list shows already is not listed again"
    assert following.recorded() == ["create", "start", "die"]
    assert stream.query()["since"] == [f"{NOW - 62}.000000000"] and "until" not in stream.query()
    assert following.record.show().complete_from == (NOW - 100) * S
    assert following.record.take_missed() is None


def test_an_engine_is_asked_for_the_last_hour_only_when_a_caller_looks(follow: Callable[..., Following]) -> None:
    stream = Stream(first=line("start", NOW + 1))
    following = follow(stream)
    assert following.new() == ["start"] and "since" not in stream.query()
    missed = following.record.take_missed()
    assert missed == Missed((NOW + 1 - 3600) * S, (NOW + 1) * S)
    assert following.record.take_missed() is None, "the first one who looks asks"


def test_events_of_the_second_before_the_stream_count_as_new(follow: Callable[..., Following]) -> None:
    """An engine may send an event a moment before its list shows the change."""
    following = follow(Stream(first=line("create", NOW - 60) + line("start", NOW - 0.9)), before=["create"])
    assert following.new() == ["start"]


@pytest.mark.parametrize("date", ["", "yesterday", "Tue, 99 Foo 2026 99:99:99", "Tue, 01 Dec 99999 04:00:41 GMT",
                                  "\u0664" * 60])
def test_all_events_are_new_if_the_engine_does_not_say_its_time(follow: Callable[..., Following], date: str) -> None:
    following = follow(Stream(date.encode("ascii", "replace").decode(), line("start", NOW - 50)), before=["create"])
    assert following.new() == ["start"] and following.recorded() == ["create", "start"]


def test_a_clock_that_is_set_back_hides_no_new_event(follow: Callable[..., Following]) -> None:
    stream = Stream(first=line("start", NOW - 50))
    following = follow(stream, before=["create"])
    assert following.new() == []
    stream.peer.sendall(chunk(line("die", NOW - 7200)))
    assert following.new() == ["die"]
    stream.peer.sendall(chunk(line("start", NOW + 5)) + chunk(line("die", NOW - 7100)))
    assert following.new() == ["start", "die"]
    assert following.recorded() == ["die", "die", "create", "start", "start"], "by time"


def test_podman_gets_no_since_with_its_stream(follow: Callable[..., Following]) -> None:
    """Podman compares all later events with it: after its clock was set back, it would be silent."""
    stream = Stream(first=line("start", NOW - 50))
    following = follow(stream, before=["create"], version=PODMAN)
    assert following.new() == ["start"], "all events are new ones"
    assert "since" not in stream.query()
    assert following.record.take_missed() == Missed((NOW - 62) * S, (NOW + 1) * S)


def test_only_the_last_past_events_are_kept_in_memory(socket_path: str) -> None:
    body = b"".join(line("start", NOW + number) + line("exec_start", NOW + number) for number in range(3 * MOST_EVENTS))
    with Server(Script({"/version": PODMAN, "/events": http_answer(body)}), socket_path), \
            engine_at(socket_path, ENGINE) as engine:
        found = engine.past_events(NOW * S, NOW * S)
    assert [event.time_ns // S for event in found] == list(range(NOW + 2 * MOST_EVENTS, NOW + 3 * MOST_EVENTS))


@pytest.mark.parametrize("answer, error", [
    (http_answer(b'{"message": "no journal"}', "500 Internal Server Error"), EngineRefused),
    (http_answer(b"[1, 2]\n"), EngineGarbage), (http_answer(line("start", NOW) * 20000), EngineTooMuch)])
def test_an_engine_without_past_events_is_an_error(socket_path: str, answer: bytes, error: Any) -> None:
    with Server(Script({"/version": PODMAN, "/events": answer}), socket_path), \
            engine_at(socket_path, ENGINE) as engine, pytest.raises(error):
        engine.past_events(NOW * S, NOW * S)


def test_a_container_that_is_killed_for_its_memory_is_recorded(tmp_path: Any) -> None:
    with EmbeddedEngine(str(tmp_path / "e")) as engine, engine_at(engine.socket_path, ENGINE) as made:
        following = Following(made)
        following.feed.begin()
        engine.run("web", ("nginx",))
        engine.do("oom", "web")
        until(lambda: following.new(0.05) is None or len(following.recorded()) == 4)
        following.feed.close()
        assert made.inspect("web")["State"]["OOMKilled"] is True
    assert following.recorded() == ["create", "start", "oom", "die"]


# --- real engines and the simulator's

LOOP = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")


def history(engine: Any, command: Any) -> List[Any]:
    """Return what a record shows after a container was led through its life."""
    with engine_at(engine.socket_path, ENGINE) as made:
        following = Following(made)
        following.feed.begin()
        since = int(time.time() * S)
        whole = engine.run("web", command, Labels={"image": "x", "exitCode": "9"})
        for verb, options in (("pause", {}), ("unpause", {}), ("kill", {"signal": "SIGKILL"}), ("start", {}),
                              ("restart", {"timeout": 5}), ("stop", {"timeout": 5}), ("rename", {"name": "web2"}),
                              ("remove", {})):
            with contextlib.ExitStack() as marked:
                if verb == "restart":
                    following.new(0.6)  # the record's clock stands still, so earlier events would be marked, too
                    marked.enter_context(following.record.acting(whole, verb))
                engine.do(verb, whole, **options)
        until(lambda: following.new(0.05) is None or "destroy" in following.recorded())
        shown = following.record.show().events
        past = EventRecord()
        past.heard(made.past_events(since, int(time.time() * S)), past=True)
        following.feed.close()
    remembered, seen = ([(event.time_ns, event.subject, event.happening[:4]) for event in events]
                        for events in (past.show().events, shown))
    assert remembered == seen, "the same from the engine's memory"
    return [(tuple(event.happening), event.subject.name, len(event.subject.id), event.subject.image.split("/")[-1])
            for event in shown]


@pytest.mark.real
@pytest.mark.parametrize("kind, product, ends, restarting", [
    (RealEngine, "Engine", [9, 9, 9], ["kill", "die", "stop", "start", "restart"]),
    (PodmanEngine, "Podman Engine", [137, 0, 0], ["restart", "die", "start"])])
def test_the_simulators_engines_send_what_real_ones_send(kind: Any, product: str, ends: List[int],
                                                         restarting: List[str]) -> None:
    """A label that is named exitCode replaces the exit code in dockerd's events."""
    with tempfile.TemporaryDirectory(prefix="xs-") as directory:  # short enough for podman
        with EmbeddedEngine(directory + "/e", identity=Identity(product=product)) as embedded:
            simulated = history(embedded, ("nginx",))
        with running(kind(directory + "/r")) as engine:
            found = history(engine, LOOP)
    if kind is PodmanEngine:  # podman reports a stop or not, by the moment
        found, simulated = ([event for event in events if event[0][0] != "stop"] for events in (found, simulated))
    if kind is RealEngine:  # on a busy machine dockerd sends a pause and its end a second time, from containerd
        found = [event for number, event in enumerate(found)
                 if event[0][0] not in ("pause", "unpause") or event not in found[:number]]
    assert found == simulated
    assert [found[0][1] for found in simulated if found[0][0] == "die"] == ends
    assert [found[0][0] for found in simulated if found[0][-1] == "xscontainer (restart)"] == restarting
    assert all(exit_code is None for (action, exit_code, *_), *_ in simulated if action != "die")


@pytest.mark.real
def test_a_real_dockerd_reports_memory_and_health() -> None:
    with tempfile.TemporaryDirectory(prefix="xs-") as directory, running(RealEngine(directory + "/r")) as engine, \
            engine_at(engine.socket_path, ENGINE) as made:
        following = Following(made)
        following.feed.begin()
        limit = 8 * 1024 * 1024
        engine.run("greedy", ("sh", "-c", "a=x; while :; do a=$a$a; done"),
                   HostConfig={"Memory": limit, "MemorySwap": limit})
        probe = {"Test": ["CMD", "sh", "-c", "[ ! -e /sick ]"], "Interval": 200000000, "Retries": 1}
        engine.run("web", ("sh", "-c", "sleep 1.5; : > /sick; while :; do sleep 0.1; done"), Healthcheck=probe)

        def health() -> List[Any]:
            following.new(0.05)
            return [event.happening.health for event in following.record.show().events
                    if event.happening.action == "health_status"]

        until(lambda: health() == ["healthy", "unhealthy"])
        greedy = [event.happening[:2] for event in following.record.show().events if event.subject.name == "greedy"]
        following.feed.close()
    assert greedy[:2] == [("create", None), ("start", None)] and greedy[-1] == ("die", 137)
    assert ("oom", None) in greedy or greedy[2:-1] == [], "the kernel does not always say it"
    assert sum(event.happening.action.startswith("exec") for event in following.record.show().events) == 0
