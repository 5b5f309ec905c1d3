"""Limits for logins to a guest that refuses them, with clocks that the test moves."""

import time
from typing import List

import pytest

from tests.clock import Clock
from xscontainer.access.refusals import LIMITS, Refusals
from xscontainer.errors import ConnectError, GuestRefused, KeyNotAccepted, TLSClientRefused, XSContainerError

VM = "a-vm"
HERE = ("address", "user")


@pytest.fixture
def refusals(clock: Clock) -> Refusals:
    return Refusals(clock, lambda: 1750000000.0 + clock.now)


def tries(refusals: Refusals, clock: Clock, seconds: float, logins: int = 1, every: float = 1.0) -> List[float]:
    """Return the times of the logins of a monitor that keeps trying, counted from now; all are refused."""
    begun, done = clock.now, []
    while clock.now < begun + seconds:
        try:
            refusals.check(VM, HERE)
        except ConnectError as error:
            assert error.retry_in > 0.0 and refusals.held(VM, HERE)
        else:
            done.append(clock.now - begun)
            refusals.refused(VM, HERE, KeyNotAccepted("No."), logins)
        clock.now += every
    return done


def most_within(times: List[float], seconds: float) -> int:
    return max(sum(first <= other < first + seconds for other in times) for first in times)


def test_a_refused_login_is_tried_four_times_an_hour(refusals: Refusals, clock: Clock) -> None:
    done = tries(refusals, clock, 8 * LIMITS.hour)
    assert most_within(done, LIMITS.hour) <= LIMITS.most
    assert most_within(done, 600.0) <= 3, "fail2ban bans after five"
    assert len(done) >= 8 * LIMITS.most - 4, "the permitted tries are used"
    # A guest that boots may accept connections before its keys are in place.
    assert len([at for at in done if at < 120.0]) == 3


def test_a_login_counts_once_for_each_key(refusals: Refusals, clock: Clock) -> None:
    """While the pool's key is being replaced, each try takes two logins."""
    assert most_within(tries(refusals, clock, 8 * LIMITS.hour, logins=2), LIMITS.hour) * 2 <= LIMITS.most


def test_logins_of_other_processes_count(refusals: Refusals, clock: Clock) -> None:
    refusals.refused(VM, HERE, KeyNotAccepted("No."))
    refusals.count(VM, 3)
    assert refusals.recent(VM, 600.0) == 4
    assert tries(refusals, clock, LIMITS.hour - 1.0) == []
    assert len(tries(refusals, clock, 10.0)) == 1


def test_a_refusal_names_the_time_of_the_next_try(refusals: Refusals, clock: Clock) -> None:
    error = refusals.refused(VM, HERE, TLSClientRefused("The engine says no."))
    with pytest.raises(TLSClientRefused) as caught:
        refusals.check(VM, HERE)
    for refusal in (error, caught.value):
        assert refusal.message.startswith("The engine says no. The next login is tried at 2025-06-15 ")
        assert refusal.hint.startswith(TLSClientRefused.default_hint) and "diagnose" in refusal.hint
        assert refusal.retry_in == 20.0
    assert caught.value is not error and "next" not in TLSClientRefused("x").message


@pytest.mark.parametrize("end", ["change", "let in"])
def test_a_change_or_a_login_ends_the_wait(refusals: Refusals, clock: Clock, end: str) -> None:
    tries(refusals, clock, 600.0)
    assert refusals.held(VM, HERE)
    if end == "change":
        assert not refusals.held(VM, ("other address", "user"))
        refusals.check(VM, ("other address", "user"))
    else:
        refusals.forget(VM)
        assert not refusals.held(VM, HERE)
        refusals.check(VM, HERE)


def test_a_guest_whose_addresses_keep_changing_is_tried_seldom(refusals: Refusals, clock: Clock) -> None:
    begun, done = clock.now, []
    while clock.now < begun + LIMITS.hour:
        where = (f"address {clock.now}", "user")
        try:
            refusals.check(VM, where)
        except XSContainerError:
            assert refusals.held(VM, where)
        else:
            done.append(clock.now)
            refusals.refused(VM, where, KeyNotAccepted("No."))
        clock.now += 1.0
    assert most_within(done, 600.0) < 5


def test_each_vm_has_its_own_limit(refusals: Refusals) -> None:
    refusals.refused(VM, HERE, KeyNotAccepted("No."))
    refusals.check("another", HERE)


def test_an_unreachable_guest_is_reported_with_its_recent_refusal(refusals: Refusals, clock: Clock) -> None:
    assert "refused a login" not in refusals.unreachable(VM, GuestRefused("Nothing listens.")).message
    refusals.refused(VM, HERE, KeyNotAccepted("No."))
    clock.now += 300.0
    assert "refused a login 5 min ago" in refusals.unreachable(VM, GuestRefused("Nothing listens.")).message
    clock.now += LIMITS.hour
    assert "refused a login" not in refusals.unreachable(VM, GuestRefused("Nothing listens.")).message


def test_old_refusals_are_forgotten(refusals: Refusals, clock: Clock) -> None:
    for number in range(100):
        refusals.refused(str(number), HERE, KeyNotAccepted("No."))
    clock.now += 2 * 86400.0
    refusals.refused(VM, HERE, KeyNotAccepted("No."))
    assert len(refusals._last) == len(refusals._logins) == 1


def test_the_default_clock_is_monotonic() -> None:
    made, before = Refusals(), time.monotonic()
    assert before <= made._clock() <= time.monotonic()
