"""Rules for the times of lists, probes, writes, waits and retries, with a clock that the test moves."""

from typing import Any, List

import pytest

from tests.clock import Clock
from xscontainer.core import cadence as rules
from xscontainer.core.cadence import LIST, PROBE, WAIT, Cadence, Due, Step
from xscontainer.core.engine_event import EngineEvent
from xscontainer.core.pacing import Backoff
from xscontainer.errors import EngineTimeout, GuestThrottled, GuestUnreachable, HostKeyChanged, KeyNotAccepted
from xscontainer.settings import Settings

SETTINGS = Settings()
STALE_AFTER = SETTINGS.publish.stale_after
QUIET = Due()


def event(action: str = "die", identity: str = "a" * 64) -> EngineEvent:
    return EngineEvent.from_api({"Type": "container", "Action": action, "Actor": {"ID": identity}})


class Run:
    """The cadence of a connected monitor, and its steps as time passes."""

    def __init__(self, clock: Clock, settings: Settings = SETTINGS) -> None:
        self.clock = clock
        self.hold = 0.0
        self.cadence = Cadence(settings, clock.now, lambda: GuestThrottled("x"), lambda: self.hold)
        self.cadence.backoff = Backoff(0.2, 60.0, jitter=lambda: 1.0)
        self.cadence.subscribed(clock.now)
        self.cadence.lease.renew(clock.now)

    def step(self, due: Due = QUIET) -> Step:
        return self.cadence.next_step(self.clock.now, due)

    def hear(self, *events: EngineEvent, drained: bool = True) -> None:
        self.cadence.heard(events, drained, self.clock.now)

    def listed(self, containers: Any = ()) -> None:
        """Report that a LIST was answered with ``containers``."""
        self.cadence.answered(self.clock.now)
        self.cadence.lease.renew(self.clock.now)
        self.cadence.listed(containers, self.clock.now)

    def until(self, seconds: float, due: Due = QUIET) -> List[Any]:
        """Follow the steps for ``seconds``; return each task with its time, counted from now."""
        begun, done = self.clock.now, []
        while self.clock.now < begun + seconds:
            step = self.step(due)
            if step.task == WAIT:
                self.clock.now = max(self.clock.now, step.until)
                continue
            done.append((step.task, round(self.clock.now - begun, 3)))
            if step.task == LIST:
                self.listed()
            else:
                self.cadence.answered(self.clock.now)
        return done


@pytest.fixture
def run(clock: Clock) -> Run:
    made = Run(clock)
    clock.now += rules.SUBSCRIBED_AFTER
    assert made.step().task == LIST
    made.listed()
    return made


# --- due tasks


def test_the_list_is_read_once_more_a_second_after_the_subscription(clock: Clock) -> None:
    assert Run(clock).until(30.0) == [(LIST, rules.SUBSCRIBED_AFTER)]


def test_an_event_makes_the_list_due_at_once(run: Run) -> None:
    assert run.step().task == WAIT
    run.hear(event())
    assert run.step() == Step(LIST, run.clock.now, expected=True)


def test_an_event_that_does_not_change_the_list_makes_nothing_due(run: Run) -> None:
    run.hear(event("exec_create"))
    assert run.step().task == WAIT


def test_an_idle_engine_is_probed(run: Run) -> None:
    assert run.until(100.0)[:2] == [(PROBE, rules.PROBE_INTERVAL), (PROBE, 2 * rules.PROBE_INTERVAL)]


def test_the_list_is_read_again_after_the_resync_interval_without_expecting_a_change(run: Run) -> None:
    interval = SETTINGS.monitor.resync_interval
    lists = [at for task, at in run.until(1.3 * interval) if task == LIST]
    assert len(lists) == 1 and 0.8 * interval <= lists[0] <= 1.2 * interval
    run.clock.now += 1.3 * interval
    assert run.step() == Step(LIST, run.clock.now, expected=False)


def test_a_polled_list_is_read_when_the_poll_is_due(run: Run) -> None:
    poll = Due(list_at=run.clock.now + 2.0)
    assert run.step(poll) == Step(WAIT, run.clock.now + 2.0)
    run.clock.now += 2.0
    assert run.step(poll) == Step(LIST, run.clock.now, expected=True)


def test_a_list_that_was_replaced_by_an_error_is_read_again_at_once(run: Run) -> None:
    assert run.step(Due(list_missing=True)).task == LIST


@pytest.mark.parametrize("due", [Due(feed_at=1007.0), Due(facts_at=1007.0)])
def test_a_wait_ends_when_the_stream_or_the_facts_are_due(run: Run, due: Due) -> None:
    assert run.step(due) == Step(WAIT, 1007.0)


# --- rate limits


def test_a_storm_of_events_costs_ten_lists_a_second(run: Run) -> None:
    begun, lists = run.clock.now, 0
    while run.clock.now < begun + 10.0:
        run.hear(event())
        step = run.step()
        if step.task == LIST:
            lists += 1
            run.listed()
        run.clock.now += 0.01
    assert 100 <= lists <= rules.LISTS_AT_ONCE + 10.0 / rules.LIST_INTERVAL


def test_the_list_waits_while_a_write_is_not_allowed(run: Run) -> None:
    for _ in range(SETTINGS.publish.burst):
        run.cadence.wrote(run.clock.now)
    run.hear(event())
    step = run.step()
    assert step.task == WAIT and step.until == pytest.approx(run.clock.now + SETTINGS.publish.interval)
    run.clock.now = step.until
    assert run.step().task == LIST


def test_the_list_waits_while_the_guest_exceeds_its_share_of_writes(run: Run) -> None:
    run.hear(event())
    run.hold = 3.0
    assert run.step() == Step(WAIT, run.clock.now + 3.0)
    run.hold = 0.0
    assert run.step().task == LIST


# --- the lease


def test_a_quiet_engine_keeps_the_lease_until_the_next_probe(run: Run) -> None:
    step = run.step()
    lease = run.cadence.lease
    assert lease.reason is None and lease.remaining(step.until) == pytest.approx(STALE_AFTER)


def test_a_list_that_may_not_be_read_lets_the_lease_expire(run: Run) -> None:
    run.step()
    run.hear(event())
    run.hold = 60.0
    begun = run.clock.now
    while not run.cadence.lease.expired(run.clock.now):
        assert run.step().task == WAIT
        run.clock.now += 1.0
    assert run.clock.now - begun == STALE_AFTER
    assert isinstance(run.cadence.lease.reason, GuestThrottled)


def test_endless_events_let_the_lease_expire_and_make_the_list_due_before(run: Run) -> None:
    run.step()
    begun = run.clock.now
    while run.step().task == WAIT:
        run.hear(drained=False)
        run.clock.now += 0.1
    assert STALE_AFTER / 2 <= run.clock.now - begun < STALE_AFTER
    assert not run.cadence.lease.expired(run.clock.now)


def test_an_engine_that_hangs_is_noticed_within_a_minute(run: Run) -> None:
    step = run.step()
    run.clock.now = step.until
    assert run.step().task == PROBE
    run.cadence.lease.let_expire(run.clock.now, lambda: EngineTimeout("x"))  # the probe is not answered
    assert run.cadence.lease.expired(step.until + STALE_AFTER)
    assert rules.PROBE_INTERVAL + STALE_AFTER < 55.0


# --- failures


def test_a_permanent_error_is_shown_at_once_and_a_transient_one_when_the_lease_has_expired(run: Run) -> None:
    run.step()
    assert run.cadence.failed(run.clock.now, HostKeyChanged("x")).show
    begun = run.clock.now
    retry = run.cadence.failed(run.clock.now, GuestUnreachable("x"))
    while not retry.show:
        run.clock.now += retry.seconds
        retry = run.cadence.failed(run.clock.now, GuestUnreachable("x"))
    assert run.clock.now - begun == pytest.approx(STALE_AFTER, abs=0.02)


def test_waits_grow_with_the_outage_and_a_change_makes_them_short_again(run: Run) -> None:
    run.cadence.failed(run.clock.now, GuestUnreachable("x"))
    run.clock.now += 100.0
    assert run.cadence.failed(run.clock.now, GuestUnreachable("x")).seconds == 25.0
    run.cadence.backoff.restart(run.clock.now)
    assert run.cadence.failed(run.clock.now, GuestUnreachable("x")).seconds == 0.2


def test_a_refused_login_is_not_tried_before_its_time(run: Run) -> None:
    error = KeyNotAccepted("x")
    error.retry_in = 900.0
    retry = run.cadence.failed(run.clock.now, error)
    assert retry.show and retry.login_held and retry.seconds == 900.0


def test_each_wait_has_a_shortest_duration_that_nothing_interrupts(run: Run) -> None:
    shortest = SETTINGS.monitor.backoff_min
    assert run.cadence.crashed(run.clock.now).at_least == pytest.approx(min(shortest, 0.2))
    run.clock.now += 100.0
    assert run.cadence.crashed(run.clock.now).at_least == shortest


def test_a_guest_is_checked_less_often_after_a_long_outage(run: Run) -> None:
    run.cadence.failed(run.clock.now, GuestUnreachable("x"))
    assert run.cadence.recheck_in(run.clock.now) == rules.RECHECK_INTERVAL
    run.clock.now += rules.LONG_OUTAGE
    assert run.cadence.recheck_in(run.clock.now) == rules.RECHECK_INTERVAL_LONG
