"""The waits of a monitor's thread: the one place that sleeps. Tests pass a sleeper whose clock they move."""

import threading
import time
from typing import Callable

from xscontainer.core import cadence as rules
from xscontainer.core.cadence import Cadence, Retry


class Sleeper:
    """A clock, and waits that other threads can end. Thread-safe; one thread waits.

    :ivar now: the clock, seconds.
    """

    def __init__(self, clock: "Callable[[], float]" = time.monotonic) -> None:
        self.now = clock
        self._stopped = threading.Event()
        self._woken = threading.Event()

    @property
    def stopped(self) -> bool:
        """Return whether :meth:`stop` was called."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """End this wait and all later ones."""
        self._stopped.set()
        self._woken.set()

    def wake(self) -> None:
        """End the present or the next :meth:`wait`."""
        self._woken.set()

    def sleep(self, seconds: float) -> bool:
        """Wait for ``seconds``; only :meth:`stop` ends that early. Returns whether it did."""
        return self._stopped.wait(seconds)

    def wait(self, seconds: float) -> bool:
        """Wait for ``seconds`` or until :meth:`wake` or :meth:`stop`; returns whether one of these ended it."""
        return self._woken.wait(seconds)

    def pause(self, seconds: float) -> None:
        """Wait as :meth:`wait` does, and forget the :meth:`wake` that ended it."""
        if self.wait(seconds) and not self.stopped:
            self._woken.clear()

    def take_wake(self) -> bool:
        """Return whether :meth:`wake` was called since the last time."""
        woken = self._woken.is_set()
        self._woken.clear()
        return woken


def wait_for_retry(retry: Retry, cadence: Cadence, sleeper: Sleeper,
                   login_held: "Callable[[], bool]" = lambda: False,
                   recovered: "Callable[[], bool]" = lambda: False) -> None:
    """Wait until the next try is due, or may succeed earlier.

    An earlier try may succeed when the VM changed, when the guest answers again (``recovered``), or when a login is
    allowed again (``login_held``). Changes can be many, so ``retry.at_least`` is always waited.
    """
    if sleeper.sleep(retry.at_least):
        return
    until = sleeper.now() + retry.seconds - retry.at_least
    while not sleeper.stopped:
        now = sleeper.now()
        if until <= now:
            return
        if sleeper.wait(min(until - now, cadence.recheck_in(now))):
            if not retry.login_held:
                return
            sleeper.take_wake()
        if retry.login_held:
            if not login_held():
                return
        elif until - now > rules.RECHECK_INTERVAL and recovered():
            return
