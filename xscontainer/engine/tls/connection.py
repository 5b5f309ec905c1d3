"""An engine's own TCP port, over TLS with certificates on both sides: each stream is a connection of its own."""

import threading
import time
from typing import Callable, Optional, Set, Tuple

from xscontainer.core import current_call
from xscontainer.engine.connection import CA, CLIENT, ENGINE, Connection, End
from xscontainer.engine.http import exchange
from xscontainer.engine.tls import certs
from xscontainer.engine.tls.certs import Credentials
from xscontainer.engine.tls.handshake import Handshake, Target
from xscontainer.engine.tls.stream import TLSStream
from xscontainer.errors import EngineTimeout, TLSClientRefused, TransportLost
from xscontainer.settings import EngineSettings, GuestSettings

__all__ = ["Credentials", "TLSConnection", "Target", "connect"]


class TLSConnection(Connection):
    """The streams to one engine. Between streams nothing is open; only close() ends the connection.

    :raises TLSCredentialsInvalid: if the credentials are unusable.
    """

    method = "tls"

    def __init__(self, target: Target, credentials: Credentials, guest: GuestSettings, engine: EngineSettings) -> None:
        self._target = target
        self._credentials = credentials
        self._handshake = Handshake(target, credentials, guest)
        self._own_end = certs.validity(certs.load(credentials.certificate))[1]
        self._guest = guest
        self._channels = threading.BoundedSemaphore(engine.max_channels)
        self._lock = threading.Lock()
        self._streams: Set[TLSStream] = set()
        self._shown: Optional[Tuple[float, bytes]] = None  # expiry and DER of the engine's certificate
        self._proven: Optional[TLSStream] = None  # has carried a request, and waits for the next
        self._closed = False

    def prove(self) -> None:
        """Send one request: only then an engine refuses our certificate, or turns out not to be an engine.

        :raises XSContainerError: as :func:`connect`.
        """
        seconds = current_call.remaining(self._guest.connect_timeout + self._guest.handshake_timeout)
        stream = self.open_stream(seconds)
        try:
            stream.deadline = time.monotonic() + current_call.remaining(self._guest.login_timeout)
            keep = exchange(stream, "GET", "/_ping", headers={"Host": "engine"}).keep
            stream.deadline = None
        except TLSClientRefused as error:
            stream.close()
            raise self._handshake.explained(error) from error
        except BaseException:
            stream.close()
            raise
        if keep:
            self._proven = stream
        else:
            stream.close()

    def open_stream(self, timeout: float) -> TLSStream:
        deadline = time.monotonic() + timeout
        with self._lock:
            self._check_open()
            proven, self._proven = self._proven, None
        if proven is not None:
            if not proven.stale:
                return proven
            proven.close()
        if not self._channels.acquire(timeout=timeout):
            raise EngineTimeout("All connections to the engine stayed in use.")
        return self._opened(deadline, self._channels.release)

    def open_extra(self, timeout: float) -> TLSStream:
        with self._lock:
            self._check_open()
        return self._opened(time.monotonic() + timeout, lambda: None)

    def _opened(self, deadline: float, on_close: "Callable[[], None]") -> TLSStream:
        """Connect; ``on_close`` is called once when the stream is closed, or if this fails."""
        try:
            stream = self._connect(deadline, on_close)
        except BaseException:
            on_close()
            raise
        with self._lock:
            self._streams.add(stream)
            closed = self._closed
        if closed:
            stream.close()
            self._check_open()
        return stream

    def _connect(self, deadline: float, on_close: "Callable[[], None]") -> TLSStream:
        shaken = self._handshake.shake(self.address, deadline)
        try:
            self._shown = (shaken.expires, shaken.der)
            self.certificate = certs.fingerprint(shaken.der)
            self.address = shaken.address
            return TLSStream(shaken.sock, shaken.where, lambda stream: self._stream_closed(stream, on_close))
        except BaseException:
            shaken.sock.close()
            raise

    def _stream_closed(self, stream: TLSStream, on_close: "Callable[[], None]") -> None:
        with self._lock:
            self._streams.discard(stream)
        on_close()

    def _check_open(self) -> None:
        if self._closed:
            raise TransportLost("The connection to the VM was closed.")

    def close(self) -> None:
        with self._lock:
            self._closed = True
            streams = list(self._streams)
        for stream in streams:
            stream.close()

    @property
    def closed(self) -> bool:
        return self._closed

    def ends(self) -> Tuple[End, ...]:
        if self._shown is None:
            return ()
        ends, der = self._shown
        return (End(ENGINE, ends), End(CA, certs.ca_end(der, self._credentials.ca)), End(CLIENT, self._own_end))

    def describe(self) -> str:
        return f"{self.address} port {self._target.port} (TLS)"


def connect(target: Target, credentials: Credentials, guest: GuestSettings, engine: EngineSettings) -> TLSConnection:
    """Connect with one TCP connection, one handshake and one request.

    :raises ConnectError: GuestUnreachable, GuestSilent, TLSCertificateInvalid, TLSClientRefused, TLSProtocol.
    :raises TLSCredentialsInvalid: if the credentials are unusable.
    :raises EngineError: if the server is not an engine, or does not answer.
    """
    connection = TLSConnection(target, credentials, guest, engine)
    try:
        connection.prove()
    except BaseException:
        connection.close()
        raise
    return connection
