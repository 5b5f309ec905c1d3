"""Select VMs and containers of the pool by the options of ``xscontainer ps``. Pure."""

from fnmatch import fnmatchcase
from typing import Any, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

from xscontainer.clients.inventory import VM, Host, Pool, every_vm_of
from xscontainer.core.container import Container
from xscontainer.core.naming import did_you_mean
from xscontainer.errors import NotFound

ACTIVE = ("running", "paused", "restarting")  # states that are shown without --all
STATES = (*ACTIVE, "exited", "created", "dead", "removing")
NO_CHECK = "none"  # health of a container without a health check
HEALTHS = ("healthy", "unhealthy", "starting", NO_CHECK)


class Filter(NamedTuple):
    """The containers to show. An empty field allows everything.

    :ivar states: empty: ACTIVE, or all with ``every``.
    :ivar names: patterns such as "web*"; a pattern with "/" is compared with VM/NAME.
    """

    states: Tuple[str, ...] = ()
    healths: Tuple[str, ...] = ()
    projects: Tuple[str, ...] = ()
    names: Tuple[str, ...] = ()
    every: bool = False

    def matches(self, vm: VM, container: Container) -> bool:
        """Return whether all given fields allow the container, whatever its state if no state is given."""
        return ((not self.states or container.state in self.states)
                and (not self.healths or (container.health or NO_CHECK) in self.healths)
                and (not self.projects or project(container) in self.projects)
                and (not self.names or any(_named(vm, container, pattern) for pattern in self.names)))

    def hides(self, container: Container) -> bool:
        """Return whether a container that matches is left out of a table because it does not run."""
        return not (self.every or self.states or container.state in ACTIVE)


def project(container: Container) -> str:
    """Return the name of the compose project, swarm stack or pod, else of the systemd unit; "" if there is none."""
    return container.group.name or container.group.unit


def _named(vm: VM, container: Container, pattern: str) -> bool:
    name = f"{vm.name}/{container.name}" if "/" in pattern else container.name
    return fnmatchcase(name, pattern)


class Shown(NamedTuple):
    """A container with its VM and host.

    :ivar host: None if the VM runs on no host.
    """

    host: Optional[Host]
    vm: VM
    container: Container

    @property
    def label(self) -> str:
        """VM/NAME, as commands take it."""
        return f"{self.vm.label}/{self.container.name}"


class Selection(NamedTuple):
    """The part of the pool to show as a table.

    :ivar rows: sorted by VM and name.
    :ivar hidden: number of containers that match, but do not run.
    :ivar vms: of the pool, before containers were selected.
    """

    rows: Tuple[Shown, ...]
    hidden: int
    vms: Tuple[VM, ...]


def select(pool: Pool, chosen: Filter) -> Selection:
    """Return the containers to show as a table."""
    rows: List[Shown] = []
    hidden = 0
    for host, vm in every_vm_of(pool):
        for container in vm.containers:
            if not chosen.matches(vm, container):
                continue
            if chosen.hides(container):
                hidden += 1
            else:
                rows.append(Shown(host, vm, container))
    rows.sort(key=lambda row: (row.vm.name, row.vm.uuid, row.container.name, row.container.id))
    return Selection(tuple(rows), hidden, tuple(vm for _, vm in every_vm_of(pool)))


def with_matching(pool: Pool, chosen: Filter) -> Pool:
    """Return the pool with only the containers that match, running or not."""
    def narrowed(vms: "Iterable[VM]") -> "Tuple[VM, ...]":
        return tuple(vm._replace(containers=tuple(each for each in vm.containers if chosen.matches(vm, each)))
                     for vm in vms)

    return pool._replace(hosts=tuple(host._replace(vms=narrowed(host.vms)) for host in pool.hosts),
                         vms=narrowed(pool.vms))


def narrow(pool: Pool, hosts: "Sequence[str]" = (), vms: "Sequence[str]" = ()) -> Pool:
    """Return the pool with only these hosts and VMs: by name, uuid, or a beginning of either. Several may match a word.

    :raises NotFound: when a word matches none.
    """
    if hosts:
        pool = pool._replace(hosts=_matching(pool.hosts, hosts, "The pool has no host"), vms=())
    if vms:
        where = "The pool has no VM" if not hosts else "The host has no VM" if len(hosts) == 1 else (
            "The hosts have no VM")
        wanted = {vm.uuid for vm in _matching([vm for _, vm in every_vm_of(pool)], vms, where)}
        kept = tuple(host._replace(vms=tuple(vm for vm in host.vms if vm.uuid in wanted)) for host in pool.hosts)
        pool = pool._replace(hosts=tuple(host for host in kept if host.vms),
                             vms=tuple(vm for vm in pool.vms if vm.uuid in wanted))
    return pool


def _matching(items: "Sequence[Any]", words: "Sequence[str]", missing: str) -> "Tuple[Any, ...]":
    found: Set[str] = set()
    for word in words:
        matches = _by_word(items, word)
        if not matches:
            raise NotFound(f"{missing} {word!r}.", did_you_mean(word, [item.name for item in items])
                           or "Give its name or its uuid.")
        found.update(item.uuid for item in matches)
    return tuple(item for item in items if item.uuid in found)


def _by_word(items: "Sequence[Any]", word: str) -> "List[Any]":
    uuid = word.lower()
    return ([item for item in items if item.uuid == uuid] or [item for item in items if item.name == word]
            or [item for item in items if word and (item.name.startswith(word) or item.uuid.startswith(uuid))])
