"""The owner of short-lived threads."""

import sys
import threading
import time
from typing import Iterator

import pytest

from xscontainer.simulator.engines.relay import Threads


@pytest.fixture
def hasty() -> Iterator[None]:
    """Let threads take turns as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_threads_can_end_while_more_are_started(hasty: None) -> None:
    threads = Threads()
    enough = threading.Event()

    def start_more() -> None:
        while not enough.is_set():
            threads.start(time.sleep, 0.0001)

    starters = [threading.Thread(target=start_more) for _ in range(3)]
    for starter in starters:
        starter.start()
    try:
        for _ in range(100):
            threads.end(0.01)
    finally:
        enough.set()
        for starter in starters:
            starter.join(10)
        threads.close()
