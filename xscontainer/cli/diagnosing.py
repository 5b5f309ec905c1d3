"""``xscontainer diagnose``: why a VM's containers are not shown, and what to do about it."""

import argparse
import json
import shutil
import sys
from typing import Any, List, Optional

from xscontainer.cli import calling, finding
from xscontainer.cli.columns import Line, Note, Row, lay_out, neutral
from xscontainer.diagnosis import OK, Diagnosis
from xscontainer.errors import XapiError
from xscontainer.settings import Settings

CAUSE_FOUND = 3


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "diagnose", help="why a VM's containers are not shown",
        description="Walks the way to the engine in a VM step by step, as the monitor does, and names one cause and "
                    "one next step. Changes nothing. Ends within 15 seconds.",
        epilog="Exit code: 0 all works, 3 a cause was found; otherwise as for every command.")
    parser.add_argument("vm", metavar="VM", help="name or uuid, registered or not")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    with calling.logged_in(settings) as session:
        answer = calling.call(session, settings, "diagnose", vmuuid=finding.vm(session, options.vm))
    try:
        found = Diagnosis.from_json(answer)
    except ValueError as error:
        raise XapiError(f"The plugin's answer cannot be read: {error}.",
                        "Check that every host of the pool has the same release of xscontainer.") from error
    if options.json:
        text = json.dumps(json.loads(answer), indent=2) + "\n"
    else:
        text = as_text(found, shutil.get_terminal_size().columns if sys.stdout.isatty() else None)
    encoding = sys.stdout.encoding or "ascii"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    return 0 if found.code == OK else CAUSE_FOUND


def as_text(found: Diagnosis, width: Optional[int] = None) -> str:
    """A line for each step, then cause and next step.

    :param width: columns of the terminal; None: as wide as it takes.
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
    # On a line of its own, however long: it is there to be copied.
    return f"{text}The pool's public key:\n{neutral(key)}\n" if isinstance(key, str) else text
