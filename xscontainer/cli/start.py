"""``xscontainer start``, ``stop``, ``restart``, ``pause`` and ``unpause``: change the state of containers."""

import argparse
from typing import Any, Dict, NamedTuple

from xscontainer.cli import lookup, plugin_call, several
from xscontainer.cli.ui.columns import neutral
from xscontainer.cli.ui.output import write
from xscontainer.core.verb import Verb
from xscontainer.settings import Settings

_NAMES = ("A container is VM/NAME, or NAME alone if no other container of the pool has that name; ids and unique "
          "beginnings of ids work, too. Prints the name of each container that is done.")


class _Action(NamedTuple):
    """:ivar ending: the action ends the container, which takes time."""

    what: str
    ending: bool = False


ACTIONS: "Dict[str, _Action]" = {
    "start": _Action("Start containers."),
    "stop": _Action("Stop containers: ask each one to end, and kill it if it does not.", ending=True),
    "restart": _Action("Stop and start containers.", ending=True),
    "pause": _Action("Freeze the processes of containers."),
    "unpause": _Action("Continue the processes of paused containers."),
}


def add(commands: Any) -> None:
    for name, action in ACTIONS.items():
        parser = commands.add_parser(name, description=f"{action.what} {_NAMES}")
        if action.ending:
            parser.add_argument("-t", "--time", metavar="SECONDS",
                                help="seconds until a container is killed, at most 60 (default: the container's own "
                                     "stop time, else 10)")
        parser.add_argument("containers", metavar="CONTAINER", nargs="+", help="container, as VM/NAME or NAME")
        parser.set_defaults(run=_run, time=None, action=name)


def _verb(name: str) -> Verb:
    from xscontainer.verbs import containers  # here for start-up time, see cli/__init__.py

    return {"start": containers.START, "stop": containers.STOP, "restart": containers.RESTART,
            "pause": containers.PAUSE, "unpause": containers.UNPAUSE}[name]


def _run(options: argparse.Namespace, settings: Settings) -> int:
    verb = _verb(options.action)
    more = {} if options.time is None else {"time": options.time}
    with plugin_call.logged_in(options, settings) as session:
        return several.each(
            session, lookup.containers(session, options.containers), lambda found: found.label,
            lambda session, found: plugin_call.call(session, settings, verb, vmuuid=found.vm_uuid,
                                                    container=found.argument, **more),
            lambda found, _: write(neutral(found.label) + "\n"))
