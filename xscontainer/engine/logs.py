"""The log of one container: GET /containers/{id}/logs, the newest lines within bounds.

Following a log is in :mod:`.log_follower`. Measured on dockerd 20.10.24 and podman 4.3.1:

* ``tail`` counts lines of both streams, before stdout or stderr alone is chosen.
* ``since`` includes its moment. podman's timestamps are whole seconds.
* podman 4.3 spoils long lines if ``tail`` is given: of a line in parts it keeps the last one, and it joins the last two
  lines if the last one lacks its end. So a short log is read as a whole.
* If the logging driver cannot be read, the engine refuses at once: dockerd with status 501, podman with 500.
"""

import re
import time
from contextlib import suppress
from typing import Any, Dict, List, NamedTuple, Optional, Tuple
from urllib.parse import quote, urlencode

from xscontainer.core.log_framing import FramingError, LogParser
from xscontainer.core.log_lines import MOST_KEPT_BYTES, MOST_LINES, LogLine, NewestLines, RawLine, nanoseconds
from xscontainer.core.target import PODMAN
from xscontainer.engine import api_version, failures
from xscontainer.engine.containers import Containers
from xscontainer.engine.http import Answer, message_of
from xscontainer.errors import (
    ArgumentError,
    EngineGarbage,
    EngineTooMuch,
    LogsUnreadable,
    XSContainerError,
)
from xscontainer.sanitize import clean_text, mapping

SECONDS = 10.0
# Read of one answer. An engine sends the oldest of the lines first, so all must be read to keep the newest.
MOST_READ_BYTES = 8 << 20
MOST_WHOLE_BYTES = 128 << 10  # of podman's log, to read it without ``tail``; 2500 short lines take 25 ms of CPU
# podman splits a line into parts of 4095 bytes and more, each a frame; empty frames would cost CPU.
_MOST_FRAMES = 2 * MOST_LINES + MOST_READ_BYTES // 4095

READING = "Reading the container's log"
_UNREADABLE = re.compile(r"does not support reading|is supported only for|not logging output|journal|cannot read logs",
                         re.IGNORECASE)
_NAMED_DRIVER = re.compile(r"'(\w+)' log driver|got: (\w+)")
_HINTS = {
    "none": "This driver drops all output. Create the container with another one ('docker run --log-driver local').",
    "passthrough": "The output goes to the program that started the container. If that is systemd, run 'journalctl -u "
                   "UNIT' in the VM.",
    "journald": "Let the engine's user read the journal ('usermod -aG systemd-journal USER'), and check that "
                "systemd-journald runs in the VM.",
    "": LogsUnreadable.default_hint,
}
_HINT_ELSEWHERE = ("Read the log where this driver sends it. Docker 20.10 and newer keeps a copy that can be read, "
                   "unless the log option cache-disabled is set.")


class LogOptions(NamedTuple):
    """The part of a log that is wanted.

    :ivar tail: how many of the newest lines; at most MOST_LINES.
    :ivar since, until: nanoseconds since 1970, by the guest's clock; None: no bound.
    """

    tail: int = 100
    since: Optional[int] = None
    until: Optional[int] = None
    stdout: bool = True
    stderr: bool = True

    def check(self) -> "LogOptions":
        """Return the options.

        :raises ArgumentError: if they are not possible.
        """
        if not 0 <= self.tail <= MOST_LINES:
            raise ArgumentError(f"The number of log lines must be between 0 and {MOST_LINES}.")
        if not (self.stdout or self.stderr):
            raise ArgumentError("Neither stdout nor stderr of the container is asked for.")
        if any(moment is not None and not 0 <= moment < 1 << 63 for moment in (self.since, self.until)):
            raise ArgumentError("The time of a log must be after 1970.")
        return self


DEFAULT_OPTIONS = LogOptions()


class LogRead(NamedTuple):
    """The lines of a log that were read, the oldest first.

    :ivar truncated: whether lines that were asked for are missing, because they are too long together.
    """

    lines: Tuple[LogLine, ...]
    truncated: bool = False


class RawLog(NamedTuple):
    """The lines of a log as bytes. At least ``left_out`` lines are missing, because they are too long together."""

    lines: List[RawLine]
    left_out: int = 0


def read_logs(engine: Containers, container: str, options: LogOptions = DEFAULT_OPTIONS,
              timeout: float = SECONDS) -> LogRead:
    """Return the newest lines of a container's log, at most MOST_KEPT_BYTES.

    :param container: an id, the beginning of an id, or a name.
    :param timeout: seconds.
    :raises LogsUnreadable: if the container's logging driver keeps no log.
    :raises ContainerNotFound, ArgumentError, EngineError, ConnectError: as their names say.
    """
    options.check()
    found = read_raw(engine, engine.resolved(container), options, timeout)
    return LogRead(tuple(line.decoded() for line in found.lines), found.left_out > 0)


def read_raw(engine: Containers, which: str, options: LogOptions, timeout: float = SECONDS) -> RawLog:
    """Return the lines as :func:`read_logs` does, as bytes.

    If the lines are too long together to read them all, fewer of the newest are requested a second time.

    :param which: a name or id from ``engine.resolved``.
    """
    reading = _Reading(engine, which, time.monotonic() + timeout)
    engine.calls.find_version()  # which shows the kind of engine
    if engine.calls.kind == PODMAN and options.tail:
        with suppress(EngineTooMuch):
            return reading.once(options, whole=True)
    try:
        return reading.once(options)
    except EngineTooMuch:
        sink = reading.sink
        if sink is None or options.tail <= 1:
            raise
    fewer = max(1, min(options.tail // 2, sink.lines * MOST_KEPT_BYTES // max(1, sink.size)))
    found = reading.once(options._replace(tail=fewer))
    return found._replace(left_out=max(1, found.left_out))


class _Reading:
    """The requests that one reading of a log takes, until a deadline.

    :ivar sink: received the last answer.
    """

    def __init__(self, engine: Containers, which: str, deadline: float) -> None:
        self._engine, self._which, self._deadline = engine, which, deadline
        self.sink: "Optional[_LogSink]" = None

    def once(self, options: LogOptions, whole: bool = False) -> RawLog:
        """Return the answer to one request; ``whole``: request all lines, and read no more than MOST_WHOLE_BYTES."""
        def make_sink() -> _LogSink:
            self.sink = _LogSink(options, MOST_WHOLE_BYTES if whole else MOST_READ_BYTES)
            return self.sink

        def ask(version: str) -> RawLog:
            timeout = max(0.0, self._deadline - time.monotonic())
            path = log_path(version, self._which, options, whole=whole)
            with self._engine.calls.lease(version, timeout=timeout) as client:
                answer = client.get_raw(path, timeout, make_sink)
            if answer.status != 200 or self.sink is None:
                raise refusal(self._engine, self._which, answer)
            return self.sink.result()

        self.sink = None
        with failures.translating(READING, failures.API_SIDE):
            return self._engine.calls.with_version(ask)


def log_path(version: str, which: str, options: LogOptions, follow: bool = False, whole: bool = False) -> str:
    """Return the path and query of a request for a log.

    :param version: API version, as "1.41"; "": the engine's newest.
    :param whole: request all lines instead of the newest.
    """
    query = [("stdout", int(options.stdout)), ("stderr", int(options.stderr)), ("timestamps", 1),
             ("tail", "all" if whole else options.tail), ("follow", int(follow))]
    for name, moment in (("since", options.since), ("until", options.until)):
        if moment is not None:
            query.append((name, "%d.%09d" % divmod(moment, 1000000000)))
    return api_version.path(version, f"/containers/{quote(which, safe='')}/logs?{urlencode(query)}")


def refusal(engine: Containers, which: str, answer: Answer) -> XSContainerError:
    """Return the error for an answer that is not 200; asks the engine for the logging driver if that is the cause."""
    said = message_of(answer.body)
    text = failures.words(said)
    if answer.status != 501 and not (answer.status >= 500 and _UNREADABLE.search(text)):
        return failures.refusal(answer.status, said, READING, which)
    named = _NAMED_DRIVER.search(text)
    driver = (named.group(1) or named.group(2)) if named else _driver(engine, which)
    hint = _HINTS.get(driver, _HINT_ELSEWHERE)
    return LogsUnreadable(f"{READING} failed: its logging driver {driver or '(not known)'} cannot be read ({text}).",
                          hint)


def _driver(engine: Containers, which: str) -> str:
    """Return the container's logging driver, "" if the engine does not say."""
    def look(found: Dict[str, Any]) -> str:
        return clean_text(mapping(mapping(found.get("HostConfig")).get("LogConfig")).get("Type"), 64)
    try:
        return str(engine.inspect(which, look))
    except XSContainerError:
        return ""


class _LogSink:
    """Receives the body of one log, as :class:`.listing.Sink` receives a list.

    :ivar size: bytes of the body so far. :ivar lines: how many lines they were.
    """

    def __init__(self, options: LogOptions, most_bytes: int) -> None:
        self._parser = LogParser()
        self._newest = NewestLines(most_lines=options.tail)
        self._most_bytes = most_bytes
        self._until = options.until
        self.size = 0
        self.lines = 0

    def feed(self, data: bytes) -> int:
        """Return how many bytes are kept now.

        :raises EngineGarbage: if this is not a log. :raises EngineTooMuch: if it is too long.
        """
        self.size += len(data)
        if self.size > self._most_bytes or max(self.lines, self._parser.frames) > _MOST_FRAMES:
            raise EngineTooMuch(f"{READING} failed: the requested lines have more than {MOST_READ_BYTES >> 20} MiB.",
                                "Ask for fewer lines, or read the log in the VM itself.")
        try:
            self._take(self._parser.feed(data))
        except FramingError as error:
            raise EngineGarbage(f"{READING} failed: {error}.") from error
        return self._parser.held + 2 * self._newest.size

    def end(self) -> None:
        self._take(self._parser.end())

    def _take(self, lines: List[RawLine]) -> None:
        self.lines += len(lines)
        for line in lines:
            # Engines before API 1.35 ignore "until".
            if self._until is None or (nanoseconds(line.stamp.decode("ascii")) or 0) <= self._until:
                self._newest.add(line)

    def result(self) -> RawLog:
        return RawLog(self._newest.lines(), self._newest.left_out)
