"""One simulated container: its record and its form in the Engine API."""

import copy
import json
import os
import time
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from xscontainer.simulator.engines.log_entries import LogEntry

with open(os.path.join(os.path.dirname(__file__), "skeleton.json"), encoding="utf-8") as _file:
    SKELETON: Dict[str, Any] = json.load(_file)
"""The keys and types of every field that a real engine reports of a container without settings."""

Version = Tuple[int, ...]
_MARKER = os.urandom(16).hex()  # the place of the Status in an encoded entry: no label can contain it
NO_TIME = "0001-01-01T00:00:00Z"
STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")


class Health:
    """Result of a health check: ``starting``, ``healthy`` or ``unhealthy``."""

    def __init__(self) -> None:
        self.status = "starting"
        self.failing_streak = 0
        self.log: List[Dict[str, Any]] = []


class Load(NamedTuple):
    """The resources that a running container uses: CPUs, bytes of memory, processes."""

    cores: float = 0.01
    memory: int = 8 << 20
    pids: int = 1


class Container:
    """One container. A writer holds the engine's lock and calls touch()."""

    def __init__(self, container_id: str, name: str, body: Dict[str, Any], image_id: str, created: float) -> None:
        self.id = container_id
        self.name = name
        self.image = str(body["Image"])
        self.image_id = image_id
        self.created = created
        self.config = {**SKELETON["Config"], **{key: body[key] for key in body if key in CONFIG_KEYS}}
        self.config["Hostname"] = body.get("Hostname") or container_id[:12]
        self.config["Labels"] = dict(body.get("Labels") or {})
        self.host_config = {**copy.deepcopy(SKELETON["HostConfig"]), **(body.get("HostConfig") or {})}
        self.command: List[str] = _words(body.get("Entrypoint")) + _words(body.get("Cmd"))
        self.ports: List[Dict[str, Any]] = _ports(body, self.host_config)
        self.state = "created"
        self.exit_code = 0
        self.error = ""
        self.pid = 0
        self.started = 0.0
        self.finished = 0.0
        self.oom_killed = False
        self.restart_count = 0
        self.stopped_by_hand = False
        self.health: Optional[Health] = None
        self.logs: List[LogEntry] = []
        self.load = Load()
        self.exec_ids: List[str] = []
        self.life = 0
        """Counts starts: a timer of an earlier life must not act on a later one."""
        self.begun = (0, 0)
        """The last life that began, and the number of log entries before it."""
        self._cache: Dict[Tuple[Any, ...], Tuple[bytes, bytes]] = {}

    @property
    def labels(self) -> Dict[str, str]:
        labels: Dict[str, str] = self.config["Labels"]
        return labels

    @property
    def up(self) -> bool:
        """Return whether the engine calls the container running; a paused one counts, too."""
        return self.state in ("running", "paused")

    def touch(self) -> None:
        """Drop the cached JSON."""
        self._cache.clear()

    # -- as a list shows it -----------------------------------------------------------------------------------------
    def status(self, now: float) -> str:
        """Return the Status field of a list."""
        since, ended = human_duration(now - self.started), human_duration(now - self.finished)
        if self.state == "paused":
            return f"Up {since} (Paused)"
        if self.state == "running":
            if self.health is None:
                return f"Up {since}"
            return f"Up {since} ({'health: starting' if self.health.status == 'starting' else self.health.status})"
        if self.state == "restarting":
            return f"Restarting ({self.exit_code}) {ended} ago"
        if self.state == "exited":
            return f"Exited ({self.exit_code}) {ended} ago"
        return {"created": "Created", "removing": "Removal In Progress"}.get(self.state, "Dead")

    def entry(self, version: Version, size: bool, now: float) -> bytes:
        """Return the container's JSON for a list. All but the Status is encoded once and kept until touch()."""
        bucket = (version >= (1, 44), version >= (1, 52), size)
        if bucket not in self._cache:
            encoded = json.dumps(self._entry(bucket, _MARKER), separators=(",", ":"))
            before, _, after = encoded.partition(f'"{_MARKER}"')
            self._cache[bucket] = (before.encode("ascii"), after.encode("ascii"))
        head, tail = self._cache[bucket]
        return b'%s"%s"%s' % (head, self.status(now).encode("ascii"), tail)

    def _entry(self, bucket: Tuple[bool, bool, bool], status: str) -> Dict[str, Any]:
        entry = {
            "Id": self.id, "Names": ["/" + self.name], "Image": self.image, "ImageID": self.image_id,
            "Command": command_line(self.command), "Created": int(self.created), "Ports": self.ports,
        }
        if bucket[2]:
            entry["SizeRootFs"] = 1982256
        entry.update(
            Labels=self.labels, State=self.state, Status=status,
            HostConfig={"NetworkMode": self.host_config["NetworkMode"]},
            NetworkSettings={"Networks": self.networks(bucket[0])}, Mounts=[],
        )
        if bucket[1] and self.health is not None:
            entry["Health"] = {"Status": self.health.status, "FailingStreak": self.health.failing_streak}
        return entry

    # -- as inspect shows it ----------------------------------------------------------------------------------------
    def networks(self, new: bool) -> Dict[str, Any]:
        """Return the container's only network endpoint."""
        endpoint = dict(SKELETON["Endpoint"])
        if self.life:
            endpoint["NetworkID"] = network_id(self.network)
        if self.up:
            endpoint["EndpointID"] = self.id[::-1]
        if new:
            endpoint["DNSNames"] = None
        return {self.network: endpoint}

    @property
    def network(self) -> str:
        mode = str(self.host_config["NetworkMode"])
        return "bridge" if mode == "default" else mode

    def inspect(self, version: Version, size: bool, root: str) -> Dict[str, Any]:
        """Return the whole record of GET /containers/{id}/json."""
        state: Dict[str, Any] = {
            "Status": self.state, "Running": self.up or self.state == "restarting", "Paused": self.state == "paused",
            "Restarting": self.state == "restarting", "OOMKilled": self.oom_killed, "Dead": self.state == "dead",
            "Pid": self.pid, "ExitCode": self.exit_code, "Error": self.error, "StartedAt": stamp(self.started),
            "FinishedAt": stamp(self.finished),
        }
        if self.health is not None:
            state["Health"] = {"Status": self.health.status, "FailingStreak": self.health.failing_streak,
                               "Log": self.health.log[-5:]}
        place = f"{root}/containers/{self.id}/" if self.life else ""
        record: Dict[str, Any] = {
            "Id": self.id, "Created": stamp(self.created), "Path": self.command[0], "Args": self.command[1:],
            "State": state, "Image": self.image_id,
            "ResolvConfPath": place and place + "resolv.conf", "HostnamePath": place and place + "hostname",
            "HostsPath": place and place + "hosts", "LogPath": place and f"{place}{self.id}-json.log",
            "Name": "/" + self.name, "RestartCount": self.restart_count, "Driver": SKELETON["Info"]["Driver"],
            "Platform": "linux", "MountLabel": "", "ProcessLabel": "", "AppArmorProfile": "",
            "ExecIDs": self.exec_ids or None, "HostConfig": self.host_config,
            "GraphDriver": {"Data": None, "Name": SKELETON["Info"]["Driver"]},
        }
        if size:
            record.update(SizeRw=0, SizeRootFs=1982256)
        settings = dict(SKELETON["NetworkSettings"])
        if self.life:
            settings["SandboxID"] = self.id[::-1]
            settings["SandboxKey"] = "/var/run/docker/netns/" + self.id[-12:]
        settings["Networks"] = self.networks(version >= (1, 44))
        record.update(Mounts=[], Config=self.config, NetworkSettings=settings)
        return record


CONFIG_KEYS = tuple(SKELETON["Config"]) + ("Healthcheck", "StopSignal", "StopTimeout", "ExposedPorts", "MacAddress")


def network_id(name: str) -> str:
    """Return the id of the network of that name, which is the same for every engine."""
    return (name.encode("utf-8").hex() * 64)[:64]


def stamp(seconds: float) -> str:
    """Return a time in RFC 3339 with nanoseconds as Go writes it; Go's zero time for 0."""
    if not seconds:
        return NO_TIME
    whole, part = divmod(int(seconds * 1000000), 1000000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    return f"{text}.{part:06d}".rstrip("0").rstrip(".") + "Z"


def human_duration(seconds: float) -> str:
    """Return a duration in the words of a Status."""
    count = int(seconds)
    if count < 1:
        return "Less than a second"
    if count < 2:
        return "1 second"
    if count < 60:
        return f"{count} seconds"
    minutes = count // 60
    if minutes < 2:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours < 2:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    for limit, divisor, unit in ((336, 24, "days"), (1440, 168, "weeks"), (17520, 720, "months")):
        if hours < limit:
            return f"{hours // divisor} {unit}"
    return f"{hours // 8760} years"


def command_line(words: List[str]) -> str:
    """Return a command as lists show it: arguments with a blank are in single quotes."""
    return " ".join(words[:1] + [f"'{word}'" if " " in word else word for word in words[1:]])


def _words(value: Any) -> List[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else [str(word) for word in value]


def _ports(body: Dict[str, Any], host_config: Dict[str, Any]) -> List[Dict[str, Any]]:
    ports: List[Dict[str, Any]] = []
    bindings = host_config.get("PortBindings") or {}
    for key in list(body.get("ExposedPorts") or {}) + [key for key in bindings]:
        number, _, kind = str(key).partition("/")
        entry = {"PrivatePort": int(number), "Type": kind or "tcp"}
        published = [
            {"IP": binding.get("HostIp") or "0.0.0.0", "PrivatePort": int(number),
             "PublicPort": int(binding.get("HostPort") or number), "Type": kind or "tcp"}
            for binding in bindings.get(key) or []
        ]
        ports += [port for port in published or [entry] if port not in ports]
    return ports
