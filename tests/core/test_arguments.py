"""The checks of the values that callers give to verbs."""

import pytest

from xscontainer.core import arguments
from xscontainer.core.arguments import seconds_up_to
from xscontainer.errors import ArgumentError


@pytest.mark.parametrize("value", ["0", "1", "20", "007"])
def test_a_whole_number_within_its_bounds_is_accepted(value: str) -> None:
    assert arguments.whole(0, 20)("tail", value) == value


@pytest.mark.parametrize("value", ["", " ", "-1", "+1", "21", "1.5", "1e1", "0x1", "\u0661", "1\n", "9" * 400, "all"])
def test_a_value_that_is_no_whole_number_within_its_bounds_is_refused(value: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        arguments.whole(0, 20)("tail", value)
    assert "'tail' must be a whole number from 0 to 20" in str(caught.value) and len(str(caught.value)) < 250


def test_the_lower_bound_holds() -> None:
    with pytest.raises(ArgumentError):
        arguments.whole(1, 20)("tail", "0")


@pytest.mark.parametrize("value", ["90s", "1h30m", "2d", "0", "1796084682.123456789", "2026-12-01",
                                   "2026-12-01T08:00:00.5Z", "2026-12-01T08:00:00+01:00"])
def test_a_time_is_accepted_as_docker_takes_it(value: str) -> None:
    assert arguments.moment("since", value) == value


@pytest.mark.parametrize("value", ["", "yesterday", "-5m", "5 m", "2026-13-01", "1" * 12, "\x00", "5m" * 40])
def test_a_value_that_is_no_time_is_refused(value: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        arguments.moment("since", value)
    assert "'since' must be a time" in str(caught.value)


def test_the_wait_of_a_call_has_the_bound_of_its_verb() -> None:
    wait = arguments.wait(20)
    assert not wait.required and wait.check("wait", "20") == "20" and "20" in wait.form
    with pytest.raises(ArgumentError):
        wait.check("wait", "21")


@pytest.mark.parametrize("value", ["", "0", "7", "060"])
def test_seconds_within_the_bounds_are_taken(value: str) -> None:
    assert seconds_up_to(60)("time", value) == value


@pytest.mark.parametrize("value", ["61", "9999", "-1", "1.5", "1s", "1\n", "99999", "\u0661", " "])
def test_seconds_outside_the_bounds_are_refused(value: str) -> None:
    with pytest.raises(ArgumentError) as refused:
        seconds_up_to(60)("time", value)
    assert "'time'" in str(refused.value)
