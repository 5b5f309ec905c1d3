"""Starting a service when somebody connects to its socket, as systemd does."""

import select
import socket
import sys
import threading
from typing import Callable, List, Optional

from xscontainer.simulator.engines.leftovers import remove_quietly

# The service's process as systemd starts it for a socket.
_HAND_OVER = ("import os, sys; os.dup2(int(sys.argv[1]), 3); "
              "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); os.execv(sys.argv[2], sys.argv[2:])")


class SocketActivation:
    """Listens in place of a service.

    :param path: the service's socket.
    :param running: whether the service runs now.
    :param spawn: starts it; gets the words to put before its command, and the descriptor to leave open.
    """

    def __init__(self, path: str, running: Callable[[], bool], spawn: Callable[[List[str], int], None]) -> None:
        self.count = 0
        """Number of starts of the service."""
        self._path = path
        self._running = running
        self._spawn = spawn
        self._listener: Optional[socket.socket] = None
        self._thread: Optional[threading.Thread] = None
        self._stopping = threading.Event()

    def start(self) -> None:
        """Listen."""
        self._stopping.clear()
        remove_quietly(self._path)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self._path)
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._run, args=(self._listener,), name="simulator-podman")
        self._thread.start()

    def _run(self, listener: socket.socket) -> None:
        """Start the service for the first connection, and again for one after its end."""
        while not self._stopping.is_set():
            if self._running():
                self._stopping.wait(0.01)
            elif select.select([listener], [], [], 0.05)[0] and not self._stopping.is_set():
                self.count += 1
                number = listener.fileno()
                self._spawn([sys.executable, "-c", _HAND_OVER, str(number)], number)

    def stop(self) -> None:
        """Listen no more; a running service goes on. Callable twice."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
