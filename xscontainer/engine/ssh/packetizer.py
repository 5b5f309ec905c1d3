"""paramiko's packet layer with limits for hostile guests and timeouts for dead ones.

Everything here is against the grain of paramiko's Packetizer. Seen in paramiko 3.5.1 and 5.1.0:

=============================== ==================================================================================
what the library does           what we do instead, and why
=============================== ==================================================================================
accepts packets up to 4 GiB     At most MOST_PACKET_BYTES: each guest can send half a packet, which is kept.
accepts an endless greeting     At most MOST_GREETING_BYTES.
starts a timer thread for each  A deadline that the reading thread checks: with 300 VMs threads are expensive.
handshake
sends keepalives without        Keepalives that the guest must answer, and an end after ``dead_after`` of silence.
expecting an answer
loops over as many entries as   Refused if the entries cannot be in the message: 4294967296 entries take hours and
a message announces             all memory.
repeats key exchanges forever   At most EXCHANGES at once: each costs CPU time.
writes without a deadline       Ends the connection if the guest accepts no data for ``dead_after``.
=============================== ==================================================================================
"""

import socket
import threading
import time
from typing import Any, Callable, Optional, Tuple

import paramiko
from paramiko.common import MSG_EXT_INFO, MSG_KEXINIT, MSG_USERAUTH_INFO_REQUEST
from paramiko.packet import NeedRekeyException, Packetizer

from xscontainer.core.budget import Budgets, GuestBudget, ThreadMeter
from xscontainer.core.pacing import Pacer
from xscontainer.engine.failures import words
from xscontainer.engine.ssh import algorithms
from xscontainer.errors import cause

# RFC 4253 requires 35,000 bytes, and we announce 32,768 for a channel.
MOST_PACKET_BYTES = 64 * 1024 + 1024
MOST_GREETING_BYTES = 64 * 1024

# How many key exchanges a guest may begin at once, and after how many seconds it may begin one more.
EXCHANGES, EXCHANGE_INTERVAL = 60, 6.0

# Messages that announce a number of entries: (strings before the number, fewest bytes of an entry).
_COUNTED = {MSG_EXT_INFO: (0, 8), MSG_USERAUTH_INFO_REQUEST: (3, 5)}

_QUICKACK = getattr(socket, "TCP_QUICKACK", None)  # Linux


class BoundedPacketizer(Packetizer):
    """The packets of one connection.

    :param budget: charged for the CPU time of the reading thread. While it is overdrawn nothing is read, so TCP slows
        the guest down.
    :ivar heard: time.monotonic() when the last complete packet arrived.
    :ivar ended: why reading ended, "" before; set before any channel learns of the end.
    :ivar greeting: the first bytes that the guest sent.
    :ivar offer: the algorithms that the guest offers, once it has sent them.
    :ivar farewell: the guest's reason for ending the connection, for a message; "" if it gave none.
    :ivar keepalive: seconds of silence before a keepalive is sent; 0: never.
    :ivar dead_after: seconds without a packet, or of a blocked write, before the connection is ended.
    :ivar send_keepalive: sends a request that the guest must answer, without waiting.
    """

    def __init__(self, sock: socket.socket, budget: Optional[GuestBudget] = None) -> None:
        super().__init__(sock)
        self._line = sock
        self._greeting_bytes = 0
        self.greeting = b""
        self._handshake_ends: Optional[float] = None
        self._spoken = self.heard = time.monotonic()
        self.ended = self.farewell = ""
        self.offer: Optional[algorithms.Algorithms] = None
        self.keepalive = 0.0
        self.dead_after = 30.0
        self.send_keepalive: Callable[[], None] = lambda: None
        self._exchanges = Pacer(EXCHANGES, EXCHANGE_INTERVAL)
        self._meter = ThreadMeter(budget or Budgets().of(""))
        self._hung_up = threading.Event()

    # --- handshake: a deadline instead of a timer thread

    def start_handshake(self, timeout: float) -> None:
        if self._handshake_ends is None:
            self._handshake_ends = time.monotonic() + timeout

    def handshake_timed_out(self) -> bool:
        return self._handshake_ends is not None and time.monotonic() > self._handshake_ends

    def complete_handshake(self) -> None:
        self._handshake_ends = None

    def finish_handshakes(self) -> None:
        """From now on only ``dead_after`` limits how long the guest may be silent."""
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
            raise paramiko.SSHException(f"a packet announces {n} bytes")
        return super().read_all(n, check_rekey)

    def read_message(self) -> Tuple[int, Any]:
        self._wait_for_budget()
        self._acknowledge()
        try:
            kind, message = super().read_message()
            self._count_exchanges(kind)
            _check_count(kind, message)
        except NeedRekeyException:
            raise
        except Exception as error:
            self.ended = self.ended or cause(error)
            raise
        self.heard = time.monotonic()
        if kind == paramiko.common.MSG_DISCONNECT:
            self.ended = "the guest ended it"
            message.get_int()
            text = message.get_string()
            self.farewell = f"it says '{words(text)}'" if text.strip() else ""
            message.rewind()
        if kind == MSG_KEXINIT and self.offer is None:
            self.offer = algorithms.offered(message)
            message.rewind()
        return kind, message

    def _wait_for_budget(self) -> None:
        wait = self._meter.charge()
        if wait > 0.0:
            began = time.monotonic()
            self._hung_up.wait(wait)
            # Nothing was read meanwhile, so this time does not count as silence of the guest.
            self.heard += time.monotonic() - began

    def _count_exchanges(self, kind: int) -> None:
        """Count a key exchange.

        :raises paramiko.SSHException: if the guest begins too many.
        """
        if kind == MSG_KEXINIT:
            now = time.monotonic()
            self._exchanges.spend(now)
            if self._exchanges.delay(now) > 0.0:
                raise paramiko.SSHException("the guest begins too many key exchanges")

    def _acknowledge(self) -> None:
        """Acknowledge received data immediately.

        sshd uses Nagle's algorithm for channels without a terminal, so the second packet of an answer would wait for
        the kernel's delayed acknowledgement of the first (40 ms).
        """
        if _QUICKACK is not None:
            try:
                self._line.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            except OSError:
                pass  # not TCP, or ended: the next read reports that

    def _check_keepalive(self) -> None:
        """Called by read_all whenever the socket received nothing for the length of its timeout."""
        if not self.keepalive:
            return
        now = time.monotonic()
        # Both are multiples of the socket's timeout, whose rounding must not delay the check to the next multiple.
        if now - self.heard >= self.dead_after * 0.99:
            self.ended = f"no answer for {self.dead_after:g} s"
            raise EOFError()
        if now - max(self.heard, self._spoken) >= self.keepalive * 0.99:
            self._spoken = now
            self.send_keepalive()

    # --- writing

    def write_all(self, out: Any) -> None:
        """Send all of ``out``. If the guest accepts no data for ``dead_after``, end the connection."""
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
                self.ended = self.ended or "the guest accepts no data"
                self.hang_up()
                raise EOFError()
            view = view[sent:]

    def hang_up(self) -> None:
        """Wake all threads that wait in the socket. Its descriptor stays valid until the reading thread closes it."""
        self._hung_up.set()
        try:
            self._line.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # never connected, or ended already


def _check_count(kind: int, message: paramiko.Message) -> None:
    """Check the number of entries that a message announces.

    :raises paramiko.SSHException: if so many entries cannot be in the message.
    """
    if kind not in _COUNTED:
        return
    strings, entry = _COUNTED[kind]
    for _ in range(strings):
        message.get_string()
    # Two messages have the same number. In the other one there is nothing left here, which reads as 0.
    if message.get_int() * entry > len(message.get_remainder()):
        raise paramiko.SSHException("a message announces more entries than it has")
    # Back to the state in which the message arrived. (The kind is not part of it any more.)
    message.rewind()
