"""A process of guests that takes commands on stdin: ``python -m xscontainer.simulator.guests --help``."""

import argparse
import json
import signal
import sys
from typing import List, Optional

from xscontainer.simulator.engines.call import Identity
from xscontainer.simulator.engines.errors import SimulatorError
from xscontainer.simulator.guests.commands import COMMANDS, describe, execute
from xscontainer.simulator.guests.group import Guests


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m xscontainer.simulator.guests", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Start guests with engines, print where they are as one JSON line, obey JSON lines on stdin, "
        "end when stdin closes.", epilog="commands:\n" + COMMANDS)
    parser.add_argument("--count", type=int, default=1, help="guests (default 1)")
    parser.add_argument("--containers", type=int, default=0, help="running containers in each (named c0, c1, ...)")
    parser.add_argument("--kind", default="auto", choices=("auto", "openssh", "embedded"))
    parser.add_argument("--engine", default="embedded", choices=("auto", "real", "embedded", "none"))
    parser.add_argument("--directory", help="for all files; default: a temporary one, removed at the end")
    parser.add_argument("--port", type=int, default=0, help="common SSH port; default: a free one")
    parser.add_argument("--authorize", metavar="FILE", help="public key to let in")
    parser.add_argument("--api-version", default=Identity().api_version)
    parser.add_argument("--min-api-version", default=Identity().min_api_version)
    return parser


def main(arguments: Optional[List[str]] = None) -> int:
    """Run until stdin closes or SIGTERM; return 0, or 1 if the guests could not be started."""
    options = _parser().parse_args(arguments)
    identity = Identity(api_version=options.api_version, min_api_version=options.min_api_version)
    signal.signal(signal.SIGTERM, _leave)
    # By default another thread may keep the interpreter for 5 ms, and a command takes microseconds.
    sys.setswitchinterval(0.0005)
    try:
        guests = Guests(options.directory, options.count, options.kind, options.engine, options.port)
        guests.identity = identity
        with guests:
            _prepare(guests, options)
            _say({"guests": describe(guests), "kind": guests.kind, "engine": guests.engine, "port": guests[0].port,
                  "directory": guests.directory})
            for line in sys.stdin:
                if line.strip():
                    _say(_obey(guests, line))
    except SimulatorError as error:
        sys.stderr.write(f"cannot start the guests: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def _prepare(guests: Guests, options: argparse.Namespace) -> None:
    if options.authorize:
        with open(options.authorize, encoding="utf-8") as file:
            guests.authorize(file.read())
    for guest in guests:
        for number in range(options.containers):
            guest.engine.run(f"c{number}")


def _obey(guests: Guests, line: str) -> object:
    try:
        command = json.loads(line)
    except ValueError as error:
        return {"ok": False, "error": f"no JSON: {error}"}
    return execute(guests, command)


def _say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _leave(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
