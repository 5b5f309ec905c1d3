"""The number of session channels that an SSH server allows at once (MaxSessions): learn it and observe it.

The server refuses a session beyond its limit in the same way as it refuses every session. If sessions are open, or have
just ended, the refusal means a limit: sshd counts a session until its process has ended.
"""

import math
import threading
import time
from typing import Callable, Dict

import paramiko

from xscontainer.errors import EngineTimeout

STILL_COUNTED = 3.0  # seconds for which the server may still count a session that has ended
SETTLING = 0.5  # seconds to wait until the server confirms the end of sessions that we closed
_LEAST_WAIT, _LONGEST_WAIT = 0.02, 0.5  # seconds between two tries while none of our sessions ends
_TRIES = 5  # to learn the limit, within _LONGEST_WAIT
LEARNED_AT_MOST = 4  # a higher limit is learned when it is reached

Open = Callable[[], paramiko.Channel]


class ClosedAtOnce(paramiko.ChannelException):
    """The server closed a channel before a command ran, as Dropbear does while another session ends."""

    def __init__(self) -> None:
        super().__init__(2, "it was closed at once")


class CommandRefused(paramiko.ChannelException):
    """The server opened a session but runs no command in it. The number of sessions is not the reason."""

    def __init__(self) -> None:
        super().__init__(1, "the guest runs no commands")


class Sessions:
    """The sessions of one connection. Thread-safe.

    :ivar limit: how many sessions the server allows at once; 0 while unknown.
    :ivar waiting: how many callers wait for a session to end.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = 0
        self.waiting = 0
        self._clock = clock
        self._changed = threading.Condition()
        self._opening = 0
        # Strong references: paramiko drops a channel without any, and then does not report its end.
        self._open: Dict[int, paramiko.Channel] = {}
        self._ended_at = -math.inf  # when the last session ended

    def open(self, opener: Open, deadline: float) -> paramiko.Channel:
        """Call ``opener`` as soon as the limit allows, and again while the server refuses because of it.

        :param deadline: by time.monotonic().
        :raises paramiko.ChannelException: if the server refuses sessions although none is open, or closes each at once.
        :raises EngineTimeout: if all allowed sessions stayed in use.
        """
        pause = _LEAST_WAIT
        while True:
            self._reserve(deadline)
            try:
                channel = opener()
            except ClosedAtOnce:
                with self._changed:
                    self._opening -= 1
                    self._wait(min(pause, deadline - self._clock()))
                    pause = min(2 * pause, _LONGEST_WAIT)
                    if self._clock() >= deadline:
                        raise
            except paramiko.ChannelException as error:
                with self._changed:
                    self._opening -= 1
                    if isinstance(error, CommandRefused) or not self._limited():
                        self._changed.notify()
                        raise
                    self._wait(min(pause, deadline - self._clock()))
                    pause = min(2 * pause, _LONGEST_WAIT)
                    if self._clock() >= deadline:
                        raise self._full() from None
            except BaseException:
                with self._changed:
                    self._opening -= 1
                    self._changed.notify()
                raise
            else:
                self._add(channel)
                return channel

    def _reserve(self, deadline: float) -> None:
        with self._changed:
            self._settle(deadline)
            while self.limit and len(self._open) + self._opening >= self.limit:
                remaining = deadline - self._clock()
                if remaining <= 0:
                    raise self._full()
                self._wait(remaining)
            self._opening += 1

    def _settle(self, deadline: float) -> None:
        """Wait at most SETTLING until the server has confirmed the end of the sessions that we closed."""
        deadline = min(deadline, self._clock() + SETTLING)
        while any(channel.closed for channel in self._open.values()):
            remaining = deadline - self._clock()
            if remaining <= 0:
                return
            self._changed.wait(remaining)

    def _add(self, channel: paramiko.Channel) -> None:
        with self._changed:
            self._opening -= 1
            self._open[channel.get_id()] = channel
        if channel.closed:  # by the guest, meanwhile
            self.ended(channel.get_id())

    def _wait(self, seconds: float) -> None:
        self.waiting += 1
        try:
            self._changed.wait(max(0.0, seconds))
        finally:
            self.waiting -= 1

    def _limited(self) -> bool:
        """Return whether a refusal just now means a limit. Remember the limit if only open sessions explain it."""
        counted = len(self._open) + self._opening
        if counted and not self._lingering:
            self.limit = min(self.limit, counted) if self.limit else counted
        return bool(counted or self._lingering)

    @property
    def _lingering(self) -> bool:
        """True while the server may still count a session that has ended."""
        return self._clock() - self._ended_at < STILL_COUNTED

    def _full(self) -> EngineTimeout:
        allowed = f"{self.limit or 'only a few'} session{'' if self.limit == 1 else 's'} at once on a connection"
        return EngineTimeout(f"The VM's SSH server allows {allowed}, and all stayed in use.",
                             "Raise MaxSessions in the VM's sshd_config, or allow AllowStreamLocalForwarding there.")

    def ended(self, number: int) -> None:
        """Note that the guest closed the channel of this number, which may be of another kind."""
        with self._changed:
            if self._open.pop(number, None) is not None:
                self._ended_at = self._clock()
                self._changed.notify_all()

    def learn(self, opener: Open) -> None:
        """Find out a low limit before a caller reaches it, by opening up to LEARNED_AT_MOST idle sessions.

        Call this while one session is open and no other thread opens sessions.

        :raises paramiko.SSHException, EngineTimeout: as ``opener``, except for a refusal.
        """
        if self.limit:
            return
        idle = []
        tries = 0
        try:
            while len(self._open) < LEARNED_AT_MOST:
                try:
                    channel = opener()
                except ClosedAtOnce:
                    return
                except paramiko.ChannelException:
                    tries += 1
                    with self._changed:
                        if self._lingering and tries < _TRIES:
                            self._wait(_LONGEST_WAIT / _TRIES)
                            continue
                        self.limit = len(self._open)
                        return
                with self._changed:
                    self._opening += 1
                self._add(channel)
                idle.append(channel)
        finally:
            for channel in idle:
                channel.close()
