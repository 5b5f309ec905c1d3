"""The table of containers for people, and the notes below it. Pure."""

import re
import shlex
import time
from typing import Callable, Iterator, List, NamedTuple, Optional, Tuple, Union

from xscontainer.cli.listing import cells
from xscontainer.cli.listing.selection import Filter, Shown, project, select
from xscontainer.cli.ui import meaning
from xscontainer.cli.ui.columns import neutral, pieces, width
from xscontainer.cli.ui.meaning import Span
from xscontainer.cli.ui.table import ALWAYS_SHOWN, Column, Note, Row, draw
from xscontainer.cli.ui.terminal import Line, Terminal, wrapped
from xscontainer.clients.inventory import VM, Pool

_SHORT_ID = 12  # digits, as docker shows
_MOST_NAME = 0.5  # share of a terminal that the names take; longer names take a line of their own


class _Column(NamedTuple):
    """:ivar cell: returns the text of a container for a time, seconds since the epoch."""

    column: Column
    cell: "Callable[[Shown, float], Span]"


def _state(shown: Shown, now: float) -> Span:
    container = shown.container
    return Span(cells.state(container),
                meaning.of_container(container.state, container.health or "", container.exit_code))


def _uptime(shown: Shown, now: float) -> Span:
    started = shown.container.started_at
    return Span("" if started is None else cells.span(now - started))


def _created(shown: Shown, now: float) -> Span:
    created = shown.container.created
    return Span("" if created is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(created)), meaning.QUIET)


_NAME = _Column(Column("NAME", ALWAYS_SHOWN), lambda shown, now: Span(shown.label))
_STATE = _Column(Column("STATE", 9, 8), _state)
_UPTIME = _Column(Column("UPTIME", 8), _uptime)
_IMAGE = _Column(Column("IMAGE", 7, 12), lambda shown, now: Span(shown.container.image))
_PORTS = _Column(Column("PORTS", 6, 12), lambda shown, now: Span(cells.ports(shown.container.ports)))
_PROJECT = _Column(Column("PROJECT", 5, 8), lambda shown, now: Span(project(shown.container)))
_REASON = _Column(Column("EXIT/REASON", 8, 16), lambda shown, now: Span(shown.container.reason))
_HOST = _Column(Column("HOST", 7, 8), lambda shown, now: Span(shown.host.name if shown.host else ""))
_ID = _Column(Column("ID", 3), lambda shown, now: Span(shown.container.id[:_SHORT_ID], meaning.QUIET))
_CREATED = _Column(Column("CREATED", 2), _created)
_COMMAND = _Column(Column("COMMAND", 1, 16), lambda shown, now: Span(shown.container.command, meaning.QUIET))

USUAL = (_NAME, _STATE, _UPTIME, _IMAGE, _PORTS, _PROJECT)
WIDE = (_NAME, _STATE, _UPTIME, _REASON, _IMAGE, _PORTS, _PROJECT, _HOST, _ID, _CREATED, _COMMAND)


class Table(NamedTuple):
    """Texts for people, not yet laid out.

    :ivar rows: a cell for each column; the first one is the name.
    :ivar total: number of containers, of which ``rows`` are the first.
    :ivar started: times at which containers of the rows were started, seconds since the epoch.
    """

    columns: Tuple[Column, ...]
    rows: Tuple[Tuple[Span, ...], ...]
    notes: Tuple[Note, ...]
    total: int
    started: Tuple[int, ...]

    def lines(self, terminal: Terminal, heading: bool = True) -> "List[Line]":
        """Return the lines of the table, without the notes.

        A name that would push out other columns stands on a line of its own.
        """
        if not terminal.width:
            return draw(self.columns, self.rows, terminal, heading)
        rows: List[Union[Row, Note]] = []
        room = max(int(terminal.width * _MOST_NAME), width(self.columns[0].name))
        for row in self.rows:
            name = neutral(row[0].text)
            if width(name) > room:
                rows += map(Note, pieces(name, terminal.width))
                row = (Span(""),) + row[1:]
            rows.append(row)
        unlimited = terminal._replace(width=10 ** 6)
        lines = draw(self.columns, rows, unlimited, heading)
        if max((sum(width(span.text) for span in line) for line in lines), default=0) <= terminal.width:
            return lines
        image = self.columns.index(_IMAGE.column)
        lines = draw(self.columns, [row if isinstance(row, Note) else _with_short_image(row, image) for row in rows],
                     terminal, heading)
        return [line for line in lines if any(span.text.strip() for span in line)]

    def note_lines(self, terminal: Terminal) -> "List[Line]":
        """Return the lines below the table."""
        lines: List[Line] = []
        for note in self.notes:
            first, *others = wrapped(note.text, terminal.width)
            # The name and the code are coloured, so that the sentences stay easy to read.
            head = _PREFIX.match(first[0].text)
            split = head.end() if head else len(first[0].text)
            text = first[0].text
            lines.append([Span(text[:split], note.meaning), Span(text[split:], "" if head else note.meaning)])
            lines += others if head else [[Span(line[0].text, note.meaning)] for line in others]
        return lines


# VM and error code at the beginning of a note.
_PREFIX = re.compile(r".{1,300}?: [A-Z][A-Z_]+:")


def _with_short_image(row: Row, image: int) -> Row:
    cell = row[image]
    assert isinstance(cell, Span)
    return [*row[:image], cell._replace(text=cells.short_image(cell.text)), *row[image + 1:]]


def table(pool: Pool, chosen: Filter, now: float, wide: bool = False, of_vms: bool = False,
          most: "Optional[int]" = None) -> Table:
    """Return the table of the containers that the filter chooses.

    :param now: seconds since the epoch.
    :param of_vms: VMs were named, so every one of them is explained.
    :param most: how many rows to make; None: all.
    """
    selection = select(pool, chosen)
    columns = WIDE if wide else USUAL
    made = selection.rows[:most]
    rows = tuple(tuple(column.cell(shown, now) for column in columns) for shown in made)
    notes = list(_problems(selection.vms, chosen, of_vms))
    left_out = sum(vm.left_out for vm in selection.vms)
    if left_out:
        notes.append(Note(f"{count(left_out)} did not fit into the published lists.", meaning=meaning.WARNING))
    if selection.hidden:
        them = "it" if selection.hidden == 1 else "them"
        notes.append(Note(f"{count(selection.hidden)} not shown: not running. --all shows {them}.",
                          meaning=meaning.QUIET))
    if not selection.vms:
        notes.append(Note("No VM here is container-managed. Prepare one: xscontainer prepare VM"))
    elif not rows and not selection.hidden and not notes:
        notes.append(Note("No container matches." if chosen != Filter(every=chosen.every) else "No containers."))
    return Table(tuple(column.column for column in columns), rows, tuple(notes), len(selection.rows), tuple(
        shown.container.started_at for shown in made if shown.container.started_at is not None))


def count(number: int) -> str:
    """Return the number of containers in words."""
    return f"{number} container{'' if number == 1 else 's'}"


# Code of a VM whose containers are not shown -> the command that helps; the others need a diagnosis.
_NEXT = {"CARRIED_IN": "prepare", "NOT_REGISTERED": "prepare"}
# Nobody is surprised by them: they are shown for VMs that were named, and with --all.
_EXPECTED = ("NOT_REGISTERED",)


def _problems(vms: "Tuple[VM, ...]", chosen: Filter, of_vms: bool) -> "Iterator[Note]":
    for vm in sorted(vms, key=lambda vm: (vm.name, vm.uuid)):
        name = vm.label
        expected = vm.problem is not None and vm.problem.code in _EXPECTED
        if vm.problem is not None and (not expected or of_vms or chosen.every):
            yield Note(f"{name}: {vm.problem.code}: {vm.problem.message} {_next_step(vm)}".rstrip(),
                       meaning=meaning.QUIET if expected else meaning.BAD)
        elif of_vms and vm.power_state != "Running":
            yield Note(f"{name}: The VM is {vm.power_state.lower()}.", meaning=meaning.of_power_state(vm.power_state))


def _next_step(vm: VM) -> str:
    """Return the command to run; "" if the message names one."""
    if vm.problem is None or "'xscontainer " in vm.problem.message:
        return ""
    word = shlex.quote(vm.name) if vm.name.isprintable() and vm.name else vm.uuid
    return f"Next: xscontainer {_NEXT.get(vm.problem.code, 'diagnose')} {word}"
