"""Reads an engine's facts (GET /version, GET /info) in a thread of its own: they may take long, and no list waits.

The follower starts a reading when it is due, and publishes what it finds.
"""

import logging
import threading
import time
from typing import Callable, Optional

from xscontainer.errors import EngineWithoutFacts, XSContainerError, shortage

log = logging.getLogger(__name__)

# How long to wait before an engine that gave no facts is asked again, seconds; doubled each time.
RETRY_FIRST = 15.0
JOIN_TIMEOUT = 5.0  # s for the thread to end once its connection is gone


class FactsReader:
    """Reads the facts for one monitor, whose thread calls all methods.

    :param interval: seconds between two readings.
    :ivar missing: why facts are missing; None: none are. Set by the function that reads them.
    """

    def __init__(self, interval: float, clock: "Callable[[], float]" = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._due_at = clock()
        self._retry = RETRY_FIRST
        self._thread: Optional[threading.Thread] = None
        self.missing: Optional[EngineWithoutFacts] = None

    def read_soon(self) -> None:
        """Make a reading due now: the facts may have changed."""
        self._due_at = self._clock()

    @property
    def due_at(self) -> float:
        """Return when to call :meth:`start`; never while a reading is under way."""
        return float("inf") if self._thread is not None and self._thread.is_alive() else self._due_at

    def start(self, read: "Callable[[], None]") -> None:
        """Call ``read`` in a thread; it may raise XSContainerError."""
        self.join()
        self._due_at = self._clock() + self._interval
        thread = threading.Thread(target=self._run, args=(read,), name="facts", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            log.warning("No thread can be started to read the facts of an engine; they are read later: %s", error)
            return
        self._thread = thread

    def _run(self, read: "Callable[[], None]") -> None:
        try:
            read()
        except XSContainerError as error:
            log.debug("The facts of an engine cannot be read: %s", error)
            self._due_at = self._clock() + min(RETRY_FIRST, self._interval)
            return
        except Exception as error:
            if shortage(error) is None:  # the monitor's own thread meets a shortage, too, and reports it
                log.exception("Reading the facts of an engine failed with an unexpected error")
        if self.missing is None:
            self._retry = RETRY_FIRST
        else:
            self._due_at = self._clock() + min(self._retry, self._interval)
            self._retry = min(2 * self._retry, self._interval)

    def wait(self, seconds: float) -> None:
        """Wait for the present reading, at most ``seconds``."""
        if self._thread is not None:
            self._thread.join(seconds)

    def join(self) -> None:
        """Wait for the thread to end once its connection is closed."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(JOIN_TIMEOUT)
