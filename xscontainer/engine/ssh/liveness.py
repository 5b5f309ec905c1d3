"""A liveness probe of a connection whose guest may have left its address. It runs in the background."""

import math
import threading
import time
from typing import Optional

import paramiko

from xscontainer.engine.ssh.transport import GuestTransport


class LivenessProbe:
    """Probes one transport on demand; :meth:`close` ends it.

    The thread exists only while a probe runs. The transport's own reading thread sleeps too long for this purpose.
    """

    def __init__(self, transport: GuestTransport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._requested = -math.inf  # time.monotonic() of the last start()
        self._thread: Optional[threading.Thread] = None
        self._closed = threading.Event()

    def start(self, seconds: float) -> None:
        """End the transport unless the guest answers within ``seconds``. Does not wait."""
        with self._lock:
            self._requested = time.monotonic()
            if self._thread is not None or self._closed.is_set():
                return
            thread = threading.Thread(target=self._run, args=(seconds,), name="liveness probe", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return  # out of threads: dead_after ends the transport, only later
            self._thread = thread

    def _run(self, seconds: float) -> None:
        while True:
            sent = time.monotonic()
            try:
                self._transport.packetizer.send_keepalive()
            except (OSError, EOFError, paramiko.SSHException):
                return  # the transport has ended
            if self._closed.wait(seconds):
                return
            if self._transport.packetizer.heard < sent:
                self._transport.hang_up(f"no answer for {seconds:g} s, and the VM reports another address")
                return
            with self._lock:
                if self._requested <= sent:
                    self._thread = None
                    return

    def close(self) -> None:
        """Join the thread. Close the transport first: the thread may wait for it."""
        self._closed.set()
        thread = self._thread
        if thread is not None:
            thread.join(1.0)
