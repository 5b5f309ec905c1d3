"""Parsing of times in the forms of docker's ``--since``."""

from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xscontainer.core.log_times import SECOND, moment

NOW = 1796084682.5


@pytest.mark.parametrize("text, expected", [
    ("10s", 1796084672500000000), ("1h30m", 1796084682500000000 - 5400 * SECOND), ("0s", 1796084682500000000),
    ("1.5m", 1796084682500000000 - 90 * SECOND), ("2d", 1796084682500000000 - 172800 * SECOND),
    ("250ms", 1796084682250000000), ("1796084682", 1796084682 * SECOND), ("1796084682.240607979", 1796084682240607979),
    ("2026-12-01T00:24:42.240607979Z", 1796084682240607979), ("2026-12-01T01:24:42+01:00", 1796084682 * SECOND),
    ("2026-12-01T00:24", 1796084640 * SECOND), ("2026-12-01", 1796083200 * SECOND), (" 10s ", 1796084672500000000),
    ("999999999h", 0),
])
def test_a_time_is_understood_as_docker_understands_it(text: str, expected: int) -> None:
    assert moment(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "-5s", "5 s", "s", "2026-13-01", "2026-12-01T25", "1e9s", "10x",
                                  "1969-12-31T00:00:00Z", "9" * 60, "12:00", "\x0010s"])
def test_a_text_that_is_no_time_is_none(text: str) -> None:
    assert moment(text, NOW) is None


@given(text=st.one_of(st.text(max_size=80), st.text("0123456789.hmsdTZ:-+", max_size=30)))
def test_any_text_is_a_time_in_bounds_or_none(text: str) -> None:
    found: Optional[int] = moment(text, NOW)
    assert found is None or 0 <= found < 1 << 63
