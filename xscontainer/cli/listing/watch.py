"""``xscontainer ps --watch``: show the containers as they change."""

import argparse
import functools
import select as selecting
import sys
import time
from typing import List, Optional, Tuple

from xscontainer.cli import plugin_call
from xscontainer.cli.listing import cells, documents
from xscontainer.cli.listing.changes import changes
from xscontainer.cli.listing.live import Follower, Seen
from xscontainer.cli.listing.selection import Filter, narrow
from xscontainer.cli.listing.table import Table, count, table
from xscontainer.cli.ui.live import Live
from xscontainer.cli.ui.meaning import BAD, QUIET, Span
from xscontainer.cli.ui.output import say, write
from xscontainer.cli.ui.terminal import Line, Terminal, wrapped
from xscontainer.clients.inventory import Pool
from xscontainer.errors import ArgumentError, NotFound
from xscontainer.settings import Settings

LONGEST_WAIT = 3600.0  # s between two drawings if nothing happens
_FRAME = 0.1  # s between two drawings at least
_ANSWERS_FOR = 10.0  # s for which the view says that XAPI answers again


def run(options: argparse.Namespace, settings: Settings, chosen: Filter) -> int:
    """Show the containers until the process is interrupted.

    :raises ArgumentError: when the output cannot be shown live.
    :raises XapiError: when XAPI does not answer at the beginning, or refuses.
    """
    terminal = Terminal.of(options)
    _check(options, terminal)
    with Follower(functools.partial(plugin_call.login, options, settings), bool(options.vm)) as follower:
        if options.format == "ndjson":
            return _print_changes(options, follower, chosen)
        return _show(options, follower, chosen, terminal)


def _check(options: argparse.Namespace, terminal: Terminal) -> None:
    if options.quiet or options.format == "json":
        raise ArgumentError("--watch works with the formats table, wide and ndjson.",
                            "Leave out --quiet and --json.")
    if options.format != "ndjson" and not terminal.movable:
        raise ArgumentError("--watch cannot draw a table here: standard output is no terminal that can move its "
                            "cursor.", "Use --watch --format ndjson, which prints a line for each change.")


# --- lines for programs -------------------------------------------------------


def _print_changes(options: argparse.Namespace, follower: Follower, chosen: Filter) -> int:
    before: Optional[Pool] = None
    trouble = ""
    while True:
        seen = follower.seen()
        trouble = _say_trouble(seen, trouble)
        pool = _narrowed(options, seen.pool, first=before is None)
        for document in changes(before, pool, chosen):
            write(documents.line(document))
        sys.stdout.flush()
        before = pool
        if not _wait(follower, None):
            return 0


def _say_trouble(seen: Seen, before: str) -> str:
    if seen.trouble and not before:
        say(f"xscontainer: {seen.trouble}. Trying again.")
    elif before and not seen.trouble:
        say("xscontainer: XAPI answers again.")
    return seen.trouble


def _narrowed(options: argparse.Namespace, pool: Pool, first: bool) -> Pool:
    try:
        return narrow(pool, options.host, options.vm)
    except NotFound:
        if first:
            raise
        return pool._replace(hosts=(), vms=())  # the VM or host was there, and is gone


def _wait(follower: Follower, timeout: "Optional[float]") -> bool:
    """Wait for a new state; return False when nobody reads standard output any more."""
    waiting = selecting.poll()
    waiting.register(follower.fileno(), selecting.POLLIN)
    waiting.register(sys.stdout.fileno(), 0)
    found = dict(waiting.poll(None if timeout is None else max(1, int(timeout * 1000))))
    return not found.get(sys.stdout.fileno(), 0) & (selecting.POLLERR | selecting.POLLHUP)


# --- the view for people ------------------------------------------------------


def _show(options: argparse.Namespace, follower: Follower, chosen: Filter, terminal: Terminal) -> int:
    view = View(options, follower, chosen)
    view.lines(terminal)  # a wrong name is an error before the screen is taken
    with Live(terminal, view.lines) as live:
        while True:
            drawn = time.monotonic()
            live.refresh()
            if not _wait(follower, view.next_change()):
                return 0
            time.sleep(max(0.0, drawn + _FRAME - time.monotonic()))


class View:
    """The lines of the live view."""

    def __init__(self, options: argparse.Namespace, follower: Follower, chosen: Filter) -> None:
        self._options = options
        self._follower = follower
        self._chosen = chosen
        self._first = True
        self._trouble = ""
        self._answers_until = 0.0
        self._started: Tuple[int, ...] = ()  # times at which the shown containers were started

    def lines(self, terminal: Terminal) -> "List[Line]":
        """Return the lines for a terminal of that size."""
        seen = self._follower.seen()
        if self._trouble and not seen.trouble:
            self._answers_until = time.monotonic() + _ANSWERS_FOR
        self._trouble = seen.trouble
        pool = _narrowed(self._options, seen.pool, self._first)
        self._first = False
        # Rows beyond the window take no time.
        made = table(pool, self._chosen, time.time(), self._options.format == "wide", bool(self._options.vm),
                     terminal.height)
        self._started = made.started
        head = wrapped(self._head(made, seen), terminal.width, meaning=BAD if seen.trouble else QUIET)
        height = terminal.height or made.total
        notes = made.note_lines(terminal)
        most = max(3, height // 3)
        if len(notes) > most:
            notes = notes[:most - 1] + [[Span("... 'xscontainer ps' shows all notes", QUIET)]]
        room = max(2, height - len(head) - len(notes))
        rows = made.lines(terminal, not self._options.no_header)
        if len(made.rows) < made.total or len(rows) > room:
            rows = rows[:room - 1] + [[Span(f"... of {count(made.total)}; a taller window shows more", QUIET)]]
        return (head + rows + notes)[:height]

    def _head(self, made: Table, seen: Seen) -> str:
        what = f"{seen.pool.name or 'pool'}: {count(made.total)}"
        if seen.trouble:
            return f"{what}. OUT OF DATE: {seen.trouble}. Trying again."
        again = " XAPI answers again." if time.monotonic() < self._answers_until else ""
        return f"{what}, live; Ctrl-C ends.{again}"

    def next_change(self) -> float:
        """Return the seconds after which a text changes without any event."""
        now = time.time()
        waits = [cells.until_next(now - started) for started in self._started]
        if self._answers_until > time.monotonic():
            waits.append(self._answers_until - time.monotonic() + 0.1)
        return min(waits + [LONGEST_WAIT])
