"""``xscontainer register`` and ``deregister``: switch container management on and off for VMs."""

import argparse
from typing import Any

from xscontainer.cli import lookup, plugin_call, several
from xscontainer.cli.ui.columns import neutral
from xscontainer.cli.ui.output import write
from xscontainer.settings import Settings


def add(commands: Any) -> None:
    for name, what in (
            ("register", "Switch container management on for VMs whose guests accept the pool's SSH key already. "
                         "'xscontainer prepare' does that and installs the key."),
            ("deregister", "Switch container management off for VMs and remove their lists. The guests still accept "
                           "the pool's SSH key: 'xscontainer unprepare' removes it, too.")):
        parser = commands.add_parser(name, description=f"{what} Prints the name of each VM that is done.")
        parser.add_argument("vms", metavar="VM", nargs="+", help="name, uuid, or unique beginning of either")
        parser.set_defaults(run=_run, on=name == "register")


def _run(options: argparse.Namespace, settings: Settings) -> int:
    from xscontainer.verbs import registration  # here for start-up time, see cli/__init__.py

    verb = registration.REGISTER if options.on else registration.DEREGISTER
    with plugin_call.logged_in(options, settings) as session:
        return several.each(
            session, lookup.vms(session, options.vms), lambda vm: vm.label,
            lambda session, vm: plugin_call.call(session, settings, verb, vmuuid=vm.uuid),
            lambda vm, _: write(neutral(vm.label) + "\n"))
