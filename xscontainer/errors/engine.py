"""Errors of an engine that can be reached."""

from xscontainer.errors.base import XSContainerError


class EngineError(XSContainerError):
    """The guest can be reached, but its engine does not serve the request."""

    code = "ENGINE_ERROR"
    transient = True


class EngineUnavailable(EngineError):
    """No engine answers on its socket."""

    code = "ENGINE_UNAVAILABLE"
    during_setup = True
    default_hint = "Check that the container engine is installed and running in the VM."


class EngineSocketAbsent(EngineUnavailable):
    """The socket does not exist: no engine is installed, or its socket has another path."""

    code = "ENGINE_SOCKET_ABSENT"
    default_hint = ("Install and start the container engine in the VM, or set xscontainer-engine-socket in its "
                    "other_config to the path of the engine's socket.")


class EngineStopped(EngineUnavailable):
    """The socket exists, but nothing listens on it."""

    code = "ENGINE_STOPPED"
    default_hint = "Start the container engine in the VM (systemctl start docker)."


class EngineForbidden(EngineError):
    """The user may not open the engine's socket: the user is not in the group `docker`."""

    code = "ENGINE_FORBIDDEN"
    default_hint = "Add the user to the group that owns the engine's socket (usually 'docker')."


class EngineTooOld(EngineError):
    """The engine is older than Docker 1.12."""

    code = "ENGINE_TOO_OLD"
    default_hint = ("Update the container engine in the VM. API version 1.24 (Docker 1.12) is the oldest supported "
                    "version.")


class EngineTimeout(EngineError):
    """The engine gave no complete answer in time."""

    code = "ENGINE_TIMEOUT"
    during_setup = True
    default_hint = "Check that 'docker ps' answers in the VM, and that the VM is not overloaded."


class EngineLost(EngineError):
    """The engine closed the connection before or during an answer."""

    code = "ENGINE_LOST"
    during_setup = True
    default_hint = "Repeat the call. If that does not help, see the engine's log in the VM."


class EngineGarbage(EngineError):
    """The answer does not come from a container engine."""

    code = "ENGINE_GARBAGE"
    default_hint = "Check that a container engine listens on the socket in the VM."


class EngineTooMuch(EngineError):
    """The answer is longer than `max_response_bytes`."""

    code = "ENGINE_TOO_MUCH"
    default_hint = "Remove containers that are not needed, or raise max_response_bytes in the settings."


class EngineWithoutEvents(EngineError):
    """The engine does not report changes, so its list is polled."""

    code = "EVENTS_UNAVAILABLE"
    default_hint = ("If a proxy or an authorization plugin stands before the engine, let it allow GET /events and "
                    "forward answers without buffering. For Podman, set events_logger in containers.conf to journald "
                    "or file.")


class EngineWithoutFacts(EngineError):
    """The engine does not answer /info or /version. The list is shown, without facts about the engine."""

    code = "FACTS_UNAVAILABLE"
    default_hint = ("If a proxy or an authorization plugin stands before the engine, let it allow GET /info and "
                    "GET /version.")


class MemoryBusy(EngineError):
    """The memory for engines' answers is taken by large answers of other VMs."""

    code = "MEMORY_BUSY"
    default_hint = "Repeat the call in a few seconds. Lists are requested again automatically."


class ContainerNotFound(EngineError):
    """The engine does not know the container."""

    code = "CONTAINER_NOT_FOUND"


class ContainerConflict(EngineError):
    """The action is not possible in the container's state."""

    code = "CONTAINER_CONFLICT"


class ContainerStopping(EngineError):
    """The container takes longer to stop than the caller can wait. It is still stopping."""

    code = "CONTAINER_STOPPING"
    default_hint = "Wait until the list shows the container as exited, or end it in the VM with 'docker kill'."


class EngineRefused(EngineError):
    """The engine, or an authorization plugin of it, refuses the request."""

    code = "ENGINE_REFUSED"
    default_hint = "The engine's message says why. Its log in the VM may say more."


class LogsUnreadable(EngineError):
    """The container's logging driver keeps no log that the engine can read."""

    code = "LOGS_UNREADABLE"
    transient = False
    default_hint = ("Create the container with a logging driver that can be read: json-file, local or journald for "
                    "Docker, k8s-file or journald for Podman.")


class StatsUnavailable(EngineError):
    """The engine cannot measure its containers: a rootless Podman needs cgroup v2."""

    code = "STATS_UNAVAILABLE"
    transient = False
    default_hint = "Boot the VM with cgroup v2 (kernel argument systemd.unified_cgroup_hierarchy=1)."
