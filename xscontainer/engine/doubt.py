"""Whether a guest that may have left its address is still there, found out while nobody waits for it."""

import math
import threading
import time
from typing import Optional

import paramiko

from xscontainer.engine.transport import GuestTransport


class Doubt:
    """Of one connection; :meth:`close` ends it. The thread is there only while there is doubt: the connection's
    own reader sleeps for long."""

    def __init__(self, transport: GuestTransport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._since = -math.inf
        self._thread: Optional[threading.Thread] = None
        self._closed = threading.Event()

    def begin(self, seconds: float) -> None:
        """Have the transport end unless the guest gives a sign of life within ``seconds``; does not wait."""
        with self._lock:
            self._since = time.monotonic()
            if self._thread is not None or self._closed.is_set():
                return
            thread = threading.Thread(target=self._run, args=(seconds,), name="doubt", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return  # no thread to be had: silence ends the connection too, only later
            self._thread = thread

    def _run(self, seconds: float) -> None:
        while True:
            asked = time.monotonic()
            try:
                self._transport.packetizer.ask()
            except (OSError, EOFError, paramiko.SSHException):
                return  # it has ended
            if self._closed.wait(seconds):
                return
            if self._transport.packetizer.heard < asked:
                self._transport.hang_up(f"no sign of life for {seconds:g} s, and the VM reports another address")
                return
            with self._lock:
                if self._since <= asked:
                    self._thread = None
                    return

    def close(self) -> None:
        """After the transport: the question may wait for it."""
        self._closed.set()
        thread = self._thread
        if thread is not None:
            thread.join(1.0)
