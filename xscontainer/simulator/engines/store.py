"""What one engine knows: its containers and images, how to find them, and whom to tell about changes."""

import os
import threading
from typing import Dict, List

from xscontainer.simulator.engines.clock import Clock
from xscontainer.simulator.engines.container import Container, network_id
from xscontainer.simulator.engines.events import EventLog


class ApiError(Exception):
    """An answer other than success: HTTP status and the engine's words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Store:
    """Containers and images of one engine. Methods raise ApiError; each is safe in any thread.

    :param stopping: set while the engine is down; whoever waits for a container gives up then.
    """

    def __init__(self, stopping: threading.Event) -> None:
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
        """By full id, name (with or without the slash) or unique beginning of an id."""
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
        """All, newest first."""
        with self.lock:
            return sorted(self.containers.values(), key=lambda container: -container.created)

    def image(self, name: str) -> str:
        """The id of an image by name or id.

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
        """Make an image name known; its id."""
        full = name if ":" in name.rpartition("/")[2] else name + ":latest"
        with self.lock:
            if full not in self.images:
                self.images[full] = "sha256:" + os.urandom(32).hex()
            return self.images[full]

    # -- changes ----------------------------------------------------------------------------------------------------
    def publish(self, container: Container, action: str, **attributes: str) -> None:
        """An event of this container, with what engines always say about it."""
        full = {**container.labels, **attributes, "image": container.image, "name": container.name}
        self.events.publish("container", action, container.id, dict(sorted(full.items())))

    def publish_network(self, container: Container, action: str) -> None:
        name = container.network
        kind = {"none": "null"}.get(name, name)
        self.events.publish("network", action, network_id(name),
                            {"container": container.id, "name": name, "type": kind})

    def set_state(self, container: Container, state: str) -> None:
        container.state = state
        container.touch()
        self.changed.notify_all()
