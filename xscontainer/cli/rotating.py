"""``xscontainer key-rotate``: the pool's SSH key pair is replaced in every VM."""

import argparse
import json
import shutil
import sys
from typing import Any, Dict, List, Optional

from xscontainer.cli import calling, progress
from xscontainer.cli.columns import Line, Note, Row, lay_out
from xscontainer.errors import ArgumentError
from xscontainer.settings import Settings

WAITING = 3  # exit code: there are VMs without the new key


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "key-rotate", help="replace the pool's SSH key pair",
        description="Makes a new SSH key pair for the pool and installs it in all running VMs; VMs that are off get it "
                    "when they run again. Until --finish both keys work. May be repeated at any time.",
        epilog=f"Exit code: 0 all VMs have the key, as far as is known, {WAITING} some wait for it or were given up; "
               "otherwise as for every command.")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--finish", action="store_true", help="remove the previous key from running VMs and destroy it")
    ways.add_argument("--status", action="store_true", help="only tell which VMs have the new key")
    parser.add_argument("--force", action="store_true",
                        help="with --finish: at once, and even if VMs wait for the new key: prepare them anew then")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    if options.force and not options.finish:
        raise ArgumentError("--force goes with --finish.")
    arguments = {"finish": "status"} if options.status else {"finish": "yes"} if options.finish else {}
    if options.force:
        arguments["force"] = "yes"
    with calling.logged_in(settings) as session:
        told: Dict[str, Any] = json.loads(progress.call(session, settings, "key_rotate", arguments))
    if options.json:
        print(json.dumps(told, indent=2))
    else:
        text = as_text(told, shutil.get_terminal_size().columns if sys.stdout.isatty() else None)
        encoding = sys.stdout.encoding or "ascii"
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    return WAITING if any(vm["has_key"] is False for vm in told["vms"]) else 0


def as_text(told: "Dict[str, Any]", width: Optional[int] = None) -> str:
    """:param width: columns of the terminal; None: as wide as it takes."""
    lines: List[Line] = [Note(0, f"The pool's key is {told['fingerprint']}.")]
    if told["rotating"]:
        lines.append(Note(0, f"The previous one, {told['previous_fingerprint']}, works until 'key-rotate --finish'."))
    for vm in told["vms"]:
        lacking = "waits for it" if told["rotating"] else "does not have it"
        state = {True: "has the key", False: lacking}.get(vm["has_key"], "not known")
        lines.append(Row(2, (str(vm["name"]), str(vm["uuid"]), str(vm["power_state"]), state)))
        if vm["problem"]:
            lines.append(Note(4, str(vm["problem"])))
    return lay_out(lines, width)
