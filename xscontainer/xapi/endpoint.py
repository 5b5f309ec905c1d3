"""The places where XAPI listens: what a session needs of one, and the Unix socket of this host."""

import socket
import time
from typing import BinaryIO, Optional, Set

_RETRY_INTERVAL = 0.05  # s between two attempts to enter the queue of xapi's socket


class Endpoint:
    """A place where XAPI listens.

    :ivar name: in messages to people.
    :ivar host: value of HTTP's header Host.
    :ivar is_local: XAPI of the host that this process runs on: it asks for no password.
    :ivar refused: methods of XAPI that are known to be refused to the user.
    :ivar hint: what to do if nothing answers, a sentence; "": what XapiUnavailable says.
    """

    name = ""
    host = "localhost"
    is_local = False
    hint = ""

    def __init__(self) -> None:
        self.refused: Set[str] = set()

    def connect(self, timeout: Optional[float]) -> socket.socket:
        """Return a connected stream, whose peer is known to be XAPI.

        :param timeout: seconds; also of the stream.
        :raises OSError: nothing answers. XapiError: something else does.
        """
        raise NotImplementedError

    def answers(self, sock: socket.socket) -> "BinaryIO":
        """Return a file for reading answers; it does not close the stream."""
        raise NotImplementedError


class LocalSocket(Endpoint):
    """xapi's Unix socket."""

    is_local = True

    def __init__(self, path: str) -> None:
        super().__init__()
        self.name = path

    def connect(self, timeout: Optional[float]) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            self._enter_queue(sock, time.monotonic() + (timeout or 0.0))
        except OSError:
            sock.close()
            raise
        return sock

    def answers(self, sock: socket.socket) -> "BinaryIO":
        return sock.makefile("rb")

    def _enter_queue(self, sock: socket.socket, deadline: float) -> None:
        """Connect by the deadline. If the socket's queue is full, the kernel wakes nobody when a place gets free."""
        while True:
            try:
                sock.connect(self.name)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_RETRY_INTERVAL)
