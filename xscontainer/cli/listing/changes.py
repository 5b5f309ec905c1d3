"""The changes between two states of the pool, as JSON for programs. Pure."""

from typing import Any, Dict, Iterator, Optional, Tuple

from xscontainer.cli.listing.documents import place_json, shown_json
from xscontainer.cli.listing.selection import Filter, Shown
from xscontainer.clients.inventory import VM, Host, Pool, every_vm_of, problem_json

# Values of the key "change" of a line.
LISTED, CHANGED, UNLISTED, PROBLEM = "listed", "changed", "unlisted", "problem"

Key = Tuple[str, str]  # uuid of the VM, id of the container


def changes(before: "Optional[Pool]", after: Pool, chosen: Filter) -> "Iterator[Dict[str, Any]]":
    """Yield a document for each container and VM that changed; for all of them if there is no state before.

    A container that is no longer listed, or that no longer matches, is given as it was last.
    """
    old, new = _matching(before, chosen), _matching(after, chosen)
    for key, shown in new.items():
        last = old.get(key)
        if last is None or _facts(last) != _facts(shown):
            yield {"change": LISTED if last is None else CHANGED, **shown_json(shown)}
    for key, shown in old.items():
        if key not in new:
            yield {"change": UNLISTED, **shown_json(shown)}
    yield from _problems(before, after)


def _matching(pool: "Optional[Pool]", chosen: Filter) -> "Dict[Key, Shown]":
    if pool is None:
        return {}
    return {(vm.uuid, container.id): Shown(host, vm, container) for host, vm in every_vm_of(pool)
            for container in vm.containers if chosen.matches(vm, container)}


def _facts(shown: Shown) -> "Tuple[Any, ...]":
    """Return everything that a line shows of a container."""
    host, vm = shown.host, shown.vm
    return shown.container, vm.name, vm.power_state, host and (host.uuid, host.name)


def _problems(before: "Optional[Pool]", after: Pool) -> "Iterator[Dict[str, Any]]":
    old: Dict[str, VM] = {} if before is None else {vm.uuid: vm for _, vm in every_vm_of(before)}
    found: Dict[str, Tuple[Optional[Host], VM]] = {vm.uuid: (host, vm) for host, vm in every_vm_of(after)}
    for uuid, (host, vm) in found.items():
        known = old.get(uuid)
        if vm.problem != (known.problem if known else None):
            yield {"change": PROBLEM, "problem": problem_json(vm.problem), **place_json(host, vm)}
