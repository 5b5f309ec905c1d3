"""The plugin call that a thread serves: its id, and one deadline for everything that is done for it.

Code that waits for XAPI or a guest asks :func:`remaining` for how long: as the settings say, but not beyond the
deadline of the call. Threads without a call, such as the monitors', have all the time of the settings.
"""

import contextlib
import math
import threading
import time
from typing import Iterator

LEAST_SECONDS = 0.05  # s that an attempt has even after the deadline, so that it fails with its own message


class _Current(threading.local):
    id = ""
    deadline = math.inf  # by time.monotonic()


_current = _Current()


@contextlib.contextmanager
def serving(call_id: str, seconds: float) -> "Iterator[None]":
    """Serve the call of this id in this thread, for the duration of the block.

    :param seconds: until the call must be answered; math.inf: the verb has deadlines of its own.
    """
    before = _current.id, _current.deadline
    _current.id, _current.deadline = call_id, time.monotonic() + seconds
    try:
        yield
    finally:
        _current.id, _current.deadline = before


@contextlib.contextmanager
def reserving(seconds: float) -> "Iterator[None]":
    """Move the deadline so much earlier within the block, to reserve time for the work after it."""
    before = _current.deadline
    _current.deadline = before - seconds
    try:
        yield
    finally:
        _current.deadline = before


def call_id() -> str:
    """The id of the call; "" if this thread serves none."""
    return _current.id


def deadline() -> float:
    """The deadline by time.monotonic(); math.inf if there is none."""
    return _current.deadline


def remaining(most: float) -> float:
    """Return how many seconds to wait: ``most``, or less if the deadline is nearer."""
    return max(LEAST_SECONDS, min(most, _current.deadline - time.monotonic()))
