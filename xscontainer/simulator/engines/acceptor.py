"""One thread that accepts connections for many listening sockets, so that 100 guests need no 100 threads."""

import os
import selectors
import socket
import threading
from typing import Callable, Optional

OnConnection = Callable[[socket.socket], None]


class Acceptor:
    """Accepts connections and hands each to its listener's callback, in the acceptor's thread; close() ends it.

    A callback must be quick and must not raise; it owns the socket it is given.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._wake_read, self._wake_write = os.pipe()
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._stop = threading.Event()
        self._rounds = 0
        self._round_done = threading.Condition()
        self._thread: Optional[threading.Thread] = None

    def add(self, listener: socket.socket, on_connection: OnConnection) -> None:
        """Accept on ``listener`` (bound and listening) from now on."""
        listener.setblocking(False)
        with self._lock:
            self._selector.register(listener, selectors.EVENT_READ, on_connection)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="simulator-acceptor", daemon=True)
                self._thread.start()
        self._wake()

    def remove(self, listener: socket.socket) -> None:
        """Stop accepting on ``listener``. On return no callback of it runs. The caller closes the socket."""
        with self._lock:
            try:
                self._selector.unregister(listener)
            except (KeyError, ValueError):
                return
        if self._thread is not None and self._thread is not threading.current_thread():
            with self._round_done:
                seen = self._rounds
                self._wake()
                self._round_done.wait_for(lambda: self._rounds > seen or self._stop.is_set(), 5.0)

    def close(self) -> None:
        """End the thread. Callable twice."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._wake()
        if self._thread is not None:
            self._thread.join()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _wake(self) -> None:
        os.write(self._wake_write, b".")

    def _run(self) -> None:
        while not self._stop.is_set():
            for key, _ in self._selector.select():
                if key.data is None:
                    os.read(self._wake_read, 4096)
                elif self._registered(key):
                    self._accept(key.fileobj, key.data)  # type: ignore[arg-type]
            with self._round_done:
                self._rounds += 1
                self._round_done.notify_all()

    def _registered(self, key: selectors.SelectorKey) -> bool:
        with self._lock:
            return self._selector.get_map().get(key.fileobj) is key

    @staticmethod
    def _accept(listener: socket.socket, on_connection: OnConnection) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            # The client has given up, or the listener was removed and closed.
            return
        connection.setblocking(True)
        on_connection(connection)
