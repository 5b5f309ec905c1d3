"""Lay out text for a terminal: aligned columns, without control characters. Pure."""

import unicodedata
from typing import List, NamedTuple, Optional, Sequence, Tuple, Union

GAP = "  "
ELLIPSIS = "…"
NARROWEST = 8  # columns of the terminal; no column of the table is made narrower
MOST_CELL = 1000  # characters
MOST_NOTE = 4000
# Some languages need them, and they only say whether letters join.
_JOINERS = "\u200c\u200d"


class Row(NamedTuple):
    """Cells for the columns; the first one is indented."""

    indent: int
    cells: Tuple[str, ...]


class Note(NamedTuple):
    """A text across all columns, wrapped if it is too long."""

    indent: int
    text: str


Line = Union[Row, Note]


def neutral(text: str, most: int = MOST_CELL) -> str:
    """Return ``text`` on one line, with U+FFFD for each character that moves the cursor, colours, reorders or hides.

    :param most: characters.
    """
    text = text[:most]
    if text.isprintable():  # nearly always, and fast
        return text
    return "".join(
        "\ufffd" if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _JOINERS
        else character for character in text)


def width(text: str) -> int:
    """Return the columns of the text on a terminal: East Asian wide characters take two, combining ones none."""
    if text.isprintable() and max(text, default="") < "\u0300":
        return len(text)
    return sum(map(_character_width, text))


def _character_width(character: str) -> int:
    if character < "\u0300":
        return 1
    if character in _JOINERS or unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, room: int) -> str:
    """Return ``text`` in at most ``room`` columns, ending in an ellipsis if it was cut."""
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
    """Return the lines as text, with the cells of all rows aligned.

    :param most: columns of the terminal; None: no limit.
    """
    rows = [Row(line.indent, (" " * line.indent + neutral(line.cells[0]),) + tuple(map(neutral, line.cells[1:])))
            for line in lines if isinstance(line, Row)]
    widths = _fit([max(map(width, column)) for column in _columns(rows)], most)
    drawn = []
    following = iter(rows)
    for line in lines:
        if isinstance(line, Note):
            drawn += wrap(line, most)
        else:
            cells = zip(next(following).cells, widths)
            drawn.append(GAP.join(_pad(cut(cell, room), room) for cell, room in cells).rstrip())
    return "".join(text + "\n" for text in drawn)


def _columns(rows: Sequence[Row]) -> List[List[str]]:
    count = max((len(row.cells) for row in rows), default=0)
    return [[row.cells[number] for row in rows if number < len(row.cells)] for number in range(count)]


def _fit(widths: List[int], most: Optional[int]) -> List[int]:
    """Make the widest columns narrower until the table fits, or all are at the minimum."""
    if most is None:
        return widths
    fitting = list(widths)
    while fitting and sum(fitting) + len(GAP) * (len(fitting) - 1) > most and max(fitting) > NARROWEST:
        fitting[fitting.index(max(fitting))] -= 1
    return fitting


def _pad(text: str, room: int) -> str:
    return text + " " * (room - width(text))


def wrap(note: Note, most: Optional[int]) -> List[str]:
    """Return the lines of a note, each with its indent.

    :param most: columns of the terminal; None: no limit.
    """
    indent = " " * note.indent
    text = neutral(note.text, MOST_NOTE)
    if most is None:
        return [indent + text]
    room = max(most - note.indent, NARROWEST)
    lines, used = [""], 0
    for word in text.split():
        for piece in pieces(word, room):
            more = width(piece) + (1 if lines[-1] else 0)
            if lines[-1] and used + more <= room:
                lines[-1] += " " + piece
                used += more
            else:
                lines.append(piece)
                used = width(piece)
    return [indent + line for line in lines[1:] or lines]


def pieces(text: str, room: int) -> List[str]:
    """Return the text in pieces of at most ``room`` columns; room for one wide character is always there."""
    if width(text) <= room:
        return [text]
    found, used = [""], 0
    for character in text:
        more = _character_width(character)
        if used + more > room and found[-1]:
            found.append("")
            used = 0
        found[-1] += character
        used += more
    return found
