"""The containers and images of one engine, how to find them, and its listeners."""

import os
import threading
from typing import Dict, List

from xscontainer.simulator.engines.clock import Clock
from xscontainer.simulator.engines.container import Container, network_id
from xscontainer.simulator.engines.events import EventLog


class ApiError(Exception):
    """An answer other than success: HTTP status and the engine's message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Store:
    """The containers and images of one engine. Methods raise ApiError and may be called from any thread.

    :param stopping: set while the engine is down; waits for a container end then.
    :param podman: events are those of podman 4.3 instead of dockerd's.
    """

    def __init__(self, stopping: threading.Event, podman: bool = False) -> None:
        self.podman = podman
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.events = EventLog()
        self.clock = Clock()
        self.containers: Dict[str, Container] = {}
        self.names: Dict[str, str] = {}
        self.images: Dict[str, str] = {}
        self.stopping = stopping
        self._pids = 1000

    # -- finding ----------------------------------------------------------------------------------------------------
    def find(self, wanted: str) -> Container:
        """Return the container of a full id, a name (with or without the slash) or the unique beginning of an id."""
        with self.lock:
            found = self.containers.get(wanted) or self.containers.get(self.names.get(wanted.lstrip("/"), ""))
            if found is None and wanted:
                begins = [container for key, container in self.containers.items() if key.startswith(wanted)]
                if len(begins) > 1:
                    raise ApiError(404, f"Multiple IDs found with provided prefix: {wanted}")
                found = begins[0] if begins else None
            if found is None:
                raise ApiError(404, f"No such container: {wanted}")
            return found

    def listed(self) -> List[Container]:
        """Return all containers, newest first."""
        with self.lock:
            return sorted(self.containers.values(), key=lambda container: -container.created)

    def image(self, name: str) -> str:
        """Return the id of an image of that name or id.

        :raises ApiError: 404.
        """
        full = name if ":" in name.rpartition("/")[2] else name + ":latest"
        with self.lock:
            if name in self.images.values():
                return name
            if full not in self.images:
                raise ApiError(404, f"No such image: {full}")
            return self.images[full]

    def add_image(self, name: str) -> str:
        """Add an image; return its id."""
        full = name if ":" in name.rpartition("/")[2] else name + ":latest"
        with self.lock:
            if full not in self.images:
                self.images[full] = "sha256:" + os.urandom(32).hex()
            return self.images[full]

    # -- changes ----------------------------------------------------------------------------------------------------
    def publish(self, container: Container, action: str, **attributes: str) -> None:
        """Publish an event of this container, with the attributes that engines always add."""
        full = {**attributes, **container.labels, "image": container.image, "name": container.name}
        if self.podman:
            full = {**full, **attributes}  # in dockerd's events labels come before these
            if action.startswith(("oom", "health_status", "exec_", "top")):
                return  # health checks need systemd's timers there
            action = {"destroy": "remove"}.get(action, action)
            full.pop("signal", None)
            full.pop("oldName", None)
            full.update(containerExitCode=attributes.get("exitCode", "0"), podId="")
        self.events.publish("container", action, container.id, dict(sorted(full.items())))

    def publish_signal(self, container: Container, number: int) -> None:
        """Publish the signal of an engine that stops a container. Podman does that without an event."""
        if not self.podman:
            self.publish(container, "kill", signal=str(number))

    def publish_network(self, container: Container, action: str) -> None:
        if self.podman:
            return
        name = container.network
        kind = {"none": "null"}.get(name, name)
        self.events.publish("network", action, network_id(name),
                            {"container": container.id, "name": name, "type": kind})

    def set_state(self, container: Container, state: str) -> None:
        container.state = state
        container.touch()
        self.changed.notify_all()
