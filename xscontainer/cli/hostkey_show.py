"""``xscontainer hostkey-show``: compare the SSH host key that a VM presents with the pinned one."""

import argparse
import json
from typing import Any, Dict, List

from xscontainer.cli import lookup, plugin_call
from xscontainer.cli.ui.columns import Line, Note, Row, lay_out
from xscontainer.cli.ui.output import terminal_width, write
from xscontainer.settings import Settings
from xscontainer.xapi.session import Session

DIFFERENT = 3  # exit code: the presented key is not the pinned one


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "hostkey-show",
        description="Ask a running VM for its SSH host key and compare it with the pinned one. Changes nothing.",
        epilog=f"Exit codes: 0 the keys are equal or none is pinned, {DIFFERENT} they differ; the others as for every "
               "command.")
    parser.add_argument("vm", metavar="VM", help="name or uuid of the VM")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    with plugin_call.logged_in(options, settings) as session:
        shown = ask(session, settings, lookup.vm(session, options.vm))
    if options.json:
        print(json.dumps(shown, indent=2))
    else:
        write(_as_text(shown))
    return DIFFERENT if shown["pinned"] and not shown["matches"] else 0


def ask(session: Session, settings: Settings, vm_uuid: str) -> "Dict[str, Any]":
    """Call hostkey_show for a VM and return its answer."""
    from xscontainer.verbs import hostkeys  # here for start-up time, see cli/__init__.py

    answer: Dict[str, Any] = json.loads(plugin_call.call(session, settings, hostkeys.SHOW, vmuuid=vm_uuid))
    return answer


def _as_text(shown: "Dict[str, Any]") -> str:
    lines: List[Line] = [
        Row(0, ("presented", f"{shown['type']} {shown['fingerprint']}", f"at {shown['address']}")),
        Row(0, ("pinned", shown["pinned_fingerprint"] or ("not readable" if shown["pinned"] else "none")))]
    if shown["pinned"]:
        lines.append(Note(0, "The VM presents the pinned host key." if shown["matches"] else
                          "The VM presents another host key than the pinned one."))
    for other in shown.get("claimed_by", ()):
        claim = "has the same host key" if other["pinned"] else "reports the same address"
        lines.append(Note(0, f"The running VM {other['name']} ({other['uuid']}) {claim}."))
    return lay_out(lines, terminal_width())
