"""The facts of an engine as plain values, made from its answers: everything is bounded, and nothing raises."""

from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

from xscontainer.sanitize import clean_text, integer, mapping

MAX_LABELS = 32

# Fields that are text -> their names in the answers to GET /version and GET /info.
_VERSION_TEXTS = {"version": "Version", "api_version": "ApiVersion", "min_api_version": "MinAPIVersion",
                  "git_commit": "GitCommit", "go_version": "GoVersion", "os": "Os", "arch": "Arch",
                  "kernel_version": "KernelVersion", "build_time": "BuildTime"}
_INFO_TEXTS = {"id": "ID", "name": "Name", "server_version": "ServerVersion", "operating_system": "OperatingSystem",
               "os_type": "OSType", "architecture": "Architecture", "kernel_version": "KernelVersion",
               "driver": "Driver", "execution_driver": "ExecutionDriver", "logging_driver": "LoggingDriver",
               "cgroup_driver": "CgroupDriver", "index_server": "IndexServerAddress",
               "root_directory": "DockerRootDir"}


def _texts(fields: Mapping[str, Any], names: Mapping[str, str], limit: int) -> Dict[str, Any]:
    """Return the texts of an answer by the names of our fields, each at most ``limit`` characters long."""
    return {name: clean_text(fields.get(theirs), limit) for name, theirs in names.items()}


class EngineVersion(NamedTuple):
    """The answer to GET /version, which changes only when the engine is updated."""

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
        return cls(platform=clean_text(mapping(fields.get("Platform")).get("Name"), 128),
                   **_texts(fields, _VERSION_TEXTS, 128))


class EngineInfo(NamedTuple):
    """The answer to GET /info.

    ``containers`` and ``images`` are counters that change with every container event. XAPI sends each write of the
    document to every client of the pool: write it only when :meth:`stable_key` has changed since the last write, and
    let the counters be as old as that write. Clocks and gauges (SystemTime, NGoroutines, NFd, MemFree ...) are left
    out, and so are the proxy settings, which may contain a password.
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

        def count(name: str) -> int:
            return integer(fields.get(name), 0, 1 << 60) or 0

        return cls(
            cpus=count("NCPU"),
            memory=count("MemTotal"),
            ipv4_forwarding=bool(forwarding) if isinstance(forwarding, (bool, int)) else None,
            labels=tuple(filter(None, (clean_text(label, 128) for label in labels))),
            containers=count("Containers"),
            images=count("Images"),
            **_texts(fields, _INFO_TEXTS, 256),
        )

    def stable_key(self) -> "EngineInfo":
        """Return the facts without the counters: compare them to decide whether to write."""
        return self._replace(containers=0, images=0)
