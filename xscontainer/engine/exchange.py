"""HTTP/1.1 on an EngineStream, by http.client: one request, one answer, within its deadline and budget."""

import http.client
import io
import json
import threading
from typing import Any, Callable, Mapping, NamedTuple, Optional, Tuple

from xscontainer.engine import failures
from xscontainer.engine.connection import EngineStream, StreamReader
from xscontainer.errors import EngineGarbage, EngineTooMuch

HEAD_BYTES = 256 * 1024  # what the head of an answer may take on top of its body
# Of a document in JSON; each may take 300 bytes of memory. A thousand containers with fifty labels have 100,000.
MOST_VALUES = 500000
MOST_DIGITS = 40  # of a number in JSON; turning long ones into an int takes quadratic time


class Answer(NamedTuple):
    """:ivar keep: the stream can carry another request."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes
    keep: bool


class _Borrowed:
    """What http.client takes for its socket: it may use the stream, not end it."""

    def __init__(self, stream: EngineStream) -> None:
        self.sendall = stream.sendall
        self._stream = stream
        self.raw = StreamReader(stream)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self.raw, 65536)

    def close(self) -> None:
        pass


class _HTTP(http.client.HTTPConnection):
    auto_open = 0  # never a connection of its own

    def __init__(self, stream: EngineStream) -> None:
        super().__init__("engine")
        self.sock = self.borrowed = _Borrowed(stream)


class Begun(NamedTuple):
    """An answer of which only the head was read, unless it is an error: then ``body`` is all of it.

    :ivar body: what came with the head, still chunked if ``chunked``.
    """

    status: int
    chunked: bool
    body: bytes


def _ask(stream: EngineStream, method: str, url: str, body: Optional[bytes],
         headers: Mapping[str, str]) -> Tuple[_HTTP, http.client.HTTPResponse]:
    connection = _HTTP(stream)
    connection.request(method, url, body=body, headers=dict(headers))
    return connection, connection.getresponse()


def exchange(stream: EngineStream, method: str, url: str, body: Optional[bytes] = None,
             headers: Optional[Mapping[str, str]] = None, most_bytes: int = 1 << 20,
             take: Callable[[int], None] = lambda size: None) -> Answer:
    """Send a request and read the whole answer, before ``stream.deadline``.

    :param most_bytes: longest body.
    :param take: told how long the body is by now; what it raises ends the reading.
    :raises EngineTooMuch, EngineTimeout, EngineLost, EngineGarbage, TransportLost: no (whole) answer.
    """
    stream.budget = most_bytes + HEAD_BYTES
    with failures.translating("The exchange with the engine", failures.API_SIDE):
        _, response = _ask(stream, method, url, body, headers or {})
        try:
            content = read_body(response, most_bytes, take)
            keep = not response.will_close
        finally:
            response.close()
        return Answer(response.status, response.reason, dict(response.getheaders()), content, keep)


def read_body(response: http.client.HTTPResponse, most_bytes: int,
              take: Callable[[int], None] = lambda size: None) -> bytes:
    """The rest of ``response``, in pieces: http.client would allocate whatever length the guest claims."""
    if response.length is not None and response.length > most_bytes:
        raise EngineTooMuch(f"The engine announces an answer of {response.length} bytes; {most_bytes} are allowed.")
    pieces = []
    size = 0
    while True:
        piece = response.read(65536)
        if not piece:
            break
        size += len(piece)
        if size > most_bytes:
            raise EngineTooMuch(f"The engine's answer is longer than the {most_bytes} bytes allowed.")
        take(size)
        pieces.append(piece)
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return b"".join(pieces)


def begin(stream: EngineStream, method: str, url: str, headers: Optional[Mapping[str, str]] = None) -> Begun:
    """Send a request and read the head of the answer; the caller reads on from ``stream``.

    :raises XSContainerError: as ``exchange``.
    """
    stream.budget = HEAD_BYTES
    with failures.translating("The exchange with the engine", failures.API_SIDE):
        connection, response = _ask(stream, method, url, None, headers or {})
        try:
            if response.status != 200:
                return Begun(response.status, False, read_body(response, HEAD_BYTES))
            connection.borrowed.raw.at_hand = True
            return Begun(200, bool(response.chunked), response.fp.read1(HEAD_BYTES))
        finally:
            response.close()


def _bounded_int(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError("a number has too many digits")
    return int(digits)


_DECODER = json.JSONDecoder(parse_int=_bounded_int)
_ONE_AT_A_TIME = threading.Lock()  # two large ones take twice the memory, and nobody is faster for it


def decode_json(body: bytes) -> Any:
    """The value in a JSON document from a guest.

    :raises ValueError: it is no JSON, or nested too deep, or has numbers of absurd length.
    :raises EngineTooMuch: it may have more values than MOST_VALUES; nothing was decoded.
    """
    # Of a text that is all commas this counts too many, but such a text is none of an engine's.
    if len(body) > MOST_VALUES and sum(map(body.count, (b"{", b"[", b","))) > MOST_VALUES:
        raise EngineTooMuch(f"The engine's answer holds more than {MOST_VALUES} values.",
                            "Remove containers that are not needed.")
    with _ONE_AT_A_TIME:
        try:
            return _DECODER.decode(body.decode("utf-8", "replace"))
        except RecursionError as error:
            raise ValueError("it is nested too deep") from error


def parse_json(body: bytes) -> Any:
    """As ``decode_json``, but raises EngineGarbage."""
    try:
        return decode_json(body)
    except ValueError as error:
        raise EngineGarbage(f"The engine's answer is not JSON: {failures.words(error)}.") from error
