"""What a container engine says about itself and its containers, as plain values.

Every ``from_api`` takes decoded JSON of the Engine API (1.24 to today, Docker's
and Podman's) from a guest that may be hostile: unknown and ill-typed fields are
ignored, text is freed of characters that are no text, and everything is bounded
in length and number. None of them raises. Times are seconds since the epoch
unless a name says otherwise, sizes are bytes.
"""

import re
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

from xscontainer.harmless import SPACE, clean_text, integer, mapping, moment

MAX_CONTAINERS = 5000
MAX_PORTS = 16  # of one container; a media server may publish ten thousand
MAX_LABELS = 32
NAME_LIMIT = 255  # characters, as are the next two
IMAGE_LIMIT = 255
COMMAND_LIMIT = 128

_ID = re.compile(r"[0-9a-f]{64}")
_CODE = re.compile(r"\((-?[0-9]{1,10})\)")
_HEALTH = re.compile(r"\((?:health: )?(healthy|unhealthy|starting)\)")
HEALTHS = ("starting", "healthy", "unhealthy")

# Podman's names for what Docker calls otherwise.
_STATES = {"configured": "created", "initialized": "created", "stopped": "exited", "stopping": "running"}
# How the status text of an engine that gives no state begins.
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
    125: "the engine could not run it",
    126: "command cannot be run",
    127: "command not found",
    134: "aborted",
    137: "killed",
    139: "segmentation fault",
    143: "terminated",
}


class Port(NamedTuple):
    """A port a container exposes; ``ip`` and ``public`` only when it is published on the guest."""

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
    """Sorted, because engines list them in another order each time; published ones are the last to be left out."""
    if not isinstance(data, list):
        return ()
    ports = {port for port in map(Port.from_api, data[:65536]) if port}
    if len(ports) > MAX_PORTS:
        ports = set(sorted(ports, key=lambda port: (port.public is None, port.private, port.type, port.ip))[:MAX_PORTS])
    return tuple(sorted(ports, key=lambda port: (port.private, port.type, port.public or 0, port.ip)))


def _state(state: str, status: str) -> str:
    """Docker's word for the state; from the status text when the engine is too old to give one."""
    state = _STATES.get(state, state)
    if not state:
        if not status:
            return "created"  # engines of that age leave it empty until the first start
        lowered = status.lower()
        state = next((name for start, name in _STATUS_STATES if lowered.startswith(start)), "unknown")
    if state == "running" and status.endswith("(Paused)"):
        state = "paused"
    return state


def _name(names: object, container_id: str) -> str:
    """One name without its slash: a link adds names such as "/web/db", and a container being removed has none."""
    if isinstance(names, list):
        cleaned = [clean_text(name, NAME_LIMIT + 1).lstrip("/" + SPACE) for name in names[:64]]
        usable = sorted((name.count("/"), len(name), name) for name in cleaned if name)
        if usable:
            return usable[0][2]
    return container_id[:12]


class Container(NamedTuple):
    """One container as a list shows it.

    ``state`` is Docker's lower-case word (running, paused, restarting, exited, created, dead, removing, or
    whatever a newer engine says), ``health`` is starting, healthy, unhealthy or None where no check is
    defined, ``exit_code`` is that of the last run when the engine tells it.
    """

    id: str
    name: str
    image: str
    command: str
    created: int
    state: str
    exit_code: Optional[int] = None
    health: Optional[str] = None
    ports: Tuple[Port, ...] = ()

    @classmethod
    def from_api(cls, data: object) -> Optional["Container"]:
        """From one entry of GET /containers/json; None when its id is not one."""
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
        return cls(
            id=container_id,
            name=_name(fields.get("Names"), container_id),
            image=clean_text(fields.get("Image"), IMAGE_LIMIT),
            command=clean_text(command, COMMAND_LIMIT),
            created=moment(fields.get("Created")),
            state=state,
            exit_code=int(code.group(1)) if code else None,
            health=_health(fields, state, status),
            ports=_ports(fields.get("Ports")),
        )

    @property
    def status(self) -> str:
        """The words clients compare literally: neither age nor health goes in."""
        if self.state in ("exited", "restarting"):
            return f"{self.state.capitalize()} ({self.exit_code or 0})"
        return _STATUS.get(self.state) or self.state.capitalize()

    @property
    def actions(self) -> Tuple[str, ...]:
        """The plugin's verbs that make sense in this state."""
        return _ACTIONS.get(self.state, ())

    @property
    def reason(self) -> str:
        """Why all is not well, in a few words; "" when it is."""
        if self.state == "exited" and self.exit_code:
            return _exit_words(self.exit_code)
        if self.state == "restarting":
            return f"restarting after exit code {self.exit_code or 0}"
        if self.state == "dead":
            return "could not be removed"
        return "unhealthy" if self.health == "unhealthy" else ""


def _health(fields: Mapping[str, Any], state: str, status: str) -> Optional[str]:
    """Newer engines have a field for it, older ones append it to the status text; a stopped container has none."""
    if state not in ("running", "paused"):
        return None
    given = mapping(fields.get("Health")).get("Status")
    if isinstance(given, str):
        return given if given in HEALTHS else None
    found = _HEALTH.search(status)
    return found.group(1) if found else None


def _exit_words(code: int) -> str:
    words = _EXITS.get(code) or (f"signal {code - 128}" if 128 < code <= 192 else "")
    return f"exit code {code}: {words}" if words else f"exit code {code}"


class ContainerList(NamedTuple):
    """``containers`` newest first; ``left_out``: more than the limit allowed; ``unusable``: entries that were none."""

    containers: Tuple[Container, ...]
    left_out: int = 0
    unusable: int = 0


def least_wanted_last(container: Container) -> Tuple[bool, int, str]:
    """Sort key for leaving containers out: stopped ones go first, then the oldest."""
    return (container.state not in ("running", "paused", "restarting"), -container.created, container.id)


def containers_from_api(data: object, limit: int = MAX_CONTAINERS) -> ContainerList:
    """From the answer to GET /containers/json?all=1: each id once, in an order that only a new container changes."""
    entries = data if isinstance(data, list) else []
    found: Dict[str, Container] = {}
    unusable = 0
    for entry in entries:
        container = Container.from_api(entry)
        if container is None or container.id in found:
            unusable += 1
        else:
            found[container.id] = container
    kept = list(found.values())
    if len(kept) > limit:
        kept = sorted(kept, key=least_wanted_last)[:limit]
    kept.sort(key=lambda container: (-container.created, container.id))
    return ContainerList(tuple(kept), len(found) - len(kept), unusable)


class EngineVersion(NamedTuple):
    """From GET /version. Changes only when the engine is updated."""

    version: str = ""
    api_version: str = ""
    min_api_version: str = ""
    git_commit: str = ""
    go_version: str = ""
    os: str = ""
    arch: str = ""
    kernel_version: str = ""
    build_time: str = ""
    platform: str = ""

    @classmethod
    def from_api(cls, data: object) -> "EngineVersion":
        fields = mapping(data)
        names = "Version ApiVersion MinAPIVersion GitCommit GoVersion Os Arch KernelVersion BuildTime".split()
        platform = mapping(fields.get("Platform")).get("Name")
        return cls(*[clean_text(value, 128) for value in [*map(fields.get, names), platform]])


class EngineInfo(NamedTuple):
    """From GET /info.

    ``containers`` and ``images`` count what exists and so change with every container event. Each write of
    the document is broadcast over the whole pool: write it only when :meth:`stable_key` differs from that of
    the last write, and let the counters be as old as that write. Clocks and gauges (SystemTime, NGoroutines,
    NFd, MemFree ...) are left out altogether, and so are the proxy settings, which may hold a password.
    """

    id: str = ""
    name: str = ""
    server_version: str = ""
    operating_system: str = ""
    os_type: str = ""
    architecture: str = ""
    kernel_version: str = ""
    cpus: int = 0
    memory: int = 0
    driver: str = ""
    execution_driver: str = ""
    logging_driver: str = ""
    cgroup_driver: str = ""
    index_server: str = ""
    root_directory: str = ""
    ipv4_forwarding: Optional[bool] = None
    labels: Tuple[str, ...] = ()
    containers: int = 0
    images: int = 0

    @classmethod
    def from_api(cls, data: object) -> "EngineInfo":
        fields = mapping(data)
        forwarding = fields.get("IPv4Forwarding")  # a number in old engines
        given = fields.get("Labels")
        labels = given[:MAX_LABELS] if isinstance(given, list) else []

        def text(name: str) -> str:
            return clean_text(fields.get(name), 256)

        def count(name: str) -> int:
            return integer(fields.get(name), 0, 1 << 60) or 0

        return cls(
            id=text("ID"),
            name=text("Name"),
            server_version=text("ServerVersion"),
            operating_system=text("OperatingSystem"),
            os_type=text("OSType"),
            architecture=text("Architecture"),
            kernel_version=text("KernelVersion"),
            cpus=count("NCPU"),
            memory=count("MemTotal"),
            driver=text("Driver"),
            execution_driver=text("ExecutionDriver"),
            logging_driver=text("LoggingDriver"),
            cgroup_driver=text("CgroupDriver"),
            index_server=text("IndexServerAddress"),
            root_directory=text("DockerRootDir"),
            ipv4_forwarding=bool(forwarding) if isinstance(forwarding, (bool, int)) else None,
            labels=tuple(filter(None, (clean_text(label, 128) for label in labels))),
            containers=count("Containers"),
            images=count("Images"),
        )

    def stable_key(self) -> "EngineInfo":
        """The same without the counters: compare this to decide whether to write."""
        return self._replace(containers=0, images=0)
