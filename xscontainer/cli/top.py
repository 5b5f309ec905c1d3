"""``xscontainer top``: print the processes in a container."""

import argparse
import json
from typing import Any, Dict, List, Union

from xscontainer.cli import lookup, plugin_call
from xscontainer.cli.inspect import decoded
from xscontainer.cli.ui.meaning import QUIET
from xscontainer.cli.ui.output import write
from xscontainer.cli.ui.table import Column, Note, Row, draw
from xscontainer.cli.ui.terminal import Terminal
from xscontainer.settings import Settings

TABLE, JSON = "table", "json"


def add(commands: Any) -> None:
    parser = commands.add_parser("top", description="Print the processes in a running container.")
    parser.add_argument("container", metavar="CONTAINER", help="container, as VM/NAME or NAME")
    parser.add_argument("--format", choices=(TABLE, JSON), default=TABLE, help="json: for programs (default: table)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    from xscontainer.verbs.containers import GET_TOP  # here for start-up time, see cli/__init__.py

    with plugin_call.logged_in(options, settings) as session:
        container, = lookup.containers(session, [options.container])
        found: Dict[str, Any] = decoded(plugin_call.call(
            session, settings, GET_TOP, vmuuid=container.vm_uuid, object=container.argument, format="json"))
    if options.format == JSON:
        write(json.dumps(found, indent=2) + "\n")
        return 0
    terminal = Terminal.of(options)
    with plugin_call.reading():
        titles = [str(title) for title in found["titles"]]
        rows: List[Union[Row, Note]] = [[str(cell) for cell in (row + [""] * len(titles))[:len(titles)]]
                                        for row in found["processes"]]
        if found.get("left_out"):
            rows.append(Note(f"and {int(found['left_out'])} more processes", 0, QUIET))
    # The last column is the command, which may be long; the others are short.
    columns = [Column(title, least=8 if number + 1 == len(titles) else None) for number, title in enumerate(titles)]
    terminal.write(draw(columns, rows, terminal))
    return 0
