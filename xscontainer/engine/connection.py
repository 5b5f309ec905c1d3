"""The common interface of SSH and TLS connections: streams of bytes to the engine, which :mod:`.calls` uses."""

import io
import time
from abc import ABC, abstractmethod
from typing import NamedTuple, Optional, Tuple

from xscontainer.errors import EngineTimeout

# The most bytes that wait unread on a stream of Connection.open_extra(); the rest of a longer answer waits in the
# guest.
EXTRA_UNREAD = 32 * 1024


class EngineStream(ABC):
    """One stream of bytes to the engine, for one thread at a time; any thread may call close().

    All methods raise XSContainerErrors only.

    :ivar deadline: by time.monotonic(), for ``sendall`` and the file of ``makefile``; None: none.
    :ivar budget: bytes that may still be received.
    :ivar received: bytes received since the stream was opened.
    """

    deadline: Optional[float] = None
    budget: int = 1 << 62
    received: int = 0

    @abstractmethod
    def sendall(self, data: bytes) -> None:
        """Send all of ``data``.

        :raises EngineTimeout, EngineLost, TransportLost: if that fails.
        """

    @abstractmethod
    def receive(self, limit: int, timeout: Optional[float]) -> Optional[bytes]:
        """Return up to ``limit`` bytes as soon as there are any; b"" at the end of the stream; None after a timeout.

        :param timeout: seconds; None: wait forever.
        :raises EngineTooMuch: if the budget is used up.
        :raises TransportLost: if the stream ended because the connection to the guest did.
        """

    def set_idle(self, idle: bool) -> None:  # noqa: B027 - doing nothing is right for some streams
        """Tell the stream whether it is kept without a request, so that the guest has no reason to send anything."""

    @abstractmethod
    def close(self) -> None:
        """Close the stream and wake a thread that waits in ``receive``. May be called more than once."""

    @property
    @abstractmethod
    def stale(self) -> bool:
        """True if an idle stream can carry no further request: it ended, or received data without a request."""

    def remaining(self) -> Optional[float]:
        """Return the seconds until the deadline: 0.0 if it has passed, None if there is none."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def makefile(self, mode: str = "rb") -> io.BufferedReader:
        """Return a buffered binary reader of the stream, for http.client. Closing it leaves the stream open."""
        return io.BufferedReader(StreamReader(self), 65536)


class StreamReader(io.RawIOBase):
    """The raw file under makefile(). With ``at_hand`` set it reads nothing new, so only buffered data is read."""

    at_hand = False

    def __init__(self, stream: EngineStream) -> None:
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> Optional[int]:  # type: ignore[no-untyped-def] # noqa: ANN001
        if self.at_hand:
            return None
        data = self._stream.receive(len(buffer), self._stream.remaining())
        if data is None:
            raise EngineTimeout("The engine did not answer in time.")
        buffer[:len(data)] = data
        return len(data)


ENGINE, CA, CLIENT = "engine", "ca", "client"


class End(NamedTuple):
    """The expiry of one certificate of a connection.

    :ivar whose: ENGINE, CA (of the engine's certificate) or CLIENT (ours).
    :ivar at: seconds since the epoch.
    """

    whose: str
    at: float


class Connection(ABC):
    """One open connection to an engine. Thread-safe.

    :ivar method: how streams reach the engine's socket; the next connection tries this first.
    :ivar socket: the path of the engine's socket, if it had to be found; the next connection tries it first.
    :ivar address: the address at which the guest answered.
    :ivar room: how many streams can be open at once; 0: no limit, or unknown.
    :ivar crowded: whether a caller waits until another closes its stream.
    :ivar certificate: fingerprint of the engine's certificate (SHA-256, hexadecimal); "" without TLS.
    """

    method: str = ""
    socket: str = ""
    address: str = ""
    room: int = 0
    crowded: bool = False
    certificate: str = ""

    @abstractmethod
    def open_stream(self, timeout: float) -> EngineStream:
        """Open a stream to the engine's socket within ``timeout`` seconds.

        :raises ConnectError: if the connection failed: TransportLost, ForwardingRefused ...
        :raises EngineUnavailable, EngineForbidden: if the engine does not answer, or refuses the user.
        :raises EngineTimeout: if all channels stayed in use, or the guest did not answer.
        """

    def open_extra(self, timeout: float) -> Optional[EngineStream]:
        """Open a stream beyond the usual number, for many short requests at a time; errors as ``open_stream``.

        The caller bounds how many there are, and claims EXTRA_UNREAD bytes of memory for each.

        :returns: None if the guest's server limits such streams: use ``open_stream`` then.
        """
        return None

    @abstractmethod
    def close(self) -> None:
        """Close the connection and all its streams, promptly. Any thread may call this, more than once."""

    def hang_up(self) -> None:
        """End the connection without waiting. The owner still has to close it."""
        self.close()

    @property
    @abstractmethod
    def closed(self) -> bool:
        """True if the connection has ended, by close() or by itself."""

    def ends(self) -> "Tuple[End, ...]":
        """Return when the certificates of the connection expire; () without TLS."""
        return ()

    def probe_liveness(self, seconds: float) -> None:  # noqa: B027 - doing nothing is right for some connections
        """End the connection unless the guest answers within about ``seconds``. Does not wait.

        Called when the guest may have left its address. A connection that notices that by itself does nothing.
        """

    @abstractmethod
    def describe(self) -> str:
        """Return user, address and method, for a message."""
