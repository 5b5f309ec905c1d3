"""``xscontainer hostkey-show`` and ``hostkey-accept``: the SSH host key of a VM."""

import argparse
import json
from typing import Any, Dict

from xscontainer.cli import asking, calling, finding
from xscontainer.cli.columns import neutral
from xscontainer.settings import Settings
from xscontainer.xapi.session import Session

OTHER = 3  # exit code: the key shown is not the one pinned


def add(commands: Any) -> None:
    show = commands.add_parser(
        "hostkey-show", help="the SSH host key that a VM shows, and the one pinned",
        description="Asks a running VM for its SSH host key and compares it with the one pinned. Changes nothing.",
        epilog=f"Exit code: 0 the same or none pinned, {OTHER} another one; otherwise as for every command.")
    show.add_argument("vm", metavar="VM", help="name or uuid")
    show.add_argument("--json", action="store_true", help="for programs")
    show.set_defaults(run=_show)
    accept = commands.add_parser(
        "hostkey-accept", help="pin the SSH host key that a VM shows",
        description="Pins the SSH host key that a running VM shows now, in place of any other; after a reinstallation.")
    accept.add_argument("vm", metavar="VM", help="name or uuid")
    asking.add_options(accept)
    accept.set_defaults(run=_accept)


def _show(options: argparse.Namespace, settings: Settings) -> int:
    with calling.logged_in(settings) as session:
        shown = _shown(session, settings, finding.vm(session, options.vm))
    if options.json:
        print(json.dumps(shown, indent=2))
    else:
        print(f"shown   {neutral(str(shown['type']))} {neutral(str(shown['fingerprint']))} "
              f"at {neutral(str(shown['address']))}")
        pinned = shown["pinned_fingerprint"] or ("not readable" if shown["pinned"] else "none")
        print(f"pinned  {neutral(str(pinned))}")
    return OTHER if shown["pinned"] and not shown["matches"] else 0


def _accept(options: argparse.Namespace, settings: Settings) -> int:
    with calling.logged_in(settings) as session:
        vm = finding.vm(session, options.vm)
        shown = _shown(session, settings, vm)
        if shown["pinned"]:
            print("It is the key pinned already." if shown["matches"] else
                  f"Pinned is another one: {neutral(str(shown['pinned_fingerprint'] or 'not readable'))}.")
        if not shown["matches"]:
            fingerprint = asking.confirmed(shown, options.fingerprint, options.yes)
            calling.call(session, settings, "hostkey_accept", vmuuid=vm, fingerprint=fingerprint)
            print("It is pinned now.")
    return 0


def _shown(session: Session, settings: Settings, vm: str) -> "Dict[str, Any]":
    found: Dict[str, Any] = json.loads(calling.call(session, settings, "hostkey_show", vmuuid=vm))
    return found
