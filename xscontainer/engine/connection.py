"""The seam: what any way to an engine (SSH today, TLS next) offers to the API above it."""

import io
import time
from abc import ABC, abstractmethod
from typing import NamedTuple, Optional, Tuple

from xscontainer.errors import EngineTimeout


class EngineStream(ABC):
    """One stream of bytes to the engine, for one thread at a time; close() may come from any other.

    All failures are those of xscontainer.errors. ``deadline`` (time.monotonic(), None for none) and
    ``budget`` (bytes that may still be received) bound what ``sendall`` and the file of ``makefile`` do.
    """

    deadline: Optional[float] = None
    budget: int = 1 << 62
    received: int = 0  # bytes so far, since the stream was opened

    @abstractmethod
    def sendall(self, data: bytes) -> None:
        """Send all of ``data``, or raise EngineTimeout, EngineLost or TransportLost."""

    @abstractmethod
    def receive(self, limit: int, timeout: Optional[float]) -> Optional[bytes]:
        """Up to ``limit`` bytes as soon as there are any; b"" at the end of the stream; None if nothing came
        within ``timeout`` seconds (None: wait for ever).

        :raises EngineTooMuch: the budget is spent.
        :raises TransportLost: the stream ended because the way to the guest did.
        """

    @abstractmethod
    def close(self) -> None:
        """Give the stream back; wakes a thread that waits in ``receive``. More than once is harmless."""

    @property
    @abstractmethod
    def stale(self) -> bool:
        """Whether an idle stream can not carry another request: it ended, or says something unasked."""

    def remaining(self) -> Optional[float]:
        """Seconds to the deadline, 0.0 when it has passed, None when there is none."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def makefile(self, mode: str = "rb") -> io.BufferedReader:
        """A buffered binary reader over the stream, as http.client wants it; closing it leaves the stream open."""
        return io.BufferedReader(StreamReader(self), 65536)


class StreamReader(io.RawIOBase):
    """The raw file under makefile(). With ``at_hand`` set it reads nothing new: only what is buffered is left."""

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
    """When a certificate ends that a connection stands on.

    :ivar whose: the ENGINE's, that of its CA, or ours (CLIENT).
    :ivar at: seconds since the epoch.
    """

    whose: str
    at: float


class Connection(ABC):
    """One open way to an engine. Thread-safe."""

    method: str = ""  # how streams reach the engine's socket; worth remembering for the next connection
    socket: str = ""  # which that is, if it had to be found; the same
    address: str = ""  # where the guest answered
    certificate: str = ""  # fingerprint of the one that the engine showed: SHA-256, hexadecimal; "" without TLS

    @abstractmethod
    def open_stream(self, timeout: float) -> EngineStream:
        """A new stream to the engine's socket within ``timeout`` seconds.

        :raises ConnectError: there is no way (any more): TransportLost, ForwardingRefused ...
        :raises EngineError: there is, but the engine is not at its end: EngineUnavailable, EngineForbidden;
            EngineTimeout: all channels stayed in use, or the guest did not answer.
        """

    @abstractmethod
    def close(self) -> None:
        """End it and all its streams, promptly; from any thread; more than once is harmless."""

    def hang_up(self) -> None:
        """End it, without waiting for anything; whoever owns it still has to close it."""
        self.close()

    @property
    @abstractmethod
    def closed(self) -> bool:
        """Whether it has ended, by close() or by itself."""

    def ends(self) -> "Tuple[End, ...]":
        """Of the certificates that it stands on, if there are any."""
        return ()

    def doubt(self, seconds: float) -> None:  # noqa: B027 - to do nothing is right for some
        """The guest may have left this address: have it end soon, unless it gives a sign of life within about
        ``seconds``. Does not wait; a way that notices by itself need do nothing."""

    @abstractmethod
    def describe(self) -> str:
        """Words for a log line: who, where, how."""
