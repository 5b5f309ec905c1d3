"""``xscontainer inspect``: print what the engine knows of containers, as JSON."""

import argparse
import json
from typing import Any, List

from xscontainer.cli import lookup, plugin_call, several
from xscontainer.cli.ui.output import write
from xscontainer.settings import Settings


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "inspect",
        description="Print what the engines know of containers, as a JSON array with one object for each container, "
                    "like 'docker inspect'. It may hold passwords.")
    parser.add_argument("containers", metavar="CONTAINER", nargs="+", help="container, as VM/NAME or NAME")
    parser.add_argument("-f", "--format", choices=("json",), default="json", help="json is the only format")
    parser.add_argument("--mask-environment", action="store_true",
                        help="show the names of environment variables without their values, and mask other secrets "
                             "that can be recognized")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    from xscontainer.verbs.containers import GET_INSPECT  # here for start-up time, see cli/__init__.py

    more = {"environment": "masked"} if options.mask_environment else {}
    found: List[Any] = []
    with plugin_call.logged_in(options, settings) as session:
        code = several.each(
            session, lookup.containers(session, options.containers), lambda container: container.label,
            lambda session, container: decoded(plugin_call.call(
                session, settings, GET_INSPECT, vmuuid=container.vm_uuid, object=container.argument, format="json",
                **more)),
            lambda _, answer: found.append(answer))
    # ASCII: no foreign character reaches the terminal.
    write(json.dumps(found, indent=4) + "\n")
    return code


def decoded(answer: str) -> Any:
    """Return the value of an answer in JSON.

    :raises XapiError: when it is none.
    """
    with plugin_call.reading():
        return json.loads(answer)
