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
    GuestSilent,
    TLSClientRefused,
    TransportLost,
    XSContainerError,
)

_REFUSED = re.compile(r"alert (bad certificate|unsupported certificate|certificate \w+|unknown ca|access denied"
                      r"|decrypt error)")
_TEXT = re.compile(r"(?:\[[^\]]*\] )?(.*?)(?: \(_ssl\.c:[0-9]+\))?\Z", re.DOTALL)
_REASON_SECONDS = 0.5  # to read the reason of a server that closed the connection


def openssl_message(error: ssl.SSLError) -> str:
    """Return OpenSSL's message, such as "tlsv1 alert unknown ca"."""
    # Not error.reason: CPython 3.6 maps the numbers of a newer OpenSSL to wrong names.
    found = _TEXT.match(str(error.args[-1] if error.args else ""))
    return failures.words(found.group(1) if found else error).lower()


def hung_up(error: BaseException) -> bool:
    """Return whether the peer closed the connection."""
    if isinstance(error, ConnectionError):
        return True
    if not isinstance(error, ssl.SSLError) or timed_out(error):
        return False
    return failures.meaning(error, failures.TLS) is GuestSilent or "unexpected eof" in openssl_message(error)


def refusal(error: ssl.SSLError, where: str) -> Optional[TLSClientRefused]:
    """Return our error if ``error`` says that the engine does not accept our certificate; else None."""
    found = _REFUSED.search(openssl_message(error))
    return found and TLSClientRefused(f"The engine at {where} refuses our client certificate ({found.group(1)}).")


class TLSStream(EngineStream):
    """One TLS connection.

    :param sock: after its handshake; the stream closes it.
    :param where: address and port, for messages.
    :param on_close: called once, by close().
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
        """Keep the socket open while a thread waits on it: another socket could get its descriptor's number."""
        with self._lock:
            if self._ended.is_set():
                raise EngineLost("The connection to the engine was closed.")
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
                remaining = self.remaining()
                if remaining == 0.0:
                    raise EngineTimeout("The engine did not accept the request in time.")
                self._sock.settimeout(remaining)
                try:
                    data = data[self._sock.send(data):]
                except OSError as error:
                    if not timed_out(error):
                        raise self._end("while the request was sent", self._reason(error)) from error

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
                if timed_out(error):
                    return None
                raise self._end("while the answer was read", error) from error
        self.budget -= len(data)
        self.received += len(data)
        return data

    def _reason(self, error: OSError) -> OSError:
        """Return the server's reason if it sent one before it closed the connection, else ``error``.

        A server that refuses us sends an alert and closes the connection. Sending then fails before the alert is read.
        """
        if self._ended.is_set():
            return error
        try:
            self._sock.settimeout(_REASON_SECONDS)
            self._sock.recv(1)
        except ssl.SSLError as alert:
            return alert
        except OSError:
            pass
        return error

    def _end(self, when: str, error: OSError) -> XSContainerError:
        if self._ended.is_set():
            return EngineLost(f"The connection to the engine was closed {when}.")
        refused = refusal(error, self._where) if isinstance(error, ssl.SSLError) else None
        if refused is not None:
            return refused
        if hung_up(error):
            # As far as can be known the engine ended, not the connection to the VM.
            return EngineLost(f"The engine at {self._where} closed the connection {when}.")
        return TransportLost(f"The TLS connection to {self._where} broke {when}: {failures.words(error)}.")

    def close(self) -> None:
        with self._lock:
            if self._ended.is_set():
                return
            self._ended.set()
            idle = not self._users
        try:
            # Not SSLSocket.shutdown: another thread would then read undecrypted data.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
        except OSError:
            pass  # the peer closed the connection first
        if idle:
            self._sock.close()
        self._on_close(self)

    @property
    def stale(self) -> bool:
        if self._ended.is_set():
            return True
        try:
            # Readable data may belong to the protocol, for instance a session ticket.
            with self._in_use():
                self._sock.settimeout(0.0)
                self._sock.recv(1)
        except (OSError, EngineLost) as error:
            return not isinstance(error, ssl.SSLWantReadError)
        return True


def timed_out(error: BaseException) -> bool:
    """Return whether our own timeout passed, and not the kernel's timeout for a dead peer (ETIMEDOUT)."""
    if isinstance(error, (ssl.SSLWantReadError, ssl.SSLWantWriteError)):
        return True
    return isinstance(error, socket.timeout) and error.errno != errno.ETIMEDOUT
