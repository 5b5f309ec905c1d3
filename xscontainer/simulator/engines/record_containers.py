"""Creating and changing the containers of an embedded engine without its API."""

import time
from typing import Any, Dict, List, Sequence, Union

from xscontainer.simulator.engines.errors import SimulatorError
from xscontainer.simulator.engines.lifecycle import Lifecycle
from xscontainer.simulator.engines.store import ApiError

IMAGE = "busybox:latest"


class RecordContainers:
    """The containers of an engine: records in ``life``."""

    def __init__(self, life: Lifecycle) -> None:
        self.life = life
        self.life.add_image(IMAGE)

    def run(
        self, name: str, command: Union[str, Sequence[str]] = ("sleep", "1000000"), image: str = IMAGE,
        start: bool = True, state: str = "", exit_code: int = 0, **options: Any
    ) -> str:
        """Create (and start) a container; return its id.

        :param state: the state to put it into at once, without history: created, running, paused, restarting, removing,
            exited (with ``exit_code``) or dead.
        :param options: more of the create body, in the Engine API's own words (Labels=..., HostConfig=..., ...).
        """
        self.life.add_image(image)
        host_config: Dict[str, Any] = {"NetworkMode": "none"}
        host_config.update(options.pop("HostConfig", {}))
        words = [command] if isinstance(command, str) else list(command)
        body = {"Image": image, "Cmd": words, "HostConfig": host_config, "StopTimeout": 1}
        body.update(options)
        with self.life.lock:
            container = self.life.create(name, body)
            if start and state != "created":
                self.life.start(container.id)
            if state and state != "running":
                self.life.force_state(container.id, state, exit_code)
        return container.id

    def add_image(self, name: str) -> None:
        """Make an image name usable."""
        self.life.add_image(name)

    def do(self, verb: str, container: str, **options: Any) -> None:
        """Apply a verb to a container.

        Verbs: start, stop, restart, kill, pause, unpause, remove, rename (``name=``), finish (``exit_code=``), health
        (``status=``) and oom.

        :raises SimulatorError: the engine refuses.
        """
        seconds = float(options.get("timeout", 0))
        life = self.life
        verbs: Dict[str, Any] = {
            "start": lambda: life.start(container), "stop": lambda: life.stop(container, seconds),
            "restart": lambda: life.restart(container, seconds),
            "kill": lambda: life.kill(container, str(options.get("signal", ""))),
            "pause": lambda: life.pause(container), "unpause": lambda: life.unpause(container),
            "remove": lambda: life.remove(container, bool(options.get("force", True))),
            "rename": lambda: life.rename(container, str(options.get("name", ""))),
            "finish": lambda: life.finish(container, int(options.get("exit_code", 0))),
            "oom": lambda: life.run_out_of_memory(container),
            "health": lambda: life.set_health(container, str(options.get("status", "healthy"))),
        }
        if verb not in verbs:
            raise SimulatorError(f"no such verb: {verb}")
        try:
            verbs[verb]()
        except ApiError as error:
            raise SimulatorError(error.message) from error

    def make_dead(self, container: str) -> None:
        """Bring a container into the state "dead"."""
        self.life.force_state(container, "dead")

    def list(self) -> List[Dict[str, Any]]:
        """Return Id, Names, Image, State, Status and Labels of all containers."""
        now = time.time()
        with self.life.lock:
            return [
                {"Id": container.id, "Names": ["/" + container.name], "Image": container.image,
                 "State": container.state, "Status": container.status(now), "Labels": dict(container.labels)}
                for container in self.life.listed()
            ]
