"""One scene serves a whole module here, and its daemons, guests and clients connect anew all the time: what is left
behind is looked for after the module, not after each test."""

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
