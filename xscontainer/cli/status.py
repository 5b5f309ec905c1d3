"""``xscontainer status``: one screen about a VM, or about the pool: what runs, what failed, why, and what to do."""

import argparse
import functools
import json
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from xscontainer import keys
from xscontainer.cli import event_texts, log_reader, lookup, plugin_call, several
from xscontainer.cli.exit_codes import CAUSE_FOUND, DONE
from xscontainer.cli.status_screen import (
    Cause,
    Failed,
    VMStatus,
    has_problem,
    needs_attention,
    pool_json,
    pool_lines,
    reason,
    vm_json,
    vm_lines,
)
from xscontainer.cli.ui.output import one_line, write
from xscontainer.cli.ui.terminal import Terminal
from xscontainer.clients.inventory import VM, every_vm_of, view
from xscontainer.core.addresses import candidates
from xscontainer.core.container import Container
from xscontainer.core.diagnosis import OK, Diagnosis
from xscontainer.core.target import TLS
from xscontainer.core.vm_record import NULL_REF, VMRecord
from xscontainer.errors import ObjectGone, XSContainerError
from xscontainer.settings import Settings
from xscontainer.xapi import inventory
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session

EVENTS = 8  # shown
MOST_ASKED = 20  # VMs whose events are read for the pool's screen
LOGS, LINES = 3, 6  # logs that are read, and lines of each
SCREEN, JSON = "screen", "json"


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "status",
        description="Show one screen about a VM: its host, the way to its engine, its containers by state, and its "
                    "last events. A problem has its cause and the next step, a container that failed the end of its "
                    "log. Without a VM show the pool in short.",
        epilog=f"Exit codes: 0 no problem, {CAUSE_FOUND} the VM, or a VM of the pool, has a problem; the others as for "
               "every command.")
    parser.add_argument("vm", metavar="VM", nargs="?", help="name, uuid, or unique beginning of either")
    parser.add_argument("--format", choices=(SCREEN, JSON), default=SCREEN, help="json: for programs (default: screen)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    terminal = Terminal.of(options)
    with plugin_call.logged_in(options, settings) as session:
        if options.vm is None:
            pool = inventory.read(session)
            failed = _failed_of(session, settings, [vm for _, vm in every_vm_of(pool)])
            if options.format == JSON:
                write(json.dumps(pool_json(pool, failed), indent=2) + "\n")
            else:
                terminal.write(pool_lines(pool, failed, terminal))
            return CAUSE_FOUND if any(has_problem(vm) for _, vm in every_vm_of(pool)) else DONE
        status = _of_vm(session, settings, lookup.vm(session, options.vm))
    if options.format == JSON:
        write(json.dumps(vm_json(status), indent=2) + "\n")
    else:
        terminal.write(vm_lines(status, terminal))
    return DONE if status.cause is None else CAUSE_FOUND


def _of_vm(session: Session, settings: Settings, vm_uuid: str) -> VMStatus:
    record = xapi_vm.record(session, vm_uuid)
    vm = view(record)
    asked = _at_once(session, {
        "events": lambda own: _events(own, settings, vm),
        "cause": lambda own: _cause(own, settings, vm)})
    events, missing = _result(asked["events"], ())
    cause, unknown = _result(asked["cause"], None)
    if unknown and vm.problem is not None:
        cause = Cause(vm.problem.code, vm.problem.message)
    return VMStatus(vm, _host(session, record), _way(record), cause, _failed(session, settings, vm, events),
                    tuple(reversed(events[-EVENTS:])), missing)


Asked = Tuple[Any, Optional[XSContainerError]]


def _at_once(session: Session, calls: "Dict[Any, Callable[[Session], Any]]") -> "Dict[Any, Asked]":
    """Make some calls at once; return the result or the error of each."""
    names = list(calls)
    found: Dict[Any, Asked] = {}
    for name, outcome in zip(names, several.begun(session, names, lambda own, name: calls[name](own))):
        try:
            found[name] = outcome.result(), None
        except XSContainerError as error:
            found[name] = None, error
    return found


def _result(asked: Asked, default: Any) -> "Tuple[Any, str]":
    """Return the result, and why there is none."""
    result, error = asked
    return (default, one_line(error)) if error is not None else (result, "")


def _events(session: Session, settings: Settings, vm: VM) -> "Tuple[event_texts.Event, ...]":
    from xscontainer.verbs.events import GET_EVENTS  # here for start-up time, see cli/__init__.py

    if vm.power_state != "Running" or not vm.monitored:
        return ()
    return event_texts.read(plugin_call.call(session, settings, GET_EVENTS, vmuuid=vm.uuid)).events


def _cause(session: Session, settings: Settings, vm: VM) -> Optional[Cause]:
    """Return the cause of the VM's problem. A VM without one is not asked."""
    from xscontainer.verbs.diagnose import DIAGNOSE  # here for start-up time, see cli/__init__.py

    if vm.problem is None:
        return None
    known = Cause(vm.problem.code, vm.problem.message)
    if not vm.monitored:
        return known._replace(next=f"xscontainer prepare {vm.label}")
    try:
        found = Diagnosis.from_json(plugin_call.call(session, settings, DIAGNOSE, vmuuid=vm.uuid))
    except ValueError:
        return known
    return known if found.code == OK else Cause(found.code, found.message, found.next)


def _failed_of(session: Session, settings: Settings, vms: "Sequence[VM]") -> "List[Tuple[VM, Failed]]":
    """Return the containers of the VMs that need attention. The VMs' events say which were stopped on purpose."""
    concerned = [vm for vm in vms if any(map(needs_attention, vm.containers))]
    asked = _at_once(session, {vm.uuid: functools.partial(_events, settings=settings, vm=vm)
                               for vm in concerned[:MOST_ASKED]})
    found = []
    for vm in concerned:
        events, _ = _result(asked.get(vm.uuid, ((), None)), ())
        found += [(vm, Failed(container, reason(container, event_texts.ran_out_of_memory(events, container.id))))
                  for container in _newest_first(vm, events)]
    return found


def _newest_first(vm: VM, events: "Tuple[event_texts.Event, ...]") -> "List[Container]":
    """Return the containers of a VM that need attention, the newest failures first."""
    ended = {event.id: event.time for event in events if event.action in ("die", "health_status")}
    return sorted((container for container in vm.containers if needs_attention(container)
                   and not event_texts.ended_on_purpose(events, container.id)),
                  key=lambda container: (-ended.get(container.id, 0.0), container.name))


def _failed(session: Session, settings: Settings, vm: VM,
            events: "Tuple[event_texts.Event, ...]") -> "Tuple[Failed, ...]":
    """Return the containers that need attention, the newest failures first, with the logs of some."""
    found = _newest_first(vm, events)
    logs = _at_once(session, {container: _reader(settings, vm, container) for container in found[:LOGS]})
    failed: List[Failed] = []
    for container in found:
        lines, missing = _result(logs.get(container, ((), None)), ())
        failed.append(Failed(container, reason(container, event_texts.ran_out_of_memory(events, container.id)),
                             lines, missing))
    return tuple(failed)


def _reader(settings: Settings, vm: VM, container: Container) -> "Callable[[Session], Tuple[str, ...]]":
    from xscontainer.verbs.logs import GET_LOGS  # here for start-up time, see cli/__init__.py

    return lambda session: tuple(line.text for line in log_reader.read(plugin_call.call(
        session, settings, GET_LOGS, vmuuid=vm.uuid, container=container.id, tail=str(LINES))).lines)


def _host(session: Session, record: VMRecord) -> str:
    if record.resident_on == NULL_REF:
        return ""
    try:
        return str(session.xenapi.host.get_name_label(record.resident_on))
    except ObjectGone:
        return ""


def _way(record: VMRecord) -> str:
    """Return how the VM's engine is reached, from the VM's settings and the addresses that it reports."""
    config = record.other_config
    given = config.get(keys.ADDRESS) or next(iter(candidates(record.networks, allow_loopback=True).usable), "")
    at = f" at {given}" if given else ""
    if config.get(keys.MODE) == TLS:
        return f"TLS{at}"
    user = config.get(keys.USERNAME)
    return f"SSH{f' as {user}' if user else ''}{at}"
