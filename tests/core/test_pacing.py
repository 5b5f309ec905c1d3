"""Rules for the pace of writes, lists and retries, without a clock of their own."""

from typing import Any, Iterator, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xscontainer.core.engine_event import EngineEvent
from xscontainer.core.pacing import Awaited, Backoff, Lease, Pacer, spread
from xscontainer.errors import EngineTimeout
from xscontainer.settings import PublishSettings


def writes(changes: List[float], pacer: Pacer) -> List[float]:
    """Return the times at which a monitor that follows ``pacer`` writes these changes."""
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


def test_200_changes_in_5_seconds_take_at_most_12_writes() -> None:
    changes = [100 + number * 5 / 200 for number in range(200)]
    done = writes(changes, usual())
    assert len(done) <= 12
    assert 0 <= done[-1] - changes[-1] <= 1.2


@given(st.lists(st.floats(0, 60), min_size=1, max_size=300), st.integers(1, 5), st.floats(0.05, 5))
def test_any_changes_end_in_the_last_state_within_the_rate(changes: List[float], burst: int, interval: float) -> None:
    done = writes(changes, Pacer(burst, interval))
    # The last state is always written, within one interval.
    assert max(changes) <= done[-1] <= max(changes) + interval + 1e-6
    # No span of time has more writes than are allowed.
    for first in range(len(done)):
        for last in range(first, len(done)):
            assert last - first + 1 <= burst + (done[last] - done[first]) / interval + 1 + 1e-6


def test_hosts_that_started_together_drift_apart() -> None:
    times = [spread(300.0) for _ in range(100)]
    assert max(times) - min(times) > 30.0 and 240.0 <= min(times) and max(times) <= 360.0


def test_an_interval_of_zero_never_delays() -> None:
    pacer = Pacer(1, 0.0)
    for now in (0.0, 0.0, 1.0):
        assert pacer.delay(now) == 0.0
        pacer.spend(now)


@given(st.floats(0, 1e9), st.lists(st.floats(0, 10), max_size=50))
def test_no_further_wait_follows_a_wait(start: float, pauses: List[float]) -> None:
    """Rounding must not leave a tiny wait, or a monitor would spin."""
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
def test_the_end_of_a_short_outage_is_noticed_within_seconds(outage: float) -> None:
    done = [now for now in tries(backoff(), 100.0, 60.0) if now >= 100.0 + outage]
    assert done[0] - (100.0 + outage) <= 2.4


def test_a_long_outage_costs_few_tries() -> None:
    made = backoff()
    first_day = list(tries(made, 0.0, 86400.0))
    assert len(first_day) < 1600
    assert made.fail(86400.0) == 60.0


def test_jitter_spreads_simultaneous_retries() -> None:
    waits = {Backoff(0.2, 60.0).fail(1.0) for _ in range(50)}
    assert len(waits) > 25 and all(0.15 < wait < 0.25 for wait in waits)


def test_no_wait_exceeds_the_longest_wait() -> None:
    made = Backoff(0.2, 5.0)
    assert all(made.fail(now) <= 5.0 for now in range(0, 1000, 10))


def test_success_ends_the_outage() -> None:
    made = backoff()
    list(tries(made, 0.0, 50.0))
    assert made.outage(50.0) == 50.0
    made.succeed(50.0)
    assert made.outage(60.0) == 0.0
    assert made.fail(100.0) == 0.2 and made.outage(100.0) == 0.0


def test_a_success_that_does_not_last_does_not_reset_the_backoff() -> None:
    made, now = backoff(), 0.0
    connected = 0
    while now < 600.0:  # each connection is lost immediately
        now += made.fail(now)
        made.succeed(now)
        connected += 1
    assert connected < 40
    assert made.outage(now) == 0.0
    assert made.fail(now + Backoff.STEADY) == 0.2


def test_the_first_failure_after_an_early_success_starts_a_new_outage() -> None:
    made = backoff()
    made.succeed(5000.0)
    assert made.fail(5001.0) == 0.2


def test_restart_makes_the_next_tries_quick_and_does_not_shorten_the_outage() -> None:
    made = backoff()
    list(tries(made, 0.0, 1000.0))
    made.restart(1000.0)
    assert made.fail(1000.1) == 0.2
    assert made.outage(1000.1) == pytest.approx(1000.1)


# --- the lease


def test_a_lease_that_is_not_renewed_expires() -> None:
    lease, reason = Lease(10.0), EngineTimeout("x")
    assert not lease.expired(1e9)  # nothing is shown yet
    lease.renew(100.0, 40.0)
    assert [now for now in (149.9, 150.0) if lease.expired(now)] == [150.0]
    lease.let_expire(120.0, lambda: reason)
    assert [now for now in (129.9, 130.0) if lease.expired(now)] == [130.0] and lease.reason is reason
    assert lease.remaining(125.0) == 5.0
    lease.let_expire(128.0, lambda: EngineTimeout("y"))
    assert lease.remaining(130.0) == 0.0, "a second reason does not extend the lease"
    lease.renew(131.0)
    assert lease.remaining(140.0) == 1.0


def test_a_renewed_lease_has_no_reason() -> None:
    lease = Lease(10.0)
    lease.let_expire(100.0, lambda: EngineTimeout("x"))
    lease.renew(101.0)
    assert lease.reason is None


def test_a_slow_request_gets_more_time_before_the_lease_expires() -> None:
    lease = Lease(10.0)
    lease.let_expire(100.0, lambda: EngineTimeout("x"), 30.0)
    assert not lease.expired(139.9) and lease.expired(140.0)


# --- events that the list does not show yet


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
    made.listed([], 10.0)  # a list that was read earlier
    assert made.due == 11.0
    made.listed([], 11.0)
    assert made.due == float("inf")


def test_an_event_that_the_list_never_shows_is_given_up_in_the_end() -> None:
    made, now, asked = awaited_after(event("start")), 10.0, 0
    while made.due < float("inf"):
        now = max(now, made.due)
        made.listed([], now)
        asked += 1
    assert 1 < asked <= len(Awaited.DELAYS)
    # On a busy disk dockerd may take seconds to store a change that it has announced.
    assert 10.0 < now - 10.0 < 20.0


def test_the_list_is_not_due_again_once_it_shows_the_event() -> None:
    made = awaited_after(event("destroy"))
    made.listed([], 10.0)
    assert made.due == float("inf")


def test_the_number_of_awaited_events_is_bounded() -> None:
    made = awaited_after(*(event("start", f"{number:064x}") for number in range(Awaited.MOST + 100)))
    assert len(made._events) == Awaited.MOST
