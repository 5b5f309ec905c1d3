"""The lines of container logs: their text, made safe to show, and how many of them are kept. Nothing here does I/O."""

import re
from collections import deque
from datetime import datetime
from typing import Deque, List, Match, NamedTuple, Optional

from xscontainer.sanitize import INVISIBLE, NOT_TEXT

MOST_LINE_BYTES = 32 * 1024  # kept of one line
MOST_KEPT_BYTES = 256 * 1024  # of one answer
MOST_LINES = 5000  # of one answer
ENGINE_STREAM = "engine"  # the engine's own error message, in the middle of a log
STREAMS = ("stdin", "stdout", "stderr", ENGINE_STREAM)

# The time that begins each line, with the blank behind it.
STAMP = re.compile(rb"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
                   rb"(?:Z|[+-][0-9]{2}:[0-9]{2})) ")
_FIRST_DAY = datetime(1970, 1, 1).toordinal()

_COLOUR = "\x1b\\[[0-9;:]{0,64}m"
_UNSEEN = re.compile(f"(?P<colour>{_COLOUR})|[{NOT_TEXT}{INVISIBLE}\r\u2028\u2029]")
_COLOURS = re.compile(_COLOUR)


class LogLine(NamedTuple):
    """One line of a container's log.

    :ivar stream: one of STREAMS.
    :ivar stamp: when the engine received the line, in RFC 3339; "" if it did not say.
    :ivar text: only printable characters, tabs and colours (see ``visible``).
    :ivar cut: whether the line was longer than MOST_LINE_BYTES, so that its end is missing.
    """

    stream: str
    stamp: str
    text: str
    cut: bool = False


class RawLine(NamedTuple):
    """One line as bytes, with fields as LogLine; most of these are dropped before anybody needs their text."""

    stream: int
    stamp: bytes
    content: bytes
    cut: bool = False

    @property
    def size(self) -> int:
        """Bytes that the line counts for in a bound: its text, its stamp, and two for what surrounds them."""
        return len(self.content) + len(self.stamp) + 2

    def decoded(self) -> LogLine:
        """Return the line as text. Bytes that are not UTF-8 become U+FFFD."""
        return LogLine(STREAMS[self.stream], self.stamp.decode("ascii"),
                       visible(self.content.decode("utf-8", "replace")), self.cut)


def visible(text: str) -> str:
    """Return ``text`` with its invisible characters replaced; tabs and colours (ANSI SGR) stay.

    A control character becomes its picture (ESC becomes U+241B). Marks that change the direction of writing, line
    separators and characters that XML forbids become U+FFFD.
    """
    return _UNSEEN.sub(_picture, text)


def _picture(found: "Match[str]") -> str:
    character = found.group()
    if found.group("colour"):
        return character
    if character < " ":
        return chr(0x2400 + ord(character))
    return "\u2421" if character == "\x7f" else "\ufffd"


def without_colours(text: str) -> str:
    """Return the text of a LogLine without its colours."""
    return _COLOURS.sub("", text)


def nanoseconds(stamp: str) -> Optional[int]:
    """Return the nanoseconds since 1970 of a time in RFC 3339, None if it is not one."""
    found = STAMP.match(stamp.encode("ascii", "replace") + b" ")
    if not found:
        return None
    try:
        day = datetime(int(stamp[:4]), int(stamp[5:7]), int(stamp[8:10])).toordinal() - _FIRST_DAY
    except ValueError:
        return None
    seconds = day * 86400 + int(stamp[11:13]) * 3600 + int(stamp[14:16]) * 60 + int(stamp[17:19])
    rest, fraction = stamp[19:], "0"
    if rest.startswith("."):
        fraction = re.match("[0-9]*", rest[1:]).group()  # type: ignore[union-attr]
        rest = rest[1 + len(fraction):]
    if rest != "Z":
        shift = int(rest[1:3]) * 3600 + int(rest[4:6]) * 60
        seconds += shift if rest[0] == "-" else -shift
    return seconds * 1000000000 + int(fraction.ljust(9, "0"))


class NewestLines:
    """Keeps the newest lines, up to a number of lines and of bytes.

    :ivar size: bytes of the lines that are kept.
    """

    def __init__(self, most_bytes: int = MOST_KEPT_BYTES, most_lines: int = MOST_LINES) -> None:
        self._most_bytes, self._most_lines = most_bytes, most_lines
        self._lines: Deque[RawLine] = deque()
        self._added = 0
        self.size = 0

    def add(self, line: RawLine) -> None:
        self._added += 1
        self._lines.append(line)
        self.size += line.size
        while self.size > self._most_bytes or len(self._lines) > self._most_lines:
            self.size -= self._lines.popleft().size

    @property
    def left_out(self) -> int:
        """Return how many of the newest lines are missing, because they are too long together."""
        return min(self._added, self._most_lines) - len(self._lines)

    def lines(self) -> List[RawLine]:
        """Return the lines, the oldest first."""
        return list(self._lines)
