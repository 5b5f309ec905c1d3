"""Following a container's log: lines as they are written, never more at a time than its reader can take."""

import re
import threading
import time
from typing import Callable, Dict, List, Optional

from xscontainer.core import memory_budget
from xscontainer.core.log_follow import Batch, LineRate, Position
from xscontainer.core.log_lines import MOST_LINE_BYTES, MOST_LINES, LogLine
from xscontainer.core.target import PODMAN
from xscontainer.engine import logs
from xscontainer.engine.containers import Containers
from xscontainer.engine.http import message_of
from xscontainer.engine.lines import AT_ONCE, MOST_READS, Subscription
from xscontainer.engine.log_stream import LogPoller, LogRefused, LogSource, LogStream
from xscontainer.engine.logs import DEFAULT_OPTIONS, LogOptions, RawLog
from xscontainer.errors import Busy, ContainerNotFound, XSContainerError

HEAD_SECONDS = 1.0  # to wait for a refusal before the stream counts as open; podman accepts with the first line
# Kept for one follower: the unfinished lines of stdout and stderr, a frame, and what was read at once.
FOLLOWER_BYTES = 3 * MOST_LINE_BYTES + 2 * AT_ONCE
FOLLOWERS_OF_A_VM = 4  # of about nine channels that an SSH server allows
FOLLOWERS_OF_A_HOST = 16
LEFT_SECONDS = 30.0  # without a reader, after which a follower counts as left

# podman issues 11255 and 18987: "using --follow with the journald --log-driver but without the journald
# --events-backend (file) is not supported".
_NO_FOLLOW = re.compile(r"using --follow .* not supported", re.IGNORECASE)


class LogFollower(Subscription):
    """The lines of a container's log as they are written. One thread reads; any thread may close().

    Lines above the rate limit are dropped and counted. While nobody calls get(), nothing is read: the guest's engine
    waits, and nothing grows here.

    The log ends with the container (``ended``), and breaks off with an error if the connection is lost. In both cases
    the reader may go on without losing or repeating lines: follow the log again with the same ``position``. Of the
    lines that were written meanwhile the newest MOST_LINES are read.

    :param which: a name or id from ``engine.resolved``.
    :ivar position: the reader's place in the log.
    """

    def __init__(self, engine: Containers, which: str, options: LogOptions, position: Position,
                 rate: LineRate) -> None:
        self.position = position
        self._engine, self._which, self._options = engine, which, options
        self._rate = rate
        connection = engine.calls.connection
        budget = engine.calls.limits.memory or memory_budget.BUDGET
        self._claim = budget.claim(connection.address or str(id(connection)), connection.hang_up)
        self._claim.set(FOLLOWER_BYTES)
        self._lock = threading.Lock()
        self._source: Optional[LogSource] = None
        self._first: Optional[Batch] = None  # lines that were there before the stream

    def open(self, version: str, timeout: float) -> "LogFollower":
        """Request the log with this API version, and return the follower itself.

        :param timeout: seconds until the connection must have carried the request.
        :raises LogsUnreadable, ContainerNotFound, EngineError, ConnectError: as their names say.
        """
        connection = self._engine.calls.connection
        if connection.room == 1:  # requests need the only SSH session
            self._attach(self._poller())
            return self
        deadline = time.monotonic() + timeout
        path = self._path(version)
        stream = connection.open_stream(timeout)
        try:
            stream.deadline = deadline
            source = LogStream(stream, path)
            source.wait_for_head(min(HEAD_SECONDS, timeout))
        except LogRefused as refused:
            stream.close()
            self._attach(self._after(refused))
            return self
        except BaseException:
            stream.close()
            raise
        if connection.room == 1:  # known only now
            source.close()
            self._attach(self._poller())
        else:
            self._attach(source)
        return self

    def _path(self, version: str) -> str:
        """Return the path to request the stream from; reads the lines that are there already if podman has them."""
        if self._engine.calls.kind != PODMAN:
            return logs.log_path(version, self._which, self._options, follow=True)
        # podman spoils long lines if the newest are requested (see .logs), but not if those since a moment are.
        if self.position.since is None:
            options = self._options
            found = logs.read_raw(self._engine, self._which, options._replace(tail=options.tail or 1))
            batch = self._batch(found)
            self._first = batch if options.tail else None
        self.position.reopened()
        options = self._options._replace(since=self.position.since or self._options.since)
        return logs.log_path(version, self._which, options, follow=True, whole=True)

    def get(self, timeout: Optional[float] = None) -> Optional[Batch]:
        """Return the next lines.

        None if none arrived within ``timeout`` seconds (None: wait), if a lot was read that is not a line, at the end
        of the log, and after close().

        :raises LogsUnreadable, EngineError, ConnectError: if the log breaks off or cannot be followed.
        """
        first, self._first = self._first, None
        if first is not None:
            return first
        deadline = None if timeout is None else time.monotonic() + timeout
        for _ in range(MOST_READS):
            remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
            batch = self._batch(self._read(remaining))
            if batch is not None or self.closed or self.ended or (remaining is not None and remaining <= 0.0):
                return batch
        return None

    @property
    def ended(self) -> bool:
        """True if the engine ended the log and all its lines were read."""
        return self._source is not None and self._source.ended and self._first is None

    @property
    def polls(self) -> bool:
        """True if the log is read every few seconds, because the engine cannot follow it."""
        return isinstance(self._source, LogPoller)

    def _read(self, timeout: Optional[float]) -> RawLog:
        source = self._source
        if source is None or self.closed:
            return RawLog([])
        try:
            return source.get(timeout)
        except LogRefused as refused:
            source.close()
            self._attach(self._after(refused))
        except XSContainerError:
            if not self.closed:
                raise
        return RawLog([])

    def _after(self, refused: LogRefused) -> LogSource:
        """Return a source that polls if the engine can read this log but not follow it; else raise the refusal."""
        if not _NO_FOLLOW.search(str(message_of(refused.answer.body))):
            raise logs.refusal(self._engine, self._which, refused.answer) from refused
        return self._poller()

    def _poller(self) -> LogPoller:
        def runs() -> bool:
            try:
                return self._engine.runs(self._which)
            except ContainerNotFound:
                return False

        return LogPoller(lambda options: logs.read_raw(self._engine, self._which, options), runs, self._options,
                         self.position)

    def _attach(self, source: LogSource) -> None:
        with self._lock:
            self._source = source
            closed = self.closed
        if closed:
            source.close()

    def _batch(self, found: RawLog) -> Optional[Batch]:
        lines: List[LogLine] = []
        dropped = 0
        for line in found.lines:
            if not self.position.is_new(line):
                continue
            if not dropped and self._rate.admits(line.size):
                lines.append(line.decoded())
            else:
                dropped += 1
        dropped += found.left_out
        return Batch(tuple(lines), dropped) if lines or dropped else None

    def close(self) -> None:
        """End it; a get() under way returns None. May be called more than once."""
        with self._lock:
            self.closed = True
            source = self._source
        if source is not None:
            source.close()
        self._claim.release()

    def __enter__(self) -> "LogFollower":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def follow_logs(engine: Containers, container: str, options: LogOptions = DEFAULT_OPTIONS,
                position: Optional[Position] = None, timeout: float = logs.SECONDS,
                clock: "Callable[[], float]" = time.monotonic) -> LogFollower:
    """Return a follower of a container's log. It ends with the engine's connection at the latest.

    :param container: an id, the beginning of an id, or a name.
    :param options: ``tail`` says how many of the lines that are there already come first.
    :param position: goes on from there instead; a follower of the same container had it before.
    :param timeout: seconds until the connection must have carried the request.
    :raises LogsUnreadable, ContainerNotFound, ArgumentError, EngineError, ConnectError: as their names say.
    """
    options.check()
    which = engine.resolved(container)
    if position is not None and position.since is not None:
        position.reopened()
        options = options._replace(since=position.since, tail=MOST_LINES)
    engine.calls.find_version()  # which shows how much room there is
    follower = LogFollower(engine, which, options, position or Position(), LineRate(clock))
    try:
        return engine.calls.follow(lambda version: follower.open(version, timeout))
    except BaseException:
        follower.close()
        raise


class FollowerSlots:
    """The followers of logs that one host may have: few for each VM, whose other requests need channels, too."""

    def __init__(self, each: int = FOLLOWERS_OF_A_VM, total: int = FOLLOWERS_OF_A_HOST) -> None:
        self._each, self._total = each, total
        self._lock = threading.Lock()
        self._taken: Dict[str, int] = {}

    def take(self, owner: str) -> None:
        """Count a follower of this VM; :meth:`release` counts it off.

        :raises Busy: if the VM or the host has as many as it may.
        """
        with self._lock:
            if self._taken.get(owner, 0) >= self._each:
                raise Busy(f"{self._each} logs of the VM {owner} are followed already.",
                           "Stop following one of them, or read the log without following it.", LEFT_SECONDS)
            if sum(self._taken.values()) >= self._total:
                raise Busy(f"{self._total} logs are followed on this host already.",
                           "Stop following one of them, or read the log without following it.", LEFT_SECONDS)
            self._taken[owner] = self._taken.get(owner, 0) + 1

    def release(self, owner: str) -> None:
        """Count off a follower that :meth:`take` counted."""
        with self._lock:
            self._taken[owner] -= 1
            if not self._taken[owner]:
                del self._taken[owner]
