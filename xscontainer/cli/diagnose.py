"""``xscontainer diagnose``: find out why a VM's containers are not shown, and what to do."""

import argparse
import json
from typing import Any, List, Optional

from xscontainer.cli import lookup, plugin_call
from xscontainer.cli.ui.columns import Line, Note, Row, lay_out, neutral
from xscontainer.cli.ui.output import terminal_width, write
from xscontainer.core.diagnosis import OK, Diagnosis
from xscontainer.settings import Settings

CAUSE_FOUND = 3  # exit code


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "diagnose",
        description="Check the way to the engine in a VM step by step, as the monitor does, and name one cause and "
                    "one next step. Changes nothing and takes at most 15 seconds.",
        epilog=f"Exit codes: 0 everything works, {CAUSE_FOUND} a cause was found; the others as for every command.")
    parser.add_argument("vm", metavar="VM", help="name or uuid of the VM, container-managed or not")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    from xscontainer.verbs.diagnose import DIAGNOSE  # here for start-up time, see cli/__init__.py

    with plugin_call.logged_in(options, settings) as session:
        answer = plugin_call.call(session, settings, DIAGNOSE, vmuuid=lookup.vm(session, options.vm))
    with plugin_call.reading():
        found = Diagnosis.from_json(answer)
    if options.json:
        write(json.dumps(json.loads(answer), indent=2) + "\n")
    else:
        write(as_text(found, terminal_width()))
    return 0 if found.code == OK else CAUSE_FOUND


def as_text(found: Diagnosis, width: Optional[int] = None) -> str:
    """Return a line for each step, then the cause and the next step.

    :param width: columns of the terminal; None: no limit.
    """
    lines: List[Line] = [Row(0, ("ok" if step.ok else "FAILED", step.step, step.detail if step.ok else "",
                                 f"{step.ms} ms")) for step in found.steps]
    if not found.facts.get("registered"):
        lines.append(Note(0, "Container management is off for this VM."))
    lines.append(Note(0, f"{found.code}: {found.message}"))
    if found.next:
        lines.append(Note(0, f"Next: {found.next}"))
    text = lay_out(lines, width)
    key = found.facts.get("public_key")
    # On one line, however long, so that it can be copied.
    return f"{text}The pool's public key:\n{neutral(key)}\n" if isinstance(key, str) else text
