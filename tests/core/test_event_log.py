"""The record of a VM's last events: bounded, without doubles, and honest about what it misses."""

import json
import tracemalloc
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xscontainer.core.engine_event import RECORDED, EngineEvent
from xscontainer.core.event_causes import GRACE, MOST, REMEMBERED, Causes
from xscontainer.core.event_log import MOST_BYTES, MOST_EVENTS, EventLog, Recorded
from xscontainer.core.signals import signal_name

S = 1000000000
NOW = 1796097641 * S


def event(action: str = "start", at: int = NOW, container: str = "1", **more: Any) -> EngineEvent:
    fields: Dict[str, Any] = {"id": container * 64, "name": f"web{container}", "image": "nginx:1", **more}
    return EngineEvent("container", action, time_ns=at, **fields)


def shown(log: EventLog, after: int = 0, since_ns: int = 0) -> List[str]:
    return [found.happening.action for found in log.events(after, since_ns)]


def numbers(log: EventLog) -> List[int]:
    return [found.number for found in log.events()]


# --- the forms of engines -----------------------------------------------------------------------------------

RECORDINGS = Path(__file__).resolve().parents[1] / "data" / "events"


def from_api(data: Any) -> EngineEvent:
    return EngineEvent.from_api(data)


@pytest.mark.parametrize("attributes, code", [
    ({"exitCode": "137"}, 137), ({"exitCode": 3}, 3), ({"containerExitCode": "7", "exitCode": "7"}, 7),
    ({"containerExitCode": "9"}, 9), ({"exitCode": "3221225786"}, 3221225786), ({"exitCode": "-1"}, -1), ({}, None),
    ({"exitCode": ""}, None), ({"exitCode": "9" * 30}, None), ({"exitCode": ["1"]}, None), ({"exitCode": True}, None)])
@pytest.mark.parametrize("action", ["die", "died"])
def test_an_end_has_the_exit_code_of_its_attributes(action: str, attributes: Dict[str, Any],
                                                    code: Optional[int]) -> None:
    found = from_api({"Type": "container", "Action": action, "Actor": {"ID": "1", "Attributes": attributes}})
    assert (found.kind, found.exit_code) == ("die", code)


def test_podmans_exit_code_of_a_container_that_runs_is_none() -> None:
    found = from_api({"Type": "container", "Action": "restart",
                      "Actor": {"ID": "1", "Attributes": {"containerExitCode": "0"}}})
    assert found.exit_code is None


def test_an_event_of_an_old_engine_has_its_image_and_seconds() -> None:
    found = from_api({"status": "die", "id": "1", "from": "busybox:latest", "time": 1796097641})
    assert (found.image, found.time_ns, found.kind) == ("busybox:latest", NOW, "die")


@pytest.mark.parametrize("nanoseconds, seconds, expected", [
    (NOW + 5, 1796097641, NOW + 5), (None, 1796097641, NOW), (-1, -1, 0), ("x", [], 0), (1 << 70, 1 << 70, 0),
    (1e300, 1796097641, NOW)])
def test_the_time_of_an_event_is_bounded(nanoseconds: Any, seconds: Any, expected: int) -> None:
    found = from_api({"Type": "container", "Action": "die", "timeNano": nanoseconds, "time": seconds})
    assert found.time_ns == expected


@pytest.mark.parametrize("number, name", [("9", "SIGKILL"), ("15", "SIGTERM"), ("31", "SIGSYS"), ("37", "37"),
                                          ("0", "0"), ("", ""), ("SIGHUP", "SIGHUP"), ("²", "²")])
def test_a_signal_is_shown_by_name(number: str, name: str) -> None:
    assert signal_name(number) == name


# --- the record ---------------------------------------------------------------------------------------------


def test_events_are_kept_in_order_with_growing_numbers() -> None:
    log = EventLog()
    for number, action in enumerate(("create", "start", "die")):
        assert log.add(event(action, NOW + number))
    assert shown(log) == ["create", "start", "die"]
    assert numbers(log) == [NOW // 1000000, NOW // 1000000 + 1, NOW // 1000000 + 2]
    assert log.last == numbers(log)[-1]
    assert shown(log, after=log.last - 1) == ["die"] and shown(log, since_ns=NOW + 1) == ["start", "die"]


def test_the_oldest_events_are_dropped_and_the_record_says_so() -> None:
    log = EventLog()
    log.subscribed(NOW)
    for number in range(MOST_EVENTS + 10):
        log.add(event(at=NOW + number * S))
    assert len(log.events()) == MOST_EVENTS
    assert log.events()[0].time_ns == NOW + 10 * S
    assert NOW + 9 * S < log.complete_from <= NOW + 10 * S


def test_numbers_stay_the_same_when_older_events_are_dropped() -> None:
    log = EventLog()
    seen: Dict[int, int] = {}
    for number in range(3 * MOST_EVENTS):
        log.add(event(at=NOW + number * 300000, container=str(number % 7)))  # several in one millisecond
        for found in log.events(after=log.last - 5):
            assert seen.setdefault(found.number, found.time_ns) == found.time_ns


def test_a_hostile_guest_gets_no_more_memory_than_others() -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        log = EventLog()
        for number in range(2 * MOST_EVENTS):
            log.add(event(at=NOW + number, id=f"{number:0128d}", name="\U0001f40b" * 250 + str(number),
                          image="\U0001f40b" * 250 + str(number)))
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(log.events()) >= 10
    assert taken < MOST_BYTES + 4096


def test_a_full_record_of_a_usual_vm_keeps_all_of_its_events() -> None:
    log = EventLog()
    for number in range(2 * MOST_EVENTS):
        container = number % 15
        log.add(event(("start", "die", "kill")[number % 3], NOW + number, id=f"{container:064x}",
                      name=f"project-service-{container}", image=f"registry.example.org/group/image-{container}:1.2"))
    assert len(log.events()) == MOST_EVENTS


def test_a_second_report_of_an_event_is_dropped() -> None:
    log = EventLog()
    assert log.add(event("die", NOW)) and log.add(event("die", NOW + 1)) and log.add(event("stop", NOW + 1))
    assert not log.add(event("die", NOW), past=True) and not log.add(event("stop", NOW + 1))
    assert shown(log) == ["die", "die", "stop"]


def test_podmans_health_events_count_once_for_each_change() -> None:
    """Podman sends one for each check."""
    log = EventLog()
    for number, health in enumerate(("healthy", "healthy", "unhealthy", "unhealthy", "healthy")):
        log.add(event("health_status", NOW + number, health=health))
        log.add(event("health_status", NOW + number, container="2", health="healthy"))
    log.add(event("start", NOW + 10))
    log.add(event("health_status", NOW + 11, health="healthy"))
    assert [found.happening.health for found in log.events() if found.subject.name == "web1"] == [
        "healthy", "unhealthy", "healthy", None, "healthy"]


# --- gaps ---------------------------------------------------------------------------------------------------


def test_a_new_record_is_complete_from_the_oldest_event_that_the_engine_remembers() -> None:
    log = EventLog()
    log.subscribed(NOW)
    assert log.complete_from == NOW
    log.add(event("start", NOW - 50 * S), past=True)
    log.add(event("die", NOW - 40 * S), past=True)
    assert log.complete_from == NOW - 50 * S and shown(log) == ["start", "die"]


def recorded_then_lost() -> EventLog:
    log = EventLog()
    log.subscribed(NOW)
    log.add(event("start", NOW + S))
    log.subscribed(NOW + 100 * S)
    return log


def test_an_engine_that_still_has_the_last_event_closes_the_gap() -> None:
    log = recorded_then_lost()
    assert log.complete_from == NOW + 100 * S
    log.add(event("start", NOW + S), past=True)
    log.add(event("die", NOW + 50 * S), past=True)
    assert log.complete_from == NOW and shown(log) == ["start", "die"]


def test_an_engine_that_has_forgotten_leaves_the_gap() -> None:
    log = recorded_then_lost()
    log.add(event("die", NOW + 50 * S), past=True)
    assert log.complete_from == NOW + 50 * S and shown(log) == ["start", "die"]


def test_two_gaps_are_closed_at_once() -> None:
    log = recorded_then_lost()
    log.add(event("die", NOW + 120 * S))
    log.subscribed(NOW + 200 * S)
    for at in (1, 50, 120, 150):
        log.add(event("start", NOW + at * S), past=True)
    assert log.complete_from == NOW


def test_past_events_that_were_dropped_for_newer_ones_do_not_return() -> None:
    log = EventLog()
    log.subscribed(NOW)
    for number in range(MOST_EVENTS + 10):
        log.add(event(at=NOW + number * S))
    oldest = log.events()[0]
    log.subscribed(NOW + 1000 * S)
    for number in range(MOST_EVENTS + 10):
        assert not log.add(event(at=NOW + number * S), past=True)
    assert log.events()[0] == oldest and log.complete_from <= oldest.time_ns


HOSTILE = st.builds(
    EngineEvent, st.just("container"), st.sampled_from(sorted(RECORDED) + ["died", "remove"]),
    st.text(min_size=1, max_size=128), st.text(max_size=255), st.sampled_from([None, "healthy", "unhealthy"]),
    st.text(max_size=255), st.none() | st.integers(-(1 << 31), (1 << 32) - 1), st.text(max_size=16),
    st.integers(1, (1 << 63) - 1) | st.integers(NOW, NOW + 50))


@given(st.lists(st.tuples(HOSTILE, st.sampled_from(["new", "past", "gap"])), max_size=300))
def test_any_events_leave_a_record_with_growing_numbers(events: List[Any]) -> None:
    log, last = EventLog(), 0
    for found, how in events:
        if how == "gap":
            log.subscribed(found.time_ns)
        added = log.add(found, past=how == "past")
        assert (log.last > last) is added
        last = log.last
    kept = log.events()
    assert len(kept) <= MOST_EVENTS
    assert kept == sorted(kept, key=lambda entry: entry.time_ns)
    assert len({entry.number for entry in kept}) == len(kept)
    assert all(isinstance(entry, Recorded) and 0 < entry.number <= last for entry in kept)
    assert len(json.dumps(kept)) < 12 * MOST_EVENTS * (128 + 255 + 255 + 16 + 64)


# --- who caused it ------------------------------------------------------------------------------------------

AT = 1000.0


def caused(causes: Causes, *actions: str, at: float = AT, **more: Any) -> List[str]:
    return [causes.of(event(action, **more), at) for action in actions]


@pytest.mark.parametrize("action, sequence", [
    ("start", "start"), ("stop", "kill die stop"), ("stop", "kill kill die stop"), ("stop", "stop died"),
    ("stop", "kill kill unpause die stop"), ("restart", "kill die stop start restart"),
    ("restart", "restart died start"), ("pause", "pause"), ("unpause", "unpause")])
def test_the_events_of_an_action_are_marked(action: str, sequence: str) -> None:
    """Dockerd's and podman's."""
    causes = Causes()
    cause = causes.begin("web1", action, AT)
    assert set(caused(causes, *sequence.split())) == {f"xscontainer ({action})"}
    causes.end(cause, AT + 1)
    assert caused(causes, *sequence.split())[-1:] == [""], "each event is marked once"


def test_a_crash_after_our_restart_is_not_ours() -> None:
    causes = Causes()
    causes.begin("1" * 64, "restart", AT)
    assert caused(causes, "start", "die") == ["xscontainer (restart)", ""]


def test_other_containers_and_actions_are_not_ours() -> None:
    causes = Causes()
    causes.begin("web1", "stop", AT)
    assert caused(causes, "die", container="2") == [""]
    assert caused(causes, "oom", "start", "health_status", "destroy", "create") == [""] * 5


def test_an_event_counts_until_a_few_seconds_after_the_action() -> None:
    causes = Causes()
    cause = causes.begin("web1", "stop", AT)
    assert caused(causes, "kill", at=AT - 1) == [""]
    assert caused(causes, "kill", at=AT + 50) == ["xscontainer (stop)"], "it is still under way"
    causes.end(cause, AT + 60)
    assert caused(causes, "die", at=AT + 60 + GRACE) == ["xscontainer (stop)"]
    assert caused(causes, "stop", at=AT + 61 + GRACE) == [""]


def test_an_event_that_is_reported_late_counts_by_its_own_time() -> None:
    causes = Causes()
    causes.end(causes.begin("web1", "stop", AT), AT + 1)
    assert causes.of(event("die", at=int((AT + 1) * S)), AT + 300, past=True) == "xscontainer (stop)"
    assert causes.of(event("stop", at=int((AT + 100) * S)), AT + 300, past=True) == ""


def test_old_actions_are_forgotten() -> None:
    causes = Causes()
    for number in range(3 * MOST):
        causes.end(causes.begin(f"web{number}", "stop", AT), AT)
    assert len(causes._causes) == MOST
    causes.begin("web", "stop", AT + 2 * REMEMBERED)
    assert len(causes._causes) == 1
