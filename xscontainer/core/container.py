"""Containers as plain values, made from an engine's answers.

Every ``from_api`` takes decoded JSON of the Engine API (1.24 to today, of Docker and Podman), read by engine.listing
and engine.api from a guest that may be hostile. Unknown and ill-typed fields are ignored, text is sanitized, and
everything is bounded in length and number. None of them raises. Times are seconds since the epoch unless a name says
otherwise, sizes are bytes.
"""

import re
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

from xscontainer.core.container_details import Mount, Network, details_of_entry
from xscontainer.core.groups import NO_GROUP, Group, group_of_entry
from xscontainer.core.uptime import Span, uptime_of
from xscontainer.sanitize import SPACE, clean_text, integer, mapping, moment

MAX_CONTAINERS = 5000
LIST_COST = 6 << 20  # bytes of memory for the containers of one list; 5000 typical ones take 5 MiB
MAX_PORTS = 16  # of one container; a media server may publish ten thousand
NAME_LIMIT = 255  # characters; so are the next two
IMAGE_LIMIT = 255
COMMAND_LIMIT = 128
SHORT_ID = 10  # digits of an id in the published list, as clients of the original plugin expect
UNNAMED_ID = 12  # digits of the id that name a container without a name

# The id or name of a container in a call: nothing that looks like an option or a path.
ID_OR_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}\Z")
_ID = re.compile(r"[0-9a-f]{64}")
_CODE = re.compile(r"\((-?[0-9]{1,10})\)")
_HEALTH = re.compile(r"\((?:health: )?(healthy|unhealthy|starting)\)")
HEALTHS = ("starting", "healthy", "unhealthy")
UP = ("running", "paused")  # states in which its processes exist

# Podman's states -> Docker's.
_STATES = {"configured": "created", "initialized": "created", "stopped": "exited", "stopping": "running"}
# Beginning of the status text -> state, for engines that give no state.
_STATUS_STATES = (
    ("up", "running"),
    ("restarting", "restarting"),
    ("exit", "exited"),
    ("created", "created"),
    ("dead", "dead"),
    ("removal", "removing"),
)
_ACTIONS: Dict[str, Tuple[str, ...]] = {
    "running": ("stop", "restart", "pause"),
    "paused": ("unpause", "stop", "restart"),
    "restarting": ("stop", "restart"),
    "exited": ("start", "restart"),
    "created": ("start",),
}
_STATUS = {"running": "Up", "paused": "Up (Paused)", "removing": "Removal In Progress"}
_EXITS = {
    0: "ended without an error",
    125: "the engine could not run it",
    126: "command cannot be run",
    127: "command not found",
    134: "aborted",
    137: "killed",
    139: "segmentation fault",
    143: "terminated",
}


class Port(NamedTuple):
    """A port of a container; ``ip`` and ``public`` are set only if it is published on the guest."""

    private: int
    type: str
    public: Optional[int] = None
    ip: str = ""

    @classmethod
    def from_api(cls, data: object) -> Optional["Port"]:
        fields = mapping(data)
        private = integer(fields.get("PrivatePort"), 0, 65535)
        if private is None:
            return None
        public = integer(fields.get("PublicPort"), 1, 65535)
        ip = clean_text(fields.get("IP"), 45) if public else ""
        return cls(private, clean_text(fields.get("Type"), 8) or "tcp", public, ip)


def _ports(data: object) -> Tuple[Port, ...]:
    """Return the ports sorted, as engines list them in another order each time. Published ones are left out last."""
    if not isinstance(data, list):
        return ()
    ports = {port for port in map(Port.from_api, data[:65536]) if port}
    if len(ports) > MAX_PORTS:
        ports = set(sorted(ports, key=lambda port: (port.public is None, port.private, port.type, port.ip))[:MAX_PORTS])
    return tuple(sorted(ports, key=lambda port: (port.private, port.type, port.public or 0, port.ip)))


def _state(state: str, status: str) -> str:
    """Return Docker's word for the state, taken from the status text if the engine is too old to give a state."""
    state = _STATES.get(state, state)
    if not state:
        if not status:
            return "created"  # old engines leave the status empty until the first start
        lowered = status.lower()
        state = next((name for start, name in _STATUS_STATES if lowered.startswith(start)), "unknown")
    if state == "running" and status.endswith("(Paused)"):
        state = "paused"
    return state


def _name(names: object, container_id: str) -> str:
    """Return one name without its slash. A link adds names such as "/web/db"; a container being removed has none."""
    if isinstance(names, list):
        cleaned = [clean_text(name, NAME_LIMIT + 1).lstrip("/" + SPACE) for name in names[:64]]
        usable = sorted((name.count("/"), len(name), name) for name in cleaned if name)
        if usable:
            return usable[0][2]
    return container_id[:UNNAMED_ID]


class Container(NamedTuple):
    """One container of an engine's list.

    :ivar state: Docker's lower-case word: running, paused, restarting, exited, created, dead, removing, or any word of
        a newer engine.
    :ivar health: starting, healthy or unhealthy; None: no check is defined.
    :ivar exit_code: of the last run, if the engine gives it.
    :ivar created: None if the engine gives no usable time.
    :ivar group: NO_GROUP: it is in none.
    :ivar started_at: of a container that runs; None: unknown. The lists of most engines have only ``uptime``, from
        which :mod:`xscontainer.core.uptime` makes a time.
    :ivar uptime: how long it has been running, as its entry said when the engine made the list.
    :ivar networks: None: unknown, as in a list that was published or read without details; so are the next two.
    """

    id: str
    name: str
    image: str
    command: str
    created: Optional[int]
    state: str
    exit_code: Optional[int] = None
    health: Optional[str] = None
    ports: Tuple[Port, ...] = ()
    group: Group = NO_GROUP
    started_at: Optional[int] = None
    uptime: Optional[Span] = None
    networks: Optional[Tuple[Network, ...]] = None
    mounts: Optional[Tuple[Mount, ...]] = None
    restart_count: Optional[int] = None

    @classmethod
    def from_api(cls, data: object, details: bool = False) -> Optional["Container"]:
        """Return the container of one entry of GET /containers/json; None if its id is malformed.

        :param details: also read its networks, mounts and restart count.
        """
        fields = mapping(data)
        container_id = fields.get("Id")
        if not isinstance(container_id, str) or not _ID.fullmatch(container_id):
            return None
        status = clean_text(fields.get("Status"), 256)
        state = _state(clean_text(fields.get("State"), 32).lower(), status)
        code = _CODE.search(status) if state in ("exited", "restarting") else None
        command = fields.get("Command")
        if isinstance(command, list):
            command = " ".join(part[:COMMAND_LIMIT] for part in command[:COMMAND_LIMIT] if isinstance(part, str))
        started_at = moment(fields.get("StartedAt")) if state in UP else None  # podman's own list has it
        found = cls(
            id=container_id,
            name=_name(fields.get("Names"), container_id),
            image=clean_text(fields.get("Image"), IMAGE_LIMIT),
            command=clean_text(command, COMMAND_LIMIT),
            created=moment(fields.get("Created")),
            state=state,
            exit_code=int(code.group(1)) if code else None,
            health=_health(fields, state, status),
            ports=_ports(fields.get("Ports")),
            group=group_of_entry(fields),
            started_at=started_at,
            uptime=uptime_of(status) if state in UP and started_at is None else None,
        )
        return found._replace(**details_of_entry(fields)._asdict()) if details else found

    @property
    def cost(self) -> int:
        """Estimate of its memory, bytes; one wide character widens a whole text."""
        texts = self.name, self.image, self.command, self.group.name, self.group.service, self.group.unit
        ascii_only = all(len(text) == len(text.encode("utf-8", "surrogatepass")) for text in texts)
        own = 900 + (1 if ascii_only else 4) * sum(map(len, texts)) + 320 * len(self.ports)
        return own + (0 if self.group is NO_GROUP else 150) + sum(
            item.cost for items in (self.networks, self.mounts) for item in items or ())

    @property
    def status(self) -> str:
        """The status text, which clients compare literally: without age and health."""
        if self.state in ("exited", "restarting"):
            return f"{self.state.capitalize()} ({self.exit_code or 0})"
        return _STATUS.get(self.state) or self.state.capitalize()

    @property
    def actions(self) -> Tuple[str, ...]:
        """Names of the verbs that are useful in this state."""
        return _ACTIONS.get(self.state, ())

    @property
    def exit_words(self) -> str:
        """The exit code of the last run and its meaning."""
        return _exit_words(self.exit_code or 0)

    @property
    def reason(self) -> str:
        """Return the reason why the container needs attention, in a few words; "" if it needs none."""
        if self.state == "exited" and self.exit_code:
            return self.exit_words
        if self.state == "restarting":
            return f"restarting after exit code {self.exit_code or 0}"
        if self.state == "dead":
            return "could not be removed"
        return "unhealthy" if self.health == "unhealthy" else ""


def _health(fields: Mapping[str, Any], state: str, status: str) -> Optional[str]:
    """Return the health: newer engines have a field, older ones append it to the status text."""
    if state not in UP:
        return None  # the last result of a check that runs no more
    given = mapping(fields.get("Health")).get("Status")
    if isinstance(given, str):
        return given if given in HEALTHS else None
    found = _HEALTH.search(status)
    return found.group(1) if found else None


def _exit_words(code: int) -> str:
    words = _EXITS.get(code) or (f"signal {code - 128}" if 128 < code <= 192 else "")
    return f"exit code {code}: {words}" if words else f"exit code {code}"


class ContainerList(NamedTuple):
    """An engine's list, bounded.

    :ivar containers: newest first.
    :ivar left_out: number of containers beyond the limits.
    :ivar unusable: number of entries that are no containers.
    """

    containers: Tuple[Container, ...]
    left_out: int = 0
    unusable: int = 0


def least_wanted_last(container: Container) -> Tuple[bool, int, str]:
    """Return the sort key for leaving containers out: stopped ones come last, and older after newer."""
    stopped = container.state not in UP + ("restarting",)
    return (stopped,) + newest_first(container)


def newest_first(container: Container) -> Tuple[int, str]:
    """Return the sort key for newest first; a container without a usable time comes last."""
    return (-(container.created or 0), container.id)


def containers_from_api(data: object, limit: int = MAX_CONTAINERS) -> ContainerList:
    """Return the list in the answer to GET /containers/json?all=1: each id once, in a stable order."""
    collected = Collected(limit)
    for entry in data if isinstance(data, list) else []:
        collected.add(entry)
    return collected.result()


class Collected:
    """Collects the containers of a list whose entries come one at a time.

    It never keeps more than twice the limit, nor more than twice LIST_COST: networks and mounts are dropped first, then
    the least wanted containers. An id that
    comes again after its first entry was dropped counts as another container.

    :param details: also read networks, mounts and restart counts.
    :ivar cost: estimate of the containers' memory, bytes.
    """

    def __init__(self, limit: int = MAX_CONTAINERS, details: bool = False) -> None:
        self._limit = limit
        self._details = details
        self._found: Dict[str, Container] = {}
        self._left_out = self._unusable = 0
        self.cost = 0

    def add(self, entry: object) -> None:
        container = Container.from_api(entry, self._details)
        if container is None or container.id in self._found:
            self._unusable += 1
            return
        self._found[container.id] = container
        self.cost += container.cost
        if len(self._found) >= 2 * self._limit or self.cost >= 2 * LIST_COST:
            self._cut()

    def _cut(self) -> None:
        if self._details and self.cost > LIST_COST:
            self._details = False
            self._found = {found.id: found._replace(networks=None, mounts=None) for found in self._found.values()}
            self.cost = sum(found.cost for found in self._found.values())
            if len(self._found) <= self._limit and self.cost <= LIST_COST:
                return
        kept = sorted(self._found.values(), key=least_wanted_last)[:self._limit]
        self.cost = 0
        for count, container in enumerate(kept):
            if self.cost + container.cost > LIST_COST:
                del kept[count:]
                break
            self.cost += container.cost
        self._left_out += len(self._found) - len(kept)
        self._found = {container.id: container for container in kept}

    def result(self) -> ContainerList:
        if len(self._found) > self._limit or self.cost > LIST_COST:
            self._cut()
        return ContainerList(tuple(sorted(self._found.values(), key=newest_first)), self._left_out, self._unusable)
