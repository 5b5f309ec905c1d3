"""Read the log of a container with the function get_logs: once, or again and again as it grows."""

import json
import time
from collections import Counter
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from xscontainer.cli import exit_codes, plugin_call
from xscontainer.errors import XapiError

MOST_TAIL = "5000"  # lines that a call gives at most
WAIT = "15"  # s for which a call waits for a new line
PATIENCE = 120.0  # s for which a log that was followed may not be readable
_PAUSES = (0.5, 1.0, 1.0, 2.0, 5.0)  # s between two attempts then; the last one repeats
_MOST_REMEMBERED = 5000  # lines of one moment
# Codes of failures that may pass by themselves, beside those whose exit code says "not reachable".
_PASSING = ("BUSY", "FOLLOW_UNAVAILABLE", "VM_ELSEWHERE", "VM_NOT_REGISTERED", "MEMORY_BUSY", "XAPI_ERROR")


class Entry(NamedTuple):
    """One line of a log.

    :ivar time: RFC 3339, in UTC and with nanoseconds; None if the engine gave none.
    :ivar stream: "stdout", "stderr", or "engine" for a message of the engine itself.
    :ivar text: foreign; may hold colours.
    """

    time: Optional[str]
    stream: str
    text: str


class LogPage(NamedTuple):
    """One answer of get_logs.

    :ivar lines: the oldest first.
    :ivar truncated: older lines that were asked for are missing.
    :ivar dropped: how many lines were dropped because the container writes too fast.
    :ivar follow: the token for the next call, None if the log is over.
    """

    lines: Tuple[Entry, ...]
    truncated: bool = False
    dropped: int = 0
    follow: Optional[str] = None


Ask = Callable[..., str]


def read(answer: str) -> LogPage:
    """Read an answer of get_logs.

    :raises XapiError: when it cannot be read.
    """
    with plugin_call.reading():
        found: Dict[str, Any] = json.loads(answer)
        lines = tuple(Entry(_text_or_none(line["time"]), str(line["stream"]), str(line["text"]))
                      for line in found["lines"])
        token = None if found["ended"] else _text_or_none(found["follow"])
        return LogPage(lines, bool(found["truncated"]), int(found["dropped"]), token)


def _text_or_none(value: object) -> Optional[str]:
    return None if value is None else str(value)


class Following:
    """A log that is followed: its pages, without a line twice if following had to begin anew.

    :param ask: calls get_logs with these arguments, beside those that name the container.
    :param arguments: of the first call: tail, since, stream.
    :param trouble: called with a failure that may pass, when it is first met.
    :param pause: waits, seconds.
    """

    def __init__(self, ask: Ask, arguments: "Dict[str, str]", trouble: "Callable[[XapiError], None]",
                 pause: "Callable[[float], object]" = time.sleep,
                 clock: "Callable[[], float]" = time.monotonic) -> None:
        self._ask, self._arguments = ask, arguments
        self._trouble, self._pause, self._clock = trouble, pause, clock
        self._last: Optional[str] = None  # time of the last line
        self._at_last: "Counter[Entry]" = Counter()  # the lines of that moment

    def pages(self) -> "Iterator[LogPage]":
        """Yield pages until the log is over.

        :raises XapiError: when it cannot be read, or not for a long time.
        """
        token, began, failures, failing_since = "new", False, 0, 0.0
        while True:
            try:
                page = read(self._next(token))
            except XapiError as error:
                if error.details[:1] == ["FOLLOW_LOST"] and failures < 2:
                    token, failures = "new", failures + 1
                    continue
                failing_since = failing_since or self._clock()
                if not began or not _may_pass(error) or self._clock() - failing_since > PATIENCE:
                    raise
                if error.details[:1] == ["FOLLOW_LOST"]:
                    token = "new"
                elif not failures:
                    self._trouble(error)
                self._pause(_PAUSES[min(failures, len(_PAUSES) - 1)])
                failures += 1
                continue
            if token == "new" and began:
                page = self._without_known(page)
            began, failures, failing_since = True, 0, 0.0
            self._remember(page.lines)
            yield page
            if page.follow is None:
                return
            token = page.follow

    def _next(self, token: str) -> str:
        if token != "new":
            return self._ask(follow=token, wait=WAIT)
        if self._last is None:
            return self._ask(follow=token, **self._arguments)
        return self._ask(follow=token, **{**self._arguments, "since": self._last, "tail": MOST_TAIL})

    def _remember(self, lines: "Tuple[Entry, ...]") -> None:
        for line in lines:
            if line.time is None:
                continue
            if line.time != self._last:
                self._last, self._at_last = line.time, Counter()
            if len(self._at_last) < _MOST_REMEMBERED:
                self._at_last[line] += 1

    def _without_known(self, page: LogPage) -> LogPage:
        """Return the page without lines that were seen: times before the last one, and lines of that moment."""
        known, new = Counter(self._at_last), []
        for line in page.lines:
            if self._last is not None and line.time is not None and line.time < self._last:
                continue
            if known[line] > 0:
                known[line] -= 1
            else:
                new.append(line)
        return page._replace(lines=tuple(new))


def _may_pass(error: XapiError) -> bool:
    return error.details[:1] == ["FOLLOW_LOST"] or exit_codes.of(error) == exit_codes.UNREACHABLE or (
        bool(error.details) and error.details[0] in _PASSING)


def merged(logs: "List[Tuple[Any, LogPage]]") -> "List[Tuple[Any, Entry]]":
    """Return the lines of several logs in the order of their times. A line without a time stays behind its neighbour.

    :param logs: (owner, page) of each log.
    """
    keyed = []
    for order, (owner, page) in enumerate(logs):
        before = ""
        for number, line in enumerate(page.lines):
            before = line.time or before
            keyed.append(((before, order, number), owner, line))
    keyed.sort(key=lambda found: found[0])
    return [(owner, line) for _, owner, line in keyed]
