"""Leaks are looked for after each module, not after each test.

One scene serves a whole module, and its daemons, guests and clients connect anew all the time."""

from typing import Iterator

import pytest

from tests.conftest import held, left_behind


@pytest.fixture(autouse=True, scope="module")
def _leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    failed = request.session.testsfailed
    before = held()
    yield
    left = left_behind(before)
    if left and request.session.testsfailed == failed:
        pytest.fail("left behind: " + ", ".join(left), pytrace=False)
