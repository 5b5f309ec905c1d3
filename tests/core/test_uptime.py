"""The start time of a container is estimated once for each run, and kept while the engine's words agree with it."""

import random
from typing import Any, Dict, List, Optional, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clients import engine_json
from tests.clients.engine_json import entry
from xscontainer.clients import xmlform
from xscontainer.core.container import ContainerList, containers_from_api
from xscontainer.core.engine_event import EngineEvent
from xscontainer.core.uptime import Span, StartTimes, published_times, uptime_of
from xscontainer.sanitize import LATEST

NOW = 1750000000.0
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


def words(seconds: float, rounds: bool = True) -> str:
    """The text of an engine for a duration (HumanDuration of docker/go-units); before 2017 hours were not rounded."""
    minutes, hours = int(seconds / MINUTE), int(seconds / HOUR + (0.5 if rounds else 0.0))
    steps: List[Tuple[bool, str]] = [
        (seconds < 1, "Less than a second"), (seconds < 2, "1 second"), (seconds < 60, f"{int(seconds)} seconds"),
        (minutes == 1, "About a minute"), (minutes < 60, f"{minutes} minutes"), (hours == 1, "About an hour"),
        (hours < 48, f"{hours} hours"), (hours < 24 * 14, f"{hours // 24} days"),
        (hours < 24 * 60, f"{hours // 24 // 7} weeks"), (hours < 24 * 730, f"{hours // 24 // 30} months")]
    return next((text for fits, text in steps if fits), f"{int(seconds / HOUR) // 24 // 365} years")


def listed(*entries: Dict[str, Any]) -> ContainerList:
    return containers_from_api(list(entries))


def up(seconds: float, number: int = 1, **fields: Any) -> Dict[str, Any]:
    fields.setdefault("Created", 1600000000)
    return entry(number, Status=f"Up {words(seconds)}", **fields)


def started(times: StartTimes, found: ContainerList, now: float, latency: float = 0.0) -> Optional[int]:
    return times.settle(found, now - latency, now).containers[0].started_at


@pytest.mark.parametrize("status, span", [
    ("Up Less than a second", Span(0, 1)), ("Up 1 second", Span(1, 2)), ("Up 1 seconds", Span(1, 2)),
    ("Up 59 seconds (healthy)", Span(59, 60)), ("Up About a minute", Span(60, 120)),
    ("Up 5 minutes (Paused)", Span(300, 360)), ("Up About an hour", Span(HOUR, 2 * HOUR)),
    ("Up 2 hours (health: starting)", Span(1.5 * HOUR, 3 * HOUR)), ("Up 3 days", Span(3 * DAY - HOUR / 2, 4 * DAY)),
    ("Up 2 weeks", Span(14 * DAY - HOUR / 2, 21 * DAY)), ("Up 11 months", Span(330 * DAY - HOUR / 2, 360 * DAY)),
    ("Up 3 years", Span(1095 * DAY - HOUR / 2, 1460 * DAY)),
    ("Up", None), ("Up a while", None), ("Up 5 fortnights", None), ("Exited (0) 5 minutes ago", None), ("", None),
    ("Up 999999 days", None), ("up 5 minutes", None), ("Up -5 minutes", None), ("Up 5 minutesX", None),
])
def test_the_status_text_bounds_the_uptime(status: str, span: Optional[Span]) -> None:
    assert uptime_of(status) == span


@given(seconds=st.floats(0, 20 * 365 * DAY), rounds=st.booleans())
def test_the_bounds_hold_for_the_words_of_every_engine(seconds: float, rounds: bool) -> None:
    span = uptime_of("Up " + words(seconds, rounds))
    assert span is not None and span.shortest <= seconds <= span.longest


@given(begun=st.floats(0, 3 * 365 * DAY), steps=st.lists(st.floats(0, 60 * DAY), max_size=30),
       latency=st.floats(0, 10), drift=st.floats(-1, 1), rounds=st.booleans())
def test_an_estimate_never_changes_while_the_container_runs(
    begun: float, steps: List[float], latency: float, drift: float, rounds: bool
) -> None:
    times, uptime, found = StartTimes(), begun, set()
    first = uptime_of("Up " + words(begun, rounds))
    assert first is not None
    for step in [0.0] + steps:
        uptime += step
        answer = listed(entry(1, Created=1, Status="Up " + words(max(0.0, uptime + drift), rounds)))
        found.add(started(times, answer, NOW + uptime - begun + latency, latency))
    assert len(found) == 1
    # It is no more than half of a unit of the text wrong.
    error = abs((found.pop() or 0) - (NOW - begun))
    assert error <= (first.longest - first.shortest) / 2 + latency + abs(drift) + 1 + HOUR / 2 * (begun > HOUR)


def test_a_text_that_changes_every_minute_causes_no_new_estimate() -> None:
    times = StartTimes()
    assert len({started(times, listed(up(355 + second)), NOW + second) for second in range(0, 200, 5)}) == 1


def test_a_start_that_is_seen_is_known_to_the_second() -> None:
    assert abs((started(StartTimes(), listed(up(0.01)), NOW) or 0) - NOW) <= 1


@pytest.mark.parametrize("uptime", [10, 10 * MINUTE, 10 * HOUR, 10 * DAY])
def test_a_restart_gives_a_new_time(uptime: float) -> None:
    times = StartTimes()
    started(times, listed(up(uptime)), NOW)
    again = started(times, listed(up(0.5)), NOW + 5)
    assert again is not None and abs(again - (NOW + 4.5)) <= 1


def test_a_start_after_an_exit_is_known_to_the_second() -> None:
    times = StartTimes()
    started(times, listed(up(1)), NOW)
    assert started(times, listed(entry(1, State="exited", Status="Exited (0) 1 second ago")), NOW + 1) is None
    assert started(times, listed(up(0.1)), NOW + 2) == int(NOW + 1.5)


def start(second: float, number: int = 1, action: str = "start") -> EngineEvent:
    return EngineEvent("container", action, f"{number:064x}", time_ns=int(second * 10 ** 9))


def test_the_time_in_the_event_of_a_start_replaces_an_estimate() -> None:
    times = StartTimes()
    started(times, listed(up(2)), NOW)
    times.heard([start(NOW + 1.5, 2), start(NOW + 1.5), start(NOW + 1.6, action="restart")], NOW + 1.6)
    # The first list after the event may not show it yet.
    assert started(times, listed(up(3.6)), NOW + 1.6) == int(NOW - 2.5)
    assert started(times, listed(up(0.2)), NOW + 1.7) == int(NOW + 1.5)
    assert started(times, listed(up(100)), NOW + 101.5) == int(NOW + 1.5)


def test_a_start_soon_after_the_last_one_is_told_by_its_event() -> None:
    times = StartTimes()
    assert started(times, listed(up(0.5)), NOW) == int(NOW - 0.5)
    times.heard([start(NOW + 1.2)], NOW + 1.2)
    assert started(times, listed(up(0.1)), NOW + 1.3) == int(NOW + 1.2)


@pytest.mark.parametrize("event", [start(NOW - 4000), start(NOW + 4000), start(0), start(NOW, action="die"),
                                   EngineEvent("container", "start", "web", time_ns=int(NOW * 10 ** 9))], ids=str)
def test_an_event_that_the_text_contradicts_is_not_believed(event: EngineEvent) -> None:
    times = StartTimes()
    times.heard([event], NOW)
    assert started(times, listed(up(305)), NOW) == int(NOW - 330)


def test_events_are_forgotten_soon_and_their_number_is_bounded() -> None:
    times = StartTimes()
    times.heard([start(NOW - 310)], NOW)
    assert started(times, listed(up(325)), NOW + 16) == int(NOW - 310)  # the last list that may not show it
    times = StartTimes()
    times.heard((start(NOW, number) for number in range(9000)), NOW)
    assert len(times._told) == 5000
    times.settle(listed(), NOW + 16, NOW + 16)
    assert times._told == {}


@pytest.mark.parametrize("created, expected", [(NOW - 330, NOW - 330), (NOW - 9000, NOW - 330), (NOW, NOW - 330)])
def test_the_time_of_creation_counts_if_the_text_allows_it(created: float, expected: float) -> None:
    found = listed(up(310, Created=int(created)))
    assert started(StartTimes(), found, NOW) == (int(created) if created == NOW - 330 else int(expected))
    found = listed(up(350, Created=int(NOW - 358)))
    assert started(StartTimes(), found, NOW) == int(NOW - 358)


def test_a_time_of_the_engine_itself_is_taken() -> None:
    assert started(StartTimes(), listed(up(300, StartedAt=1749990000)), NOW) == 1749990000


@pytest.mark.parametrize("state, status", [("exited", "Exited (0) 5 minutes ago"), ("created", "Created"),
                                           ("restarting", "Restarting (1) 5 seconds ago"), ("running", "strange")])
def test_only_a_container_that_runs_has_a_start_time(state: str, status: str) -> None:
    found = listed(entry(1, State=state, Status=status, StartedAt=None))
    assert started(StartTimes(), found, NOW) is None


def test_the_published_time_is_kept_after_a_restart_of_the_daemon() -> None:
    before = StartTimes().settle(listed(up(355), up(10 * DAY, 2), entry(3, State="exited", Status="Exited (0)")),
                                 NOW, NOW)
    text = xmlform.docker_ps(before.containers).text
    later = NOW + 7 * HOUR
    after = StartTimes(published_times(text)).settle(
        listed(up(355 + 7 * HOUR), up(10 * DAY + 7 * HOUR, 2), entry(3, State="exited", Status="Exited (0)")),
        later, later)
    assert xmlform.docker_ps(after.containers).text == text
    assert xmlform.docker_ps(StartTimes().settle(listed(up(355 + 7 * HOUR)), later, later).containers).text != text


def test_a_published_time_that_the_engine_contradicts_is_replaced() -> None:
    text = xmlform.docker_ps(listed(up(1, StartedAt=int(NOW - 90000))).containers).text
    assert started(StartTimes(published_times(text)), listed(up(305)), NOW) == int(NOW - 330)


@given(text=st.one_of(
    engine_json.text,
    st.lists(st.sampled_from([f"<id>{5:064x}</id>", "<id>abc</id>", "<started_at>17</started_at>", "<started_at>",
                              f"<started_at>{LATEST}</started_at>", "<started_at>9999999999999</started_at>"]),
             max_size=8).map("".join)))
def test_any_published_text_gives_times_or_none(text: str) -> None:
    packed = published_times(text)
    assert len(packed) % 16 == 0
    settled = StartTimes(packed).settle(listed(up(305, 5)), NOW, NOW)
    assert settled.containers[0].started_at == int(NOW - 330)


def test_a_long_published_text_is_read_in_bounds() -> None:
    text = "".join(f"<id>{number:064x}</id><started_at>5</started_at>" for number in range(9000))
    assert len(published_times(text)) == 16 * 5000
    assert len(published_times("<id>" * 70000 + "<started_at>")) == 0


@given(answer=engine_json.containers, now=st.floats(1, 1e10))
def test_any_list_has_usable_start_times(answer: object, now: float) -> None:
    for container in StartTimes().settle(containers_from_api(answer), now, now).containers:
        assert container.uptime is None
        assert container.started_at is None or 1 <= container.started_at <= LATEST


def test_a_list_that_is_read_many_times_never_jitters() -> None:
    """Fifty containers, a list at random moments through a month, one write."""
    chance = random.Random(5)
    starts = [NOW - chance.choice([1, MINUTE, HOUR, DAY]) * chance.uniform(0, 60) for _ in range(50)]
    times, texts, now = StartTimes(), set(), NOW
    while now < NOW + 30 * DAY:
        found = listed(*(up(now - start, number) for number, start in enumerate(starts)))
        received = now + chance.uniform(0, 2)
        texts.add(xmlform.docker_ps(times.settle(found, now, received).containers).text)
        now += chance.choice([0.01, 1, MINUTE, HOUR, DAY]) * chance.uniform(0, 2)
    assert len(texts) == 1
