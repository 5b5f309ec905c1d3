"""``xscontainer events``: print the last events of the containers in VMs, once or as they come."""

import argparse
import json
import sys
import time
from collections import deque
from typing import Any, Dict, Iterator, List, Tuple

from xscontainer.cli import event_texts, plugin_call, several, sources
from xscontainer.cli.event_texts import Event, Events
from xscontainer.cli.sources import Source
from xscontainer.cli.ui.meaning import QUIET, Span
from xscontainer.cli.ui.output import complain, write
from xscontainer.cli.ui.terminal import Terminal
from xscontainer.errors import XSContainerError
from xscontainer.settings import Settings
from xscontainer.xapi.session import Session

TEXT, NDJSON = "text", "ndjson"
WAIT = "15"  # s for which a call waits for a new event
PATIENCE = 120.0  # s for which the events of a VM may not be readable
_REMEMBERED = 400  # events of a VM that are not printed again
_PAUSE = 2.0  # s between two attempts then


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "events",
        description="Print the events of containers, oldest first: starts, ends with their exit codes, kills, changes "
                    "of health, and whether xscontainer caused them. The daemon on the VM's host records the last 200 "
                    "of each VM. Times are those of the guests' clocks, in the zone of this machine.")
    parser.add_argument("vms", metavar="VM", nargs="*",
                        help="name, uuid, or unique beginning of either (default: all running VMs with container "
                             "management)")
    parser.add_argument("--since", metavar="TIME",
                        help="only events since then: a duration before now such as 10m or 1h30m, RFC 3339, or seconds "
                             "since 1970")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with new events, until Ctrl-C")
    parser.add_argument("--format", choices=(TEXT, NDJSON), default=TEXT,
                        help="ndjson: one JSON object for each event, for programs (default: text)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    more = {"since": options.since} if options.since else {}
    terminal = Terminal.of(options)
    with plugin_call.logged_in(options, settings) as session:
        chosen = sources.vms(session, options.vms)
        found: List[Tuple[Source, Events]] = []
        code = several.each(session, chosen, lambda vm: vm.label,
                            lambda session, vm: _ask(session, settings, vm, **more),
                            lambda vm, events: found.append((vm, events)))
        for vm, event in sorted(((vm, event) for vm, events in found for event in events.events),
                                key=lambda item: item[1].time):
            _print(terminal, options.format, vm, event)
        sys.stdout.flush()
        if options.follow and found:
            code = _follow(session, settings, found, terminal, options.format)
    return code


def _ask(session: Session, settings: Settings, vm: Source, **arguments: str) -> Events:
    from xscontainer.verbs.events import GET_EVENTS  # here for start-up time, see cli/__init__.py

    return event_texts.read(plugin_call.call(session, settings, GET_EVENTS, vmuuid=vm.uuid, **arguments))


def _follow(session: Session, settings: Settings, found: "List[Tuple[Source, Events]]", terminal: Terminal,
            form: str) -> int:
    first = dict(found)

    def show(vm: Source, new: "Tuple[Event, ...]") -> None:
        for event in new:
            _print(terminal, form, vm, event)
        sys.stdout.flush()

    return several.follow(session, list(first), lambda vm: vm.label,
                          lambda own, vm: _new(own, settings, vm, first[vm]), show)


def _new(session: Session, settings: Settings, vm: Source, events: Events) -> "Iterator[Tuple[Event, ...]]":
    """Yield the events that follow those.

    :raises XSContainerError: when they cannot be read for PATIENCE seconds.
    """
    failing_since = 0.0
    last = events.last
    printed = deque(map(_identity, events.events), _REMEMBERED)
    while True:
        try:
            events = _ask(session, settings, vm, after=str(last), wait=WAIT)
        except XSContainerError as error:
            now = time.monotonic()
            if not failing_since:
                complain(error, vm.label, "Trying again.")
            failing_since = failing_since or now
            if now - failing_since > PATIENCE:
                raise
            time.sleep(_PAUSE)
            continue
        failing_since = 0.0
        if events.last < last:
            last = 0  # the daemon was started again, or the VM has moved: the record is a new one
            continue
        last = events.last
        # A new daemon asks the engine for the events of the last hour.
        new = tuple(event for event in events.events if _identity(event) not in printed)
        printed.extend(map(_identity, new))
        if new:
            yield new


def _identity(event: Event) -> "Tuple[float, str, str]":
    return event.time, event.id, event.text


def _print(terminal: Terminal, form: str, vm: Source, event: Event) -> None:
    if form == NDJSON:
        fields: Dict[str, Any] = dict(event._asdict())
        about = {name: fields.pop(name) for name in ("id", "name", "image")}
        write(json.dumps({"vm": dict(vm._asdict()), "container": about, **fields}) + "\n")
        return
    name = f"{vm.label}/{event.name or event.id[:12]}"
    by = [Span(f" by {event.by}", QUIET)] if event.by else []
    terminal.write([[Span(event_texts.local_time(event.time), QUIET), Span(f"  {name}  "),
                     Span(event.text, event.meaning), *by]])
