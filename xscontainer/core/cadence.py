"""The times at which one VM's engine is listed, probed and retried, and the lease of its list. Pure.

A monitor (:mod:`xscontainer.monitoring.monitor`) says what happened and when: events, answers, failures. It is told
what is due now, or until when to wait. All times are seconds, ``now`` by one clock that never goes back
(time.monotonic).
"""

from typing import Callable, NamedTuple, Sequence

from xscontainer.core.container import Container
from xscontainer.core.engine_event import EngineEvent
from xscontainer.core.pacing import Awaited, Backoff, Lease, Pacer, spread
from xscontainer.errors import ConnectError, XSContainerError
from xscontainer.settings import Settings

NEVER = float("inf")

# dockerd accepts a subscription a moment before it sends the subscriber anything: no event tells what happened in that
# moment, so the list is asked for once more, this long after the first list, seconds.
SUBSCRIBED_AFTER = 1.0
# An engine that was not asked for anything for this long is probed, seconds: an engine that hangs is silent, too.
PROBE_INTERVAL = 40.0
# How often an engine is asked for its list at most: this often at once, then once in so many seconds.
LISTS_AT_ONCE = 20
LIST_INTERVAL = 0.1
# How often a monitor that waits for its next try looks whether the guest answers again, seconds: at first, and after
# a long outage.
RECHECK_INTERVAL = 8.0
RECHECK_INTERVAL_LONG, LONG_OUTAGE = 30.0, 3600.0

LIST, PROBE, WAIT = "list", "probe", "wait"


class Due(NamedTuple):
    """The times at which the parts of a monitor have something to do.

    :ivar list_at: when the list is polled, because there are no events.
    :ivar feed_at: when the event stream has to be begun (again).
    :ivar facts_at: when the engine's facts are read.
    :ivar list_missing: whether clients are shown no list at the moment.
    """

    list_at: float = NEVER
    feed_at: float = NEVER
    facts_at: float = NEVER
    list_missing: bool = False


class Step(NamedTuple):
    """The next task of a connected monitor.

    :ivar task: LIST, PROBE or WAIT.
    :ivar until: of WAIT: when to ask again at the latest.
    :ivar expected: of LIST: whether events or polling announced that the list may have changed.
    """

    task: str
    until: float
    expected: bool = False


class Retry(NamedTuple):
    """The wait of a monitor after a failure.

    :ivar seconds: until the next try.
    :ivar at_least: seconds of these that nothing cuts short.
    :ivar login_held: whether the guest refused the login: then only a change ends the wait early.
    :ivar show: whether clients are shown the failure now, instead of a list.
    """

    seconds: float
    at_least: float
    login_held: bool = False
    show: bool = False


class Cadence:
    """The rhythm of one VM's monitor, for the monitor's thread.

    :param throttled: makes the error that says that the guest is held back.
    :param hold_writing: seconds until the guest's budget allows the next write.
    :ivar lease: how long the published list counts as right; other threads may read it.
    :ivar backoff: of failed tries.
    """

    def __init__(self, settings: Settings, now: float, throttled: "Callable[[], XSContainerError]",
                 hold_writing: "Callable[[], float]" = lambda: 0.0) -> None:
        self._stale_after = settings.publish.stale_after
        self._relist_interval = settings.monitor.resync_interval
        self._shortest = settings.monitor.backoff_min
        self._throttled = throttled
        self._hold_writing = hold_writing
        self.backoff = Backoff(settings.monitor.backoff_min, settings.monitor.backoff_max)
        self.lease = Lease(settings.publish.stale_after)
        self._writes = Pacer(settings.publish.burst, settings.publish.interval)
        self._lists = Pacer(LISTS_AT_ONCE, LIST_INTERVAL)
        self._awaited = Awaited()
        self._relist_at = NEVER
        self._answered_at = now
        self._drained = True  # nothing was left to be read of the events when they were read last

    def subscribed(self, now: float) -> None:
        """The event stream has begun, and the first list is published."""
        self._awaited = Awaited(now + SUBSCRIBED_AFTER)
        self._relist_at = now + spread(self._relist_interval)
        self._drained = True

    def next_step(self, now: float, due: Due) -> Step:
        """Return the task that is due now. A WAIT renews the lease if nothing is known to have changed."""
        probe_at = self._answered_at + PROBE_INTERVAL
        list_at = now if due.list_missing else min(self._awaited.due, self._relist_at, due.list_at)
        work_at = min(list_at, probe_at)
        allowed_at = now + max(self.write_delay(now), self._lists.delay(now))
        if work_at <= now and allowed_at <= now:
            if now < list_at:
                return Step(PROBE, now)
            self._lists.spend(now)
            return Step(LIST, now, expected=now >= min(self._awaited.due, due.list_at))
        until = min(max(work_at, allowed_at), max(due.feed_at, allowed_at), max(due.facts_at, now))
        if work_at <= now:
            self.lease.let_expire(now, self._throttled)
        elif self._drained:
            self.lease.renew(now, until - now)
        return Step(WAIT, until)

    def heard(self, events: "Sequence[EngineEvent]", drained: bool, now: float) -> None:
        """Events have come.

        :param drained: nothing more is to be read at the moment. Else the event that tells of a change may stand behind
            all the others: the list is asked for before the lease expires.
        """
        for event in events:
            if event.changes_list:
                self._awaited.add(event, now)
        self._drained = drained
        if not drained:
            self.lease.let_expire(now, self._throttled)
            if self.lease.remaining(now) < self._stale_after / 2:
                self._awaited.due = min(self._awaited.due, now)

    def listed(self, containers: "Sequence[Container]", now: float) -> None:
        """A list that a LIST asked for is published."""
        self._awaited.listed(containers, now)
        self._relist_at = now + spread(self._relist_interval)

    def answered(self, now: float) -> None:
        """The engine has answered."""
        self._answered_at = now

    def wrote(self, now: float) -> None:
        """Something was written into XAPI, or will be."""
        self._writes.spend(now)

    def write_delay(self, now: float) -> float:
        """Seconds until the next write is allowed to this VM, and to its guest among all of the host."""
        return max(self._writes.delay(now), self._hold_writing())

    def failed(self, now: float, error: XSContainerError) -> Retry:
        """A try failed, or what had succeeded ended. A transient error is shown only once the lease has expired."""
        self.lease.let_expire(now, lambda: error)
        seconds = self.backoff.fail(now)
        remaining = self.lease.remaining(now)
        show = remaining <= 0.0 or not error.transient
        if not show:
            seconds = min(seconds, max(0.01, remaining))  # awake in time to show it, should it last
        retry_in = error.retry_in if isinstance(error, ConnectError) else 0.0
        return self._retry(max(seconds, retry_in), retry_in > 0.0, show)

    def crashed(self, now: float) -> Retry:
        """The monitor itself has failed."""
        return self._retry(self.backoff.fail(now))

    def _retry(self, seconds: float, login_held: bool = False, show: bool = False) -> Retry:
        return Retry(seconds, min(seconds, self._shortest), login_held, show)

    def recheck_in(self, now: float) -> float:
        """Seconds between two looks whether the guest answers again."""
        return RECHECK_INTERVAL if self.backoff.outage(now) < LONG_OUTAGE else RECHECK_INTERVAL_LONG
