"""Planned actions of one engine: a command ends, a container restarts, a health check runs."""

import heapq
import itertools
import threading
import time
from typing import Callable, List, Optional, Tuple


class Clock:
    """Calls functions at given times. Its thread starts with the first plan."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._plan: List[Tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._thread: Optional[threading.Thread] = None
        self._stopped = False

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call ``call`` after ``seconds``. It must be quick and must not raise. close() drops it."""
        with self._changed:
            if self._stopped:
                return
            heapq.heappush(self._plan, (time.monotonic() + seconds, next(self._numbers), call))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="simulator-clock", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """End the thread and drop all plans. The clock is usable again after reopen()."""
        with self._changed:
            self._stopped = True
            self._plan = []
            self._changed.notify()
            thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def reopen(self) -> None:
        with self._changed:
            self._stopped = False

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopped and (not self._plan or self._plan[0][0] > time.monotonic()):
                    self._changed.wait(self._plan[0][0] - time.monotonic() if self._plan else None)
                if self._stopped:
                    return
                call = heapq.heappop(self._plan)[2]
            call()
