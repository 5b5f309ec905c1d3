"""The daemon's end of the plugin path: a Unix socket on which calls come in, one thread for each.

Input: calls from plugin/forward.py, which describes the exchange. Output: to the handler, plugin/dispatch.py. The
socket is for root alone: the modes of its directory and file ensure that, and the kernel tells who connects.
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

from xscontainer.core import memory_budget as memory
from xscontainer.errors import SocketUnusable, shortage
from xscontainer.plugin.forward import BUSY, LONGEST_CALL, LONGEST_HEADER, MAGIC, READY
from xscontainer.settings import LONGEST_SOCKET

RECEIVE_TIMEOUT = 30.0  # s for a whole call to come in
SEND_TIMEOUT = 30.0  # s for a whole reply to go out
_SMALL = 65536  # bytes
BUSY_AFTER = 1.0  # s that a caller waits for a free thread before it gets BUSY
RETRY_FIRST, RETRY_MOST = 0.1, 5.0  # s before accepting again after an error, for instance too many open files

log = logging.getLogger(__name__)


class Server:
    """Listen at ``path`` from start() to stop().

    :param handler: returns the reply to a call; called by up to ``workers`` threads at once. Must not raise: the caller
        would get DAEMON_LOST.
    :param workers: threads, one for each caller. Callers above this number wait for BUSY_AFTER and then get BUSY: a
        caller that receives nothing at all takes the daemon for a hung one.
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
        """Start to listen.

        :raises SocketUnusable: another daemon has the socket, or others may write to its directory.
        """
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
                # Ends the calls that are still being received, but no replies.
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
                os.unlink(self._path)  # no other daemon can have it while we hold the lock
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
            except Exception as error:
                short = shortage(error)
                if short is not None:
                    log.warning("plugin server: cannot take a call: %s", short)
                else:
                    log.exception("plugin server: cannot take a call, trying again in %.1f s", pause)
                self._stop.wait(pause)
                pause = min(2 * pause, RETRY_MOST)

    def _accept(self) -> None:
        """Wait for a free worker, then for a caller; start a thread for the call."""
        assert self._listener and self._wake
        with self._changed:
            if not self._changed.wait_for(lambda: self._stop.is_set() or len(self._calls) < self._workers, BUSY_AFTER):
                _refuse_all(self._listener)
                return
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
            log.info("plugin server: a caller closed the connection: %s", error)
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
    with memory.held_for_reply():
        reply = handler(argument)
        channel.settimeout(SEND_TIMEOUT)
        head = MAGIC + b"%d\n" % len(reply)
        # One packet, unless that needs a copy of a large reply.
        for part in (head + reply,) if len(reply) < _SMALL else (head, reply):
            channel.sendall(part)


def _refuse_all(listener: socket.socket) -> None:
    """Send BUSY to every caller in the socket's queue."""
    while True:
        try:
            channel, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        with channel, contextlib.suppress(OSError):
            channel.setblocking(False)  # the line fits into the socket's buffer
            channel.sendall(BUSY)


def _receive(channel: socket.socket) -> "Optional[bytes]":
    """Receive a call; None if it does not come completely."""
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
            log.warning("plugin server: dropped %d bytes that are not a complete call", len(received))
        return None
    return bytes(argument)


def _claim(path: str) -> int:
    """Check that only root can write to the socket's directory, and lock it; returns the lock's descriptor."""
    if len(os.fsencode(path)) > LONGEST_SOCKET:
        raise SocketUnusable(f"The socket's path {path} is longer than {LONGEST_SOCKET} bytes.")
    directory = os.path.dirname(path)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    found = os.stat(directory)
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SocketUnusable(f"Other users than the daemon's may write to the directory {directory}.",
                             "Give the socket a directory of its own with mode 0700.")
    lock = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise SocketUnusable(f"Another daemon listens at {path}.") from error
    return lock


def _listen(path: str) -> socket.socket:
    """Listen under another name and rename: that replaces a dead daemon's socket without a gap for callers."""
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
