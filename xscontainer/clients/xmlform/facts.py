"""Write docker_info and docker_version."""

from typing import Dict, Mapping

from xscontainer.clients.xmlform.writer import Writer
from xscontainer.core.engine_facts import EngineInfo, EngineVersion


def docker_info(info: EngineInfo) -> str:
    """Return the facts under Docker's own names. Compare ``info.stable_key()``, not this text, for a change."""
    return _flat("docker_info", info_fields(info))


def docker_version(version: EngineVersion) -> str:
    """Return the engine's versions under Docker's own names."""
    return _flat("docker_version", version_fields(version))


def info_fields(info: EngineInfo) -> Dict[str, str]:
    """Return every name that a client reads with its text, "" if this engine has no such fact."""
    forwarding = info.ipv4_forwarding
    return {
        "ID": info.id,
        "Name": info.name,
        "ServerVersion": info.server_version,
        "OperatingSystem": info.operating_system,
        "OSType": info.os_type,
        "Os": info.os_type,
        "Architecture": info.architecture,
        "Arch": info.architecture,
        "KernelVersion": info.kernel_version,
        "NCPU": str(info.cpus),
        "MemTotal": str(info.memory),
        "Driver": info.driver,
        "ExecutionDriver": info.execution_driver,
        "LoggingDriver": info.logging_driver,
        "CgroupDriver": info.cgroup_driver,
        "IndexServerAddress": info.index_server,
        "IPv4Forwarding": "" if forwarding is None else str(forwarding).lower(),
        "DockerRootDir": info.root_directory,
        "Labels": ", ".join(info.labels),
        "Containers": str(info.containers),
        "Images": str(info.images),
    }


def version_fields(version: EngineVersion) -> Dict[str, str]:
    """Return the element names and texts of docker_version, in their order."""
    return {
        "Version": version.version,
        "ApiVersion": version.api_version,
        "MinAPIVersion": version.min_api_version,
        "GitCommit": version.git_commit,
        "GoVersion": version.go_version,
        "Os": version.os,
        "Arch": version.arch,
        "KernelVersion": version.kernel_version,
        "BuildTime": version.build_time,
        "Platform": version.platform,
    }


def _flat(root: str, fields: Mapping[str, str]) -> str:
    writer = Writer()
    return f"<{root}>{''.join(writer.element(name, value) for name, value in fields.items())}</{root}>"
