"""A stale list is replaced by a status, and a status names the parts that an engine does not provide."""

import functools
import json
import socket
import threading
import time
from typing import Any, Callable, Dict, Iterator, List

import pytest

from tests.engine.peers import Script, Server, http_answer
from tests.monitoring.test_monitor import SETTINGS, Scene, make_scene  # noqa: F401 - a fixture
from tests.waiting import until
from xscontainer import keys
from xscontainer.core import cadence
from xscontainer.core.pacing import Backoff
from xscontainer.engine.api import Engine, Limits
from xscontainer.errors import EngineStopped, GuestSilent, GuestUnreachable, KeyNotAccepted, TransportLost
from xscontainer.monitoring import registry
from xscontainer.monitoring.vm import feed
from xscontainer.monitoring.vm.facts_reader import FactsReader
from xscontainer.settings import Settings

ID = "ab" * 32
DENIED = http_answer(b"<html><h1>403 Forbidden</h1></html>", "403 Forbidden")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
PATIENT = SETTINGS._replace(engine=SETTINGS.engine._replace(request_timeout=600.0))


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def never(peer: socket.socket, _head: str) -> None:
    while peer.recv(1000):
        pass


class ScriptedEngine:
    """An engine with one container, whose answers a test can change at any time."""

    def __init__(self, scene: Scene) -> None:
        scene.engine.stop()
        self.scene = scene
        self.name = "before"
        self.streams: List[socket.socket] = []
        self.script = Script({"/containers/json": self._list, "/events": self.follow,
                              "/info": http_answer(b'{"Name": "guest"}')})
        self.server = Server(self.script, scene.engine.socket_path)

    def _list(self, peer: socket.socket, _head: str) -> None:
        peer.sendall(http_answer(json.dumps([{"Id": ID, "Names": ["/" + self.name], "State": "running"}]).encode()))

    def follow(self, peer: socket.socket, head: str) -> None:
        peer.sendall(HEAD)
        self.streams.append(peer)
        never(peer, head)

    def emit(self, action: str = "rename", **attributes: str) -> None:
        event = {"Type": "container", "Action": action, "Actor": {"ID": ID, "Attributes": attributes}}
        self.streams[-1].sendall(chunk(json.dumps(event).encode() + b"\n"))

    def shown(self) -> bool:
        return f"<names>{self.name}</names>" in self.scene.shown()

    def asked(self, path: str) -> int:
        return sum(path in line for line in self.script.asked)


@pytest.fixture
def make_engine(make_scene: Callable[..., Scene]) -> Iterator[Callable[..., ScriptedEngine]]:  # noqa: F811
    made: List[ScriptedEngine] = []

    def make(settings: Settings = PATIENT, **answers: Any) -> ScriptedEngine:
        made.append(ScriptedEngine(make_scene(settings=settings)))
        made[-1].script.answers.update({"/" + path: answer for path, answer in answers.items()})
        return made[-1]

    yield make
    for engine in made:
        engine.scene.monitor.stop()
        engine.scene.monitor.join(10.0)
        engine.server.close()


@pytest.fixture
def looked_after() -> Iterator[Callable[[Scene], None]]:
    """Return a function that starts the work of the registry's thread for a scene, in short rounds."""
    ended = threading.Event()
    threads: List[threading.Thread] = []

    def look(scene: Scene) -> None:
        while not ended.wait(0.05):
            scene.update_monitor()
            if scene.monitor.replace_if_stale():
                scene.publication.settle()

    def begin(scene: Scene) -> None:
        threads.append(threading.Thread(target=look, args=(scene,)))
        threads[-1].start()

    yield begin
    ended.set()
    for thread in threads:
        thread.join(10.0)


# --- optional answers


@pytest.mark.parametrize("answers", [
    {"info": DENIED}, {"version": DENIED}, {"info": DENIED, "version": DENIED}, {"info": never},
    {"info": http_answer(b"nonsense")}], ids=range(5))
def test_a_list_is_shown_without_facts(make_engine: Callable[..., ScriptedEngine], answers: Dict[str, Any]) -> None:
    engine = make_engine(**answers)
    engine.scene.monitor.start()
    until(engine.shown)
    if answers.get("info") is not never:  # otherwise the status comes after the request's timeout
        until(lambda: engine.scene.status() == "FACTS_UNAVAILABLE")
        assert bool(engine.scene.shown(keys.INFO)) == ("info" not in answers)
        assert bool(engine.scene.shown(keys.VERSION)) == ("version" not in answers)
    engine.name = "after"
    engine.emit()
    until(engine.shown)


def test_facts_that_hang_do_not_delay_events(make_engine: Callable[..., ScriptedEngine]) -> None:
    engine = make_engine(info=never)
    engine.scene.monitor.start()
    until(lambda: engine.asked("/info"))
    engine.name = "after"
    engine.emit()
    assert until(engine.shown) < 5.0
    assert len(engine.streams) == 1


@pytest.mark.parametrize("error", [None, EngineStopped("x"), TransportLost("x"), ZeroDivisionError("a bug")])
def test_facts_are_read_again_soon_after_a_failure(error: Any) -> None:
    now = [1000.0]
    reader = FactsReader(600.0, lambda: now[0])

    def read() -> None:
        if error is not None:
            raise error

    assert reader.due_at <= now[0]
    reader.start(read)
    reader.wait(10.0)
    assert reader.due_at == (1600.0 if error is None or isinstance(error, ZeroDivisionError) else 1015.0)
    reader.join()


def test_one_late_start_of_events_gives_no_status(make_engine: Callable[..., ScriptedEngine],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "BEGIN_WITHIN", 0.3)
    engine = make_engine(events=never)
    engine.scene.monitor.start()
    until(engine.shown)
    engine.script.answers["/events"] = engine.follow
    until(lambda: engine.streams)
    engine.name = "after"
    engine.emit()
    until(engine.shown)
    assert not engine.scene.status()


def test_a_version_that_hangs_does_not_prevent_the_list(make_engine: Callable[..., ScriptedEngine]) -> None:
    engine = make_engine(version=never)
    engine.scene.engine_class = functools.partial(Engine, limits=Limits(version_seconds=0.2))
    engine.scene.monitor.start()
    until(engine.shown)
    assert engine.asked("GET /containers/json") and engine.asked("GET /events"), "the path has no version"


@pytest.mark.parametrize("answer", [
    DENIED, never, HEAD + b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", HEAD + chunk(b"null\n")],
    ids=range(5))
def test_an_engine_without_events_is_polled(make_engine: Callable[..., ScriptedEngine], monkeypatch: pytest.MonkeyPatch,
                                            answer: Any) -> None:
    monkeypatch.setattr(feed, "BEGIN_WITHIN", 0.3)
    monkeypatch.setattr(feed, "STEADY", 0.5)
    monkeypatch.setattr(feed, "RETRY_REFUSED", 1.0)
    engine = make_engine(events=answer)
    engine.scene.monitor.start()
    until(engine.shown)
    until(lambda: engine.scene.status() == "EVENTS_UNAVAILABLE")
    for name in ("second", "third"):
        engine.name = name
        until(engine.shown, seconds=feed.POLL_MOST + 5.0)
        assert engine.scene.status() == "EVENTS_UNAVAILABLE"
    assert engine.scene.shown(keys.INFO) and engine.scene.shown(keys.VERSION)
    engine.script.answers["/events"] = engine.follow
    until(lambda: not engine.scene.status() and engine.shown(), seconds=30.0)
    engine.name = "fourth"
    engine.emit()
    until(engine.shown)


def test_polling_an_idle_engine_is_cheap(make_engine: Callable[..., ScriptedEngine]) -> None:
    engine = make_engine(events=DENIED)
    engine.scene.monitor.start()
    until(lambda: engine.scene.status() == "EVENTS_UNAVAILABLE")
    before, begun = engine.asked("/containers/json"), time.monotonic()
    until(lambda: engine.asked("/containers/json") >= before + 3, seconds=60.0)
    assert time.monotonic() - begun >= feed.POLL_FIRST * 2
    assert engine.asked("/events") == 1


# --- events


def test_a_container_with_long_labels_does_not_end_the_stream(make_engine: Callable[..., ScriptedEngine]) -> None:
    engine = make_engine()
    engine.scene.monitor.start()
    until(lambda: engine.streams and engine.shown())
    for number in range(4):
        engine.name = f"name{number}"
        engine.emit("rename", conf="x" * 100000)
        until(engine.shown)
    assert len(engine.streams) == 1 and not engine.scene.status()


def test_a_change_without_an_event_is_found_and_replaces_the_stream(make_engine: Callable[..., ScriptedEngine]) -> None:
    engine = make_engine(PATIENT._replace(monitor=PATIENT.monitor._replace(resync_interval=1.5)))
    engine.scene.monitor.start()
    until(lambda: engine.streams and engine.shown())
    time.sleep(1.1)  # the list after the subscription has been requested
    engine.name = "after"
    until(engine.shown)
    until(lambda: len(engine.streams) == 2)
    assert not engine.scene.status()


# --- the end of an outage


def backed_off(scene: Scene, monkeypatch: pytest.MonkeyPatch, error: Any) -> List[int]:
    """Have the monitor wait an hour for its next try; return a list that gets an entry for each probe meanwhile."""
    monkeypatch.setattr(cadence, "RECHECK_INTERVAL", 0.05)
    monkeypatch.setattr(cadence, "RECHECK_INTERVAL_LONG", 0.05)
    scene.monitor._cadence.backoff = Backoff(3600.0, 3600.0)
    looks: List[int] = []
    answering: List[bool] = [False]

    def answers() -> bool:
        looks.append(len(scene.opened))
        return answering[-1]

    scene.answers = answers
    scene.refusal = error
    scene.monitor.start()
    until(lambda: len(looks) >= 3 or (len(scene.opened) and not isinstance(error, QUIET)))
    scene.answering = answering  # type: ignore[attr-defined]
    return looks


QUIET = (GuestUnreachable, GuestSilent, TransportLost)


@pytest.mark.parametrize("error", [GuestUnreachable("x"), GuestSilent("x"), TransportLost("x")])
def test_a_guest_that_answers_again_is_connected_to_at_once(
        make_scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch, error: Any) -> None:  # noqa: F811
    scene = make_scene(settings=PATIENT._replace(publish=PATIENT.publish._replace(stale_after=3600.0)))
    backed_off(scene, monkeypatch, error)
    assert len(scene.opened) == 1, "a probe opens no connection to the engine"
    scene.refusal = None
    scene.answering.append(True)  # type: ignore[attr-defined]
    until(lambda: scene.shown(keys.VERSION))


def test_a_guest_that_answers_and_refuses_connections_is_not_tried_more_often(
        make_scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    scene = make_scene(settings=PATIENT._replace(publish=PATIENT.publish._replace(stale_after=3600.0)))
    looks = backed_off(scene, monkeypatch, GuestSilent("x"))
    scene.answering.append(True)  # type: ignore[attr-defined]
    before = len(looks)
    until(lambda: len(looks) >= before + 10)
    assert len(scene.opened) == 2


def test_a_guest_that_refused_a_login_is_not_probed(make_scene: Callable[..., Scene],  # noqa: F811
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_scene(settings=PATIENT)
    looks = backed_off(scene, monkeypatch, KeyNotAccepted("x"))
    time.sleep(0.3)
    assert not looks and len(scene.opened) == 1


def test_a_monitor_waits_for_the_next_login_until_something_changes(
        make_scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    scene = make_scene(settings=PATIENT)
    error = KeyNotAccepted("No.")
    error.retry_in = 3600.0
    held = [True]
    scene.login_held = lambda: held[-1]
    backed_off(scene, monkeypatch, error)
    scene.pool.set_key(scene.ref, keys.USERNAME, "other")
    scene.update_monitor()
    time.sleep(0.3)
    assert len(scene.opened) == 1, "a change must not allow another login"
    held.append(False)
    scene.refusal = None
    until(lambda: scene.shown(keys.VERSION))


# --- silent engines


def test_an_engine_that_hangs_without_events_is_noticed(make_scene: Callable[..., Scene],  # noqa: F811
                                                        looked_after: Callable[[Scene], None],
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cadence, "PROBE_INTERVAL", 0.5)
    scene = make_scene(settings=PATIENT)
    scene.engine.run("alpha")
    looked_after(scene.started())
    until(lambda: scene.engine.requests["GET /containers/json"] >= 5)  # probed while it works
    assert not scene.status() and scene.shown()
    scene.engine.freeze()
    until(lambda: scene.status() == "ENGINE_TIMEOUT" and not scene.shown())
    scene.engine.thaw()
    until(lambda: "alpha" in scene.shown() and not scene.status() and scene.shown(keys.VERSION), seconds=40.0)


def test_a_silent_engine_is_noticed_within_a_minute() -> None:
    assert cadence.PROBE_INTERVAL + Settings().publish.stale_after + registry.ROUND < 60.0


def test_a_late_list_is_replaced_by_the_reason_until_it_comes(make_engine: Callable[..., ScriptedEngine],
                                                              looked_after: Callable[[Scene], None]) -> None:
    engine = make_engine()
    engine.scene.monitor.start()
    until(lambda: (engine.streams and engine.shown() and engine.scene.shown(keys.INFO)
                   and engine.scene.shown(keys.VERSION)))
    looked_after(engine.scene)
    answering = threading.Event()

    def late(peer: socket.socket, head: str) -> None:
        answering.wait(60.0)
        engine._list(peer, head)

    engine.script.answers["/containers/json"] = late
    engine.name = "after"
    engine.emit()
    until(lambda: engine.scene.status() == "ENGINE_TIMEOUT" and not engine.scene.shown())
    assert not engine.scene.shown(keys.INFO)
    answering.set()
    until(lambda: engine.shown() and not engine.scene.status() and engine.scene.shown(keys.INFO))
    assert len(engine.streams) == 1, "the stream must be kept"


def test_a_throttled_guest_gets_a_status(make_engine: Callable[..., ScriptedEngine],
                                         looked_after: Callable[[Scene], None]) -> None:
    engine = make_engine()
    engine.scene.monitor.start()
    until(lambda: engine.streams and engine.shown() and not engine.scene.status())
    looked_after(engine.scene)
    engine.scene.monitor._throttle.budget.charge(3.0)  # CPU time that other threads use for this guest
    engine.name = "after"
    engine.emit()
    until(lambda: engine.scene.status() == "GUEST_THROTTLED" and not engine.scene.shown())
