"""``xscontainer key-rotate``: replace the pool's SSH key pair in every VM."""

import argparse
import json
from typing import Any, Dict, List, Optional

from xscontainer.cli import plugin_call
from xscontainer.cli.ui import progress
from xscontainer.cli.ui.columns import Line, Note, Row, lay_out
from xscontainer.cli.ui.output import terminal_width, write
from xscontainer.errors import ArgumentError
from xscontainer.settings import Settings

INCOMPLETE = 3  # exit code: some VMs do not have the new key
HEADER = ("VM", "UUID", "POWER STATE", "KEY")


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "key-rotate",
        description="Make a new SSH key pair for the pool and install it in all running VMs. Halted VMs get it when "
                    "they run again. Both keys work until --finish. It is safe to repeat the command.",
        epilog=f"Exit codes: 0 no VM is known to lack the key, {INCOMPLETE} a VM lacks it or was given up; 1 and 2 as "
               "for every command.")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--finish", action="store_true", help="remove the previous key from running VMs and destroy it")
    ways.add_argument("--status", action="store_true", help="only list which VMs have the new key")
    parser.add_argument("--force", action="store_true",
                        help="with --finish: do not wait for VMs that lack the new key; prepare these VMs again "
                             "afterwards")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    from xscontainer.verbs import key_rotation  # here for start-up time, see cli/__init__.py

    if options.force and not options.finish:
        raise ArgumentError("--force requires --finish.")
    arguments = {"finish": "status"} if options.status else {"finish": "yes"} if options.finish else {}
    if options.force:
        arguments["force"] = "yes"
    with plugin_call.logged_in(options, settings) as session:
        rotation: Dict[str, Any] = json.loads(progress.call(session, settings, key_rotation.ROTATE, arguments))
    if options.json:
        print(json.dumps(rotation, indent=2))
    else:
        write(as_text(rotation, terminal_width()))
    return INCOMPLETE if any(vm["has_key"] is False for vm in rotation["vms"]) else 0


def as_text(rotation: "Dict[str, Any]", width: "Optional[int]" = None) -> str:
    """Return the fingerprints of the keys, and a row for each VM.

    :param rotation: the answer of key_rotate.
    :param width: columns of the terminal; None: no limit.
    """
    lines: List[Line] = [Note(0, f"The pool's key is {rotation['fingerprint']}.")]
    if rotation["rotating"]:
        lines.append(Note(0, f"The previous key, {rotation['previous_fingerprint']}, also works until "
                             "'xscontainer key-rotate --finish'."))
    if rotation["vms"]:
        lines.append(Row(0, HEADER))
    for vm in rotation["vms"]:
        lacking = "waits for it" if rotation["rotating"] else "does not have it"
        state = {True: "has the key", False: lacking}.get(vm["has_key"], "not known")
        lines.append(Row(0, (str(vm["name"]), str(vm["uuid"]), str(vm["power_state"]), state)))
        if vm["problem"]:
            lines.append(Note(2, str(vm["problem"])))
    return lay_out(lines, width)
