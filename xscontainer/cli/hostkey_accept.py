"""``xscontainer hostkey-accept``: pin the SSH host key that a VM presents."""

import argparse
from typing import Any

from xscontainer.cli import hostkey_show, lookup, plugin_call
from xscontainer.cli.ui import prompts
from xscontainer.cli.ui.columns import neutral
from xscontainer.settings import Settings


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "hostkey-accept",
        description="Pin the SSH host key that a running VM presents now. It replaces the pinned key, for example "
                    "after the VM was reinstalled. Asks for a confirmation.")
    parser.add_argument("vm", metavar="VM", help="name or uuid of the VM")
    prompts.add_options(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    from xscontainer.verbs import hostkeys  # here for start-up time, see cli/__init__.py

    with plugin_call.logged_in(options, settings) as session:
        vm = lookup.vm(session, options.vm)
        shown = hostkey_show.ask(session, settings, vm)
        if shown["pinned"]:
            print("The VM presents the pinned host key." if shown["matches"] else
                  f"A different host key is pinned: {neutral(str(shown['pinned_fingerprint'] or 'not readable'))}.")
        if not shown["matches"] or shown.get("claimed_by"):
            fingerprint = prompts.confirmed(shown, options.fingerprint, options.yes)
            plugin_call.call(session, settings, hostkeys.ACCEPT, vmuuid=vm, fingerprint=fingerprint)
            print(f"The host key {neutral(fingerprint)} is now pinned.")
    return 0
