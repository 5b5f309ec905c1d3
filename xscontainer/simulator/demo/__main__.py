"""The product at work on this machine: ``make demo``, or ``python -m xscontainer.simulator.demo --help``.

A pool of hosts, guests with containers, the real daemon and plugin on every host. It shows only what happened: a part
that fails ends the demo with exit code 1.
"""

import argparse
import contextlib
import signal
import sys
import threading
import time
from typing import Callable, List, Optional

from xscontainer.simulator.demo.acts import Demo
from xscontainer.simulator.demo.cloud import Cloud
from xscontainer.simulator.demo.eye import Eye
from xscontainer.simulator.demo.guests import CLASSIC, GUESTS, guest_specs
from xscontainer.simulator.demo.guide import BRIEF, explain
from xscontainer.simulator.demo.screen import show
from xscontainer.simulator.engines import SimulatorError, processes
from xscontainer.simulator.engines.real import RealEngine
from xscontainer.simulator.guests import OpenSSHGuest
from xscontainer.simulator.world import Failure, Interrupted, Parts, World


def run(options: argparse.Namespace, stop: threading.Event) -> None:
    """Run the whole demo.

    :raises Failure: a part failed.
    :raises Interrupted: ``stop`` was set (not while it stays).
    """
    begun = time.monotonic()
    chosen = Parts(ssh=options.ssh, engine="embedded" if options.no_docker else "auto", https=True)
    world = World(hosts=options.hosts, guests=guest_specs(options.guests, options.stay), parts=chosen, stop=stop,
                  progress=lambda text: demo.say(text))
    demo = Demo(world, begun)
    demo.say(parts(options))
    with world, Cloud(world):
        demo.say(f"every list is published, {world.wait_all_published():.1f} s later "
                 f"(engines: {world.guests.engine}, SSH: {world.guests.kind})")
        demo.show_tree()
        with Eye(world, CLASSIC) as eye:
            demo.act(eye, "stop", "die", "exited")
            demo.act(eye, "start", "start", "running")
            demo.migrate(eye)
        demo.fail()
        demo.onboard()
        demo.create()
        if options.stay:
            show("\n" + explain(world) + "\n")
            demo.say("it stays until Ctrl-C")
            stop.wait()
        else:
            demo.say(BRIEF)
        demo.say("ending")
    remaining = processes.mentioning(world.directory)
    if remaining or processes.mounts_below(world.directory):
        raise SimulatorError(f"the demo left processes {sorted(remaining)} or mounts behind in {world.directory}")
    demo.say("all of it is gone again")


def parts(options: argparse.Namespace) -> str:
    """Return which kinds of guests and engines will run, and why."""
    reason = "as asked for" if options.no_docker else RealEngine.missing()
    engine = f"embedded engines ({reason})" if reason else "Docker engines"
    reason = "as asked for" if options.ssh == "embedded" else OpenSSHGuest.missing()
    server = f"an embedded SSH server ({reason})" if reason else "OpenSSH"
    more = "" if reason else "; where a password is asked for, an embedded SSH server"
    return f"{len(guest_specs(options.guests, options.stay))} guests: {engine} behind {server}{more}"


def _number(low: int, high: int) -> Callable[[str], int]:
    """Return a parser of whole numbers in a range, for argparse."""
    def parse(text: str) -> int:
        if not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {low} to {high}")
        return int(text)

    return parse


def main(arguments: Optional[List[str]] = None) -> int:
    """Return the exit code: 0 for success, 1 for a failed part, 130 for an interrupt."""
    parser = argparse.ArgumentParser(prog="make demo ARGS='...'", description=__doc__.split("\n\n")[1])
    parser.add_argument("--stay", action="store_true", help="keep everything running until Ctrl-C")
    parser.add_argument("--hosts", type=_number(2, 16), default=2, metavar="N", help="2 to 16, default 2")
    parser.add_argument("--guests", type=_number(1, 100), default=len(GUESTS), metavar="N",
                        help=f"1 to 100, default {len(GUESTS)}")
    parser.add_argument("--no-docker", action="store_true", help="embedded engines, even if dockerd can run here")
    parser.add_argument("--ssh", choices=("auto", "openssh", "embedded"), default="auto",
                        help="the SSH server of the guests; auto is OpenSSH where it is installed")
    options = parser.parse_args(arguments)
    stop = threading.Event()
    # Only note the signal: parts that start or end are never cut off half-way, so nothing stays behind.
    before = {number: signal.signal(number, lambda *_: stop.set())
              for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        run(options, stop)
    except Interrupted:
        with contextlib.suppress(Interrupted):  # the terminal has gone
            show("interrupted; all of it is gone again\n")
        return 130
    except Failure as error:
        sys.stderr.write(f"the demo failed: {error}\n")
        return 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


if __name__ == "__main__":
    sys.exit(main())
