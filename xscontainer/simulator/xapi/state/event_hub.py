"""The readers that wait for changes of the pool."""

import threading
from typing import Dict, List, Set

from xscontainer.simulator.xapi.database.database import Database


class Subscription:
    """The subjects of an event.from: whole classes, and single objects ("vm/OpaqueRef:...")."""

    def __init__(self, classes: List[str]) -> None:
        self.everything = "*" in classes
        self.classes: Set[str] = set()
        self.objects: Dict[str, Set[str]] = {}
        for entry in classes:
            cls, slash, ref = entry.partition("/")
            if slash:
                self.objects.setdefault(cls.lower(), set()).add(ref)
            else:
                self.classes.add(cls.lower())

    def matches(self, cls: str, ref: str) -> bool:
        """Return whether a change of that object is to be reported."""
        return self.everything or cls in self.classes or ref in self.objects.get(cls, ())


class Waiter:
    """One waiting event.from; wake() may be called from any thread, any number of times."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self._lock = threading.Lock()
        self._lock.acquire()

    def changed(self, cls: str, ref: str) -> None:
        """Wake if a write of that object is to be reported; the database calls this."""
        if self.subscription.matches(cls, ref):
            self.wake()

    def wake(self) -> None:
        """End the wait."""
        try:
            self._lock.release()
        except RuntimeError:
            pass  # already awake

    def wait(self, seconds: float) -> None:
        """Wait for wake(), at most `seconds`."""
        self._lock.acquire(timeout=max(0.0, seconds))


class Events:
    """The pool's waiting readers."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._waiters: Set[Waiter] = set()

    def add(self, waiter: Waiter) -> None:
        """Wake a waiter at writes from now on."""
        with self._db.lock:
            self._waiters.add(waiter)
            self._db.watchers.append(waiter.changed)

    def remove(self, waiter: Waiter) -> None:
        """Forget a waiter."""
        with self._db.lock:
            self._waiters.discard(waiter)
            self._db.watchers.remove(waiter.changed)

    def wake_all(self) -> None:
        """Wake every reader, so that it checks its session and its host."""
        with self._db.lock:
            for waiter in self._waiters:
                waiter.wake()
