"""The screens of ``xscontainer status``: what is known of a VM or of the pool as lines and as JSON. Pure."""

from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union

from xscontainer.cli.event_texts import Event, local_time
from xscontainer.cli.listing import cells
from xscontainer.cli.ui.columns import cut
from xscontainer.cli.ui.meaning import (
    BAD,
    GOOD,
    HEADING,
    NOTE,
    PLAIN,
    QUIET,
    WARNING,
    Span,
    of_container,
    of_power_state,
)
from xscontainer.cli.ui.table import Cell, Column, Note, Row, draw
from xscontainer.cli.ui.terminal import Line, Terminal, wrapped
from xscontainer.clients.inventory import VM, Host, Pool, engine_json, every_vm_of, problem_json
from xscontainer.core.container import Container
from xscontainer.core.log_lines import visible, without_colours
from xscontainer.core.tally import Tally, tally, total

MOST_FAILED = 20  # shown of the pool
_TITLE = 12  # columns of the titles


class Cause(NamedTuple):
    """The reason why the containers of a VM are not shown, or not completely.

    :ivar next: what to do, "" if unknown.
    """

    code: str
    message: str
    next: str = ""


class Failed(NamedTuple):
    """A container that needs attention.

    :ivar why: "out of memory", or the meaning of its exit code or health.
    :ivar log: the last lines of its log.
    :ivar missing: why there are none; "" if there are, or if nobody asked for them.
    """

    container: Container
    why: str
    log: Tuple[str, ...] = ()
    missing: str = ""


class VMStatus(NamedTuple):
    """The facts about one VM.

    :ivar host: "" if it runs on none. :ivar way: how its engine is reached.
    :ivar failed: containers that need attention. :ivar events: the last events, the newest first.
    :ivar events_missing: why there are none; "" if there are.
    """

    vm: VM
    host: str
    way: str
    cause: Optional[Cause]
    failed: Tuple[Failed, ...] = ()
    events: Tuple[Event, ...] = ()
    events_missing: str = ""


def needs_attention(container: Container) -> bool:
    """Return whether a container has failed, restarts again and again, or is unhealthy."""
    return (container.state in ("restarting", "dead") or container.health == "unhealthy"
            or container.state == "exited" and bool(container.exit_code))


def reason(container: Container, out_of_memory: bool = False) -> str:
    """Return why a container needs attention."""
    if out_of_memory:
        return "out of memory"
    return container.reason or ("its health check fails" if container.health == "unhealthy" else "")


def _state(container: Container) -> Span:
    return Span(cells.state(container), of_container(container.state, container.health or "", container.exit_code))


# --- one VM ------------------------------------------------------------------


def vm_lines(status: VMStatus, terminal: Terminal) -> "List[Line]":
    """Return the screen of one VM."""
    vm = status.vm
    lines = [
        _fact("VM", vm.label, f" {vm.uuid}" if vm.name else ""),
        _fact("State", Span(vm.power_state, of_power_state(vm.power_state)),
              f" on {status.host}" if status.host else ""),
        _fact("Engine", _engine(vm), f" over {status.way}"),
        _fact("Containers", *_numbers(_tally(vm)))]
    if status.cause is not None:
        lines += _wrapped_fact("Problem", f"{status.cause.code}: {status.cause.message}", terminal, BAD)
        if status.cause.next:
            lines += _wrapped_fact("Next", status.cause.next, terminal, NOTE)
    if status.failed:
        lines += [[], [Span("Needs attention", HEADING)]]
        for failed in status.failed:
            lines += _failed_lines(vm, failed, terminal)
    lines += [[], [Span("Last events", HEADING)]]
    if status.events:
        lines += draw((Column("when"), Column("container", least=12), Column("event", 3), Column("by", 2, least=8)), [
            (local_time(event.time), event.name or event.id[:12], Span(event.text, event.meaning),
             Span(event.by, QUIET)) for event in status.events], terminal, heading=False)
    else:
        lines += wrapped(status.events_missing or "None is recorded.", terminal.width, 0, QUIET)
    return lines


def _fact(title: str, *cells: Cell) -> Line:
    return [Span(title.ljust(_TITLE), QUIET), *(Span(cell) if isinstance(cell, str) else cell for cell in cells)]


def _wrapped_fact(title: str, text: str, terminal: Terminal, meaning: str) -> "List[Line]":
    room = None if terminal.width is None else max(20, terminal.width - _TITLE)
    first, *others = wrapped(text, room, 0, meaning)
    return [_fact(title, *first), *([Span(" " * _TITLE), *line] for line in others)]


def _engine(vm: VM) -> str:
    if not vm.engine:
        return "not known"
    return vm.engine + (f" (API {vm.api_version})" if vm.api_version else "")


def _tally(vm: VM) -> Tally:
    return tally(vm.containers, vm.left_out)


def _numbers(found: Tally) -> "List[Span]":
    """Return the numbers of containers by state, and of those whose health is not well."""
    if not found.containers:
        return [Span("none", QUIET)]
    spans: List[Span] = []
    for state, number in sorted(found.counts.items(), key=lambda item: (item[0] != "running", item[0])):
        spans += [Span(", ")] * bool(spans) + [Span(f"{number} {state}", GOOD if state == "running" else "")]
    for health, meaning in (("unhealthy", BAD), ("starting", NOTE)):
        if found.health.get(health):
            spans += [Span("; "), Span(f"{found.health[health]} {health}", meaning)]
    left_out = found.containers - sum(found.counts.values())
    if left_out > 0:
        spans += [Span("; "), Span(f"{left_out} not listed", WARNING)]
    return spans


def _failed_lines(vm: VM, failed: Failed, terminal: Terminal) -> "List[Line]":
    name = f"{vm.label}/{failed.container.name}"
    lines: List[Line] = [[Span("  "), Span(failed.container.name), Span("  "), _state(failed.container),
                          Span(f"  {failed.why}" if failed.why else "")]]
    for text in failed.log:
        shown = without_colours(visible(text)).replace("\t", "    ")
        lines.append([Span("    | ", QUIET), Span(_cut(shown, terminal))])
    if failed.missing:
        lines += wrapped(failed.missing, terminal.width, 4, QUIET)
    verb = "start" if failed.container.state == "exited" else "restart"
    lines.append([Span("    Next: ", NOTE), Span(f"xscontainer logs {name}   xscontainer {verb} {name}")])
    return lines


def _cut(text: str, terminal: Terminal) -> str:
    return text if terminal.width is None else cut(text, max(20, terminal.width - 6))


def vm_json(status: VMStatus) -> "Dict[str, Any]":
    """Return plain values for programs. Scripts read the keys: they are part of the interface."""
    vm = status.vm
    return {
        "vm": _vm_fields(vm),
        "host": status.host or None, "way": status.way, "engine": engine_json(vm),
        "problem": dict(status.cause._asdict()) if status.cause else None,
        **_numbers_json(_tally(vm)),
        "attention": [{"id": failed.container.id, "name": failed.container.name, "state": failed.container.state,
                       "health": failed.container.health, "exit_code": failed.container.exit_code, "why": failed.why,
                       "log": list(failed.log)} for failed in status.failed],
        "events": [dict(event._asdict()) for event in status.events],
    }


# --- the pool ----------------------------------------------------------------


def has_problem(vm: VM) -> bool:
    """Return whether something is wrong with a VM; one that is switched off on purpose is well."""
    return vm.problem is not None and vm.monitored


def pool_lines(pool: Pool, failed: "Sequence[Tuple[VM, Failed]]", terminal: Terminal) -> "List[Line]":
    """Return the screen of the pool.

    :param failed: the containers that need attention, with their VMs.
    """
    every = list(every_vm_of(pool))
    problems = sum(has_problem(vm) for _, vm in every)
    lines = [
        _fact("Pool", pool.name or pool.uuid, f", {_count(len(pool.hosts), 'host')}, {_count(len(every), 'VM')}"),
        _fact("Containers", *_numbers(total(_tally(vm) for _, vm in every))),
        _fact("Problems", Span(_count(problems, "VM"), BAD) if problems else Span("none", GOOD)), []]
    if not every:
        return lines + wrapped("No VM here is container-managed. Prepare one: xscontainer prepare VM", terminal.width)
    lines += draw((Column("VM", least=12), Column("STATE", 3), Column("HOST", 1), Column("ENGINE", 2),
                   Column("CONTAINERS", 5, least=16), Column("PROBLEM", 4, least=14)),
                  [_pool_row(host, vm) for host, vm in every], terminal)
    if failed:
        lines += [[], [Span("Needs attention", HEADING)]]
        rows: List[Union[Row, Note]] = [
            (f"{vm.label}/{each.container.name}", _state(each.container), each.why)
            for vm, each in failed[:MOST_FAILED]]
        if len(failed) > MOST_FAILED:
            rows.append(Note(f"and {len(failed) - MOST_FAILED} more", 0, QUIET))
        lines += draw((Column("container", least=12), Column("state"), Column("why", 2)), rows, terminal, heading=False)
    worst = next((vm for _, vm in every if has_problem(vm)), failed[0][0] if failed else None)
    if worst is not None:
        lines += [[], [Span("Next: ", NOTE), Span(f"xscontainer status {worst.label}")]]
    return lines


def _pool_row(host: Optional[Host], vm: VM) -> Row:
    problem = Span(vm.problem.code, BAD if has_problem(vm) else QUIET) if vm.problem else ""
    return (vm.label, Span(vm.power_state, of_power_state(vm.power_state)), host.name if host else "",
            vm.engine, _one(_numbers(_tally(vm))), problem)


def _one(spans: "Iterable[Span]") -> Cell:
    found = list(spans)
    meaning = next((span.meaning for span in found if span.meaning in (BAD, WARNING, QUIET)), PLAIN)
    return Span("".join(span.text for span in found), meaning)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def pool_json(pool: Pool, failed: "Sequence[Tuple[VM, Failed]]") -> "Dict[str, Any]":
    """Return plain values for programs; the parameters are those of :func:`pool_lines`."""
    every = list(every_vm_of(pool))
    numbers = total(_tally(vm) for _, vm in every)
    return {
        "pool": {"uuid": pool.uuid, "name": pool.name}, "hosts": len(pool.hosts), **_numbers_json(numbers),
        "problems": sum(has_problem(vm) for _, vm in every),
        "vms": [{**_vm_fields(vm), "host": {"uuid": host.uuid, "name": host.name} if host else None,
                 "engine": engine_json(vm), "problem": problem_json(vm.problem), **_numbers_json(_tally(vm)),
                 "attention": [each.container.name for of, each in failed if of is vm]} for host, vm in every],
    }


def _vm_fields(vm: VM) -> "Dict[str, Any]":
    return {"uuid": vm.uuid, "name": vm.name, "power_state": vm.power_state, "monitored": vm.monitored}


def _numbers_json(found: Tally) -> "Dict[str, Any]":
    return {"counts": found.counts, "health": found.health, "containers": found.containers}
