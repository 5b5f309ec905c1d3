"""Container logs as engines send them: framed or raw, with long lines in parts; turned into lines.

An engine sends a log in one of two forms. The *multiplexed* form consists of frames: a header of 8 bytes (stream, three
zero bytes, length), then one line or a part of one. Containers with a terminal have the *raw* form, without headers.
Logs are always requested with timestamps. So the raw form begins with a digit, which cannot begin a header.

Engines store a long line in parts: dockerd 16384 bytes each, podman 8192, and 4095 from a terminal (measured on 20.10
and 4.3). Each part has a timestamp; dockerd gives all parts of a line the same one. From podman's terminals shorter
parts come, too, whose stamps cannot be told from the container's own text: they stay in the line.

The bytes come from a guest that may be hostile, so everything is bounded. Nothing here does I/O.
"""

import re
from typing import Dict, Iterator, List, Optional, Tuple

from xscontainer.core.log_lines import MOST_LINE_BYTES, STAMP, STREAMS, RawLine

HEADER_BYTES = 8
_LONGEST_STAMP = 36
_DOCKER_PART = 16384
# Sizes of the parts in which engines store a long line of a terminal.
_PARTS = (_DOCKER_PART, 4095)
# The line end that dockerd's driver "local" loses, in the log of a terminal.
_LOST_END = re.compile(rb"\r(?=" + STAMP.pattern + rb")")

# An empty part at the end of a line; podman stores one if a terminal's line end comes alone.
_EMPTY_PART = re.compile(STAMP.pattern + rb"(\r?)\Z")


class FramingError(ValueError):
    """The bytes are not a log as engines send it."""


class _Frames:
    """Splits the multiplexed form into frames; keeps MOST_LINE_BYTES of a frame, and its last byte."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._stream = 0
        self._missing = 0  # bytes of the current frame that have not arrived
        self._kept = bytearray()  # of the current frame
        self._cut = False
        self.number = 0  # of frames so far

    @property
    def held(self) -> int:
        return len(self._buffer) + len(self._kept)

    def feed(self, data: bytes) -> Iterator[Tuple[int, bytes, bool]]:
        """Yield (stream, content, whether content was left out) of each frame that ``data`` completes."""
        self._buffer += data
        start, end = 0, len(self._buffer)
        while True:
            if self._missing:
                piece = self._buffer[start:start + self._missing]
                if not piece:
                    break
                self._take(piece)
                start += len(piece)
                if self._missing:
                    break
                yield self._stream, bytes(self._kept), self._cut
                continue
            if end - start < HEADER_BYTES:
                break
            self._begin(bytes(self._buffer[start:start + HEADER_BYTES]))
            start += HEADER_BYTES
        del self._buffer[:start]

    def _begin(self, header: bytes) -> None:
        if header[0] >= len(STREAMS) or header[1:4] != b"\0\0\0":
            raise FramingError("a frame has no valid header")
        self.number += 1
        self._stream, self._missing = header[0], int.from_bytes(header[4:], "big")
        self._kept, self._cut = bytearray(), False

    def _take(self, piece: bytearray) -> None:
        self._missing -= len(piece)
        room = MOST_LINE_BYTES - len(self._kept)
        self._kept += piece[:room]
        if len(piece) > room:
            self._cut = True
            if not self._missing and piece[-1:] == b"\n":
                self._kept += b"\n"

    def end(self) -> Iterator[Tuple[int, bytes, bool]]:
        """Yield the last frame if the stream ended within it."""
        if self._missing and self._kept:
            yield self._stream, bytes(self._kept), self._cut


class _Unfinished:
    """A line of which the end has not arrived."""

    def __init__(self) -> None:
        self.begun = False
        self.stamp = b""
        self.content = bytearray()
        self.cut = False
        self._last_part = 0  # its length

    def is_over_before(self, stamp: bytes) -> bool:
        """Return whether a part with this stamp begins another line, although this one has no line end.

        dockerd's driver "local" loses the line end of a long line, and the last output of a container that was
        restarted may have none. podman's stamps, which have no fractions of seconds, say nothing about that.
        """
        return (self.begun and stamp != self.stamp and b"." in stamp and b"." in self.stamp
                and self._last_part != _DOCKER_PART)

    def add(self, stamp: bytes, content: bytes, cut: bool) -> None:
        if not self.begun:
            self.begun, self.stamp = True, stamp
        self._last_part = len(content)
        room = MOST_LINE_BYTES - len(self.content)
        self.content += content[:room]
        self.cut = self.cut or cut or len(content) > room

    def take(self, stream: int) -> RawLine:
        """Return the line, and begin a new one."""
        content = bytes(self.content[:-1] if self.content.endswith(b"\r") else self.content)
        line = RawLine(stream, self.stamp, content, self.cut)
        self.__init__()  # type: ignore[misc]
        return line


class LogParser:
    """Makes lines of the bytes of a log, which may arrive in any pieces.

    :ivar raw: whether the log has the raw form; None: nothing has arrived yet.
    """

    def __init__(self) -> None:
        self.raw: Optional[bool] = None
        self._frames = _Frames()
        self._lines: Dict[int, _Unfinished] = {}
        self._rest = bytearray()  # of the raw form: bytes after the last line end
        self._rest_cut = False

    @property
    def frames(self) -> int:
        """The number of frames that have begun."""
        return self._frames.number

    @property
    def held(self) -> int:
        """Bytes that are kept of unfinished lines."""
        return self._frames.held + len(self._rest) + sum(len(line.content) for line in self._lines.values())

    def feed(self, data: bytes) -> List[RawLine]:
        """Return the lines that ``data`` completes.

        :raises FramingError: if the log is in neither form.
        """
        if not data:
            return []
        if self.raw is None:
            self.raw = data[0] >= len(STREAMS)
        if self.raw:
            return self._feed_raw(data)
        lines: List[RawLine] = []
        for stream, content, cut in self._frames.feed(data):
            self._add_frame(stream, content, cut, lines)
        return lines

    def end(self) -> List[RawLine]:
        """Return the last lines, whose ends are missing."""
        lines: List[RawLine] = []
        for stream, content, cut in self._frames.end():
            self._add_frame(stream, content, cut, lines)
        if self._rest:
            lines += self._raw_lines(bytes(self._rest), self._rest_cut)
            self._rest = bytearray()
        lines += [line.take(stream) for stream, line in sorted(self._lines.items()) if line.begun]
        return lines

    def _add_frame(self, stream: int, content: bytes, cut: bool, lines: List[RawLine]) -> None:
        unfinished = self._lines.setdefault(stream, _Unfinished())
        stamp, content = _stamp_of(content)
        if unfinished.is_over_before(stamp):
            lines.append(unfinished.take(stream))
        *ends, rest = content.split(b"\n")
        for end in ends:
            unfinished.add(stamp, end, cut)
            lines.append(unfinished.take(stream))
        if rest:
            unfinished.add(stamp, rest, cut)

    def _feed_raw(self, data: bytes) -> List[RawLine]:
        lines: List[RawLine] = []
        *ends, rest = data.split(b"\n")
        for end in ends:
            self._keep_rest(end)
            lines += self._raw_lines(bytes(self._rest), self._rest_cut)
            self._rest, self._rest_cut = bytearray(), False
        self._keep_rest(rest)
        return lines

    def _keep_rest(self, piece: bytes) -> None:
        # The stamps of the parts are kept until the line is complete.
        room = MOST_LINE_BYTES + _LONGEST_STAMP * (2 + MOST_LINE_BYTES // min(_PARTS)) - len(self._rest)
        self._rest += piece[:room]
        self._rest_cut = self._rest_cut or len(piece) > room

    @staticmethod
    def _raw_lines(content: bytes, cut: bool) -> List[RawLine]:
        lines = []
        # Several only if line ends were lost, see is_over_before(); a stamp behind CR is all that shows it.
        pieces = _LOST_END.split(content)[::2]  # without the stamps that the pattern captures
        for piece in pieces:
            stamp, text = _stamp_of(piece)
            line = _Unfinished()
            line.add(stamp, _without_part_stamps(text) if stamp else text, cut and piece is pieces[-1])
            lines.append(line.take(1))
        return lines


def _stamp_of(content: bytes) -> Tuple[bytes, bytes]:
    found = STAMP.match(content)
    return (found.group(1), content[found.end():]) if found else (b"", content)


def _without_part_stamps(content: bytes) -> bytes:
    """Return the content of a line of a terminal without the stamps of its second and further parts."""
    empty = _EMPTY_PART.search(content, max(0, len(content) - _LONGEST_STAMP - 2))
    if empty and b"." not in empty.group(1):
        content = content[:empty.start()] + empty.group(2)
    for size in _PARTS:
        found = STAMP.match(content, size)
        if found:
            break
    else:
        return content
    parts, start = [content[:size]], found.end()
    while True:
        found = STAMP.match(content, start + size)
        parts.append(content[start:start + size] if found else content[start:])
        if not found:
            return b"".join(parts)
        start = found.end()
