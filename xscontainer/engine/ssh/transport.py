"""The SSH transport to one guest: opens channels and runs commands before a deadline, and notices a dead guest."""

import functools
import re
import threading
import time
from collections import deque
from typing import Any, Deque, Iterable, NamedTuple, Optional, Tuple

import paramiko
from paramiko.common import cMSG_GLOBAL_REQUEST

from xscontainer.core.budget import GuestBudget
from xscontainer.engine.ssh.packetizer import BoundedPacketizer
from xscontainer.engine.ssh.paramiko_quirks import MOST_UNREAD, STREAMLOCAL, WINDOW_BYTES, MendedTransport
from xscontainer.engine.ssh.sessions import ClosedAtOnce, CommandRefused, Sessions
from xscontainer.errors import EngineTimeout

__all__ = ["MOST_UNREAD", "STREAMLOCAL", "GuestTransport", "KeyLine"]

MOST_UNREAD_IDLE = 4096  # bytes on a channel that carries no request

CLOSE_SECONDS = 2.0  # that the reading thread has to end after it was woken
# Dropbear (2022.83) has no limit, but sometimes closes a session, or the whole connection, if one session is opened
# while another ends. So few are opened, and requests share and keep them.
DROPBEAR_SESSIONS = 2
_MOST_REMARKS = 16
_MOST_REMARK = 512  # bytes
# OpenSSH reports to a client the line of authorized_keys that let it in, and what that line allows.
_KEY_OPTIONS = re.compile(r"(/[^\0]*):([0-9]{1,6}): key options: ?([a-zA-Z0-9 -]*)\Z")

_OVERLOADED = "Check that the VM is not overloaded."


class KeyLine(NamedTuple):
    """The line of authorized_keys that let us in. ``allows``: in sshd's words: "port-forwarding", "command" ..."""

    path: str
    number: int
    allows: "Tuple[str, ...]"


class GuestTransport(MendedTransport):
    """A transport whose memory, CPU time and waiting a hostile or silent guest cannot exhaust.

    :param budget: charged for the CPU time of the reading thread; None: a budget of this transport alone.
    :param weak: words of algorithms.WEAK: weak algorithms that are allowed.
    :ivar sessions: how many commands the guest runs at once.
    :ivar shell: the name by which the guest's login shell starts a POSIX shell; "" before :mod:`.commands` found it.
    """

    def __init__(self, sock: Any, budget: Optional[GuestBudget] = None, weak: "Iterable[str]" = ()) -> None:
        super().__init__(sock, functools.partial(BoundedPacketizer, budget=budget), weak)
        self.packetizer.send_keepalive = self._send_keepalive
        self._opening = threading.Lock()
        self.sessions = Sessions()
        self.shell = ""
        self._remarks: Deque[bytes] = deque(maxlen=_MOST_REMARKS)

    def _parse_debug(self, m: paramiko.Message) -> None:
        m.get_boolean()
        self._remarks.append(m.get_binary()[:_MOST_REMARK])

    @property
    def key_line(self) -> "Optional[KeyLine]":
        """The line of authorized_keys that let us in; None if the guest does not report it, as OpenSSH does."""
        for remark in reversed(tuple(self._remarks)):
            found = _KEY_OPTIONS.match(remark.decode("utf-8", "replace"))
            if found:
                return KeyLine(found.group(1), int(found.group(2)), tuple(found.group(3).split()))
        return None

    def _unlink_channel(self, chanid: int) -> None:
        super()._unlink_channel(chanid)
        self.sessions.ended(chanid)

    def open(self, kind: str, deadline: float, path: str = "", window: int = WINDOW_BYTES) -> paramiko.Channel:
        """Open a channel of ``kind`` ("session" or STREAMLOCAL) before ``deadline`` (time.monotonic()).

        :param path: the socket in the guest that a STREAMLOCAL channel leads to.
        :param window: bytes that the guest may send before they are read.
        :raises paramiko.ChannelException: if the guest refuses; ``code`` and ``text`` say why.
        :raises paramiko.SSHException: if the transport has ended.
        :raises EngineTimeout: if there is no answer in time. Then the transport was closed.
        """
        # One at a time: paramiko keeps the refusal of a channel where another open would take it for its own.
        if not self._opening.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise EngineTimeout("The guest does not open channels in time.", _OVERLOADED)
        try:
            return self.open_to(kind, path, max(0.001, deadline - time.monotonic()), window)
        except paramiko.ChannelException:
            raise
        except paramiko.SSHException as error:
            if not self.is_active():
                raise
            if time.monotonic() < deadline:
                raise ClosedAtOnce() from error
            # The guest may open the channel later, unknown to us, and keep it open forever.
            self.hang_up("it did not open a channel in time")
            raise EngineTimeout("The guest did not open a channel in time.", _OVERLOADED) from error
        finally:
            self._opening.release()

    def execute(self, command: str, deadline: float) -> paramiko.Channel:
        """Open a session and run ``command``, a command line made by :mod:`xscontainer.engine.ssh.commands`.

        If the guest limits its sessions, wait for a free one.

        :raises: as ``open``; ChannelException also if the guest runs no command, EngineTimeout if no session got free.
        """
        if not self.sessions.limit and "dropbear" in self.remote_version:
            self.sessions.limit = DROPBEAR_SESSIONS
        return self.sessions.open(lambda: self._execute(command, deadline), deadline)

    def _execute(self, command: str, deadline: float) -> paramiko.Channel:
        channel = self.open("session", deadline)
        answered, runs = self.exec_on(channel, command, deadline - time.monotonic())
        if runs:
            return channel
        closed = answered and self._channels.get(channel.get_id()) is None
        channel.close()
        if answered:
            raise ClosedAtOnce() if closed and self.is_active() else CommandRefused()
        raise EngineTimeout("The guest did not start a command in time.", _OVERLOADED)

    def _send_keepalive(self) -> None:
        """Send a request that the guest must answer; any answer will do. Called by the reading thread: must not wait.
        """
        if not self.clear_to_send.is_set():
            return  # during a key exchange packets arrive anyway
        message = paramiko.Message()
        message.add_byte(cMSG_GLOBAL_REQUEST)
        message.add_string("keepalive@openssh.com")
        message.add_boolean(True)
        self._send_message(message)

    def watch(self, keepalive: float, dead_after: float) -> None:
        """From now on send a keepalive after ``keepalive`` s of silence, and give up after ``dead_after`` s."""
        self.packetizer.finish_handshakes()
        self.packetizer.heard = time.monotonic()
        self.packetizer.dead_after = dead_after
        self.packetizer.keepalive = keepalive
        self.sock.settimeout(min(keepalive, dead_after / 3))

    def hang_up(self, why: str) -> None:
        """End the transport from any thread, without waiting for the reading thread."""
        self.packetizer.ended = self.packetizer.ended or why
        self.packetizer.hang_up()

    def close(self) -> None:
        """End the transport and wait for the reading thread, which is woken."""
        self.hang_up("it was closed")
        if self.is_alive() and self is not threading.current_thread():
            self.join(CLOSE_SECONDS)
        super().close()
        self.sock.close()
