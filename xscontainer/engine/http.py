"""HTTP/1.1 over an EngineStream, with http.client: one request and one answer, within deadline and budget."""

import http.client
import io
from typing import TYPE_CHECKING, Any, Callable, Mapping, NamedTuple, Optional

from xscontainer.core import bounded
from xscontainer.engine import failures
from xscontainer.engine.connection import EngineStream, StreamReader
from xscontainer.errors import EngineGarbage, EngineTooMuch

if TYPE_CHECKING:
    from xscontainer.engine.listing import Sink

HEAD_BYTES = 64 * 1024  # longest head of an answer, and longest body of a refusal
# Longest body of an answer that is not a list: an inspected container, its processes, the engine's facts.
MOST_DOCUMENT = 4 << 20


def _ignore(size: int) -> None:
    pass


class Answer(NamedTuple):
    """One complete answer. ``keep``: the stream can carry another request."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes
    keep: bool


class _Borrowed:
    """The socket that http.client is given: it may use the stream, but closing it leaves the stream open."""

    def __init__(self, stream: EngineStream) -> None:
        self.sendall = stream.sendall
        self._stream = stream
        self.raw = StreamReader(stream)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self.raw, 65536)

    def close(self) -> None:
        pass


class _HTTP(http.client.HTTPConnection):
    auto_open = 0  # http.client must not open a connection itself

    def __init__(self, stream: EngineStream) -> None:
        super().__init__("engine")
        self.sock = self.borrowed = _Borrowed(stream)


class Begun(NamedTuple):
    """An answer of which only the head was read; of an error, the whole body.

    :ivar body: the bytes that arrived with the head, still chunked if ``chunked``.
    :ivar length: length of the whole body, if the head announces it.
    :ivar date: when the engine answered, by its own clock, as in HTTP; "" if the head does not say it.
    """

    status: int
    chunked: bool
    body: bytes
    length: Optional[int] = None
    date: str = ""


class Bounds(NamedTuple):
    """The limits for reading one answer.

    :ivar most_bytes: longest body.
    :ivar take: called with the bytes of memory that the answer takes so far; an exception from it ends the reading.
    :ivar sink: receives the body of a successful answer, whose ``body`` is then empty.
    """

    most_bytes: int = 1 << 20
    take: Callable[[int], None] = _ignore
    sink: "Optional[Sink]" = None


_DEFAULT = Bounds()


def exchange(stream: EngineStream, method: str, url: str, body: Optional[bytes] = None,
             headers: Optional[Mapping[str, str]] = None, bounds: Bounds = _DEFAULT) -> Answer:
    """Send a request and read the whole answer, before ``stream.deadline``.

    :raises EngineTooMuch, EngineTimeout, EngineLost, EngineGarbage, TransportLost: if there is no complete answer.
    """
    return Sent(stream, method, url, body, headers).answer(bounds)


class Sent:
    """A request that was sent; its answer can be read later.

    :raises EngineTimeout, EngineLost, TransportLost: if the request cannot be sent before ``stream.deadline``.
    """

    def __init__(self, stream: EngineStream, method: str, url: str, body: Optional[bytes] = None,
                 headers: Optional[Mapping[str, str]] = None) -> None:
        self.stream = stream
        stream.budget = HEAD_BYTES
        self._connection = _HTTP(stream)
        with failures.translating("The exchange with the engine", failures.API_SIDE):
            self._connection.request(method, url, body=body, headers=dict(headers or {}))

    def answer(self, bounds: Bounds = _DEFAULT) -> Answer:
        """Read the whole answer, before ``stream.deadline``. Raises as ``exchange``."""
        most_bytes, take, sink = bounds
        with failures.translating("The exchange with the engine", failures.API_SIDE):
            response = self._connection.getresponse()
            self.stream.budget += most_bytes
            try:
                if sink is not None and response.status == 200:
                    content, receive = b"", sink.feed
                    drain(response, most_bytes, lambda piece, size: take(receive(piece)))
                    sink.end()
                else:
                    content = read_body(response, min(most_bytes, MOST_DOCUMENT), take)
                keep = not response.will_close
            finally:
                response.close()
            return Answer(response.status, response.reason, dict(response.getheaders()), content, keep)


def read_body(response: http.client.HTTPResponse, most_bytes: int,
              take: Callable[[int], None] = _ignore) -> bytes:
    """Return the rest of ``response``; for ``take`` see :class:`Bounds`."""
    pieces = []

    def keep(piece: bytes, size: int) -> None:
        take(2 * size)  # joining the pieces makes a copy
        pieces.append(piece)

    drain(response, most_bytes, keep)
    return b"".join(pieces)


def drain(response: http.client.HTTPResponse, most_bytes: int, take: Callable[[bytes, int], None]) -> None:
    """Read the rest of ``response`` in pieces. http.client would allocate whatever length the guest announces.

    :param take: gets each piece and the length so far.
    """
    hint = "" if most_bytes > MOST_DOCUMENT else "Run the same command in the VM itself."
    if response.length is not None and response.length > most_bytes:
        raise EngineTooMuch(f"The engine announces an answer of {response.length} bytes; {most_bytes} are allowed.",
                            hint)
    size = 0
    while True:
        piece = response.read(65536)
        if not piece:
            break
        size += len(piece)
        if size > most_bytes:
            raise EngineTooMuch(f"The engine's answer is longer than the {most_bytes} bytes allowed.", hint)
        take(piece, size)
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)


def begin(stream: EngineStream, method: str, url: str, headers: Optional[Mapping[str, str]] = None) -> Begun:
    """Send a request and read the head of the answer; the caller reads the rest from ``stream``.

    :raises XSContainerError: as ``exchange``.
    """
    stream.budget = HEAD_BYTES
    with failures.translating("The exchange with the engine", failures.API_SIDE):
        connection = _HTTP(stream)
        connection.request(method, url, headers=dict(headers or {}))
        response = connection.getresponse()
        try:
            if response.status != 200:
                return Begun(response.status, False, read_body(response, HEAD_BYTES))
            connection.borrowed.raw.at_hand = True
            return Begun(200, bool(response.chunked), response.fp.read1(HEAD_BYTES), response.length,
                         response.getheader("Date") or "")
        finally:
            response.close()


def decode_json(body: bytes) -> Any:
    """Return the value in a JSON document from a guest. Decode a large document in the memory.workshop.

    :raises ValueError: if the document is not JSON, is nested too deep, or has numbers of absurd length.
    :raises EngineTooMuch: if the value would take too much memory; then nothing was decoded.
    """
    try:
        return bounded.json_from(body)
    except bounded.TooCostly as error:
        raise EngineTooMuch(f"The engine's answer would take {error.estimate >> 20} MiB of memory; "
                            f"{bounded.MOST_COST >> 20} MiB are allowed.",
                            "Inspect the container in the VM itself.") from error


def message_of(body: bytes) -> object:
    """Return the engine's own words in the body of a refusal."""
    try:
        return parse_json(body)["message"]
    except (EngineGarbage, LookupError, TypeError):
        return body


def parse_json(body: bytes) -> Any:
    """Return the value as ``decode_json`` does, but raise EngineGarbage instead of ValueError."""
    try:
        return decode_json(body)
    except ValueError as error:
        raise EngineGarbage(f"The engine's answer is not JSON: {failures.words(error)}.") from error
