"""Text for a terminal: columns that line up, and nothing in them that a terminal obeys. Pure."""

import textwrap
import unicodedata
from typing import List, NamedTuple, Optional, Sequence, Tuple, Union

GAP = "  "
ELLIPSIS = "…"
# Below this no column is made narrower, columns of the terminal.
NARROWEST = 8
MOST_CELL = 1000
# Needed to write some languages, and harmless: they only say whether letters join.
_JOINERS = "\u200c\u200d"


class Row(NamedTuple):
    """Cells for the columns; the first one indented."""

    indent: int
    cells: Tuple[str, ...]


class Note(NamedTuple):
    """A text across all columns, on as many lines as it takes."""

    indent: int
    text: str


Line = Union[Row, Note]


def neutral(text: str, most: int = MOST_CELL) -> str:
    """``text`` on one line and without what moves the cursor, colours, reorders or hides: U+FFFD stands for it.

    :param most: characters.
    """
    return "".join(
        "\ufffd" if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _JOINERS
        else character for character in text[:most])


def width(text: str) -> int:
    """Columns that a terminal gives it: East Asian wide characters take two, combining ones none."""
    return sum(map(_character_width, text))


def _character_width(character: str) -> int:
    if character < "\u0300":
        return 1
    if character in _JOINERS or unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, room: int) -> str:
    """``text`` in at most ``room`` columns, with an ellipsis where something is missing."""
    if width(text) <= room:
        return text
    kept, used = [], 1  # the ellipsis
    for character in text:
        used += _character_width(character)
        if used > room:
            break
        kept.append(character)
    return "".join(kept) + ELLIPSIS


def lay_out(lines: Sequence[Line], most: Optional[int] = None) -> str:
    """The lines below each other, columns aligned.

    :param most: columns of the terminal; None: as wide as it takes.
    """
    rows = [Row(line.indent, (" " * line.indent + neutral(line.cells[0]),) + tuple(map(neutral, line.cells[1:])))
            for line in lines if isinstance(line, Row)]
    widths = _fit([max(map(width, column)) for column in _columns(rows)], most)
    drawn = []
    following = iter(rows)
    for line in lines:
        if isinstance(line, Note):
            drawn += _wrap(line, most)
        else:
            cells = zip(next(following).cells, widths)
            drawn.append(GAP.join(_pad(cut(cell, room), room) for cell, room in cells).rstrip())
    return "".join(text + "\n" for text in drawn)


def _columns(rows: Sequence[Row]) -> List[List[str]]:
    count = max((len(row.cells) for row in rows), default=0)
    return [[row.cells[number] for row in rows if number < len(row.cells)] for number in range(count)]


def _fit(widths: List[int], most: Optional[int]) -> List[int]:
    """Take from the widest until it fits, or until nothing can be taken."""
    if most is None:
        return widths
    fitting = list(widths)
    while fitting and sum(fitting) + len(GAP) * (len(fitting) - 1) > most and max(fitting) > NARROWEST:
        fitting[fitting.index(max(fitting))] -= 1
    return fitting


def _pad(text: str, room: int) -> str:
    return text + " " * (room - width(text))


def _wrap(note: Note, most: Optional[int]) -> List[str]:
    indent = " " * note.indent
    text = neutral(note.text)
    if most is None:
        return [indent + text]
    return textwrap.wrap(text, max(most, note.indent + 20), initial_indent=indent, subsequent_indent=indent) or [indent]
