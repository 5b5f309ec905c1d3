"""Building blocks of a cadence: token bucket, backoff, lease and unconfirmed events. Pure: each is told the time.

All times are seconds, ``now`` by one clock that never goes back (time.monotonic).
"""

import random
from typing import Callable, Dict, Optional, Sequence, Tuple

from xscontainer.core.container import Container
from xscontainer.core.engine_event import EngineEvent
from xscontainer.errors import XSContainerError


def spread(seconds: float) -> float:
    """Return ``seconds``, 20 % more or less.

    Hosts that start together must not go on asking their coordinator at the same moments.
    """
    return seconds * random.uniform(0.8, 1.2)


class Pacer:
    """A token bucket: a few writes at once, then one in each interval.

    :param burst: writes without a wait after a quiet time.
    :param interval: seconds between writes from then on; 0.0: no limit.
    """

    def __init__(self, burst: int, interval: float) -> None:
        self._burst = float(burst)
        self._interval = interval
        self._tokens = float(burst)
        self._at = float("-inf")

    def delay(self, now: float) -> float:
        """Seconds until the next write is allowed; 0.0 if it is allowed now."""
        return max(0.0, (1.0 - self._filled(now)) * self._interval)

    def spend(self, now: float) -> None:
        """Count a write."""
        self._tokens = max(0.0, self._filled(now) - 1.0)
        self._at = now

    def _filled(self, now: float) -> float:
        if self._interval <= 0.0:
            return self._burst
        gained = (now - self._at) / self._interval
        # Without the rounding, a bucket that holds 0.9999999999 would keep the last write waiting for ever.
        return round(min(self._burst, self._tokens + gained), 9)


class Backoff:
    """The wait before the next try: a quarter of the outage so far.

    The end of a short outage is noticed soon, and a long outage costs little.

    :param shortest: the first wait, seconds.
    :param longest: seconds.
    """

    PART = 0.25
    # A success that lasts less than this does not end an outage, seconds.
    STEADY = 2.0

    def __init__(self, shortest: float, longest: float,
                 jitter: "Callable[[], float]" = lambda: spread(1.0)) -> None:
        self._shortest = shortest
        self._longest = longest
        self._jitter = jitter
        self._since: Optional[float] = None  # the first failure after the last success
        self._paced_from = float("-inf")  # from when on waits are measured
        self._well_since = float("-inf")

    def fail(self, now: float) -> float:
        """Count a failed try, or a lost connection; returns the seconds to wait before the next try."""
        if self._since is None:
            self._since = now
            if self._paced_from == float("-inf") or now - self._well_since >= self.STEADY:
                self._paced_from = now
        wait = max(self._shortest, (now - self._paced_from) * self.PART)
        return min(wait * self._jitter(), self._longest)

    def outage(self, now: float) -> float:
        """Seconds since the first failure; 0.0 if the last try succeeded."""
        return 0.0 if self._since is None else now - self._since

    def restart(self, now: float) -> None:
        """Something changed that may help: begin with short waits again."""
        self._paced_from = now

    def succeed(self, now: float) -> None:
        """Count a successful try."""
        self._since = None
        self._well_since = now


class Lease:
    """The time for which a published list counts as right.

    The monitor renews the lease while it knows that the list is right. Once the lease has expired, the list is stale.
    One thread writes, any may read.

    :param seconds: how long a list that may be stale is still shown.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._state: "Tuple[float, Optional[Callable[[], XSContainerError]]]" = (float("inf"), None)

    def renew(self, now: float, wait: float = 0.0) -> None:
        """The list is right; the next renewal is due in ``wait`` seconds."""
        self._state = (now + wait + self._seconds, None)

    def let_expire(self, now: float, reason: "Callable[[], XSContainerError]", grace: float = 0.0) -> None:
        """From now on the list may be stale: the lease expires unless it is renewed before.

        :param reason: makes the error that clients are shown instead of the list then. Each event brings a reason, and
            few are ever shown.
        :param grace: seconds that this may take longer than usual.
        """
        self._state = (min(self._state[0], now + grace + self._seconds), reason)

    def remaining(self, now: float) -> float:
        """Seconds until the lease expires, negative afterwards."""
        return self._state[0] - now

    def expired(self, now: float) -> bool:
        return self._state[0] <= now

    @property
    def reason(self) -> Optional[XSContainerError]:
        """Return the error that explains why the list may be stale; None if the list is right."""
        make = self._state[1]
        return make() if make else None


class Awaited:
    """Events whose effect the container list does not show yet.

    dockerd sends some events a few milliseconds before its own list shows the change: a list that is read at once may
    be the old one, and no further event would correct it.

    :ivar due: when to read the list again.
    """

    # When to read the list, seconds after the event and after each list that does not show it. The last list counts as
    # right: the container has changed again meanwhile, and the event that says so is on its way.
    DELAYS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.5, 3.0, 12.0)
    MOST = 5000

    def __init__(self, due: float = float("inf")) -> None:
        """:param due: when to read the list even if no event comes."""
        self._events: Dict[str, EngineEvent] = {}  # the last one of each container
        self._tries = 0
        self.due = due

    def add(self, event: EngineEvent, now: float) -> None:
        """Take an event: the list has to be read now."""
        if event.id in self._events or len(self._events) < self.MOST:
            self._events[event.id] = event
        self._tries = 0
        self.due = now

    def listed(self, containers: "Sequence[Container]", now: float) -> None:
        """Take a list: drop the events that it shows, and read it again for the others."""
        if self.due > now:
            return  # read for another reason than an event
        shown = {container.id: container for container in containers}
        self._events = {id_: event for id_, event in self._events.items() if not event.shown_by(shown.get(id_))}
        self._tries += 1
        if self._events and self._tries < len(self.DELAYS):
            self.due = now + self.DELAYS[self._tries]
        else:
            self._events, self.due = {}, float("inf")
