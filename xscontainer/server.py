"""The daemon's end of the plugin path: a Unix socket on which calls come in, one thread for each.

forward.py is the other end and describes what goes over the wire. The socket is for root alone:
its directory and file say so, and the kernel tells who connects.
"""

import contextlib
import fcntl
import logging
import os
import select
import socket
import stat
import struct
import threading
import time
from typing import Callable, List, Optional, Set, Tuple

from xscontainer.errors import SocketUnusable
from xscontainer.forward import LONGEST_CALL, LONGEST_HEADER, MAGIC, READY

RECEIVE_TIMEOUT = 30.0  # s for a whole call to come in
SEND_TIMEOUT = 30.0  # s for a whole reply to go out
RETRY_FIRST, RETRY_MOST = 0.1, 5.0  # s before accepting again after an error, for instance too many open files
LONGEST_PATH = 106  # bytes: the kernel's 107, less the suffix under which the socket is made

log = logging.getLogger(__name__)


class Server:
    """Listens at ``path`` from start() to stop().

    :param handler: the reply to a call; called by up to ``workers`` threads at once. Must not raise:
        a caller whose call raised is told that the daemon was lost.
    :param workers: calls above this number wait in the socket's queue; their callers give up by themselves.
    """

    def __init__(self, path: str, handler: "Callable[[bytes], bytes]", workers: int) -> None:
        self._path = path
        self._handler = handler
        self._workers = workers
        self._stop = threading.Event()
        self._changed = threading.Condition()  # guards _calls
        self._calls: Set[socket.socket] = set()  # one for each worker in use
        self._threads: List[threading.Thread] = []  # of the calls; only the server's thread touches it
        self._thread: Optional[threading.Thread] = None
        self._listener: Optional[socket.socket] = None
        self._lock: Optional[int] = None
        self._wake: Optional[Tuple[socket.socket, socket.socket]] = None

    def start(self) -> None:
        """:raises SocketUnusable: another daemon has it, or its place is not ours alone."""
        self._stop.clear()
        try:
            self._lock = _claim(self._path)
            self._listener = _listen(self._path)
            self._wake = socket.socketpair()
        except OSError as error:
            self._release()
            raise SocketUnusable(f"Cannot listen at {self._path}: {error.strerror or error}.") from error
        except SocketUnusable:
            self._release()
            raise
        self._thread = threading.Thread(target=self._run, name="plugin-server", daemon=True)
        self._thread.start()

    def stop(self, grace: float = 5.0) -> bool:
        """Take no further call, let those at work finish within ``grace`` seconds, and end.

        :returns: False if a call was still at work; its thread ends when its handler does.
        """
        deadline = time.monotonic() + grace
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        if self._wake:
            self._wake[1].send(b"x")
        if self._thread:
            self._thread.join()
            self._thread = None
        with self._changed:
            for channel in self._calls:
                # Ends those that are still waiting for their caller's words, not their replies.
                with contextlib.suppress(OSError):
                    channel.shutdown(socket.SHUT_RD)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._release()
        left = sum(thread.is_alive() for thread in self._threads)
        if left:
            log.warning("plugin server: %d calls were still at work after %.1f s", left, grace)
        return not left

    def _release(self) -> None:
        if self._listener:
            self._listener.close()
            with contextlib.suppress(OSError):
                os.unlink(self._path)  # ours: nobody else may have taken it while we hold the lock
        for end in self._wake or ():
            end.close()
        if self._lock is not None:
            os.close(self._lock)
        self._listener = self._wake = self._lock = None

    def _run(self) -> None:
        pause = RETRY_FIRST
        while not self._stop.is_set():
            try:
                self._accept()
                pause = RETRY_FIRST
            except Exception:
                log.exception("plugin server: cannot take a call, trying again in %.1f s", pause)
                self._stop.wait(pause)
                pause = min(2 * pause, RETRY_MOST)

    def _accept(self) -> None:
        """Wait for a free worker, then for a caller, and bring them together."""
        assert self._listener and self._wake
        with self._changed:
            self._changed.wait_for(lambda: self._stop.is_set() or len(self._calls) < self._workers)
        poll = select.poll()  # select() takes no descriptor above 1023
        poll.register(self._listener, select.POLLIN)
        poll.register(self._wake[0], select.POLLIN)
        poll.poll()
        if self._stop.is_set():
            return
        try:
            channel, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # the caller gave up
        thread = threading.Thread(target=self._serve, args=(channel,), name="plugin-call", daemon=True)
        with self._changed:
            self._calls.add(channel)
        try:
            thread.start()
        except RuntimeError:
            self._finished(channel)
            raise
        self._threads = [known for known in self._threads if known.is_alive()] + [thread]

    def _serve(self, channel: socket.socket) -> None:
        try:
            _exchange(channel, self._handler)
        except OSError as error:
            log.info("plugin server: a caller went away: %s", error)
        except Exception:
            log.exception("plugin server: a call failed without a reply")
        finally:
            self._finished(channel)

    def _finished(self, channel: socket.socket) -> None:
        with self._changed:
            channel.close()
            self._calls.discard(channel)
            self._changed.notify_all()


def _exchange(channel: socket.socket, handler: "Callable[[bytes], bytes]") -> None:
    channel.settimeout(SEND_TIMEOUT)
    credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    if uid not in (0, os.geteuid()):
        log.warning("plugin server: refused a call of the user with id %d", uid)
        return
    channel.sendall(READY)
    argument = _receive(channel)
    if argument is None:
        return
    reply = handler(argument)
    channel.settimeout(SEND_TIMEOUT)
    channel.sendall(MAGIC + b"%d\n" % len(reply) + reply)


def _receive(channel: socket.socket) -> "Optional[bytes]":
    """The whole call, or None if that is not what comes."""
    deadline = time.monotonic() + RECEIVE_TIMEOUT
    received = bytearray()
    while len(received) <= LONGEST_CALL + LONGEST_HEADER:
        channel.settimeout(max(0.001, deadline - time.monotonic()))
        more = channel.recv(1 << 16)
        if not more:
            break
        received += more
    head, newline, argument = received.partition(b"\n")
    length = head[len(MAGIC):]
    if not newline or not head.startswith(MAGIC) or length != b"%d" % len(argument) or len(argument) > LONGEST_CALL:
        if received:
            log.warning("plugin server: dropped %d bytes that are no whole call", len(received))
        return None
    return bytes(argument)


def _claim(path: str) -> int:
    """Make sure the socket's place is ours alone, and lock it; returns the lock's descriptor."""
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise SocketUnusable(f"The socket's path {path} is longer than {LONGEST_PATH} bytes.")
    directory = os.path.dirname(path)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    found = os.stat(directory)
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SocketUnusable(f"Others than the user the daemon runs as may write to the directory {directory}.",
                             "Give the socket a directory of its own with mode 0700.")
    lock = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise SocketUnusable(f"Another daemon listens at {path}.") from error
    return lock


def _listen(path: str) -> socket.socket:
    """Listen under another name and rename: what a dead daemon left is replaced, and no caller finds nothing."""
    fresh = path + "~"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(fresh)
        os.chmod(fresh, 0o600)  # nobody can connect before listen()
        listener.listen(128)
        listener.setblocking(False)
        os.rename(fresh, path)
    except OSError:
        listener.close()
        raise
    return listener
