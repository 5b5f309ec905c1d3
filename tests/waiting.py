"""Wait for another thread or process: with a deadline, never for a fixed time."""

import time
from typing import Any, Callable, Union

DEADLINE = 15.0


def until(condition: "Callable[[], Any]", what: "Union[str, Callable[[], str]]" = "",
          seconds: float = DEADLINE) -> float:
    """Wait until ``condition()`` is true; returns the seconds it took and fails the test after ``seconds``.

    :param what: the message of the failure, or a function that makes it then.
    """
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun >= seconds:
            raise AssertionError((what() if callable(what) else what) or "the condition did not become true in time")
        time.sleep(0.002)
    return time.monotonic() - begun
