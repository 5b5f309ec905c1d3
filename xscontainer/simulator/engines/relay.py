"""Moving bytes between two sockets, correctly or with a fault, and the threads that do it."""

import contextlib
import os
import select
import selectors
import socket
import threading
import time
from typing import Any, Callable, Iterator, List, Optional, Set

from xscontainer.simulator.engines.faults import Fault

_CHUNK = 65536


class Threads:
    """Owns short-lived threads: stops and joins them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: Set[threading.Thread] = set()
        self._sockets: Set[socket.socket] = set()
        self.stopping = threading.Event()

    def start(self, target: Callable[..., None], *args: Any, name: str = "simulator") -> threading.Thread:
        """Run ``target`` in a thread of its own until it returns."""
        thread = threading.Thread(target=self._run, args=(target, args), name=name, daemon=True)
        with self._lock:  # end() joins the threads in the set, and only a started thread can be joined
            thread.start()
            self._running.add(thread)
        return thread

    def _run(self, target: Callable[..., None], args: Any) -> None:
        try:
            target(*args)
        except OSError:
            # The peer has closed: the usual end of a connection's thread.
            pass
        finally:
            with self._lock:
                self._running.discard(threading.current_thread())

    def watch(self, connection: socket.socket) -> None:
        """Let end_sockets() and close() shut this socket down, so that its thread wakes."""
        with self._lock:
            self._sockets.add(connection)
        if self.stopping.is_set():
            shut(connection)

    def forget(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.discard(connection)

    @property
    def sockets(self) -> int:
        """Return the number of watched sockets that are open."""
        with self._lock:
            return len(self._sockets)

    def end_sockets(self) -> None:
        """Shut every watched socket down; their threads end soon."""
        with self._lock:
            sockets = list(self._sockets)
        for connection in sockets:
            shut(connection)

    def end(self, seconds: float = 5.0) -> None:
        """Stop all threads and wait for them. New threads may be started afterwards."""
        self.stopping.set()
        self.end_sockets()
        with self._lock:
            running: List[threading.Thread] = list(self._running)
        deadline = time.monotonic() + seconds
        for thread in running:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        self.stopping.clear()

    def close(self, seconds: float = 5.0) -> None:
        """Call end(). Threads that are started later stop at once."""
        self.end(seconds)
        self.stopping.set()


@contextlib.contextmanager
def closing_on_stop(connection: socket.socket, threads: Threads) -> Iterator[None]:
    """Watch a socket inside the block and close it after the block."""
    threads.watch(connection)
    try:
        yield
    finally:
        threads.forget(connection)
        shut(connection)
        connection.close()


def shut(connection: socket.socket) -> None:
    """Shut both directions down, which wakes a reader."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def play(connection: socket.socket, fault: Fault, stopping: threading.Event) -> bool:
    """Play a fault; return False if it needs the correct answer, too (late, slow, cut)."""
    if fault.kind == "late":
        stopping.wait(fault.seconds)
        return False
    if fault.kind == "silent":
        drain(connection)
    elif fault.kind == "garbage":
        connection.sendall(os.urandom(fault.size or 1000))
    elif fault.kind == "huge":
        block = b"\x7f" * _CHUNK
        while not stopping.is_set():
            connection.sendall(block)
    elif fault.kind != "close":
        return False
    return True


def drain(connection: socket.socket) -> None:
    """Read and drop everything until the peer closes or the socket is shut down."""
    while connection.recv(_CHUNK):
        pass


def send_badly(connection: socket.socket, data: bytes, fault: Optional[Fault], stopping: threading.Event) -> None:
    """Send a correct answer as the fault demands: slowly, or only its beginning before a shutdown."""
    if fault is None:
        connection.sendall(data)
    elif fault.kind == "slow":
        for index in range(len(data)):
            if stopping.wait(fault.seconds):
                return
            connection.sendall(data[index:index + 1])
    elif fault.kind == "cut":
        connection.sendall(data[:fault.size])
        shut(connection)
    else:
        connection.sendall(data)


def pump(client: socket.socket, server: socket.socket, fault: Fault, stopping: threading.Event) -> None:
    """Pass bytes both ways until one side closes, with the fault towards the client."""
    left = fault.size
    with selectors.DefaultSelector() as selector:
        selector.register(client, selectors.EVENT_READ, server)
        selector.register(server, selectors.EVENT_READ, client)
        while not stopping.is_set():
            for key, _ in selector.select(1.0):
                source: socket.socket = key.fileobj  # type: ignore[assignment]
                data = source.recv(_CHUNK)
                if not data:
                    return
                if source is client:
                    server.sendall(data)
                elif fault.kind == "cut":
                    client.sendall(data[:left])
                    left -= min(left, len(data))
                    if not left:
                        return
                else:
                    send_badly(client, data, fault, stopping)


def wait_closed(connection: socket.socket, until: Optional[float] = None) -> None:
    """Block until the peer closes, the socket is shut down here, or time.monotonic() reaches ``until``."""
    # poll(), not a socket timeout, which would make the socket non-blocking for the threads that send.
    poller = select.poll()
    poller.register(connection, select.POLLIN)
    while True:
        left = None if until is None else max(0.0, until - time.monotonic()) * 1000
        if not poller.poll(left) or not connection.recv(_CHUNK):
            return
