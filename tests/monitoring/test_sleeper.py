"""The wait for the next try, with a clock that jumps."""

from typing import Callable, List

import pytest

from tests.clock import Clock, InstantSleeper
from xscontainer.core.cadence import LONG_OUTAGE, RECHECK_INTERVAL, RECHECK_INTERVAL_LONG, Cadence, Retry
from xscontainer.errors import GuestThrottled, GuestUnreachable
from xscontainer.monitoring.vm.sleeper import wait_for_retry
from xscontainer.settings import Settings

LONG = Retry(3600.0, 0.2)
HELD = LONG._replace(login_held=True)


class Wait:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.sleeper = InstantSleeper(clock)
        self.cadence = Cadence(Settings(), clock.now, lambda: GuestThrottled("x"))
        self.asked: List[float] = []

    def seconds(self, retry: Retry, held: "Callable[[], bool]" = lambda: True,
                recovered: "Callable[[], bool]" = lambda: False) -> float:
        """Return the seconds that the wait takes."""
        begun = self.clock.now

        def ask() -> bool:
            self.asked.append(self.clock.now - begun)
            return recovered()

        wait_for_retry(retry, self.cadence, self.sleeper, held, ask)
        return self.clock.now - begun

    def wake_at(self, *times: float) -> None:
        """Have the VM change at these times, counted from now."""
        due = [self.clock.now + time for time in times]

        def during() -> None:
            while due and self.clock.now >= due[0]:
                due.pop(0)
                self.sleeper.wake()

        self.sleeper.during = during


@pytest.fixture
def wait(clock: Clock) -> Wait:
    return Wait(clock)


@pytest.mark.parametrize("retry", [Retry(0.1, 0.1), Retry(5.0, 0.2), LONG, HELD])
def test_a_wait_takes_its_time_if_nothing_happens(wait: Wait, retry: Retry) -> None:
    assert wait.seconds(retry) == pytest.approx(retry.seconds)


def test_a_change_of_the_vm_ends_the_wait(wait: Wait) -> None:
    wait.wake_at(8.0)
    assert wait.seconds(LONG) == pytest.approx(8.2)


def test_a_change_before_the_wait_does_not_cut_its_first_part_short(wait: Wait) -> None:
    wait.sleeper.wake()
    assert wait.seconds(LONG) >= LONG.at_least and wait.sleeper.slept[0] == LONG.at_least


def test_a_stop_ends_the_wait_at_once(wait: Wait) -> None:
    wait.sleeper.stop()
    wait.seconds(LONG)
    assert wait.sleeper.slept == [LONG.at_least], "a real sleep ends early"


def test_a_guest_that_answers_again_ends_the_wait(wait: Wait) -> None:
    assert wait.seconds(LONG, recovered=lambda: len(wait.asked) == 3) == pytest.approx(3 * RECHECK_INTERVAL + 0.2)


def test_a_guest_is_not_checked_shortly_before_the_next_try(wait: Wait) -> None:
    wait.seconds(Retry(RECHECK_INTERVAL, 0.2))
    assert wait.asked == []
    wait.seconds(Retry(2.5 * RECHECK_INTERVAL, 0.2))
    assert len(wait.asked) == 2


def test_a_guest_is_checked_seldom_after_a_long_outage(wait: Wait) -> None:
    wait.cadence.failed(wait.clock.now, GuestUnreachable("x"))
    wait.clock.now += LONG_OUTAGE
    wait.seconds(Retry(10 * RECHECK_INTERVAL_LONG, 0.0))
    assert len(wait.asked) == 10


def test_a_held_login_waits_until_it_is_allowed_although_the_vm_changes(wait: Wait) -> None:
    wait.wake_at(8.0, 16.0, 24.0)
    assert wait.seconds(HELD, held=lambda: wait.clock.now < 1040.0) == pytest.approx(40.2)
    assert wait.asked == [], "a guest that refused a login is not probed: it answers"
