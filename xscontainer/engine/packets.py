"""paramiko's packet layer with the bounds and the patience of a daemon.

paramiko reads whatever length a packet claims (up to 4 GiB), starts a timer thread for each handshake,
sends keepalives nobody must answer and never concludes from silence that the peer is gone.
"""

import socket
import time
from typing import Any, Callable, Optional, Tuple

import paramiko
from paramiko.common import MSG_EXT_INFO, MSG_KEXINIT, MSG_USERAUTH_INFO_REQUEST
from paramiko.packet import NeedRekeyException, Packetizer

from xscontainer.pacing import Pacer

# OpenSSH's own bound; a header, MAC and padding come on top.
MOST_PACKET_BYTES = 256 * 1024 + 1024
MOST_GREETING_BYTES = 64 * 1024

# What a guest may have us do for nothing: so many at once, and one more each so many seconds. A message that brings
# a channel no data costs some 50 us, an exchange of keys up to 0.1 s.
IDLE_MESSAGES, IDLE_INTERVAL = 3000, 1 / 300
EXCHANGES, EXCHANGE_INTERVAL = 60, 6.0

# Messages with a count of entries: strings before the count, fewest bytes of an entry.
_COUNTED = {MSG_EXT_INFO: (0, 8), MSG_USERAUTH_INFO_REQUEST: (3, 5)}

_QUICKACK = getattr(socket, "TCP_QUICKACK", None)  # Linux


class BoundedPacketizer(Packetizer):
    """:ivar heard: time.monotonic() when the last whole packet arrived.

    :ivar ended: why reading ended ("" while it has not): set before any channel learns of it.
    :ivar greeting: how the first thing that the peer said begins.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._line = sock
        self._greeting_bytes = 0
        self.greeting = b""
        self._handshake_ends: Optional[float] = None
        self._spoken = self.heard = time.monotonic()
        self.ended = ""
        self.keepalive = 0.0  # seconds of silence after which to ask for a sign of life; 0: never
        self.dead_after = 30.0  # seconds without a packet, or of a blocked write, until the peer counts as gone
        self.ask: Callable[[], None] = lambda: None
        self._idle = Pacer(IDLE_MESSAGES, IDLE_INTERVAL)
        self._exchanges = Pacer(EXCHANGES, EXCHANGE_INTERVAL)
        self._fed = True  # a channel got data from the last message

    # --- handshake: a deadline instead of a timer thread

    def start_handshake(self, timeout: float) -> None:
        if self._handshake_ends is None:
            self._handshake_ends = time.monotonic() + timeout

    def handshake_timed_out(self) -> bool:
        return self._handshake_ends is not None and time.monotonic() > self._handshake_ends

    def complete_handshake(self) -> None:
        self._handshake_ends = None

    def finish_handshakes(self) -> None:
        """From here on silence is judged by ``dead_after`` alone."""
        self.start_handshake = lambda timeout: None  # type: ignore[method-assign]
        self.complete_handshake()

    # --- reading

    def _read_timeout(self, timeout: float) -> bytes:
        data = super()._read_timeout(timeout)
        self._greeting_bytes += len(data)
        if len(self.greeting) < 100:
            self.greeting += data[:100]
        if self._greeting_bytes > MOST_GREETING_BYTES:
            raise paramiko.SSHException("the greeting is too long")
        return data

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        if n > MOST_PACKET_BYTES:
            raise paramiko.SSHException(f"a packet claims {n} bytes")
        return super().read_all(n, check_rekey)

    def read_message(self) -> Tuple[int, Any]:
        self._acknowledge()
        try:
            kind, message = super().read_message()
            self._check_budget(kind)
            _check_count(kind, message)
        except NeedRekeyException:
            raise
        except Exception as error:
            self.ended = self.ended or str(error) or type(error).__name__
            raise
        self.heard = time.monotonic()
        if kind == paramiko.common.MSG_DISCONNECT:
            self.ended = "the guest ended it"
        return kind, message

    def fed(self) -> None:
        """The last message brought a channel data, which somebody waits for: it was not for nothing."""
        self._fed = True

    def _check_budget(self, kind: int) -> None:
        """:raises paramiko.SSHException: the peer sends too much that is of no use to anybody."""
        now = time.monotonic()
        if not self._fed:
            self._idle.spend(now)
        self._fed = False
        if kind == MSG_KEXINIT:
            self._exchanges.spend(now)
        for pacer, what in ((self._idle, "messages"), (self._exchanges, "keys")):
            if pacer.delay(now) > 0.0:
                raise paramiko.SSHException(f"the guest sends too many {what}")

    def _acknowledge(self) -> None:
        """Acknowledge what came, now: sshd keeps Nagle's algorithm on for channels that are no terminal, so the
        second packet of an answer would wait for the kernel's delayed acknowledgement of the first (40 ms)."""
        if _QUICKACK is not None:
            try:
                self._line.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            except OSError:
                pass  # no TCP, or ended: reading will tell

    def _check_keepalive(self) -> None:
        """Called by read_all each time the socket had nothing for as long as its timeout."""
        if not self.keepalive:
            return
        now = time.monotonic()
        # The socket's timeout divides both, and must not fall short of them by its rounding.
        if now - self.heard >= self.dead_after * 0.99:
            self.ended = f"no sign of life for {self.dead_after:g} s"
            raise EOFError()
        if now - max(self.heard, self._spoken) >= self.keepalive * 0.99:
            self._spoken = now
            self.ask()

    # --- writing

    def write_all(self, out: Any) -> None:
        """Send all of ``out``; a peer that takes nothing for ``dead_after`` ends the connection."""
        deadline = time.monotonic() + self.dead_after
        view = memoryview(out)
        while view:
            try:
                sent = self._line.send(view)
            except socket.timeout:
                sent = 0
            except OSError:
                raise EOFError() from None
            if sent:
                deadline = time.monotonic() + self.dead_after
            elif self.closed or time.monotonic() > deadline:
                self.ended = self.ended or "the guest takes no data"
                self.hang_up()
                raise EOFError()
            view = view[sent:]

    def hang_up(self) -> None:
        """Wake whoever waits in the socket; its descriptor stays valid until the reader lets go of it."""
        try:
            self._line.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # never connected, or ended already


def _check_count(kind: int, message: paramiko.Message) -> None:
    """paramiko goes through as many entries as a message claims, whether or not they are there: 4294967296 of them
    take hours, and more memory than there is.

    :raises paramiko.SSHException: they cannot all be in the message.
    """
    if kind not in _COUNTED:
        return
    strings, entry = _COUNTED[kind]
    for _ in range(strings):
        message.get_string()
    # One number stands for two messages; in the other one nothing is left here, which reads as 0.
    if message.get_int() * entry > len(message.get_remainder()):
        raise paramiko.SSHException("a message claims more entries than are in it")
    # As it came: the kind has been read, and is not part of it any more.
    message.rewind()
