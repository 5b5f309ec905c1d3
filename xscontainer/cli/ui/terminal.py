"""A place where a command prints: a terminal with its size and colours, or a pipe or file."""

import os
import sys
from typing import Any, Iterable, List, Mapping, NamedTuple, Optional, Sequence, TextIO

from xscontainer.cli.ui.columns import Note, neutral, wrap
from xscontainer.cli.ui.meaning import LOOKS, TAB, Span
from xscontainer.cli.ui.output import terminal_size

AUTO, ALWAYS, NEVER = WHEN = ("auto", "always", "never")
MOST_TEXT = 20000  # characters of one span

# One line: pieces of text that may have a meaning each.
Line = Sequence[Span]


class Terminal(NamedTuple):
    """:meth:`standard` makes one for standard output.

    :ivar is_terminal: False for a pipe or a file: nothing is cut, padded or redrawn there.
    :ivar coloured: colours are wanted and possible.
    :ivar width: columns; None if there is no limit.
    :ivar height: rows; None if there is no limit.
    :ivar movable: the cursor can be moved, so that a view can be redrawn.
    """

    stream: TextIO
    is_terminal: bool = False
    coloured: bool = False
    width: Optional[int] = None
    height: Optional[int] = None
    movable: bool = False

    @classmethod
    def standard(cls, color: str = AUTO, environment: "Optional[Mapping[str, str]]" = None,
                 stream: "Optional[TextIO]" = None) -> "Terminal":
        """Return standard output as it is now.

        :param color: value of the option --color.
        :param environment: for NO_COLOR (https://no-color.org) and TERM; None: that of the process.
        :param stream: another stream than standard output.
        """
        given = os.environ if environment is None else environment
        stream = stream or sys.stdout
        is_terminal = stream.isatty()
        dumb = given.get("TERM", "") in ("", "dumb")
        coloured = color == ALWAYS or (color == AUTO and is_terminal and not dumb and not given.get("NO_COLOR"))
        if not is_terminal:
            return cls(stream, coloured=coloured)
        size = terminal_size()
        return cls(stream, True, coloured, size.columns, size.lines, not dumb)

    @classmethod
    def of(cls, options: Any, stream: "Optional[TextIO]" = None) -> "Terminal":
        """Return standard output, or another stream, with the option --color of a command line."""
        return cls.standard(getattr(options, "color", AUTO), stream=stream)

    def text(self, lines: "Iterable[Line]") -> str:
        """Return the lines as they are written: foreign text cannot move the cursor or change colours."""
        encoding = self.stream.encoding or "ascii"
        text = "".join("".join(map(self._painted, line)) + "\n" for line in lines)
        # In minimal locales the encoding is ASCII, and names of VMs may hold any letter.
        return text.encode(encoding, "replace").decode(encoding)

    def _painted(self, span: Span) -> str:
        if span.meaning == TAB:
            return "\t"
        shown = neutral(span.text, MOST_TEXT)
        look = LOOKS.get(span.meaning)
        return f"\x1b[{look.sgr}m{shown}\x1b[0m" if self.coloured and look and shown else shown

    def write(self, lines: "Iterable[Line]") -> None:
        """Write lines."""
        self.stream.write(self.text(lines))

    def plain(self, *lines: str) -> None:
        """Write lines without a meaning."""
        self.write([[Span(line)] for line in lines])


def wrapped(text: str, width: Optional[int], indent: int = 0, meaning: str = "") -> "List[Line]":
    """Return a text as lines of at most ``width`` columns, each with an indent.

    :param width: None: one line.
    """
    return [[Span(line, meaning)] for line in wrap(Note(indent, text), width)]
