"""When to do something next: write, try again, ask for a list. Pure: each is told what time it is.

All times are seconds, ``now`` by one clock that never goes back (time.monotonic).
"""

import random
from typing import Callable, Dict, Optional, Sequence

from xscontainer.engineevent import EngineEvent
from xscontainer.model import Container


def spread(seconds: float) -> float:
    """About so many: hosts of a pool that were started together must not ask its coordinator together for ever."""
    return seconds * random.uniform(0.8, 1.2)


class Pacer:
    """How soon the next write may happen: a few at once, then one each interval.

    :param burst: writes without a wait after a quiet time.
    :param interval: seconds between writes from then on; 0.0: no wait ever.
    """

    def __init__(self, burst: int, interval: float) -> None:
        self._burst = float(burst)
        self._interval = interval
        self._tokens = float(burst)
        self._at = float("-inf")

    def delay(self, now: float) -> float:
        """Seconds until a write may happen; 0.0 if at once."""
        return max(0.0, (1.0 - self._filled(now)) * self._interval)

    def spend(self, now: float) -> None:
        """A write happens."""
        self._tokens = max(0.0, self._filled(now) - 1.0)
        self._at = now

    def _filled(self, now: float) -> float:
        if self._interval <= 0.0:
            return self._burst
        gained = (now - self._at) / self._interval
        # 1.0 less a rounding error is a whole token, or the last write would wait for ever.
        return round(min(self._burst, self._tokens + gained), 9)


class CPUShare:
    """How much of a core one guest may keep busy: a little at once, and a share of it from then on.

    :param share: of one core, as 0.1.
    :param burst: CPU seconds after a quiet time.
    """

    def __init__(self, share: float, burst: float) -> None:
        self._share = share
        self._burst = burst
        self._left = burst
        self._at = float("-inf")

    def delay(self, now: float) -> float:
        """Seconds until more may be done for it; 0.0 if at once."""
        return max(0.0, -self._filled(now) / self._share)

    def spend(self, cpu: float, now: float) -> None:
        """So many CPU seconds were spent."""
        self._left = self._filled(now) - cpu
        self._at = now

    def _filled(self, now: float) -> float:
        return min(self._burst, self._left + (now - self._at) * self._share)


class Backoff:
    """How long to wait before the next try: a part of how long there has been trouble, so that a
    short outage is noticed to be over soon and a long one costs little.

    :param shortest: seconds; the first wait.
    :param longest: seconds.
    """

    PART = 0.25
    # A success that does not last this long is no end of the trouble, seconds.
    STEADY = 2.0

    def __init__(self, shortest: float, longest: float,
                 jitter: "Callable[[], float]" = lambda: spread(1.0)) -> None:
        self._shortest = shortest
        self._longest = longest
        self._jitter = jitter
        self._since: Optional[float] = None  # the first failure after the last success
        self._paced_from = float("-inf")  # when the trouble began that waits are measured by
        self._well_since = float("-inf")

    def fail(self, now: float) -> float:
        """A try failed, or what had succeeded ended; returns the seconds to wait before the next."""
        if self._since is None:
            self._since = now
            if self._paced_from == float("-inf") or now - self._well_since >= self.STEADY:
                self._paced_from = now
        wait = max(self._shortest, (now - self._paced_from) * self.PART)
        return min(wait * self._jitter(), self._longest)

    def outage(self, now: float) -> float:
        """Seconds since the first failure; 0.0 if the last try succeeded."""
        return 0.0 if self._since is None else now - self._since

    def hurry(self, now: float) -> None:
        """Something changed: the next tries may fare better than the last."""
        self._paced_from = now

    def succeed(self, now: float) -> None:
        """A try succeeded."""
        self._since = None
        self._well_since = now


class Awaited:
    """Events whose effect the container list does not show yet.

    dockerd tells of some changes before its own list shows them, by a few
    milliseconds: a list asked for at once may be the one from before, and no
    further event would correct it.
    """

    # When to ask for the list, seconds after the event and after each list that does not show it.
    # Then it is believed: the container has moved on, and the event that says so is on its way.
    DELAYS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.5, 3.0, 12.0)
    MOST = 5000

    def __init__(self, due: float = float("inf")) -> None:
        """:param due: when to ask for the list even if nothing happens."""
        self._events: Dict[str, EngineEvent] = {}  # the last one of each container
        self._tries = 0
        self.due = due  # when the list is to be asked for

    def add(self, event: EngineEvent, now: float) -> None:
        """An event has come: the list is to be asked for."""
        if event.id in self._events or len(self._events) < self.MOST:
            self._events[event.id] = event
        self._tries = 0
        self.due = now

    def listed(self, containers: "Sequence[Container]", now: float) -> None:
        """A list has come."""
        if self.due > now:
            return  # it was asked for without an event
        shown = {container.id: container for container in containers}
        self._events = {id_: event for id_, event in self._events.items() if not event.shown_by(shown.get(id_))}
        self._tries += 1
        if self._events and self._tries < len(self.DELAYS):
            self.due = now + self.DELAYS[self._tries]
        else:
            self._events, self.due = {}, float("inf")
