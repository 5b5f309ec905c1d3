"""Long-lived answers of an engine: a stream that a caller follows, and the lines in the body of an endless answer."""

import re
from abc import ABC, abstractmethod
from typing import List, Optional

from xscontainer.engine.connection import EngineStream
from xscontainer.errors import EngineGarbage, EngineTooMuch, XSContainerError

AT_ONCE = 16384  # bytes of one read; decoded events and lines take up to twenty times as much memory
# Reads without a result until a reader returns, because its caller charges the guest for their CPU time.
MOST_READS = 32
MOST_LINE_BYTES = 64 * 1024  # kept of one line
MOST_SKIPPED_BYTES = 16 * 1024 * 1024  # length of the longest line that is accepted
_MOST_SIZE_LINE = 1024
_BLANK = re.compile(rb"\n[ \t\r\n]*\n")


class Subscription(ABC):
    """A stream that one thread reads until close(), which any thread may call.

    :ivar closed: set before the connection is closed on purpose, so that the reader reports no failure.
    """

    closed = False

    @abstractmethod
    def close(self) -> None:
        """End the stream and wake its reader. May be called more than once."""


class ByteStream(Subscription):
    """A subscription that reads one stream of a connection."""

    def __init__(self, stream: EngineStream) -> None:
        self._stream = stream

    def _receive(self, timeout: Optional[float]) -> Optional[bytes]:
        """Return the bytes of one read, b"" if the engine ended the stream; None after ``timeout`` s and close()."""
        # A limit for each read, not for the stream, which may last for months.
        self._stream.budget = AT_ONCE
        try:
            data = self._stream.receive(AT_ONCE, timeout)
        except XSContainerError:
            if self.closed:
                return None
            raise
        return None if self.closed else data

    def close(self) -> None:
        self.closed = True
        self._stream.close()


class CutLine(bytes):
    """The first MOST_LINE_BYTES of a longer line."""


class ChunkDecoder:
    """Decodes the chunked transfer coding of an answer whose bytes arrive in pieces.

    http.client can do that, too, but cannot stop at a deadline in the middle of a chunk and go on later.

    :ivar ended: whether the last chunk has arrived.
    """

    def __init__(self) -> None:
        self._raw = bytearray()  # still encoded
        self._missing = 0  # bytes of the current chunk, with its CR LF, that have not arrived yet
        self.ended = False

    def feed(self, data: bytes) -> bytes:
        """Return the content that ``data`` adds.

        :raises EngineGarbage: if the coding is broken.
        """
        self._raw += data
        out = bytearray()
        while self._raw and not self.ended:
            if self._missing:
                piece = self._raw[:self._missing]
                del self._raw[:len(piece)]
                # The last two bytes are the CR LF that ends the chunk.
                out += piece[:max(0, self._missing - 2)]
                self._missing -= len(piece)
                continue
            end = self._raw.find(b"\n")
            if end < 0:
                if len(self._raw) > _MOST_SIZE_LINE:
                    raise EngineGarbage("The engine's stream is not valid HTTP.")
                break
            size = self._chunk_size(bytes(self._raw[:end]))
            del self._raw[:end + 1]
            self.ended = size == 0
            self._missing = size + 2
        return bytes(out)

    @staticmethod
    def _chunk_size(line: bytes) -> int:
        digits = line.split(b";")[0].strip()
        if not digits or len(digits) > 8 or digits.strip(b"0123456789abcdefABCDEF"):
            raise EngineGarbage("The engine's stream is not valid HTTP.")
        return int(digits, 16)


class LineFeeder:
    """Splits bytes that arrive in pieces into lines; decodes the chunked transfer coding if there is one."""

    def __init__(self, chunked: bool) -> None:
        self._chunks = ChunkDecoder() if chunked else None
        self._line = bytearray()
        self._size = 0  # length of the current line so far

    @property
    def ended(self) -> bool:
        """True if the last chunk has arrived."""
        return self._chunks is not None and self._chunks.ended

    def feed(self, data: bytes) -> List[bytes]:
        """Return the lines that ``data`` completes, without line ends and empty lines. A long line is a CutLine.

        :raises EngineGarbage: if the transfer coding is broken.
        :raises EngineTooMuch: if a line is longer than MOST_SKIPPED_BYTES.
        """
        if self._chunks is not None:
            data = self._chunks.feed(data)
        # Remove blank lines in one step: a guest may send nothing else, and 65536 lines at a time would cost CPU.
        data = _BLANK.sub(b"\n", data)
        lines: List[bytes] = []
        *ends, rest = data.split(b"\n")
        for piece in ends:
            if piece or self._line:
                self._add(piece)
                line = self._complete_line()
                if line:
                    lines.append(line)
        self._add(rest)
        return lines

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > MOST_SKIPPED_BYTES:
            raise EngineTooMuch(f"The engine reports an event of more than {MOST_SKIPPED_BYTES} bytes.",
                                "Check that a container engine answers in the VM.")
        self._line += piece[:max(0, MOST_LINE_BYTES - len(self._line))]

    def _complete_line(self) -> bytes:
        kind = CutLine if self._size > MOST_LINE_BYTES else bytes
        line = kind(self._line.strip())
        self._line, self._size = bytearray(), 0
        return line
