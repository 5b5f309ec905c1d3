"""One TLS connection as an EngineStream."""

import errno
import re
import socket
import ssl
import threading
from contextlib import contextmanager
from typing import Callable, Iterator, Optional

from xscontainer.engine import failures
from xscontainer.engine.connection import EngineStream
from xscontainer.errors import (
    EngineLost,
    EngineTimeout,
    EngineTooMuch,
    TLSClientRefused,
    TransportLost,
    XSContainerError,
)

_REFUSED = re.compile(r"alert (bad certificate|unsupported certificate|certificate \w+|unknown ca|access denied"
                      r"|decrypt error)")
_TEXT = re.compile(r"(?:\[[^\]]*\] )?(.*?)(?: \(_ssl\.c:[0-9]+\))?\Z", re.DOTALL)
_WHY_SECONDS = 0.5  # how long a server that hung up may take to say why


def said(error: ssl.SSLError) -> str:
    """OpenSSL's words for what went wrong, such as "tlsv1 alert unknown ca"."""
    # Not error.reason: CPython 3.6 takes the numbers of a newer OpenSSL for other names.
    found = _TEXT.match(str(error.args[-1] if error.args else ""))
    return failures.words(found.group(1) if found else error).lower()


def hung_up(error: BaseException) -> bool:
    """Whether the peer ended the connection, without a farewell or in the middle of something."""
    return isinstance(error, (ssl.SSLEOFError, ConnectionError)) or (
        isinstance(error, ssl.SSLError) and "unexpected eof" in said(error))


def refusal(error: ssl.SSLError, where: str) -> Optional[TLSClientRefused]:
    """Our error if ``error`` says that the engine does not take our certificate; else None."""
    found = _REFUSED.search(said(error))
    return found and TLSClientRefused(f"The engine at {where} refuses our client certificate ({found.group(1)}).")


class TLSStream(EngineStream):
    """:param sock: after its handshake; the stream's own from now on.

    :param where: address and port, for messages.
    :param on_close: called once, when the stream is given back.
    """

    def __init__(self, sock: ssl.SSLSocket, where: str, on_close: "Callable[[TLSStream], None]") -> None:
        self._sock = sock
        self._where = where
        self._on_close = on_close
        self._lock = threading.Lock()
        self._users = 0
        self._ended = threading.Event()

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """The descriptor lives on while a thread waits on it: its number could become another's meanwhile."""
        with self._lock:
            if self._ended.is_set():
                raise EngineLost("The way to the engine was closed.")
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                last = self._ended.is_set() and not self._users
            if last:
                self._sock.close()

    def sendall(self, data: bytes) -> None:
        with self._in_use():
            while data:
                left = self.remaining()
                if left == 0.0:
                    raise EngineTimeout("The engine did not take the request in time.")
                self._sock.settimeout(left)
                try:
                    data = data[self._sock.send(data):]
                except OSError as error:
                    if not _timed_out(error):
                        raise self._end("while the request was sent", self._why(error)) from error

    def receive(self, limit: int, timeout: Optional[float]) -> Optional[bytes]:
        if self.budget <= 0:
            raise EngineTooMuch("The engine's answer is longer than allowed.")
        if self._ended.is_set():
            return b""
        with self._in_use():
            self._sock.settimeout(timeout)
            try:
                data = self._sock.recv(min(limit, self.budget))
            except OSError as error:
                if self._ended.is_set():
                    return b""
                if _timed_out(error):
                    return None
                raise self._end("while the answer was read", error) from error
        self.budget -= len(data)
        self.received += len(data)
        return data

    def _why(self, error: OSError) -> OSError:
        """A server that refuses says so and hangs up: then sending fails, and its words are still to be read."""
        if self._ended.is_set():
            return error
        try:
            self._sock.settimeout(_WHY_SECONDS)
            self._sock.recv(1)
        except ssl.SSLError as told:
            return told
        except OSError:
            pass
        return error

    def _end(self, when: str, error: OSError) -> XSContainerError:
        if self._ended.is_set():
            return EngineLost(f"The way to the engine was closed {when}.")
        refused = refusal(error, self._where) if isinstance(error, ssl.SSLError) else None
        if refused is not None:
            return refused
        if hung_up(error):
            # An engine that was killed, and not the way to it, as far as anybody can tell.
            return EngineLost(f"The engine at {self._where} hung up {when}.")
        return TransportLost(f"The TLS connection to {self._where} broke {when}: {failures.words(error)}.")

    def close(self) -> None:
        with self._lock:
            if self._ended.is_set():
                return
            self._ended.set()
            idle = not self._users
        try:
            # Not SSLSocket.shutdown: it would turn what another thread reads into plain text.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        except OSError:
            pass  # the peer was faster
        if idle:
            self._sock.close()
        self._on_close(self)

    @property
    def stale(self) -> bool:
        if self._ended.is_set():
            return True
        try:
            # What is readable may be the protocol's own business, a session ticket for instance.
            with self._in_use():
                self._sock.settimeout(0.0)
                self._sock.recv(1)
        except (OSError, EngineLost) as error:
            return not isinstance(error, ssl.SSLWantReadError)
        return True


def _timed_out(error: OSError) -> bool:
    """Whether our own time was over, and not the kernel's patience with a dead peer (ETIMEDOUT)."""
    if isinstance(error, (ssl.SSLWantReadError, ssl.SSLWantWriteError)):
        return True
    return isinstance(error, socket.timeout) and error.errno != errno.ETIMEDOUT
