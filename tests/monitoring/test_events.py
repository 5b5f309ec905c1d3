"""The record of a VM's events, filled by its monitor, and the verb that shows it."""

import contextlib
import json
import threading
import time
from typing import Any, Callable, Dict, Iterator, List

import pytest

from tests.monitoring.test_monitor import Scene, make_scene, scene  # noqa: F401 - fixtures
from tests.waiting import until
from xscontainer.access.event_record import EventRecord, EventRecords
from xscontainer.core.engine_event import EngineEvent
from xscontainer.core.event_log import MOST_EVENTS
from xscontainer.engine.api import Engine
from xscontainer.errors import ContainerConflict, EngineLost, EngineTimeout, GuestThrottled, GuestUnreachable
from xscontainer.simulator.engines import Identity
from xscontainer.verbs import containers, events

PODMAN = Identity("4.3.1", "1.41", "1.24", product="Podman Engine")
UUID = "4a1b2c3d-0000-4000-8000-123456789abc"


class Context:
    """The part of the daemon's context that the verbs use."""

    def __init__(self, scene: Scene) -> None:  # noqa: F811 - not the fixture
        self.scene = scene
        self.stopping = threading.Event()

    @contextlib.contextmanager
    def engine(self, vm_uuid: str) -> "Iterator[Engine]":
        yield self.scene.monitor.engine()

    def crowded(self) -> bool:
        return False

    def record(self, vm_uuid: str) -> EventRecord:
        return self.scene.events

    def acting(self, vm_uuid: str, container: str, action: str) -> Any:
        return self.scene.events.acting(container, action)

    def vm(self, vm_uuid: str) -> Any:
        return self.scene.monitor.vm


def get_events(context: Any, **arguments: str) -> Dict[str, Any]:
    (verb,) = events.VERBS
    result = verb.action(context, **verb.checked({"vmuuid": UUID, **arguments}))
    assert result.startswith("True{") and result.isprintable()
    found: Dict[str, Any] = json.loads(result[4:])
    assert list(found) == ["events", "last", "since"]
    return found


def act(context: Any, action: str, container: str = "web") -> None:
    verb = next(verb for verb in containers.VERBS if verb.name == action)
    assert verb.action(context, UUID, container) == "True"


def actions(context: Any) -> List[str]:
    return [event["action"] for event in get_events(context)["events"]]


def asked(context: Context) -> int:
    return context.scene.engine.requests["GET /events"]


def published(scene: Scene, text: str) -> None:  # noqa: F811
    until(lambda: text in scene.shown())


@pytest.fixture
def started(scene: Scene) -> Context:  # noqa: F811
    """A monitored dockerd with a running container."""
    scene.engine.run("web", ("nginx",), Healthcheck={"Test": ["CMD", "true"], "Interval": 3600 * 10**9})
    scene.started()
    context = Context(scene)
    assert asked(context) == 1, "nobody has looked"
    assert actions(context) == ["create", "start"] and asked(context) == 2
    return context


def test_events_from_before_the_connection_are_shown(started: Context) -> None:
    found = get_events(started)
    create, start = found["events"]
    assert (create["action"], start["action"]) == ("create", "start")
    assert create["container"] == {"id": create["container"]["id"], "name": "web", "image": "busybox:latest"}
    assert len(create["container"]["id"]) == 64
    assert abs(create["time"] - time.time()) < 60 and create["number"] < start["number"] == found["last"]
    assert start["exit_code"] is start["health"] is start["by"] is start["signal"] is None
    assert found["since"] <= create["time"]


def test_ends_signals_and_health_are_shown(scene: Scene, started: Context) -> None:  # noqa: F811
    scene.engine.do("health", "web", status="unhealthy")
    scene.engine.life.kill("web", "SIGKILL")
    until(lambda: len(actions(started)) == 5)
    health, kill, die = get_events(started)["events"][2:]
    assert (health["action"], health["health"]) == ("health_status", "unhealthy")
    assert (kill["action"], kill["signal"]) == ("kill", "SIGKILL")
    assert (die["action"], die["exit_code"]) == ("die", 137)


def test_our_own_actions_are_marked(scene: Scene, started: Context) -> None:  # noqa: F811
    whole = get_events(started)["events"][0]["container"]["id"]
    expected = ["create", "start"]
    for action, container, caused in (("pause", "web", ["pause"]), ("unpause", whole[:12], ["unpause"]),
                                      ("restart", whole, ["kill", "die", "stop", "start", "restart"]),
                                      ("stop", "web", ["kill", "die", "stop"]), ("start", "web", ["start"])):
        before = get_events(started)["last"]
        act(started, action, container)
        expected += caused
        until(lambda: len(actions(started)) >= len(expected), lambda: str(actions(started)))  # noqa: B023
        assert actions(started) == expected
        new = get_events(started, after=str(before))["events"]
        assert [(event["action"], event["by"]) for event in new] == [
            (word, f"xscontainer ({action})") for word in caused]
    scene.engine.do("pause", "web")
    until(lambda: actions(started)[-1] == "pause")
    assert get_events(started)["events"][-1]["by"] is None, "somebody else did that"


def test_a_refused_action_marks_nothing_later() -> None:
    record = EventRecord()
    with pytest.raises(ContainerConflict), record.acting("web", "stop"):
        raise ContainerConflict("x")
    record.heard([EngineEvent("container", "stop", "1", "web")])
    assert record.show().events[0].happening.by == ""


def test_an_action_that_the_engine_did_not_answer_marks_what_comes_later() -> None:
    now = [1000.0]
    record = EventRecord(lambda: now[0])
    with pytest.raises(EngineTimeout), record.acting("web", "stop"):
        raise EngineTimeout("x")
    now[0] += 30.0
    record.heard([EngineEvent("container", "stop", "1", "web")])
    assert record.show().events[0].happening.by == "xscontainer (stop)"


# --- waiting


def test_a_call_waits_for_the_next_event(scene: Scene, started: Context) -> None:  # noqa: F811
    last = get_events(started)["last"]
    found: List[Any] = []
    thread = threading.Thread(target=lambda: found.append(get_events(started, after=str(last), wait="20")))
    thread.start()
    scene.engine.do("pause", "web")
    thread.join(10)
    assert [event["action"] for event in found[0]["events"]] == ["pause"]
    assert found[0]["last"] == found[0]["events"][0]["number"] > last


def test_a_call_without_a_new_event_is_answered_after_its_wait(started: Context) -> None:
    last = get_events(started)["last"]
    begun = time.monotonic()
    assert get_events(started, after=str(last), wait="1") == {**get_events(started), "events": []}
    assert time.monotonic() - begun >= 1.0


def test_a_wait_ends_when_the_vm_is_no_longer_managed_or_the_daemon_ends() -> None:
    records, asked = EventRecords(), []
    one, other = records.of("1"), records.of("2")

    class Asked(Context):
        def __init__(self, record: EventRecord) -> None:
            self._record = record

        def record(self, vm_uuid: str) -> EventRecord:
            asked.append(vm_uuid)
            return self._record

    threads = [threading.Thread(target=get_events, args=(Asked(record),), kwargs={"wait": "20"})
               for record in (one, other)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    until(lambda: len(asked) == 2)
    records.forget("1")
    threads[0].join(10)
    assert threads[1].is_alive()
    records.end()
    threads[1].join(10)
    assert not any(thread.is_alive() for thread in threads) and time.monotonic() - begun < 15
    assert records.of("1") is not one and records.of("2") is other


@pytest.mark.parametrize("since, expected", [("3600s", 2), ("2020-01-01", 2), ("2100-01-01", 0)])
def test_events_are_chosen_by_time(started: Context, since: str, expected: int) -> None:
    assert len(get_events(started, since=since)["events"]) == expected


# --- outages


def test_events_of_an_outage_are_asked_for_without_doubles(scene: Scene, started: Context) -> None:  # noqa: F811
    complete_from = get_events(started)["since"]
    before = len(scene.opened)
    scene.refusal = EngineLost("x")
    scene.connections[-1].close()
    scene.engine.do("pause", "web")
    scene.engine.do("unpause", "web")
    scene.refusal = None
    until(lambda: len(scene.opened) > before and actions(started) == ["create", "start", "pause", "unpause"])
    assert get_events(started)["since"] == complete_from


def test_an_engine_that_restarts_leaves_a_gap_that_the_record_names(
        scene: Scene, started: Context) -> None:  # noqa: F811
    scene.engine.stop()
    down = time.time()
    scene.engine.start()
    scene.engine.run("beta")
    until(lambda: "beta" in scene.shown())
    until(lambda: len(actions(started)) == 4)
    assert get_events(started)["since"] >= int(down)
    assert actions(started)[:2] == ["create", "start"], "what is known stays"


def test_past_events_cause_no_list(make_scene: Callable[..., Scene]) -> None:  # noqa: F811
    """A container that was started and has gone without an event would be looked for in eight lists."""
    scene = make_scene().started()  # noqa: F811
    scene.engine.run("other", ("nginx",))
    until(lambda: "other" in scene.shown())
    scene.refusal = GuestUnreachable("x")
    scene.connections[-1].close()
    scene.engine.run("web", ("nginx",))
    scene.engine.life.force_state("web", "exited")
    time.sleep(2.1)  # events of the last second or two count as new
    scene.engine.requests.clear()
    scene.refusal = None
    until(lambda: actions(Context(scene)) == ["create", "start"] * 2)
    time.sleep(1.5)
    assert scene.engine.requests["GET /containers/json"] <= 2, "the first list, and one after a second"


def test_the_record_is_shown_while_the_vm_is_out_of_reach(scene: Scene) -> None:  # noqa: F811
    scene.engine.run("old", ("nginx",))
    scene.started()
    context = Context(scene)
    scene.engine.run("web", ("nginx",))
    until(lambda: len(scene.events.show().events) == 2)
    scene.refusal = GuestUnreachable("x")
    scene.connections[-1].close()
    until(lambda: scene.monitor._link.engine is None)
    assert actions(context) == ["create", "start"], "no connection is made for it"
    opened, scene.refusal = len(scene.opened), None
    scene.monitor.retry_now()
    until(lambda: len(scene.opened) > opened and len(actions(context)) == 4)
    assert [event["container"]["name"] for event in get_events(context)["events"]] == ["old"] * 2 + ["web"] * 2


@pytest.mark.parametrize("error", [GuestThrottled("x"), GuestUnreachable("x")])
def test_a_call_that_cannot_ask_the_engine_leaves_it_to_the_next(scene: Scene, error: Any) -> None:  # noqa: F811
    scene.engine.run("old", ("nginx",))
    scene.started()

    class Refusing(Context):
        asked = 0

        def engine(self, vm_uuid: str) -> Any:
            self.asked += 1
            raise error

    context = Refusing(scene)
    assert get_events(context, wait="1")["events"] == [] and context.asked == 1
    assert actions(Context(scene)) == ["create", "start"]


# --- podman


@pytest.fixture
def podman(make_scene: Callable[..., Scene]) -> Context:  # noqa: F811
    """A monitored podman with a running container."""
    scene = make_scene(identity=PODMAN)  # noqa: F811
    scene.engine.run("web", ("nginx",))
    scene.started()
    return Context(scene)


def test_podman_is_asked_for_its_past_only_when_a_caller_looks(podman: Context) -> None:
    time.sleep(1.0)
    assert asked(podman) == 1, "the stream of new events"
    found = get_events(podman)
    assert [event["action"] for event in found["events"]] == ["create", "start"]
    assert found["since"] <= found["events"][0]["time"] + 1e-6
    assert asked(podman) == 2
    assert get_events(podman) == found
    assert asked(podman) == 2, "once for each connection"


def test_events_of_an_outage_of_podman_are_added_without_doubles(podman: Context) -> None:
    scene = podman.scene  # noqa: F811
    complete_from = get_events(podman)["since"]
    scene.engine.do("pause", "web")
    until(lambda: actions(podman)[-1] == "pause")
    scene.refusal = EngineLost("x")
    scene.connections[-1].close()
    scene.engine.do("unpause", "web")
    scene.engine.do("remove", "web")
    scene.refusal = None
    until(lambda: len(scene.opened) == 2 and len(actions(podman)) == 6, lambda: str(actions(podman)))
    assert actions(podman) == ["create", "start", "pause", "unpause", "die", "destroy"]
    assert get_events(podman)["since"] == complete_from
    assert asked(podman) == 4, "two streams, and two looks"


def test_a_call_that_waits_gets_what_was_missed(podman: Context) -> None:
    scene, last = podman.scene, get_events(podman)["last"]  # noqa: F811
    found: List[Any] = []
    thread = threading.Thread(target=lambda: found.append(get_events(podman, after=str(last), wait="20")))
    thread.start()
    scene.refusal = EngineLost("x")
    scene.connections[-1].close()
    scene.engine.do("pause", "web")
    scene.refusal = None
    thread.join(15)
    assert [event["action"] for event in found[0]["events"]] == ["pause"]


@pytest.mark.parametrize("action, caused", [("restart", ["restart", "die", "start"]), ("stop", ["stop", "die"])])
def test_our_own_actions_on_podman_are_marked(podman: Context, action: str, caused: List[str]) -> None:
    last = get_events(podman)["last"]
    act(podman, action)
    until(lambda: len(get_events(podman, after=str(last))["events"]) == len(caused))
    assert [(event["action"], event["by"]) for event in get_events(podman, after=str(last))["events"]] == [
        (word, f"xscontainer ({action})") for word in caused]


def test_a_podman_that_refuses_its_past_is_asked_once(podman: Context) -> None:
    podman.scene.engine.faults.set("status", match="events", status=500)
    for _ in range(3):
        assert get_events(podman)["events"] == []
    assert asked(podman) == 2


# --- cost


def test_a_record_that_nobody_looks_at_costs_no_call(scene: Scene, started: Context) -> None:  # noqa: F811
    def act_and_wait() -> None:
        for action, state in (("pause", "Up (Paused)"), ("unpause", "Up")):
            scene.engine.do(action, "web")
            published(scene, f"<status>{state}<")
        scene.engine.life.kill("web", "SIGHUP")

    until(lambda: "web" in scene.shown())
    time.sleep(1.5)
    scene.engine.requests.clear()
    scene.pool.stats.reset()
    act_and_wait()
    asked, called = dict(scene.engine.requests), scene.pool.stats.calls()
    until(lambda: actions(started)[-3:] == ["pause", "unpause", "kill"])
    for _ in range(5):
        get_events(started)
    assert dict(scene.engine.requests) == asked and scene.pool.stats.calls() == called, "looking costs nothing either"
    assert set(asked) <= {"GET /containers/json", "POST /containers/{}/kill"}, "one stream, and lists"
    assert asked["GET /containers/json"] <= 6


def test_a_result_is_bounded(started: Context, scene: Scene) -> None:  # noqa: F811
    now = int(time.time() * 1e9)
    scene.events.heard([EngineEvent("container", "start", "f" * 128, "\u00fc" * 255, None, "\u00fc" * 255,
                                    time_ns=now + number) for number in range(1, MOST_EVENTS + 1)])
    result = events.get_events(started, UUID)  # type: ignore[arg-type]
    assert 200 * 1024 < len(result) < 260 * 1024
    found = json.loads(result[4:])
    assert len(found["events"]) < MOST_EVENTS and found["since"] <= found["events"][0]["time"]
