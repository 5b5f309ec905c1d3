"""The lines in the body of an HTTP answer that never ends, as its bytes come in."""

from typing import List

from xscontainer.errors import EngineGarbage, EngineTooMuch

MOST_LINE_BYTES = 64 * 1024
_MOST_SIZE_LINE = 1024


class LineFeeder:
    """Takes bytes in any pieces, gives whole lines; undoes the chunked coding if there is one.

    http.client can read such a body too, but not stop half-way, when a deadline passes, and go on later.
    """

    def __init__(self, chunked: bool) -> None:
        self._chunked = chunked
        self._raw = bytearray()  # still chunked
        self._left = 0  # bytes of the current chunk, with its CR LF, that are still to come
        self._line = bytearray()
        self.ended = False  # the last chunk has come

    def feed(self, data: bytes) -> List[bytes]:
        """The lines that ``data`` completes, without line ends and without empty ones.

        :raises EngineGarbage: the coding is broken. :raises EngineTooMuch: a line is too long.
        """
        if self._chunked:
            self._raw += data
            data = self._dechunk()
        self._line += data
        *whole, rest = bytes(self._line).split(b"\n") if b"\n" in data else [self._line]
        self._line = bytearray(rest)
        if len(self._line) > MOST_LINE_BYTES or any(len(line) > MOST_LINE_BYTES for line in whole):
            raise EngineTooMuch(f"The engine reports an event of more than {MOST_LINE_BYTES} bytes.")
        return [line for line in (bytes(line).strip() for line in whole) if line]

    def _dechunk(self) -> bytes:
        out = bytearray()
        while self._raw and not self.ended:
            if self._left:
                piece = self._raw[:self._left]
                del self._raw[:len(piece)]
                # The last two of them are the CR LF that ends the chunk.
                out += piece[:max(0, self._left - 2)]
                self._left -= len(piece)
                continue
            end = self._raw.find(b"\n")
            if end < 0:
                if len(self._raw) > _MOST_SIZE_LINE:
                    raise EngineGarbage("The engine's event stream is no HTTP.")
                break
            size = self._size(bytes(self._raw[:end]))
            del self._raw[:end + 1]
            self.ended = size == 0
            self._left = size + 2
        return bytes(out)

    @staticmethod
    def _size(line: bytes) -> int:
        digits = line.split(b";")[0].strip()
        if not digits or len(digits) > 8 or digits.strip(b"0123456789abcdefABCDEF"):
            raise EngineGarbage("The engine's event stream is no HTTP.")
        return int(digits, 16)
