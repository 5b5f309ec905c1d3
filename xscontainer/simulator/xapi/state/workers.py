"""Threads that work for a pool in the background, and pauses that end with the pool."""

import threading
from typing import Callable, Set


class Workers:
    """The background threads of a pool; stop() wakes their pauses, join() waits for them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: Set[threading.Thread] = set()
        self.stopping = threading.Event()

    def start(self, work: Callable[[], None]) -> None:
        """Run ``work`` in a thread that join() waits for."""

        def run() -> None:
            try:
                work()
            finally:
                with self._lock:
                    self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name="xapi-task", daemon=True)
        with self._lock:  # join() may only find threads that have started
            thread.start()
            self._threads.add(thread)

    def pause(self, seconds: float) -> None:
        """Sleep, but not beyond stop()."""
        if seconds > 0:
            self.stopping.wait(seconds)

    def resume(self) -> None:
        """Let pauses wait again after a stop()."""
        self.stopping.clear()

    def stop(self) -> None:
        """End every pause."""
        self.stopping.set()

    def join(self, timeout: float = 10.0) -> None:
        """Wait up to ``timeout`` seconds for each thread."""
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(timeout)
