"""Rate limit of the log: a failure that repeats gets a line when it begins, one a minute, and one when it is over.

One filter on the handler covers all writers. It is needed because a XAPI that is away for a minute fails every write
of every VM, and because a guest decides how often it fails.
"""

import collections
import logging
import re
import threading
import time
from typing import Callable, Hashable, List, Tuple

from xscontainer.errors import HostExhausted, XapiUnavailable

log = logging.getLogger(__name__)

INTERVAL = 60.0  # s between two lines about one failure
# s without a repetition after which a failure is over: the longest pause between two attempts is 60 s.
QUIET = 90.0
MOST = 1000  # failures that are remembered

# Kinds of failures that count as one, whichever part notices them.
XAPI = "XAPI does not answer"
EXHAUSTED = "the host is exhausted"

_CODE = re.compile(r"[A-Z][A-Z0-9_]{2,40}\Z")
_LABEL = re.compile(r"'.*' \([0-9a-f-]{36}\)\Z", re.DOTALL)
_NUMBER = re.compile(r"\b[0-9][0-9.]*\b")


class _Failure:
    """A failure that is going on.

    :ivar unsaid: repetitions since the last line about it.
    """

    __slots__ = ("began", "said", "last", "times", "unsaid", "text")

    def __init__(self, now: float, text: str) -> None:
        self.began = self.said = self.last = now
        self.times, self.unsaid = 1, 0
        self.text = text


class RepeatFilter(logging.Filter):
    """Lets the first warning or error of a kind pass, then one a minute with the number of repetitions.

    Records are of one kind if they have the same words; if they have the same VM and code, whatever the guest adds; if
    all say that XAPI does not answer; or if all say that this host has no descriptors, threads or memory left.
    """

    def __init__(self, clock: "Callable[[], float]" = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: "collections.OrderedDict[Hashable, _Failure]" = collections.OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        kind, now = _kind(record), self._clock()
        with self._lock:
            known = self._failures.get(kind)
            if known is None or now - known.last >= QUIET:
                self._failures[kind] = _Failure(now, record.getMessage())
                self._failures.move_to_end(kind)
                while len(self._failures) > MOST:
                    self._failures.popitem(last=False)
                return True
            known.last = now
            known.times += 1
            known.unsaid += 1
            if now - known.said < INTERVAL:
                return False
            record.msg = f"{record.getMessage()} ({known.unsaid} times in the last {now - known.said:.0f} s)"
            record.args = ()
            known.said, known.unsaid = now, 0
            return True

    def over(self, kind: Hashable) -> None:
        """End a failure that a caller knows to be over; logs that if the failure had repeated."""
        with self._lock:
            known = self._failures.pop(kind, None)
        if known is not None:
            _tell_end(known, self._clock())

    def look(self) -> None:
        """Log which failures are over. To be called regularly."""
        now = self._clock()
        with self._lock:
            ended: List[Tuple[Hashable, _Failure]] = [
                (kind, known) for kind, known in self._failures.items() if now - known.last >= QUIET]
            for kind, _ in ended:
                del self._failures[kind]
        for _, known in ended:
            _tell_end(known, now)


def _tell_end(failure: _Failure, now: float) -> None:
    if failure.times > 1:
        log.info("over since %.0f s, after %d times in %.0f s: %s", now - failure.last, failure.times,
                 failure.last - failure.began, failure.text)


def _kind(record: logging.LogRecord) -> Hashable:
    arguments = record.args if isinstance(record.args, tuple) else (record.args,)
    if any(isinstance(argument, XapiUnavailable) for argument in arguments):
        return XAPI
    if any(isinstance(argument, HostExhausted) for argument in arguments):
        return EXHAUSTED
    words = [argument for argument in arguments if isinstance(argument, str)]
    if any(_LABEL.match(word) for word in words):
        return (record.name, record.msg, *(word for word in words if _LABEL.match(word) or _CODE.match(word)))
    return (record.name, _NUMBER.sub("#", record.getMessage()))
