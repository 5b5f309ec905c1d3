"""A table that fits a narrow terminal by leaving out its least useful columns. Pure.

On a pipe the cells are separated by tabs: nothing is padded, cut or left out.
"""

from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union

from xscontainer.cli.ui.columns import GAP, MOST_CELL, cut, neutral, width
from xscontainer.cli.ui.meaning import HEADING, PLAIN, TAB, Span
from xscontainer.cli.ui.terminal import Line, Terminal, wrapped

ALWAYS_SHOWN = 1000  # rank


class Column(NamedTuple):
    """A column of a table.

    :ivar name: the heading.
    :ivar rank: if the terminal is too narrow, the column with the lowest rank is left out first; one with ALWAYS_SHOWN
        never is.
    :ivar least: columns of the terminal to which the cells may be cut before a column is left out; None: never cut,
        unless the column alone is wider than the terminal.
    :ivar right: cells are aligned at their ends, as numbers are.
    """

    name: str
    rank: int = ALWAYS_SHOWN
    least: Optional[int] = None
    right: bool = False


class Note(NamedTuple):
    """A text across all columns, wrapped if it is too long."""

    text: str
    indent: int = 0
    meaning: str = PLAIN


# A cell is a text, with a meaning or without.
Cell = Union[str, Span]
Row = Sequence[Cell]


def draw(columns: "Sequence[Column]", rows: "Iterable[Union[Row, Note]]", terminal: Terminal,
         heading: bool = True) -> "List[Line]":
    """Return the lines of a table.

    :param rows: each with a cell for each column. Notes may stand between them.
    :param heading: begin with the names of the columns.
    """
    cells: List[Union[Tuple[Span, ...], Note]] = [
        row if isinstance(row, Note) else tuple(map(_span, row)) for row in rows]
    if heading:
        cells.insert(0, tuple(Span(column.name, HEADING) for column in columns))
    if not terminal.is_terminal:
        return [[Span(row.text, row.meaning)] if isinstance(row, Note) else _separated(row) for row in cells]
    widths = _fit(columns, [max((width(row[number].text) for row in cells if not isinstance(row, Note)), default=0)
                            for number in range(len(columns))], terminal.width)
    lines: List[Line] = []
    for row in cells:
        if isinstance(row, Note):
            lines += wrapped(row.text, terminal.width, row.indent, row.meaning)
        else:
            lines.append(_aligned([(column, cell, room) for column, cell, room in zip(columns, row, widths)
                                   if room is not None]))
    return lines


def _span(cell: Cell) -> Span:
    text, meaning = (cell, PLAIN) if isinstance(cell, str) else cell
    return Span(neutral(text, MOST_CELL), meaning)


def _separated(row: "Sequence[Span]") -> Line:
    spans: List[Span] = []
    for number, cell in enumerate(row):
        # A cell holds no tab: neutral() has replaced it.
        spans += [Span("", TAB), cell] if number else [cell]
    return spans


def _aligned(cells: "Sequence[Tuple[Column, Span, int]]") -> Line:
    spans: List[Span] = []
    for number, (column, cell, room) in enumerate(cells):
        text = cut(cell.text, room)
        space = " " * (room - width(text))
        if number:
            spans.append(Span(GAP))
        if column.right:
            spans += [Span(space), Span(text, cell.meaning)]
        else:
            spans += [Span(text, cell.meaning), Span(space if number + 1 < len(cells) else "")]
    return [span for span in spans if span.text]


def _fit(columns: "Sequence[Column]", wanted: "Sequence[int]", most: Optional[int]) -> "List[Optional[int]]":
    """Return the width of each column; None for one that is left out.

    Cells are cut to the least width of their column first. If that is not enough, a column is left out and the others
    get their room back.
    """
    shown = list(range(len(columns)))
    while most is not None:
        widths = {number: wanted[number] for number in shown}
        excess = _total(widths.values()) - most
        while excess > 0:
            spare = [(widths[number] - least, number) for number in shown
                     for least in [columns[number].least] if least is not None and widths[number] > least]
            if not spare:
                break
            widths[max(spare)[1]] -= 1
            excess -= 1
        if excess <= 0:
            return [widths.get(number) for number in range(len(columns))]
        left_out = min(shown, key=lambda number: (columns[number].rank, -number))
        if columns[left_out].rank >= ALWAYS_SHOWN or len(shown) == 1:
            return _squeezed(widths, excess, len(columns))
        shown.remove(left_out)
    return list(wanted)


def _squeezed(widths: "Dict[int, int]", excess: int, count: int) -> "List[Optional[int]]":
    """Make the widest columns narrower, down to one column of the terminal."""
    while excess > 0 and max(widths.values()) > 1:
        widest = max(widths, key=lambda number: (widths[number], number))
        widths[widest] -= 1
        excess -= 1
    return [widths.get(number) for number in range(count)]


def _total(widths: "Iterable[int]") -> int:
    found = list(widths)
    return sum(found) + len(GAP) * (len(found) - 1)
