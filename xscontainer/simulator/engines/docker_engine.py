"""An engine that docker's own client talks to: its containers, made through the Engine API."""

import os
import threading
from typing import Any, Dict, List, Optional, Sequence, Union

import docker

from xscontainer.simulator.engines.errors import SimulatorError
from xscontainer.simulator.engines.started import Logged, Started

IMAGE = "busybox:latest"
MAX_SOCKET_PATH = 100


class DockerEngine(Started, Logged):
    """Base of the real engines.

    :param directory: for all files of the engine.
    :param socket_path: where it listens; at most 100 characters.
    :param log_path: its log.
    """

    def __init__(self, directory: str, socket_path: str, log_path: str) -> None:
        self.directory = os.path.abspath(directory)
        self.socket_path = socket_path
        if len(self.socket_path) > MAX_SOCKET_PATH:
            raise SimulatorError(f"the socket path is longer than {MAX_SOCKET_PATH} characters: {self.socket_path}")
        self.log_path = log_path
        self._client: Optional[docker.APIClient] = None
        self._client_lock = threading.Lock()

    def client(self) -> docker.APIClient:
        """Return this engine's client. Only one thread may use it; others call new_client()."""
        with self._client_lock:
            if self._client is None:
                self._client = self.new_client()
            return self._client

    def new_client(self, timeout: float = 30.0) -> docker.APIClient:
        """Return a new docker.APIClient, which the caller closes."""
        return docker.APIClient(base_url="unix://" + self.socket_path, version="auto", timeout=timeout)

    def _drop_client(self) -> None:
        with self._client_lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def run(
        self, name: str, command: Union[str, Sequence[str]] = ("sleep", "1000000"), image: str = IMAGE,
        start: bool = True, **options: Any
    ) -> str:
        """Create (and start) a container without network; return its id.

        :param options: more of the create body, in the Engine API's own words (Labels=..., HostConfig=..., ...).
        """
        self.add_image(image)
        host_config: Dict[str, Any] = {"NetworkMode": "none"}
        host_config.update(options.pop("HostConfig", {}))
        body = {"Image": image, "Cmd": [command] if isinstance(command, str) else list(command),
                "HostConfig": host_config, "StopTimeout": 1}
        body.update(options)
        container: str = self.client().create_container_from_config(body, name)["Id"]
        if start:
            self.client().start(container)
        return container

    def add_image(self, name: str) -> None:
        """Make an image name usable: another tag of the busybox image."""
        if not self.client().images(name):
            repository, _, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", "latest")
            self.client().tag(IMAGE, repository, tag)

    def do(self, verb: str, container: str, **options: Any) -> None:
        """Apply start, stop, restart, kill, pause, unpause, remove or rename (``name=``) to a container."""
        if verb in ("stop", "restart"):
            options.setdefault("timeout", 0)
        if verb == "remove":
            options.setdefault("force", True)
            self.client().remove_container(container, **options)
        else:
            getattr(self.client(), verb)(container, **options)

    def list(self) -> List[Dict[str, Any]]:
        """Return all containers as the Engine API lists them."""
        found: List[Dict[str, Any]] = self.client().containers(all=True)
        return found
