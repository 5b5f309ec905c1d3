"""Fair shares for guests: CPU of this process, and writes and bytes into XAPI.

Every thread that works for a guest charges its CPU to the guest's budget and waits while the budget is overdrawn. It
reads nothing from the guest meanwhile, so TCP's flow control slows the guest down (backpressure); nothing is dropped.
All guests together have a budget, too. Guests that have used up their own share the rest of it in equal parts.
"""

import contextlib
import threading
import time
from typing import Callable, Dict, Iterator, NamedTuple, Sequence, Tuple

# A guest counts as throttled until its budget has recovered to this part of its burst.
_RECOVERED = 0.5
# How often the number of guests that share a rate is counted again, seconds.
_RECOUNT = 0.25


class Rate(NamedTuple):
    """A rate limit, in any unit.

    :ivar each: for one guest, per second.
    :ivar total: for all guests together, per second.
    :ivar burst: for one guest at once, after a quiet time.
    :ivar total_burst: for all guests at once; beyond it only guests that used less than half of their burst go on.
    :ivar quantum: what an overdrawn guest has again when it goes on: many short turns cost more than a few longer ones.
    """

    each: float
    total: float
    burst: float
    total_burst: float
    quantum: float = 0.0


# In seconds of CPU. Over 10 s one guest uses 0.2 + 0.7 s, 9 % of a core, all guests together half a core. A list of
# 50 containers takes 5 ms, one of 5000 half a second, a new SSH connection 30 ms.
CPU = Rate(each=0.07, total=0.35, burst=0.2, total_burst=0.5, quantum=0.01)

# How many bytes one guest's documents may take before it is throttled: at least one document of the longest kind.
BURST_BYTES = 300000.0
BURST_WRITES = 3.0


def writing(writes: float, size: float) -> "Tuple[Rate, Rate]":
    """Return the rates of writing into XAPI.

    :param writes: of the whole host, per second.
    :param size: bytes of the whole host per second.
    """
    return (Rate(writes / 2, writes, BURST_WRITES, max(writes, 2 * BURST_WRITES)),
            Rate(size / 2, size, BURST_BYTES, max(size, 2 * BURST_BYTES)))


class FairRate:
    """Token buckets of all guests, filled from one rate. Thread-safe. Any string names a guest."""

    def __init__(self, rate: Rate, clock: "Callable[[], float]" = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._levels: Dict[str, Tuple[float, float]] = {}  # of guests that are not full: level, _gained at that time
        self._gained = 0.0  # by each guest that is not full, since the beginning
        self._gain = rate.each  # of each guest that is not full, per second at present
        self._left = rate.total_burst  # of the budget of all guests
        self._now = self._counted = clock()

    def spend(self, guest: str, amount: float) -> None:
        """Charge ``amount`` to the guest. One use can overdraw a budget; none is stopped in the middle."""
        with self._lock:
            self._advance()
            self._levels[guest] = (self._level(guest) - amount, self._gained)
            self._left -= amount
            self._divide()

    def delay(self, guest: str) -> float:
        """Seconds until the guest may use more; 0.0: it may now."""
        with self._lock:
            self._advance()
            level = self._level(guest)
            wait = 0.0 if level > 0.0 else (self._rate.quantum - level) / self._gain
            if self._left <= 0.0 and level < self._rate.burst / 2:
                wait = max(wait, -self._left / self._rate.total)
            return wait

    def recovered(self, guest: str) -> bool:
        """Return whether the guest has at least half of its burst again."""
        with self._lock:
            self._advance()
            return self._level(guest) >= self._rate.burst * _RECOVERED

    def _level(self, guest: str) -> float:
        level, gained = self._levels.get(guest, (self._rate.burst, self._gained))
        return min(self._rate.burst, level + self._gained - gained)

    def _advance(self) -> None:
        now = self._clock()
        passed, self._now = now - self._now, now
        self._gained += passed * self._gain
        self._left = min(self._rate.total_burst, self._left + passed * self._rate.total)
        if now - self._counted >= _RECOUNT:
            self._counted = now
            self._levels = {guest: known for guest, known in self._levels.items()
                            if self._level(guest) < self._rate.burst}
            self._divide()

    def _divide(self) -> None:
        self._gain = min(self._rate.each, self._rate.total / max(1, len(self._levels)))


class GuestBudget:
    """The budget of one VM's guest. Thread-safe.

    :param cpu: shared with the other guests.
    :param writing: into XAPI: writes and bytes, shared with the other guests.
    """

    def __init__(self, name: str, cpu: FairRate, writing: "Sequence[FairRate]" = (),
                 clock: "Callable[[], float]" = time.monotonic) -> None:
        self._name = name
        self._cpu = cpu
        self._writing = writing
        self._clock = clock
        self._lock = threading.Lock()
        self._throttled_at = float("inf")

    def charge(self, cpu: float) -> None:
        """Charge ``cpu`` seconds that a thread has worked for the guest."""
        self._cpu.spend(self._name, cpu)

    def hold(self) -> float:
        """Seconds for which the guest is not served; 0.0: it may be served now."""
        wait = self._cpu.delay(self._name)
        if wait > 0.0:
            with self._lock:
                self._throttled_at = min(self._throttled_at, self._clock())
        return wait

    def wrote(self, size: int) -> None:
        """Charge one write of ``size`` bytes into XAPI."""
        for rate, amount in zip(self._writing, (1.0, float(size))):
            rate.spend(self._name, amount)

    def hold_writing(self) -> float:
        """Seconds for which nothing is written about the guest; 0.0: a write is allowed now."""
        return max((rate.delay(self._name) for rate in self._writing), default=0.0)

    def throttled_for(self) -> float:
        """Seconds since the guest was first throttled without having recovered since; 0.0: it is not throttled."""
        with self._lock:
            if self._throttled_at < float("inf") and self._cpu.recovered(self._name):
                self._throttled_at = float("inf")
            return max(0.0, self._clock() - self._throttled_at)

    @contextlib.contextmanager
    def charged(self) -> "Iterator[None]":
        """Charge the CPU that the calling thread uses inside the block."""
        before = thread_cpu()
        try:
            yield
        finally:
            self.charge(thread_cpu() - before)


class ThreadMeter:
    """Charges the CPU of one thread to a guest, since the thread's start or its last :meth:`charge`."""

    _WORTH = 0.0005  # s; less is charged together with the next: a packet takes about 50 us

    def __init__(self, budget: GuestBudget) -> None:
        self.budget = budget
        self._charged = 0.0

    def charge(self) -> float:
        """Charge what the calling thread has used; returns the seconds that it has to wait (GuestBudget.hold)."""
        used = thread_cpu() - self._charged
        if used < self._WORTH:
            return 0.0
        self._charged += used
        self.budget.charge(used)
        return self.budget.hold()

    def skip(self) -> None:
        """Charge nobody for what the calling thread has used since."""
        self._charged = thread_cpu()


class Budgets:
    """The budgets of all guests that this process works for.

    :param write_rates: as :func:`writing` returns them; none: no limit.
    """

    def __init__(self, clock: "Callable[[], float]" = time.monotonic, cpu: Rate = CPU,
                 write_rates: "Sequence[Rate]" = ()) -> None:
        self._clock = clock
        self._cpu = FairRate(cpu, clock)
        self._writing = [FairRate(rate, clock) for rate in write_rates]
        self._lock = threading.Lock()
        self._guests: Dict[str, GuestBudget] = {}

    def of(self, vm_uuid: str) -> GuestBudget:
        """Return the budget of a VM's guest, always the same one: a new connection or monitor gets no new budget."""
        with self._lock:
            if vm_uuid not in self._guests:
                self._guests[vm_uuid] = GuestBudget(vm_uuid, self._cpu, self._writing, self._clock)
            return self._guests[vm_uuid]

    def forget(self, vm_uuid: str) -> None:
        """Drop the budget of a VM that has left the pool."""
        with self._lock:
            self._guests.pop(vm_uuid, None)


def thread_cpu() -> float:
    """Seconds of CPU that the calling thread has used since its start."""
    return time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID)
