"""``xscontainer ps`` (and ``list``): list the containers of the pool as a table, as JSON, or live."""

import argparse
import contextlib
import json
import sys
import time
from typing import Any, List

from xscontainer.cli import lookup, plugin_call
from xscontainer.cli.listing import documents
from xscontainer.cli.listing.selection import HEALTHS, STATES, Filter, narrow, select, with_matching
from xscontainer.cli.listing.table import Table, table
from xscontainer.cli.ui.output import write
from xscontainer.cli.ui.terminal import Terminal
from xscontainer.clients.inventory import Pool, as_json
from xscontainer.errors import NotFound, XapiError
from xscontainer.settings import Settings
from xscontainer.xapi import inventory
from xscontainer.xapi.session import Session

TABLE, WIDE, JSON, NDJSON = FORMATS = ("table", "wide", "json", "ndjson")
_ID = 12  # digits of an id, as docker shows


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "ps", description="List the containers of the pool's VMs: those that run, are paused or restart; with --all "
                          "the others, too. Problems of VMs stand below the table, on standard error. Options that may "
                          "be repeated add to each other.")
    parser.add_argument("-a", "--all", action="store_true", help="show containers that do not run, too")
    parser.add_argument("--vm", metavar="VM", action="append", default=[],
                        help="only this VM, container-managed or not: its name, its uuid, or a beginning of either; "
                             "may be repeated")
    parser.add_argument("--host", metavar="HOST", action="append", default=[],
                        help="only VMs on this host: its name, its uuid, or a beginning of either; may be repeated")
    parser.add_argument("--project", metavar="PROJECT", action="append", default=[],
                        help="only containers of this compose project, swarm stack or pod; may be repeated")
    parser.add_argument("--state", action="append", default=[], choices=STATES, metavar="STATE",
                        help=f"only containers in this state: {', '.join(STATES)}; may be repeated")
    parser.add_argument("--health", action="append", default=[], choices=HEALTHS, metavar="HEALTH",
                        help=f"only containers with this health: {', '.join(HEALTHS)} (no health check); may be "
                             "repeated")
    parser.add_argument("--name", metavar="GLOB", action="append", default=[],
                        help="only containers whose names match, such as 'web*'; with a slash VM/NAME has to match; "
                             "may be repeated")
    parser.add_argument("-q", "--quiet", action="store_true",
                        help="print only UUID/ID of each container, as other commands take it")
    parser.add_argument("--format", choices=FORMATS, default=TABLE,
                        help="table; wide: with more columns; json: the pool with its hosts, VMs and all containers; "
                             "ndjson: one line of JSON for each container, also for those that do not run")
    parser.add_argument("--json", action="store_const", dest="format", const=JSON, help="the same as --format json")
    parser.add_argument("--no-header", action="store_true", help="print no titles of columns")
    parser.add_argument("-w", "--watch", action="store_true",
                        help="keep showing the containers as they change, until Ctrl-C; with --format ndjson print a "
                             "line for each change")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Print the containers and return the exit code.

    :raises NotFound: when a host or VM does not exist.
    :raises ArgumentError: when the options contradict each other.
    :raises XapiError: when XAPI does not answer, or refuses.
    """
    chosen = Filter(tuple(options.state), tuple(options.health), tuple(options.project), tuple(options.name),
                    options.all)
    if options.watch:
        from xscontainer.cli.listing import watch  # here for start-up time

        return watch.run(options, settings, chosen)
    with plugin_call.logged_in(options, settings) as session:
        pool = read(session, options.host, options.vm)
    if options.quiet:
        write("".join(f"{row.vm.uuid}/{row.container.id[:_ID]}\n" for row in select(pool, chosen).rows))
    elif options.format == JSON:
        write(json.dumps(as_json(with_matching(pool, chosen)), indent=2) + "\n")
    elif options.format == NDJSON:
        for line in documents.lines(with_matching(pool, chosen)):
            write(line)
    else:
        made = table(pool, chosen, time.time(), options.format == WIDE, bool(options.vm))
        _print(made, Terminal.of(options), Terminal.of(options, sys.stderr), not options.no_header)
    return 0


def read(session: Session, hosts: "List[str]", vms: "List[str]") -> Pool:
    """Read the pool in one round trip. If all VMs are given by whole name or uuid, XAPI sends only them.

    :raises NotFound: when a host or VM does not exist.
    """
    query = lookup.query([(word,) for word in vms])
    if query:
        try:
            return narrow(inventory.read(session, True, query), hosts, vms)
        except NotFound:
            pass  # a beginning of a name or uuid, or a mistake
        except XapiError as error:
            if not error.details:
                raise  # XAPI did not refuse the query
    return narrow(inventory.read(session, bool(vms)), hosts, vms)


def show_vm(session: Session, vm_uuid: str) -> None:
    """Print all containers of a VM as a table."""
    made = table(read(session, [], [vm_uuid]), Filter(every=True), time.time(), of_vms=True)
    _print(made, Terminal.standard(), Terminal.standard(stream=sys.stderr))


def _print(made: Table, terminal: Terminal, beside: Terminal, heading: bool = True) -> None:
    """Print a table on standard output, and its notes on standard error.

    A program that reads the table does not have to tell it from the notes.
    """
    if made.rows:
        terminal.write(made.lines(terminal, heading))
        terminal.stream.flush()
    with contextlib.suppress(OSError):
        if made.rows and made.notes and terminal.is_terminal and beside.is_terminal:
            beside.plain("")
        beside.write(made.note_lines(beside))
        beside.stream.flush()
