"""The logs that clients follow on this host, from one call of ``get_logs`` to the next.

A call opens a follower and gets its token. While no call asks for its lines, nothing is read: the guest's engine waits.
A follower goes on after a lost connection, because it keeps its place in the log. It is dropped when its log ends, when
its VM is monitored here no longer, and when nobody has asked for a while.
"""

import contextlib
import threading
import time
import uuid
from typing import TYPE_CHECKING, Callable, Dict, Iterator, Optional, Tuple

from xscontainer.core import current_call
from xscontainer.core.log_document import LogContainer
from xscontainer.errors import Busy, FollowLost

if TYPE_CHECKING:
    # Importing these loads paramiko and docker.
    from xscontainer.core.log_follow import Batch, Position
    from xscontainer.engine.api import Engine
    from xscontainer.engine.log_follower import LogFollower
    from xscontainer.engine.logs import LogOptions

# s without a call, after which a follower gives its place to a new one. The next call of a client comes at once.
IDLE_AFTER = 10.0


class Followed:
    """One log that a client follows. One thread reads; any thread may close().

    :param position: where the lines that the client has end; see engine.log_follower.
    :ivar closed: the follower was dropped, also if a call still reads.
    """

    def __init__(self, vm_uuid: str, container: LogContainer, options: "LogOptions", position: "Position") -> None:
        self.token = uuid.uuid4().hex
        self.vm_uuid = vm_uuid
        self.container = container
        self.closed = False
        self._options, self._position = options, position
        self._engine: "Optional[Engine]" = None
        self._follower: "Optional[LogFollower]" = None

    def read(self, engine: "Engine", seconds: float) -> "Tuple[Optional[Batch], bool]":
        """Return the lines that arrive within ``seconds``, None if there are none; and whether the log is over.

        The log is requested if this is not the engine that the last lines came from.

        :raises XSContainerError: the connection was lost, or the engine refuses. The next call requests the log anew.
        """
        try:
            follower = self._opened(engine)
            batch = follower.get(seconds)
        except BaseException:
            self.detach()
            raise
        ended = follower.ended
        if ended or follower.closed:
            self.detach()
        return batch, ended

    def _opened(self, engine: "Engine") -> "LogFollower":
        from xscontainer.engine import log_follower, logs

        if self._follower is not None and self._engine is engine:
            return self._follower
        self.detach()
        follower = log_follower.follow_logs(engine, self.container.id, self._options, self._position,
                                            current_call.remaining(logs.SECONDS))
        self._engine, self._follower = engine, follower
        if self.closed:
            self.detach()
        return follower

    def detach(self) -> None:
        """Close the stream. The place in the log is kept."""
        follower, self._engine, self._follower = self._follower, None, None
        if follower is not None:
            follower.close()

    def close(self) -> None:
        self.closed = True
        self.detach()


class Followers:
    """The followers of one host: few for each VM and in all. Thread-safe."""

    def __init__(self, clock: "Callable[[], float]" = time.monotonic) -> None:
        from xscontainer.engine.log_follower import FOLLOWERS_OF_A_VM, LEFT_SECONDS, FollowerSlots

        self._clock = clock
        self._slots = FollowerSlots()
        self._each, self._left_after = FOLLOWERS_OF_A_VM, LEFT_SECONDS
        self._lock = threading.Lock()  # guards all below
        self._known: Dict[str, Followed] = {}  # by token
        self._asked: Dict[str, float] = {}  # by token: when the last call ended; inf: a call is at work

    def __len__(self) -> int:
        return len(self._known)

    def add(self, followed: Followed) -> None:
        """Keep a follower.

        :raises Busy: the VM or the host has as many as it may.
        """
        self.drop_left()
        try:
            self._slots.take(followed.vm_uuid)
        except Busy:
            if not self._drop_idle(followed.vm_uuid):
                raise
            self._slots.take(followed.vm_uuid)
        with self._lock:
            self._known[followed.token], self._asked[followed.token] = followed, self._clock()

    @contextlib.contextmanager
    def held(self, token: str, vm_uuid: str) -> "Iterator[Followed]":
        """Return the follower of a token for the duration of one call.

        :raises FollowLost: there is none for this VM.
        :raises Busy: another call holds it.
        """
        self.drop_left()
        with self._lock:
            followed = self._known.get(token)
            if followed is None or followed.vm_uuid != vm_uuid:
                raise FollowLost(f"The log of the VM {vm_uuid} is not followed with this token any more.")
            if self._asked[token] == float("inf"):
                raise Busy(f"Another call waits for the log of the container {followed.container.id[:12]} in the VM "
                           f"{vm_uuid} with this token.", seconds=1.0)
            self._asked[token] = float("inf")
        try:
            yield followed
        finally:
            with self._lock:
                if token in self._known:
                    self._asked[token] = self._clock()

    def drop(self, followed: Followed) -> None:
        """Close a follower and forget it. May be called more than once."""
        with self._lock:
            known = self._known.pop(followed.token, None)
            self._asked.pop(followed.token, None)
        if known is not None:
            known.close()
            self._slots.release(known.vm_uuid)

    def drop_left(self) -> None:
        """Drop the followers that nobody asks any more."""
        with self._lock:
            left = self._clock() - self._left_after
            found = [followed for token, followed in self._known.items() if self._asked[token] <= left]
        for followed in found:
            self.drop(followed)

    def drop_of(self, vm_uuid: str) -> None:
        """Drop the followers of a VM whose connection has been closed; calls that wait for their lines end."""
        with self._lock:
            found = [followed for followed in self._known.values() if followed.vm_uuid == vm_uuid]
        for followed in found:
            self.drop(followed)

    def _drop_idle(self, vm_uuid: str) -> bool:
        """Drop the follower that nobody has asked for the longest time: of this VM if that has all that it may.

        :returns: whether there was one that nobody has asked for IDLE_AFTER seconds.
        """
        with self._lock:
            own = [token for token, followed in self._known.items() if followed.vm_uuid == vm_uuid]
            since = {self._asked[token]: token for token in (own if len(own) >= self._each else self._known)}
            found = self._known[since[min(since)]] if since and min(since) <= self._clock() - IDLE_AFTER else None
        if found is not None:
            self.drop(found)
        return found is not None

    def close(self) -> None:
        """Drop all followers."""
        with self._lock:
            known = list(self._known.values())
        for followed in known:
            self.drop(followed)
