"""Waiting for what another thread or process does: with a deadline, never for a fixed time."""

import time
from typing import Any, Callable

DEADLINE = 15.0


def until(condition: "Callable[[], Any]", what: str = "", seconds: float = DEADLINE) -> float:
    """Wait until ``condition()`` is true; returns the seconds it took and fails the test after ``seconds``."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, what or "it did not come about in time"
        time.sleep(0.002)
    return time.monotonic() - begun
