"""The verb for the log of a container: its newest lines, once or as they are written."""

import re
import time
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Tuple

from xscontainer.core import current_call, log_times
from xscontainer.core import memory_budget as memory
from xscontainer.core.arguments import CONTAINER, SINCE, UNTIL, VM_UUID, one_of, shown, wait, whole
from xscontainer.core.log_document import LogContainer, Page, memory_of
from xscontainer.core.log_lines import MOST_KEPT_BYTES, MOST_LINES, LogLine
from xscontainer.core.verb import ENGINE_HOST, EVERYONE, READ, READING, Argument, Verb
from xscontainer.errors import (
    ArgumentError,
    ContainerNotFound,
    FollowLost,
    FollowUnavailable,
    LogsUnreadable,
    VMNotRegistered,
    XSContainerError,
)
from xscontainer.sanitize import clean_text, mapping
from xscontainer.verbs import DONE
from xscontainer.verbs.context import Context
from xscontainer.verbs.followers import Followed

if TYPE_CHECKING:
    # Importing these loads paramiko and docker.
    from xscontainer.engine.api import Engine
    from xscontainer.engine.logs import LogOptions

LINES = "100"  # of a log, if the caller does not say how many
BOTH = "all"  # streams
NEW = "new"  # instead of a token: follow the log
WAIT, MOST_WAIT = "10", 20  # s for a line that is followed
COALESCE = 0.2  # s that further lines may come after the first one
SLICE = 1.0  # s of waiting, after which the guest is charged for it
RETRY = 0.5  # s after a lost connection
ANSWERING = 3.0  # s of a call that are reserved for its answer
_LONGEST_NAME = 255
_TOKEN = re.compile(r"[0-9a-f]{32}\Z")


def get_logs(context: Context, vmuuid: str, container: str, **wanted: str) -> str:
    """Return the newest lines of a container's log, or those that are written from now on.

    :param wanted: the optional arguments of the verb.
    :raises LogsUnreadable: the container's logging driver keeps no log.
    :raises FollowLost: the token is not known.
    :raises FollowUnavailable: this process is not the daemon.
    """
    follow = wanted.get("follow", "")
    if follow and follow != NEW:
        return _more(context, vmuuid, follow, float(wanted.get("wait", WAIT)))
    if follow and "until" in wanted:
        raise ArgumentError("The arguments 'follow' and 'until' cannot be given together.")
    if follow and context.followers is None:
        raise FollowUnavailable(f"A log of the VM {vmuuid} cannot be followed: xscontainer-monitor does not run on the "
                                "VM's host.")
    return _read(context, vmuuid, container, _options(wanted), bool(follow))


def _options(wanted: "Mapping[str, str]") -> "LogOptions":
    from xscontainer.engine.logs import LogOptions

    stream, now = wanted.get("stream", BOTH), time.time()
    since, until = (log_times.moment(wanted[name], now) if name in wanted else None for name in ("since", "until"))
    return LogOptions(int(wanted.get("tail", LINES)), since, until, stream != "stderr", stream != "stdout")


def _read(context: Context, vm_uuid: str, container: str, options: "LogOptions", follow: bool) -> str:
    """Read the log once; ``follow``: make a follower that goes on from there."""
    from xscontainer.core.log_follow import Position
    from xscontainer.engine import logs

    with context.engine(vm_uuid) as engine:
        about, runs = _about(engine, container)
        # One line of any stream shows where the log ends, by the guest's clock.
        wanted = options._replace(tail=max(1, options.tail), stdout=True, stderr=True) if follow else options
        found = logs.read_raw(engine, about.id, wanted, current_call.remaining(logs.SECONDS))
        size = sum(line.size for line in found.lines)
        memory.keep(vm_uuid, memory_of(size, len(found.lines)))
        token = None
        if follow and runs and context.followers is not None:
            position = Position()
            for line in found.lines:
                position.is_new(line)
            # If the log is empty now, all of its lines are new.
            followed = Followed(vm_uuid, about, options._replace(tail=MOST_LINES), position)
            context.followers.add(followed)
            token = followed.token
        with memory.turn(size):
            lines = [line.decoded() for line in found.lines]
            if follow:
                lines = _chosen(lines[len(lines) - min(options.tail, len(lines)):], options)
            return DONE + Page(about, lines, found.left_out > 0, follow=token, ended=follow and not runs).document()


def _chosen(lines: "List[LogLine]", options: "LogOptions") -> "List[LogLine]":
    other = {(True, False): "stderr", (False, True): "stdout"}.get((options.stdout, options.stderr))
    return [line for line in lines if line.stream != other]


def _about(engine: "Engine", container: str) -> "Tuple[LogContainer, bool]":
    """Return the container that the caller means, and whether it runs.

    :raises ContainerNotFound: there is none.
    """
    def look(found: "Dict[str, Any]") -> "Tuple[LogContainer, bool]":
        identity = LogContainer(clean_text(found.get("Id"), 64) or container,
                                clean_text(found.get("Name"), _LONGEST_NAME).lstrip("/"))
        return identity, mapping(found.get("State")).get("Running") is True

    about: "Tuple[LogContainer, bool]" = engine.inspect(container, look)
    return about


# --- following ----------------------------------------------------------------------------------


def _more(context: Context, vm_uuid: str, token: str, seconds: float) -> str:
    """Return the next lines of a log that is followed."""
    followers = context.followers
    if followers is None:
        raise FollowLost(f"The log of the VM {vm_uuid} is not followed any more: xscontainer-monitor does not run on "
                         "the VM's host.")
    with followers.held(token, vm_uuid) as followed:
        reading = _Reading(context, followed, min(time.monotonic() + seconds, current_call.deadline() - ANSWERING))
        try:
            reading.run()
        except (FollowLost, LogsUnreadable):
            followers.drop(followed)
            raise
        if reading.ended:
            followers.drop(followed)
        return reading.result()


class _Reading:
    """One call that waits for lines.

    :param deadline: by time.monotonic(): until when to wait for the first line.
    :ivar ended: the log is over.
    """

    def __init__(self, context: Context, followed: Followed, deadline: float) -> None:
        self._context, self._followed = context, followed
        self._budget = context.access.budgets.of(followed.vm_uuid)
        self._began = time.monotonic()
        self._deadline = deadline
        self._lines: List[LogLine] = []
        self._size = self._dropped = 0
        self.ended = False

    def run(self) -> None:
        """Read until there are lines, the log is over, or the time is.

        :raises FollowLost: the follower was dropped meanwhile.
        :raises LogsUnreadable: the engine cannot read the log any more.
        :raises XSContainerError: the engine could not be reached until the deadline.
        """
        while True:
            left = max(0.0, self._deadline - time.monotonic())
            failure = self._slice(left)
            if self.ended or self._size >= MOST_KEPT_BYTES or len(self._lines) >= MOST_LINES:
                return
            if time.monotonic() >= self._deadline or self._context.stopping.is_set():
                if failure is not None and not self._dropped and not self._lines:
                    raise failure
                return
            if not self._lines and not self._dropped and self._gives_way():
                return
            if failure is not None:
                self._context.stopping.wait(min(RETRY, left))

    def _gives_way(self) -> bool:
        """Tell whether another call needs the worker, and this one has waited for a while."""
        return time.monotonic() - self._began >= SLICE and self._context.crowded()

    def _slice(self, left: float) -> Optional[XSContainerError]:
        """Read for up to ``left`` or SLICE seconds; returns the failure that may clear up by itself."""
        if self._budget.hold() > left:
            self._context.stopping.wait(left)
            return None
        followed = self._followed
        try:
            with self._context.standing_engine(followed.vm_uuid) as engine:
                batch, self.ended = followed.read(engine, min(left, SLICE))
        except ContainerNotFound:
            self.ended = True
            return None
        except VMNotRegistered as error:
            raise self._lost(": the VM left this host, or its containers are not managed any more") from error
        except LogsUnreadable:
            raise
        except XSContainerError as error:
            if followed.closed:
                raise self._lost() from error
            return error
        if followed.closed and not self.ended:
            raise self._lost()
        if batch is not None:
            if not self._lines and not self._dropped:
                self._deadline = min(self._deadline, time.monotonic() + COALESCE)
            self._lines += batch.lines
            self._size += sum(len(line.text.encode("utf-8")) for line in batch.lines)
            self._dropped += batch.dropped
        return None

    def _lost(self, why: str = "") -> FollowLost:
        about = self._followed.container
        return FollowLost(f"The log of the container {about.name or about.id[:12]} in the VM {self._followed.vm_uuid} "
                          f"is not followed any more{why}.")

    def result(self) -> str:
        """Return the result of the call; charges the guest for its time and memory."""
        memory.keep(self._followed.vm_uuid, memory_of(self._size, len(self._lines)))
        with self._budget.charged(), memory.turn(self._size):
            token = None if self.ended else self._followed.token
            page = Page(self._followed.container, self._lines, False, self._dropped, token, self.ended)
            return DONE + page.document()


# --- rows ---------------------------------------------------------------------------------------


def _follow(name: str, value: str) -> str:
    """A check: NEW or a token."""
    if value != NEW and not _TOKEN.match(value):
        raise ArgumentError(f"The argument '{name}' must be {NEW} or the value of 'follow' in an answer, not "
                            f"{shown(value)}.")
    return value


_TAIL = Argument("tail", whole(0, MOST_LINES), False, form=f"lines, at most {MOST_LINES}; {LINES} by default")
_STREAM = Argument("stream", one_of(BOTH, "stdout", "stderr"), False, form="`all`, `stdout` or `stderr`")
_FOLLOW = Argument("follow", _follow, False, form=f"`{NEW}`, or the value of the answer before")

GET_LOGS = Verb(
    "get_logs", get_logs, "Return the newest lines of a container's log, once or as they are written.",
    (VM_UUID, CONTAINER, _TAIL, SINCE, UNTIL, _STREAM, _FOLLOW, wait(MOST_WAIT)), EVERYONE, READ, "logs", ENGINE_HOST,
    READING, result="JSON, [below](#get_logs)")
VERBS = (GET_LOGS,)
