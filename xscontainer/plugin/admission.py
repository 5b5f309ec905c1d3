"""Backpressure: how many plugin calls work at once, and which call has to wait or is refused with BUSY.

XAPI keeps a process of 3 MB in dom0 for every call that waits, and a call to a hung guest waits until its deadline.
So calls to VMs that are known to answer slowly share half of the workers, each VM and each function has a part of
them, and the queue is short. A call that turns out to be slow gives its place among the quick ones to the next VM.
"""

import threading
import time
from contextlib import contextmanager
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional

from xscontainer.core.verb import LONG, PATIENT, PROBING, QUICK, READING
from xscontainer.errors import Busy

# Lanes that have workers of their own; the other lanes share theirs.
_WITH_OWN_WORKERS = (LONG, READING)


class Limits(NamedTuple):
    """The limits of one :class:`Admission`; times in seconds.

    :ivar per_vm: calls of a lane that work for one VM at once.
    :ivar slow_after: a call that works for longer counts as slow, and so does its VM meanwhile.
    :ivar hung_after: a VM that has not answered a quick call for so long counts as hung ...
    :ivar hung_for: ... until it answers one sooner, or for this long.
    :ivar poll: between two checks whether a call has become slow.
    :ivar queue: calls that may wait.
    :ivar queue_of_hung_vm: of them for one VM that counts as hung.
    :ivar queue_seconds: how long a call waits at most.
    :ivar retry: after which a refused caller is told to repeat the call.
    :ivar retry_long: the same for a function that takes minutes.
    :ivar usual_deadline: after which a call to a hung guest is over.
    """

    per_vm: Dict[str, int] = {QUICK: 4, PATIENT: 8, PROBING: 2, READING: 4, LONG: 4}
    slow_after: float = 0.3
    hung_after: float = 2.0
    hung_for: float = 60.0
    poll: float = 0.05
    queue: int = 6
    queue_of_hung_vm: int = 2
    queue_seconds: float = 2.0
    retry: float = 5.0
    retry_long: float = 60.0
    usual_deadline: float = 28.0


USUAL = Limits()


class _Ticket:
    """One call, from its arrival to its end.

    :ivar since: when it arrived; once it works, when that began.
    :ivar displaced: it lost its place in the queue to a call for a VM that had none.
    """

    def __init__(self, function: str, vm: str, lane: str, now: float) -> None:
        self.function = function
        self.vm = vm
        self.lane = lane
        self.since = now
        self.displaced = False

    def is_like(self, other: "_Ticket") -> bool:
        return self.vm == other.vm and self.lane == other.lane

    @property
    def workers(self) -> str:
        """The lane whose workers serve the call, "" for the workers that lanes share."""
        return self.lane if self.lane in _WITH_OWN_WORKERS else ""


class _Health:
    """Knows which VMs answer quick calls slowly or not at all. The owner's lock guards it.

    :param working: the calls at work, as their owner keeps them.
    """

    def __init__(self, working: "List[_Ticket]", unreachable: "Callable[[str], bool]",
                 clock: "Callable[[], float]", limits: Limits) -> None:
        self._working = working
        self._unreachable = unreachable
        self._clock = clock
        self._limits = limits
        self._hung_until: Dict[str, float] = {}  # by uuid of the VM

    def is_slow(self, vm: str) -> bool:
        return self.is_hung(vm) or self._oldest(vm) > self._limits.slow_after

    def is_hung(self, vm: str) -> bool:
        if not vm:
            return False
        return (self._hung_until.get(vm, 0.0) > self._clock() or self._unreachable(vm)
                or self._oldest(vm) > self._limits.hung_after)

    def _oldest(self, vm: str) -> float:
        """For how many seconds the VM has not answered a quick call."""
        now = self._clock()
        return max((now - other.since for other in self._working if vm and other.vm == vm and other.lane == QUICK),
                   default=0.0)

    def ended(self, ticket: _Ticket) -> None:
        """A call is over: remember whether its VM answered in time."""
        now = self._clock()
        if not ticket.vm or ticket.lane != QUICK:
            return
        if now - ticket.since > self._limits.hung_after:
            self._hung_until[ticket.vm] = now + self._limits.hung_for
        else:
            self._hung_until.pop(ticket.vm, None)
        for vm in [vm for vm, until in self._hung_until.items() if until <= now]:
            del self._hung_until[vm]


class Unlimited:
    """Admits every call at once. For a process that serves one call; plugin/forward.py limits such processes."""

    @contextmanager
    def admitted(self, function: str, vm: str, lane: str) -> "Iterator[None]":
        yield


class Admission(Unlimited):
    """Admits calls as far as there are workers for them. Thread-safe.

    :param workers: half of them are for quick calls, half for slow ones. As many again work at most if VMs turn out to
        be slow that were not known to be. The lanes READING and LONG have half as many each, apart from these.
    :param unreachable: whether the VM of this uuid is known to be out of reach; must return at once.
    """

    def __init__(self, workers: int, unreachable: "Callable[[str], bool]" = lambda vm: False,
                 clock: "Callable[[], float]" = time.monotonic, limits: Limits = USUAL) -> None:
        self._share = max(1, workers // 2)  # of the quick calls, the slow, the reading and the long ones each
        self._most = 2 * workers
        self._clock = clock
        self._limits = limits
        self._changed = threading.Condition()  # guards all below
        self._working: List[_Ticket] = []
        self._waiting: List[_Ticket] = []
        self._health = _Health(self._working, unreachable, clock, limits)

    @staticmethod
    def most(workers: int) -> int:
        """The number of calls that may work at once in all lanes."""
        return 2 * workers + len(_WITH_OWN_WORKERS) * max(1, workers // 2)

    @contextmanager
    def admitted(self, function: str, vm: str, lane: str) -> "Iterator[None]":
        """Hold a worker for the duration of the block.

        :param vm: uuid, "" for a call that is about no VM.
        :raises Busy: no worker is free within ``queue_seconds``, or the queue is full.
        """
        ticket = _Ticket(function, vm, lane, self._clock())
        with self._changed:
            self._waiting.append(ticket)
            try:
                self._wait(ticket)
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
            ticket.since = self._clock()
            self._working.append(ticket)
        try:
            yield
        finally:
            with self._changed:
                self._working.remove(ticket)
                self._health.ended(ticket)
                self._changed.notify_all()

    def _wait(self, ticket: _Ticket) -> None:
        deadline = ticket.since + self._limits.queue_seconds
        while self._next() is not ticket:
            left = deadline - self._clock()
            if left <= 0 or self._is_hopeless(ticket):
                raise self._busy(ticket)
            # Polls: no event says that a call has become slow and leaves its place to a quick one.
            self._changed.wait(min(left, self._limits.poll))

    def _next(self) -> "Optional[_Ticket]":
        """The waiting call that gets the next free worker: of the VM with the fewest calls at work, the earliest."""
        if not self._working and len(self._waiting) == 1:
            return self._waiting[0]  # most calls are alone, and every limit lets one call work
        free = [ticket for ticket in self._waiting if self._is_free_for(ticket)]
        return min(free, key=self._of_its_vm, default=None)

    def _of_its_vm(self, ticket: _Ticket) -> int:
        """The number of calls for the ticket's VM that its workers serve at the moment."""
        return sum(other.vm == ticket.vm for other in self._at_work(ticket.workers)) if ticket.vm else 0

    def _at_work(self, workers: str) -> "List[_Ticket]":
        return [other for other in self._working if other.workers == workers]

    def _is_hopeless(self, ticket: _Ticket) -> bool:
        """Tell whether the call is to be refused instead of waiting."""
        if ticket.displaced:
            return True
        # A displaced call may take a moment to leave: its place counts as free, or a second call would be displaced.
        before = [other for other in self._waiting[:self._waiting.index(ticket)]
                  if not other.displaced and other.workers == ticket.workers]
        alike = sum(other.is_like(ticket) for other in before)
        if self._health.is_hung(ticket.vm) and alike >= self._limits.queue_of_hung_vm:
            return True
        if ticket.lane == QUICK and self._health.is_slow(ticket.vm) and self._slow() >= self._share:
            return True
        return len(before) >= self._limits.queue and not (
            alike == 0 == self._of_its_vm(ticket) and self._displace(before))

    def awaited(self, lane: str) -> bool:
        """Tell whether a call of this lane waits for a worker."""
        with self._changed:
            return any(ticket.lane == lane for ticket in self._waiting)

    @staticmethod
    def _displace(waiting: "List[_Ticket]") -> bool:
        """Make room in the queue for a VM's first call: drop the last call whose VM has another one waiting."""
        for number in reversed(range(len(waiting))):
            ticket = waiting[number]
            if not ticket.displaced and ticket.vm and any(other.is_like(ticket) for other in waiting[:number]):
                ticket.displaced = True
                return True
        return False

    def _is_free_for(self, ticket: _Ticket) -> bool:
        alike = sum(other.is_like(ticket) for other in self._working) if ticket.vm else 0
        if alike >= self._limits.per_vm[ticket.lane]:
            return False
        same = sum(other.function == ticket.function for other in self._working)
        at_work = self._at_work(ticket.workers)
        if ticket.lane == LONG:
            return len(at_work) < self._share and same < max(1, self._share * 3 // 4)
        if ticket.lane == READING:
            hung = sum(self._health.is_hung(other.vm) for other in at_work) if self._health.is_hung(ticket.vm) else 0
            return len(at_work) < self._share and hung < max(1, self._share // 2)
        slow, total = self._slow(), len(at_work)
        if ticket.lane == PROBING:
            return slow < self._share and same < max(1, self._share // 2)
        if self._health.is_slow(ticket.vm):
            return slow < self._share
        quick = total - slow
        if alike:
            # Half of the quick places are for VMs without a call at work; while many VMs are slow, all of them are.
            return slow < self._share and quick < max(1, self._share // 2)
        return total < self._most and quick < self._share

    def _slow(self) -> int:
        now = self._clock()
        return sum(other.lane == PROBING or now - other.since > self._limits.slow_after
                   or self._health.is_hung(other.vm) for other in self._at_work(""))

    def _busy(self, ticket: _Ticket) -> Busy:
        what = f"The xscontainer daemon does not take the call '{ticket.function}'"
        retry = self._limits.retry_long if ticket.lane == LONG else self._limits.retry
        alike = [other for other in self._working if ticket.vm and other.is_like(ticket)]
        if len(alike) >= self._limits.per_vm[ticket.lane] or alike and self._health.is_slow(ticket.vm):
            age = self._clock() - min(other.since for other in alike)
            seconds = retry if ticket.workers else max(1.0, self._limits.usual_deadline - age)
            return Busy(f"{what}: {len(alike)} calls for the VM {ticket.vm} are at work already, the oldest one for "
                        f"{age:.0f} s.", seconds=seconds)
        waiting = sum(other.workers == ticket.workers for other in self._waiting) - 1
        return Busy(f"{what}: {len(self._at_work(ticket.workers))} other calls are at work and {waiting} are waiting.",
                    seconds=retry)
