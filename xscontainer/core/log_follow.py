"""Following a log: going on after a lost connection without lines twice, and dropping lines that come too fast."""

from collections import Counter, deque
from typing import Callable, Deque, NamedTuple, Optional, Tuple

from xscontainer.core.log_lines import LogLine, RawLine, nanoseconds

RECENT_LINES = 2000  # that a Position remembers


class Position:
    """A reader's place in a log, from which it can go on after a lost connection without lines twice.

    An engine that is asked for lines since the stamp of the last one sends that line again, and podman, whose stamps
    are whole seconds, all lines of that second. Lines that were seen are recognised by stamp, stream and content.

    :ivar since: stamp of the last line, in nanoseconds since 1970; None: none was seen.
    """

    def __init__(self) -> None:
        self.since: Optional[int] = None
        self._stamp = b""
        self._recent: Deque[int] = deque(maxlen=RECENT_LINES)
        self._repeated: "Counter[int]" = Counter()

    def reopened(self) -> None:
        """Expect the lines since the last stamp again."""
        self._repeated = Counter(self._recent)

    def is_new(self, line: RawLine) -> bool:
        """Return whether the line was not seen before, and remember it."""
        key = hash(line[:3])
        if self._repeated:
            if self._repeated[key] > 0:
                self._repeated[key] -= 1
                return False
            if line.stamp != self._stamp and (nanoseconds(line.stamp.decode("ascii")) or 0) > (self.since or 0):
                self._repeated = Counter()  # all repeated lines have passed
        self._recent.append(key)
        if line.stamp and line.stamp != self._stamp:
            self._stamp, self.since = line.stamp, nanoseconds(line.stamp.decode("ascii"))
        return True


class LineRate:
    """A rate limit for the lines that a reader gets: lines and bytes per second.

    :param burst: seconds after which as many lines as in that time may come at once.
    """

    def __init__(self, clock: "Callable[[], float]", lines: float = 200.0, size: float = 65536.0,
                 burst: float = 2.0) -> None:
        self._rates = (lines, size)
        self._most = (lines * burst, size * burst)
        self._levels = list(self._most)
        self._clock = clock
        self._now = clock()

    def admits(self, size: int) -> bool:
        """Return whether a line of so many bytes may be passed on now, and count it if so."""
        now = self._clock()
        passed, self._now = now - self._now, now
        self._levels = [min(most, level + passed * rate)
                        for most, rate, level in zip(self._most, self._rates, self._levels)]
        if min(self._levels) <= 0.0:
            return False
        self._levels[0] -= 1.0
        self._levels[1] -= size
        return True


class Batch(NamedTuple):
    """Lines that were read together.

    :ivar dropped: how many further lines came with them and were dropped, because the container writes too fast.
    """

    lines: Tuple[LogLine, ...]
    dropped: int = 0
