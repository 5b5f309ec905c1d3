"""How fast a monitor writes, asks and tries again: rules without a clock of their own."""

from typing import Any, Iterator, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xscontainer.engineevent import EngineEvent
from xscontainer.pacing import Awaited, Backoff, CPUShare, Pacer, spread
from xscontainer.settings import PublishSettings


def writes(changes: List[float], pacer: Pacer) -> List[float]:
    """When a monitor that follows ``pacer`` writes, each change at its time wanting a write."""
    done: List[float] = []
    times = sorted(changes)
    now = 0.0
    while times:
        now = max(now, times[0])
        now += pacer.delay(now)
        pacer.spend(now)
        done.append(now)
        times = [time for time in times if time > now]
    return done


def usual() -> Pacer:
    return Pacer(PublishSettings().burst, PublishSettings().interval)


def test_a_change_after_a_quiet_time_is_written_at_once() -> None:
    assert writes([5.0], usual()) == [5.0]
    assert writes([5.0, 5.1], usual()) == [5.0, 5.1]


def test_200_changes_in_5_seconds() -> None:
    changes = [100 + number * 5 / 200 for number in range(200)]
    done = writes(changes, usual())
    assert len(done) <= 12
    assert 0 <= done[-1] - changes[-1] <= 1.2


@given(st.lists(st.floats(0, 60), min_size=1, max_size=300), st.integers(1, 5), st.floats(0.05, 5))
def test_any_changes(changes: List[float], burst: int, interval: float) -> None:
    done = writes(changes, Pacer(burst, interval))
    # The last state always, and soon; nothing when nothing happens.
    assert max(changes) <= done[-1] <= max(changes) + interval + 1e-6
    # No faster than allowed, over any stretch of time.
    for first in range(len(done)):
        for last in range(first, len(done)):
            assert last - first + 1 <= burst + (done[last] - done[first]) / interval + 1 + 1e-6


@given(st.lists(st.floats(0, 2), min_size=1, max_size=50))
def test_a_share_of_the_cpu(costs: List[float]) -> None:
    """Each task is begun as soon as may be."""
    share, now = CPUShare(0.1, 0.2), 1000.0
    for cost in costs:
        now += share.delay(now)
        assert share.delay(now) == pytest.approx(0.0, abs=1e-6)
        now += cost
        share.spend(cost, now)
    # What was begun with something left may overdraw it.
    assert sum(costs) - costs[-1] <= 0.2 + (now - 1000.0) * 0.1 + max(costs) + 1e-6
    assert share.delay(now) <= max(costs) / 0.1 + 1e-6


def test_what_costs_little_never_waits() -> None:
    share, now = CPUShare(0.1, 0.2), 0.0
    for _ in range(1000):
        assert share.delay(now) == 0.0
        share.spend(0.005, now)
        now += 0.1


def test_hosts_that_began_together_drift_apart() -> None:
    times = [spread(300.0) for _ in range(100)]
    assert max(times) - min(times) > 30.0 and 240.0 <= min(times) and max(times) <= 360.0


def test_an_interval_of_nothing() -> None:
    pacer = Pacer(1, 0.0)
    for now in (0.0, 0.0, 1.0):
        assert pacer.delay(now) == 0.0
        pacer.spend(now)


@given(st.floats(0, 1e9), st.lists(st.floats(0, 10), max_size=50))
def test_a_wait_that_was_waited_is_enough(start: float, pauses: List[float]) -> None:
    """Rounding never asks for a moment more, or a monitor would spin."""
    pacer, now = Pacer(2, 0.7), start
    for pause in pauses:
        now += pause
        now += pacer.delay(now)
        assert pacer.delay(now) < 1e-6
        pacer.spend(now)


# --- backoff


def backoff(shortest: float = 0.2, longest: float = 60.0) -> Backoff:
    return Backoff(shortest, longest, jitter=lambda: 1.0)


def tries(made: Backoff, start: float, seconds: float) -> Iterator[float]:
    now = start
    while now < start + seconds:
        yield now
        now += made.fail(now)


@pytest.mark.parametrize("outage", [0.5, 1.0, 8.0])
def test_a_short_outage_is_noticed_to_be_over(outage: float) -> None:
    done = [now for now in tries(backoff(), 100.0, 60.0) if now >= 100.0 + outage]
    assert done[0] - (100.0 + outage) <= 2.4


def test_a_long_outage_costs_little() -> None:
    made = backoff()
    first_day = list(tries(made, 0.0, 86400.0))
    assert len(first_day) < 1600
    assert made.fail(86400.0) == 60.0


def test_jitter_spreads_a_herd() -> None:
    waits = {Backoff(0.2, 60.0).fail(1.0) for _ in range(50)}
    assert len(waits) > 25 and all(0.15 < wait < 0.25 for wait in waits)


def test_the_longest_wait_is_the_longest() -> None:
    made = Backoff(0.2, 5.0)
    assert all(made.fail(now) <= 5.0 for now in range(0, 1000, 10))


def test_success_ends_the_outage() -> None:
    made = backoff()
    list(tries(made, 0.0, 50.0))
    assert made.outage(50.0) == 50.0
    made.succeed(50.0)
    assert made.outage(60.0) == 0.0
    assert made.fail(100.0) == 0.2 and made.outage(100.0) == 0.0


def test_a_success_that_does_not_last_is_none() -> None:
    made, now = backoff(), 0.0
    connected = 0
    while now < 600.0:  # connects, and is lost again at once
        now += made.fail(now)
        made.succeed(now)
        connected += 1
    assert connected < 40
    assert made.outage(now) == 0.0
    assert made.fail(now + Backoff.STEADY) == 0.2


def test_the_first_trouble_after_an_early_success_is_new_trouble() -> None:
    made = backoff()
    made.succeed(5000.0)
    assert made.fail(5001.0) == 0.2


def test_hurry_makes_the_next_tries_quick_and_the_outage_no_shorter() -> None:
    made = backoff()
    list(tries(made, 0.0, 1000.0))
    made.hurry(1000.0)
    assert made.fail(1000.1) == 0.2
    assert made.outage(1000.1) == pytest.approx(1000.1)


# --- what the list does not show yet


def awaited_after(*events: Any) -> Awaited:
    made = Awaited()
    for event in events:
        made.add(event, 10.0)
    return made


def event(action: str, identity: str = "a" * 64) -> EngineEvent:
    return EngineEvent.from_api({"Type": "container", "Action": action, "Actor": {"ID": identity}})


def test_an_event_makes_the_list_due_at_once() -> None:
    assert Awaited().due == float("inf")
    assert awaited_after(event("die")).due == 10.0


def test_without_an_event_the_list_is_due_once() -> None:
    made = Awaited(11.0)
    made.listed([], 10.0)  # another one, before
    assert made.due == 11.0
    made.listed([], 11.0)
    assert made.due == float("inf")


def test_what_the_list_never_shows_is_believed_in_the_end() -> None:
    made, now, asked = awaited_after(event("start")), 10.0, 0
    while made.due < float("inf"):
        now = max(now, made.due)
        made.listed([], now)
        asked += 1
    assert 1 < asked <= len(Awaited.DELAYS)
    # dockerd may take seconds to write down what it has told, on a disk that is busy.
    assert 10.0 < now - 10.0 < 20.0


def test_a_list_that_shows_it_is_the_last() -> None:
    made = awaited_after(event("destroy"))
    made.listed([], 10.0)
    assert made.due == float("inf")


def test_a_flood_is_bounded() -> None:
    made = awaited_after(*(event("start", f"{number:064x}") for number in range(Awaited.MOST + 100)))
    assert len(made._events) == Awaited.MOST
