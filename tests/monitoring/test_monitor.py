"""The monitor of one VM, with an engine and a pool, connected by a local socket."""

import json
import logging
import os
import threading
import time
from typing import Any, Callable, Iterator, List, Optional, Tuple

import pytest

from tests.engine.peers import SocketConnection
from tests.pool_fixtures import ORIGINATOR
from tests.waiting import until
from xscontainer import keys
from xscontainer.access.event_record import EventRecord
from xscontainer.core.pacing import Backoff
from xscontainer.core.target import Remembered
from xscontainer.core.vm_record import VMRecord
from xscontainer.engine.api import Engine
from xscontainer.errors import (
    AddressUnknown,
    ArgumentError,
    EngineUnavailable,
    GuestUnreachable,
    HostKeyChanged,
    KeyNotAccepted,
    SSHWeak,
    XSContainerError,
)
from xscontainer.monitoring.monitor import Monitor
from xscontainer.monitoring.vm.services import Services
from xscontainer.publish import Publication
from xscontainer.settings import Settings
from xscontainer.simulator.engines import EmbeddedEngine, Identity
from xscontainer.simulator.xapi import Pool
from xscontainer.xapi.session import SessionPool

Record = Callable[[str], VMRecord]

SETTINGS = Settings()
SETTINGS = SETTINGS._replace(
    publish=SETTINGS.publish._replace(stale_after=0.5),
    monitor=SETTINGS.monitor._replace(backoff_min=0.02))


class Scene:
    """A VM, its engine, its monitor, and the part of the registry that notifies the monitor of changes."""

    def __init__(self, pool: Pool, sessions: SessionPool, record: Record, directory: str,
                 settings: Settings = SETTINGS, identity: Optional[Identity] = None) -> None:
        self.pool = pool
        self.record = record
        self.settings = settings
        self.ref = pool.create_vm("web", other_config={"xscontainer-monitor": "True"}, networks={"0/ip": "10.0.0.5"})
        self.engine = EmbeddedEngine(directory, os.path.join(directory, "e"), identity)
        self.engine.start()
        self.engine_class: Callable[..., Engine] = Engine
        self.opened: List[Tuple[VMRecord, Remembered]] = []
        self.connections: List[SocketConnection] = []
        self.refusal: Optional[BaseException] = None
        self.unsettled: List[str] = []
        self.login_held: Callable[[], bool] = lambda: False
        self.answers: Callable[[], bool] = lambda: False
        self.publication = Publication(record(self.ref), sessions)
        self.events = EventRecord()
        services = Services(self._open, threading.Semaphore(2), self.unsettled.append,
                            login_held=lambda vm: self.login_held(), answers=lambda vm, remembered: self.answers(),
                            record_of=lambda vm_uuid: self.events)
        self.monitor = Monitor(record(self.ref), services, self.publication, settings)

    def _open(self, vm: VMRecord, remembered: Remembered) -> Tuple[Engine, Remembered]:
        self.opened.append((vm, remembered))
        if self.refusal is not None:
            raise self.refusal
        connection = SocketConnection(self.engine.socket_path)
        connection.address, connection.method = "10.0.0.5", "straight"
        self.connections.append(connection)
        return self.engine_class(connection, self.settings.engine), Remembered("10.0.0.5")

    def close(self) -> None:
        self.monitor.stop()
        assert self.monitor.join(10.0)
        self.engine.close()

    def shown(self, key: str = keys.PS) -> str:
        return self.pool.other_config(self.ref).get(key, "")

    def status(self) -> str:
        """Return the code of the status that clients see instead of a list."""
        text = self.shown(keys.STATUS)
        code: str = json.loads(text)["code"] if text else ""
        return code

    def update_monitor(self) -> None:
        """Update the monitor as an event of XAPI does."""
        self.monitor.update(self.record(self.ref))

    def started(self) -> "Scene":
        self.monitor.start()
        until(lambda: self.shown(keys.VERSION))
        return self


@pytest.fixture
def make_scene(pool: Pool, sessions: SessionPool, record: Record,
               tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Scene]]:
    made: List[Scene] = []

    def make(**settings: Any) -> Scene:
        made.append(Scene(pool, sessions, record, str(tmp_path_factory.mktemp("m")), **settings))
        return made[-1]

    yield make
    for scene in made:
        scene.close()


@pytest.fixture
def scene(make_scene: Callable[..., Scene]) -> Scene:
    return make_scene()


def test_all_documents_and_then_every_change_are_published(scene: Scene) -> None:
    scene.engine.run("alpha")
    scene.started()
    assert "alpha" in scene.shown() and scene.shown(keys.INFO) and scene.shown(keys.VERSION)
    scene.engine.run("beta")
    until(lambda: "beta" in scene.shown())
    scene.engine.do("pause", "alpha")
    until(lambda: "Up (Paused)" in scene.shown())
    scene.engine.do("remove", "alpha")
    until(lambda: "alpha" not in scene.shown())
    assert len(scene.opened) == 1


def test_a_change_costs_two_calls(scene: Scene) -> None:
    scene.engine.run("alpha")
    scene.started()
    scene.pool.stats.reset()
    scene.engine.do("pause", "alpha")
    until(lambda: "Up (Paused)" in scene.shown())
    assert scene.pool.stats.calls(originator=ORIGINATOR) == 2


def test_a_storm_of_changes_ends_in_few_writes_and_the_last_state(make_scene: Callable[..., Scene]) -> None:
    """Make 200 changes in 5 seconds, with the default settings."""
    scene = make_scene(settings=Settings())
    scene.engine.run("alpha")
    scene.started()
    time.sleep(2.5)  # the pacer regains the burst that the start has used
    scene.pool.stats.reset()
    begun = time.monotonic()
    for number in range(200):
        scene.engine.do("unpause" if number % 2 else "pause", "alpha")
        time.sleep(max(0.0, begun + (number + 1) * 5 / 200 - time.monotonic()))
    scene.engine.do("pause", "alpha")
    last = time.monotonic()
    until(lambda: "Up (Paused)" in scene.shown() and time.monotonic() > last + 1.2 or None, seconds=2.5)
    writes = scene.pool.stats.calls("VM.add_to_other_config", ORIGINATOR)
    assert writes <= 12
    time.sleep(1.0)
    assert scene.pool.stats.calls("VM.add_to_other_config", ORIGINATOR) == writes
    assert "Up (Paused)" in scene.shown()


def test_the_address_and_method_that_worked_are_tried_first_the_next_time(scene: Scene) -> None:
    scene.started()
    scene.connections[0].close()
    until(lambda: len(scene.opened) == 2)
    assert scene.opened[1][1] == Remembered("10.0.0.5", "straight")


# --- failures


@pytest.mark.parametrize("down", [0.1, 1.0])
def test_an_engine_that_restarts_is_listed_again(scene: Scene, down: float) -> None:
    scene.engine.run("alpha")
    scene.started()
    scene.engine.stop()
    time.sleep(down)
    scene.engine.start()
    back = time.monotonic()
    scene.engine.run("beta")
    until(lambda: "beta" in scene.shown())
    assert time.monotonic() - back < 3.0


def test_the_list_of_an_engine_that_stays_away_is_replaced_by_a_status(scene: Scene) -> None:
    scene.engine.run("alpha")
    scene.started()
    scene.engine.stop()
    begun = time.monotonic()
    until(scene.status)
    assert 0.4 < time.monotonic() - begun < 2.0
    assert scene.status() == "ENGINE_UNAVAILABLE"
    assert scene.shown() == scene.shown(keys.INFO) == scene.shown(keys.VERSION) == ""
    scene.engine.start()
    until(lambda: scene.shown(keys.VERSION) and not scene.status())
    assert "alpha" in scene.shown()


def test_a_short_outage_is_not_published(scene: Scene) -> None:
    scene.engine.run("alpha")
    scene.started()
    scene.engine.restart(0.1)
    scene.engine.run("beta")
    until(lambda: "beta" in scene.shown())
    assert scene.status() == ""


@pytest.mark.parametrize("error", [HostKeyChanged("x"), KeyNotAccepted("x"), ArgumentError("x"), SSHWeak("x")])
def test_permanent_errors_are_published_immediately(
        make_scene: Callable[..., Scene], error: XSContainerError) -> None:
    scene = make_scene(settings=Settings())
    scene.refusal = error
    scene.monitor.start()
    assert until(scene.status) < 2.0
    assert scene.status() == error.code


@pytest.mark.parametrize("error", [GuestUnreachable("x"), AddressUnknown("x"), EngineUnavailable("x")])
def test_transient_errors_are_not_published_immediately(make_scene: Callable[..., Scene],
                                                        error: XSContainerError) -> None:
    scene = make_scene(settings=Settings())
    scene.refusal = error
    scene.monitor.start()
    until(lambda: len(scene.opened) >= 4)
    assert scene.status() == ""


def test_a_status_holds_only_text_that_xapi_can_store(scene: Scene) -> None:
    scene.refusal = KeyNotAccepted("bad\x00\x1b[31m \ud800 " + "x" * 5000)
    scene.monitor.start()
    until(scene.status)
    message = json.loads(scene.shown(keys.STATUS))["message"]
    assert message.isprintable() and len(message) <= 500


@pytest.mark.parametrize("kind, match", [
    ("garbage", ""), ("close", ""), ("close", "events"), ("cut", "json"), ("status", "json"), ("body", "json"),
    ("huge", "json"), ("huge", "events")])
def test_an_engine_that_misbehaves_is_listed_after_it_recovers(make_scene: Callable[..., Scene], kind: str,
                                                               match: str) -> None:
    quick = SETTINGS._replace(engine=SETTINGS.engine._replace(max_response_bytes=65536, request_timeout=5.0))
    scene = make_scene(settings=quick)
    scene.engine.faults.set(kind, match=match, size=7, status=500, body=b"{nonsense")
    scene.monitor.start()
    until(lambda: scene.engine.faults.fired[kind] >= 3)
    assert scene.monitor.alive
    scene.engine.faults.clear()
    scene.engine.run("alpha")
    until(lambda: "alpha" in scene.shown() and not scene.status())


def test_a_silent_engine_is_reported_after_the_timeout(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(settings=SETTINGS._replace(engine=SETTINGS.engine._replace(request_timeout=0.2)))
    scene.engine.faults.set("silent", match="GET")
    scene.monitor.start()
    until(lambda: scene.status() == "ENGINE_TIMEOUT")


def test_an_unexpected_exception_is_logged_and_the_monitor_continues(
        scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.refusal = ZeroDivisionError("a bug")
    with caplog.at_level(logging.ERROR):
        scene.monitor.start()
        until(lambda: len(scene.opened) >= 3)
    assert scene.monitor.alive and "a bug" in caplog.text and "'web'" in caplog.text
    scene.refusal = None
    until(lambda: scene.shown(keys.VERSION))


def test_each_new_cause_of_a_failure_is_logged_once(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    def warnings() -> List[str]:
        return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]

    with caplog.at_level(logging.INFO):
        scene.refusal = GuestUnreachable("Nobody there.")
        scene.monitor.start()
        until(lambda: len(scene.opened) >= 3)
        scene.refusal = KeyNotAccepted("Not you.")
        until(lambda: scene.status() == "KEY_NOT_ACCEPTED")
        count = len(scene.opened)
        until(lambda: len(scene.opened) >= count + 3)
    assert [line.split(": ")[1] for line in warnings()] == ["GUEST_UNREACHABLE", "KEY_NOT_ACCEPTED"]
    uuid = scene.pool.vm(scene.ref)["uuid"]
    assert all(uuid in line and "'web'" in line for line in warnings())


def test_a_guest_that_keeps_closing_the_stream_causes_few_writes(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(settings=Settings())
    scene.engine.run("alpha")
    scene.engine.faults.set("events-end", match="events", size=1)
    scene.started()
    ended, number = time.monotonic() + 4.0, 0
    while time.monotonic() < ended:
        number += 1
        scene.engine.do("unpause" if number % 2 == 0 else "pause", "alpha")
        time.sleep(0.01)
    assert 3 <= scene.engine.faults.fired["events-end"] <= 16
    assert scene.pool.stats.calls("VM.add_to_other_config", ORIGINATOR) <= 4 + 3 + 4.0 / 0.7 + 1


def test_a_flood_of_events_without_a_change_causes_few_lists_and_writes(scene: Scene) -> None:
    scene.engine.run("alpha")
    scene.started()
    before = scene.engine.requests["GET /containers/json"]
    scene.pool.stats.reset()
    ended = time.monotonic() + 2.0
    while time.monotonic() < ended:
        scene.engine.do("health", "alpha", status="healthy")
        scene.engine.do("rename", "alpha", name="beta")
        scene.engine.do("rename", "beta", name="alpha")
    asked = scene.engine.requests["GET /containers/json"] - before
    assert asked <= 60
    assert scene.pool.stats.calls("VM.add_to_other_config", ORIGINATOR) <= 8


class Costly(Engine):
    """An engine whose lists take 0.1 s of CPU time, like a list of some thousand containers."""

    def listed(self, limit: int, shape: Any, details: bool = False) -> Any:
        enough = time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID) + 0.1
        while time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID) < enough:
            pass
        return super().listed(limit, shape, details)


def test_an_expensive_list_is_read_less_often(scene: Scene) -> None:
    """Other guests must get their share of the CPU."""
    scene.engine_class = Costly
    scene.engine.run("alpha")
    scene.started()
    before, begun = scene.engine.requests["GET /containers/json"], time.monotonic()
    while time.monotonic() < begun + 4.0:
        scene.engine.do("rename", "alpha", name="beta")
        scene.engine.do("rename", "beta", name="alpha")
        time.sleep(0.02)
    assert scene.engine.requests["GET /containers/json"] - before <= 8
    scene.engine.run("gamma")
    until(lambda: "gamma" in scene.shown(), seconds=5.0)


def test_a_shortened_list_is_logged_once(make_scene: Callable[..., Scene],
                                         caplog: pytest.LogCaptureFixture) -> None:
    def logged() -> int:
        return sum("is shortened" in record.getMessage() for record in caplog.records)

    scene = make_scene(settings=SETTINGS._replace(publish=SETTINGS.publish._replace(max_containers=1)))
    for name in ("alpha", "beta0"):
        scene.engine.run(name)
    with caplog.at_level(logging.INFO):
        scene.started()
        for number in range(5):
            before = scene.engine.requests["GET /containers/json"]
            scene.engine.do("rename", f"beta{number}", name=f"beta{number + 1}")
            until(lambda: scene.engine.requests["GET /containers/json"] > before)  # noqa: B023 - called at once
        assert logged() == 1
        scene.engine.run("gamma")
        until(lambda: logged() == 2)


# --- events of XAPI


def waiting_long(scene: Scene) -> int:
    """Have the monitor fail, so that it waits for a minute; return the number of its tries."""
    scene.refusal = GuestUnreachable("x")
    scene.monitor._cadence.backoff = Backoff(60.0, 60.0)
    scene.monitor.start()
    until(lambda: scene.status() or len(scene.opened) >= 1)
    return len(scene.opened)


LONG = SETTINGS._replace(publish=SETTINGS.publish._replace(stale_after=3600.0))


@pytest.mark.parametrize("change", ["address", "user", "pin", "domid"])
def test_a_change_of_the_vm_cuts_the_wait_short(make_scene: Callable[..., Scene], change: str) -> None:
    scene = make_scene(settings=LONG)
    tries = waiting_long(scene)
    if change == "address":
        scene.pool.set_networks(scene.ref, {"0/ip": "10.0.0.6"})
    elif change == "domid":
        scene.pool.set_field("VM", scene.ref, "domid", 99)
    else:
        scene.pool.set_key(scene.ref, keys.USERNAME if change == "user" else keys.HOST_KEY, "x")
    scene.refusal = None
    scene.update_monitor()
    until(lambda: len(scene.opened) > tries, seconds=2.0)
    until(lambda: scene.shown(keys.VERSION))


def test_our_own_writes_do_not_cut_the_wait_short(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(settings=LONG)
    tries = waiting_long(scene)
    for key in (*keys.PUBLISHED, keys.OWNER):
        scene.pool.set_key(scene.ref, key, scene.pool.vm(scene.ref)["uuid"])
        scene.update_monitor()
    scene.pool.set_key(scene.ref, "folder", "/x")
    scene.update_monitor()
    time.sleep(0.3)
    assert len(scene.opened) == tries


def test_a_vm_that_keeps_changing_is_tried_at_a_bounded_rate(make_scene: Callable[..., Scene]) -> None:
    """A guest can write its own metrics."""
    scene = make_scene(settings=LONG._replace(monitor=LONG.monitor._replace(backoff_min=0.2)))
    tries = waiting_long(scene)
    ended, number = time.monotonic() + 1.0, 0
    while time.monotonic() < ended:
        number += 1
        scene.pool.set_networks(scene.ref, {"0/ip": f"10.0.{number % 250}.7"})
        scene.update_monitor()
    assert number > 10 and len(scene.opened) - tries <= 7


@pytest.mark.parametrize("change", ["domid", keys.USERNAME, keys.SSH_PORT, keys.ENGINE_SOCKET])
def test_a_connection_to_another_place_is_dropped(
        scene: Scene, change: str, caplog: pytest.LogCaptureFixture) -> None:
    scene.started()
    if change == "domid":
        scene.pool.set_field("VM", scene.ref, "domid", 99)
    else:
        scene.pool.set_key(scene.ref, change, {keys.SSH_PORT: "2222", keys.ENGINE_SOCKET: "/run/x"}.get(change, "x"))
    scene.update_monitor()
    until(lambda: len(scene.opened) == 2)
    assert scene.connections[0].closed
    scene.engine.run("beta")
    until(lambda: "beta" in scene.shown())
    assert not caplog.records  # the monitor itself closed the connection


@pytest.mark.parametrize("change", [keys.PS, keys.HOST_KEY, "folder"])
def test_other_changes_do_not_close_the_connection(scene: Scene, change: str) -> None:
    scene.started()
    scene.pool.set_key(scene.ref, change, "x")
    scene.pool.set_networks(scene.ref, {})
    scene.update_monitor()
    scene.engine.run("beta")
    until(lambda: "beta" in scene.shown())
    assert len(scene.opened) == 1


def test_an_outage_of_xapi_does_not_close_the_connection(scene: Scene) -> None:
    scene.engine.run("alpha")
    scene.started()
    scene.pool.coordinator.crash()
    scene.engine.run("beta")
    until(lambda: scene.unsettled)
    scene.pool.coordinator.start()
    scene.publication.settle()
    until(lambda: "beta" in scene.shown())
    assert len(scene.opened) == 1


# --- stop


def test_stop_is_prompt_and_leaves_the_list(scene: Scene) -> None:
    scene.engine.run("alpha")
    scene.started()
    begun = time.monotonic()
    scene.monitor.stop()
    assert scene.monitor.join(5.0) and time.monotonic() - begun < 4.0
    assert "alpha" in scene.shown()
    scene.engine.run("beta")
    time.sleep(0.1)
    assert "beta" not in scene.shown()


def test_a_waiting_monitor_stops_promptly(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(settings=LONG)
    waiting_long(scene)
    begun = time.monotonic()
    scene.monitor.stop()
    assert scene.monitor.join(5.0) and time.monotonic() - begun < 4.0


def test_a_monitor_can_be_stopped_at_any_moment(make_scene: Callable[..., Scene]) -> None:
    for number in range(20):
        scene = make_scene()
        scene.monitor.start()
        time.sleep(number * 0.002)
        scene.monitor.stop()
        assert scene.monitor.join(5.0)


def test_an_action_gets_the_open_engine_or_the_reason(scene: Scene) -> None:
    with pytest.raises(XSContainerError):
        scene.monitor.engine()
    scene.started()
    assert scene.monitor.engine().connection is scene.connections[0]
    scene.refusal = HostKeyChanged("Not the one.")
    scene.connections[0].close()
    until(lambda: scene.status() == "HOST_KEY_CHANGED")
    frames = set()
    for _ in range(3):
        with pytest.raises(HostKeyChanged) as caught:
            scene.monitor.engine()
        frames.add(len(caught.traceback))
    assert len(frames) == 1  # otherwise the traceback of a shared error would grow with each call
