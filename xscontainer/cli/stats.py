"""``xscontainer stats``: show the resources that containers use, once or live."""

import argparse
import json
import queue
import sys
import threading
import time
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from xscontainer.cli import exit_codes, plugin_call, several, sources
from xscontainer.cli.sources import Source
from xscontainer.cli.stats_table import Reading, Stats, lines, note_lines, read
from xscontainer.cli.ui.live import Live, fitting
from xscontainer.cli.ui.output import complain, one_line, write
from xscontainer.cli.ui.terminal import Line, Terminal
from xscontainer.core.naming import NamedContainer
from xscontainer.errors import XapiError, XSContainerError
from xscontainer.settings import Settings
from xscontainer.xapi.session import Session

TABLE, JSON, NDJSON = "table", "json", "ndjson"
INTERVAL = 3.0  # s between two readings of a VM
REDRAW = 0.5  # s in which the readings of several VMs are shown together
_LOOK = 1.0  # s between two looks for a signal, which does not interrupt a call that begins just then
LAST = 1.0  # s that the end of a reader is waited for; it may be in the middle of a call
FIRST = 3.0  # s for which the first view waits for all VMs


class Target(NamedTuple):
    """A VM to read. :ivar containers: the wanted ones; None: all."""

    source: Source
    containers: Optional[List[NamedContainer]]


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "stats",
        description="Show the resources that running containers use, with the numbers of 'docker stats'. Below them "
                    "stands what all containers of a VM use of its vCPUs and memory. The view is live; on a pipe a "
                    "table follows every 3 seconds.")
    parser.add_argument("names", metavar="VM|CONTAINER", nargs="*",
                        help="VM, or container as VM/NAME or NAME (default: all running VMs with container management)")
    parser.add_argument("--no-stream", action="store_true", help="print one reading and exit")
    parser.add_argument("--format", choices=(TABLE, JSON, NDJSON), default=TABLE,
                        help="json: one reading; ndjson: an object for each container and reading (default: table)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    terminal = Terminal.of(options)
    with plugin_call.logged_in(options, settings) as session:
        targets = [Target(*found) for found in sources.vms_and_containers(session, options.names)]
        if options.no_stream or options.format == JSON:
            return _once(session, settings, targets, options.format, terminal)
        return _Watch(session, settings, targets, options.format, terminal).run()


def _ask(session: Session, settings: Settings, target: Target) -> Stats:
    from xscontainer.verbs.stats import GET_STATS  # here for start-up time, see cli/__init__.py

    more, wanted = {}, None
    if target.containers is not None:
        wanted = [name for container in target.containers for name in (container.id, container.name) if name]
        if len(target.containers) == 1:
            more["container"] = target.containers[0].argument
    return read(plugin_call.call(session, settings, GET_STATS, vmuuid=target.source.uuid, **more), wanted)


def _once(session: Session, settings: Settings, targets: "Sequence[Target]", form: str, terminal: Terminal) -> int:
    found: List[Tuple[Source, Stats]] = []
    code = several.each(session, targets, lambda target: target.source.label,
                        lambda session, target: _ask(session, settings, target),
                        lambda target, stats: found.append((target.source, stats)))
    if form == JSON:
        documents = [{"vm": dict(source._asdict()), **stats.document} for source, stats in found]
        write(json.dumps(documents, indent=2) + "\n")
    elif form == NDJSON:
        for source, stats in found:
            _print_objects(source, stats)
    elif found:
        _print_table([Reading(source, stats) for source, stats in found], terminal)
    return code


def _print_table(readings: "Sequence[Reading]", terminal: Terminal) -> None:
    """Print the table. A program that reads it from a pipe gets the sentences apart, on standard error."""
    terminal.write(lines(readings, terminal, with_notes=terminal.is_terminal))
    terminal.stream.flush()
    if not terminal.is_terminal:
        beside = Terminal.standard(stream=sys.stderr)
        beside.write(note_lines(readings, beside))
        beside.stream.flush()


def _print_objects(source: Source, stats: Stats) -> None:
    for container in stats.document["containers"]:
        fields: Dict[str, Any] = {"vm": dict(source._asdict()), "time": stats.document["time"], **container}
        write(json.dumps(fields) + "\n")


class _Watch:
    """Reads each VM in a thread of its own, and shows the last readings of all."""

    def __init__(self, session: Session, settings: Settings, targets: "Sequence[Target]", form: str,
                 terminal: Terminal) -> None:
        self._session, self._settings, self._targets = session, settings, targets
        self._form, self._terminal = form, terminal
        self._news: "queue.Queue[Tuple[Source, Optional[Stats], Optional[XSContainerError]]]" = queue.Queue()
        self._readings: Dict[Source, Reading] = {}
        self._codes: Dict[Source, int] = {}
        self._ended = threading.Event()

    def run(self) -> int:
        """Show readings until the user ends that; return the exit code if no VM can be read at first."""
        readers = [threading.Thread(target=self._read, args=(target,), daemon=True) for target in self._targets]
        for reader in readers:
            reader.start()
        try:
            code = self._show()
        finally:
            self._ended.set()
        for reader in readers:
            reader.join(LAST)
        return code

    def _show(self) -> int:
        deadline = time.monotonic() + FIRST
        while len(self._codes) < len(self._targets) and (not self._readings or time.monotonic() < deadline):
            self._take(max(0.05, deadline - time.monotonic()))
        codes = list(self._codes.values())
        if len(codes) == len(self._targets) and exit_codes.DONE not in codes:
            for reading in self._readings.values():
                complain(reading.problem, reading.source.label)
            return several.joint_code(codes)
        if self._form == NDJSON:
            while True:
                self._take(_LOOK)
        with Live(self._terminal, self._lines) as live:
            pause = REDRAW if self._terminal.movable else INTERVAL
            while True:
                live.refresh()
                until = time.monotonic() + pause
                self._take(_LOOK)
                while time.monotonic() < until:
                    self._take(until - time.monotonic())

    def _take(self, seconds: Optional[float]) -> None:
        """Take the next reading, if there is one within so many seconds; None: wait for it."""
        try:
            source, stats, error = self._news.get(timeout=seconds)
        except queue.Empty:
            return
        if stats is not None:
            self._readings[source] = Reading(source, stats)
            if self._form == NDJSON:
                _print_objects(source, stats)
                sys.stdout.flush()
        elif error is not None:
            last = self._readings.get(source)
            self._readings[source] = Reading(source, last.stats if last else None, one_line(error))
            if self._form == NDJSON and (last is None or not last.problem):
                complain(error, source.label, "Trying again.")
        self._codes[source] = exit_codes.DONE if error is None else exit_codes.of(error)

    def _read(self, target: Target) -> None:
        session = several.beside(self._session)
        try:
            while not self._ended.is_set():
                began = time.monotonic()
                try:
                    self._news.put((target.source, _ask(session, self._settings, target), None))
                except XSContainerError as error:
                    self._news.put((target.source, None, error))
                self._ended.wait(max(0.0, began + INTERVAL - time.monotonic()))
        except Exception as error:  # noqa: BLE001 - a thread that ends without a word would leave old numbers
            self._news.put((target.source, None, XapiError(f"The stats cannot be read any more: {error!r}.")))
        finally:
            session.close()

    def _lines(self, terminal: Terminal) -> "List[Line]":
        shown = [self._readings.get(target.source, Reading(target.source, None, "waiting for the first reading"))
                 for target in self._targets]
        return fitting(lines(shown, terminal), terminal.height)
