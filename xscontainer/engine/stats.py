"""The resources that running containers use: one sample of all of them, shared by everybody who looks.

Nothing is sampled unless somebody asks.
"""

import threading
import time
from contextlib import contextmanager
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from xscontainer.core import current_call
from xscontainer.core.usage import History, Sample, Usage
from xscontainer.engine import lists, sampling
from xscontainer.engine.calls import Calls
from xscontainer.engine.container_lookup import WHOLE_ID
from xscontainer.errors import ArgumentError, EngineTimeout, XSContainerError

SECONDS = 10.0
CACHED_SECONDS = 2.0
MOST_CONTAINERS = 200  # of one reading
# Between two samples of a first look. Counters of CPU lag by up to 10 ms (a tick of the guest's kernel).
INTERVAL = 0.25
MOST_TWICE = 100  # containers of a first look that are sampled twice, one request each


class StatsRead(NamedTuple):
    """One reading.

    :ivar usages: of the running containers, in the order they were asked for, or in the engine's.
    :ivar failed: containers that could not be read, and why.
    :ivar at: our clock, in seconds.
    :ivar left_out: how many running containers were not read, because there are too many.
    """

    usages: Tuple[Usage, ...]
    failed: Tuple[Tuple[str, XSContainerError], ...]
    at: float
    left_out: int = 0


class Stats:
    """The stats of one engine's containers. Thread-safe: everybody who looks at one VM uses the same object.

    A reading serves all that ask for its containers while it is under way and for two seconds after. The sample before
    is kept, so that a rate such as CPU is that since the last look. If there was none in the last two minutes, the
    containers are sampled twice.

    All work is done in the thread that asks, and so charged to the call.

    :param calls: of the engine.
    :param interval: seconds between the two samples of a first look; 0.0: only one is taken.
    :ivar last: the last reading of all running containers, however old.
    """

    def __init__(self, calls: Calls, clock: "Callable[[], float]" = time.monotonic,
                 cached_seconds: float = CACHED_SECONDS, interval: float = INTERVAL) -> None:
        self._calls = calls
        self._clock = clock
        self._cached_seconds = cached_seconds
        self._interval = interval
        self._reading = threading.Lock()  # held while the engine is asked
        self._history = History(most=2 * MOST_CONTAINERS)
        self._cache: "Dict[str, Tuple[float, Optional[Usage]]]" = {}  # None: the container does not run
        self._running: Optional[Tuple[float, lists.Running]] = None
        self.last: Optional[StatsRead] = None

    def read(self, containers: Sequence[str], timeout: float = SECONDS) -> StatsRead:
        """Return the usage of those of these containers that run.

        :param containers: full ids, at most MOST_CONTAINERS.
        :param timeout: seconds; containers that were not read until then are in ``failed``.
        :raises StatsUnavailable: if the engine cannot measure its containers.
        :raises ArgumentError, ConnectError, EngineError: if no container could be read.
        """
        if len(containers) > MOST_CONTAINERS or not all(map(WHOLE_ID.match, containers)):
            raise ArgumentError(f"Stats are read of at most {MOST_CONTAINERS} containers, by their whole ids.")
        with self._turn(timeout) as deadline:
            return self._read(containers, deadline)

    def read_running(self, timeout: float = SECONDS) -> StatsRead:
        """Return the usage of the running containers, at most MOST_CONTAINERS; parameters and errors as ``read``."""
        with self._turn(timeout) as deadline:
            known = self._running
            if known is not None and self._clock() - known[0] < self._cached_seconds:
                running = known[1]
            else:
                running = self._find_running(deadline)
                self._running = (self._clock(), running)
            self.last = self._read(running.ids, deadline)._replace(left_out=running.left_out)
            return self.last

    @contextmanager
    def _turn(self, timeout: float) -> Iterator[float]:
        """Be the only thread that reads; yield the deadline by time.monotonic()."""
        seconds = current_call.remaining(timeout)
        deadline = time.monotonic() + seconds
        if not self._reading.acquire(timeout=seconds):
            raise EngineTimeout("Reading the containers' stats failed: another reading of this VM took too long.")
        try:
            yield deadline
        finally:
            self._reading.release()

    def _find_running(self, deadline: float) -> lists.Running:
        if sampling.is_podman(self._calls):
            return self._read_podman([], deadline)  # its list takes longer than its stats
        return lists.running(self._calls, MOST_CONTAINERS, max(0.0, deadline - time.monotonic()))

    def _read(self, containers: Sequence[str], deadline: float) -> StatsRead:
        failed = self._refresh(containers, deadline)
        self._sample_again(containers, deadline)
        found = [self._cache.get(container, (0.0, None)) for container in containers]
        if failed and len(failed) == len(containers):
            raise failed[containers[0]]
        return StatsRead(tuple(usage for _, usage in found if usage is not None), tuple(failed.items()),
                         min((at for at, usage in found if usage is not None), default=self._clock()))

    def _sample_again(self, containers: Sequence[str], deadline: float) -> None:
        """Take a second sample of containers whose CPU is not known, unless that takes too long."""
        first = {container: self._cache[container] for container in containers if container in self._cache}
        lacking = [container for container, (_, usage) in first.items()
                   if usage is not None and usage.cores is None and usage.sample.cpu is not None]
        if not (lacking and self._interval and sampling.answers_at_once(self._calls)
                and (sampling.is_podman(self._calls) or len(lacking) <= MOST_TWICE)
                and time.monotonic() + 2 * self._interval < deadline):
            return
        time.sleep(self._interval)
        for container in lacking:
            del self._cache[container]
        self._refresh(lacking, deadline)
        for container in lacking:
            self._cache.setdefault(container, first[container])

    def _refresh(self, containers: Sequence[str], deadline: float) -> Dict[str, XSContainerError]:
        """Sample the containers that are not in the cache; return the errors."""
        now = self._clock()
        self._cache = {container: entry for container, entry in self._cache.items()
                       if now - entry[0] < self._cached_seconds}
        missing = [container for container in dict.fromkeys(containers) if container not in self._cache]
        if not missing:
            return {}
        if sampling.is_podman(self._calls):
            self._read_podman(missing, deadline)
            # Those that podman did not list do not run.
            for container in missing:
                self._cache.setdefault(container, (self._clock(), None))
            return {}
        wanted = {container: bool(self._interval) and not self._history.knows(container, now) for container in missing}
        return sampling.docker(self._calls, wanted, deadline, self._clock, self._keep)

    def _read_podman(self, wanted: List[str], deadline: float) -> lists.Running:
        """Sample all containers of a podman; keep the wanted ones, and up to MOST_CONTAINERS."""
        samples = sampling.podman(self._calls, deadline, self._clock)
        found = {sample.id: sample for sample in samples if WHOLE_ID.match(sample.id)}
        shown = tuple(found)[:MOST_CONTAINERS]
        for container in {*shown, *(each for each in wanted if each in found)}:
            self._keep(container, found[container], None)
        return lists.Running(shown, len(found) - len(shown))

    def _keep(self, container: str, sample: Optional[Sample], earlier: Optional[Sample]) -> None:
        usage = None if sample is None else self._history.usage(sample, earlier)
        self._cache[container] = (self._clock() if sample is None else sample.at, usage)
