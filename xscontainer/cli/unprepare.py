"""``xscontainer unprepare``: take the pool's key out of guests again, and remove what the pool keeps about the VMs."""

import argparse
import json
from typing import Any, List, Tuple

from xscontainer.cli import lookup, plugin_call, several
from xscontainer.cli.ui.columns import neutral
from xscontainer.cli.ui.output import MOST_ERROR, say, write
from xscontainer.core.naming import NamedVM
from xscontainer.settings import Settings

_DONE = {"removed": "the pool's key was removed from the guest", "absent": "the guest does not accept the pool's key",
         "kept": "the guest was left alone"}


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "unprepare",
        description="Undo 'xscontainer prepare': remove the pool's SSH key from the guests, switch container "
                    "management off, and remove lists, pinned host keys and certificates. It is safe to repeat the "
                    "command. User, address and port of a VM stay for the next 'xscontainer prepare'.")
    parser.add_argument("vms", metavar="VM", nargs="+", help="name, uuid, or unique beginning of either")
    parser.add_argument("--forget", action="store_true",
                        help="leave the guests alone, for VMs that are off or cannot be reached: remove only what the "
                             "pool keeps about them")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    from xscontainer.verbs.unprepare import UNPREPARE  # here for start-up time, see cli/__init__.py

    more = {"forget": "yes"} if options.forget else {}
    with plugin_call.logged_in(options, settings) as session:
        return several.each(
            session, lookup.vms(session, options.vms), lambda vm: vm.label,
            lambda session, vm: _read(plugin_call.call(session, settings, UNPREPARE, vmuuid=vm.uuid, **more)), _report)


def _read(answer: str) -> "Tuple[str, List[str]]":
    """Return what became of the key, and sentences about what is left to a person."""
    with plugin_call.reading():
        found = json.loads(answer)
        return str(found["key"]), [str(sentence) for sentence in found["left"]]


def _report(vm: NamedVM, found: "Tuple[str, List[str]]") -> None:
    key, left = found
    write(f"{neutral(vm.label)}: no longer prepared; {_DONE.get(key, neutral(key))}.\n")
    for sentence in left:
        say(f"xscontainer: {vm.label}: {sentence}", MOST_ERROR)
