"""The resources that containers use, as get_stats returns them, and their table. Pure."""

import json
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union

from xscontainer.cli import plugin_call
from xscontainer.cli.sources import Source
from xscontainer.cli.ui.meaning import BAD, PLAIN, QUIET, WARNING
from xscontainer.cli.ui.table import Column, Note, Row, draw
from xscontainer.cli.ui.terminal import Line, Terminal

UNKNOWN = "--"  # as docker shows a number that is not known
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB")
_MUCH = 0.9  # part of what the VM has

COLUMNS = (Column("NAME", least=12), Column("CPU %", 9, right=True), Column("MEM USAGE / LIMIT", 8, right=True),
           Column("MEM %", 7, right=True), Column("NET I/O", 5, right=True), Column("BLOCK I/O", 4, right=True),
           Column("PIDS", 6, right=True))
_NUMBERS = ("cpu_percent", "memory", "memory_limit", "network_received", "network_sent", "block_read", "block_written",
            "pids")
_SUMS = ("cores", "memory", "vcpus", "vm_memory", "cpu_share", "memory_share")


class Used(NamedTuple):
    """The resources that a container uses. :ivar numbers: by their names in get_stats; None: not known."""

    id: str
    name: str
    numbers: Dict[str, Optional[float]]


class Stats(NamedTuple):
    """One reading of a VM.

    :ivar total: sums of all containers of the answer, beside what the VM has; None: not known.
    :ivar left_out: how many running containers are missing.
    :ivar document: the answer itself.
    """

    used: Tuple[Used, ...]
    total: Dict[str, Optional[float]]
    containers: int
    left_out: int
    document: Dict[str, Any]


class Reading(NamedTuple):
    """The last reading of a VM, or why there is none."""

    source: Source
    stats: Optional[Stats]
    problem: str = ""


def read(answer: str, wanted: "Optional[Iterable[str]]" = None) -> Stats:
    """Read an answer of get_stats.

    :param wanted: ids or names of containers; None: all.
    :raises XapiError: when it cannot be read.
    """
    chosen = None if wanted is None else set(wanted)
    with plugin_call.reading():
        found: Dict[str, Any] = json.loads(answer)
        kept = [each for each in found["containers"] if chosen is None or chosen & {each["id"], each["name"]}]
        used = tuple(sorted((Used(str(each["id"]), str(each["name"]), _numbers(each, _NUMBERS)) for each in kept),
                            key=lambda one: (one.name, one.id)))
        return Stats(used, _numbers(found["total"], _SUMS), int(found["total"]["containers"]), int(found["left_out"]),
                     dict(found, containers=kept))


def _numbers(fields: "Dict[str, Any]", names: "Sequence[str]") -> "Dict[str, Optional[float]]":
    return {name: None if fields[name] is None else float(fields[name]) for name in names}


def lines(readings: "Sequence[Reading]", terminal: Terminal, with_notes: bool = True) -> "List[Line]":
    """Return the table: the containers of each VM, and below them what they use of the VM."""
    rows: List[Union[Row, Note]] = []
    for reading in readings:
        if reading.stats is not None:
            rows += [_row(reading.source, used) for used in reading.stats.used]
        if with_notes:
            rows += _notes(reading)
    return draw(COLUMNS, rows, terminal)


def note_lines(readings: "Sequence[Reading]", terminal: Terminal) -> "List[Line]":
    """Return only the sentences below the containers."""
    return draw((), [note for reading in readings for note in _notes(reading)], terminal, heading=False)


def _notes(reading: Reading) -> "List[Note]":
    notes = [] if reading.stats is None else [_sum(reading.source, reading.stats)]
    return notes + [Note(f"{reading.source.label}: {reading.problem}", 0, BAD)] * bool(reading.problem)


def _row(source: Source, used: Used) -> Row:
    numbers = used.numbers
    memory, limit = numbers["memory"], numbers["memory_limit"]
    share = memory / limit if memory is not None and limit else None
    return (f"{source.label}/{used.name or used.id[:12]}", percent(numbers["cpu_percent"]),
            f"{binary(memory)} / {binary(limit)}", percent(None if share is None else 100 * share),
            f"{decimal(numbers['network_received'])} / {decimal(numbers['network_sent'])}",
            f"{decimal(numbers['block_read'])} / {decimal(numbers['block_written'])}",
            UNKNOWN if numbers["pids"] is None else str(int(numbers["pids"])))


def _sum(source: Source, stats: Stats) -> Note:
    """Return a sentence about the resources that all containers use of those of their VM."""
    total = stats.total
    if not stats.containers:
        return Note(f"{source.label}: no container is running.", 0, QUIET)
    cores, vcpus, memory = total["cores"], total["vcpus"], total["memory"]
    cpu = UNKNOWN if cores is None else f"{cores:.2f}"
    cpu += " CPUs" if vcpus is None else f" of {int(vcpus)} vCPUs"
    ram = binary(memory) + ("" if total["vm_memory"] is None else f" of {binary(total['vm_memory'])}") + " memory"
    shares = [total["cpu_share"], total["memory_share"]]
    meaning = WARNING if any(share is not None and share > _MUCH for share in shares) else QUIET
    what = "1 container uses" if stats.containers == 1 else f"{stats.containers} containers use"
    more = f" {stats.left_out} more are not shown." if stats.left_out else ""
    return Note(f"{source.label}: {what} {cpu}{_share(shares[0])} and {ram}{_share(shares[1])}.{more}", 0,
                meaning or PLAIN)


def _share(share: Optional[float]) -> str:
    return "" if share is None else f" ({100 * share:.0f}%)"


def percent(value: Optional[float]) -> str:
    """Return a percentage as docker shows it."""
    return UNKNOWN if value is None else f"{value:.2f}%"


def binary(size: Optional[float]) -> str:
    """Return bytes in powers of 1024 with four digits, as docker shows memory."""
    return _scaled(size, 1024.0, _BINARY, 4)


def decimal(size: Optional[float]) -> str:
    """Return bytes in powers of 1000 with three digits, as docker shows what was transferred."""
    return _scaled(size, 1000.0, _DECIMAL, 3)


def _scaled(size: Optional[float], base: float, units: "Sequence[str]", digits: int) -> str:
    if size is None:
        return UNKNOWN
    number = 0
    # Rounded up, 999999 bytes are 1 MB and not 1e+03 kB.
    while float(f"{size:.{digits}g}") >= base and number + 1 < len(units):
        size, number = size / base, number + 1
    return f"{size:.{digits}g}{units[number]}"
