"""One scene serves a whole module here, and its daemons, guests and clients connect anew all the time: what is left
behind is looked for after the module, not after each test."""

import gc
import time
from typing import Iterator

import pytest

from tests.clients import FastXmlParser, MonoXml, Reader
from tests.conftest import SETTLE_SECONDS, _held, _left


@pytest.fixture(autouse=True, scope="module")
def _leaves_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    failed = request.session.testsfailed
    before = _held()
    yield
    left = _left(before)
    deadline = time.monotonic() + SETTLE_SECONDS
    while left and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
        left = _left(before)
    if left and request.session.testsfailed == failed:
        pytest.fail("left behind: " + ", ".join(left), pytrace=False)


@pytest.fixture(scope="module")
def orchestra() -> Iterator[Reader]:
    with FastXmlParser() as reader:
        yield reader


@pytest.fixture(scope="module")
def center() -> Iterator[Reader]:
    with MonoXml() as reader:
        yield reader
