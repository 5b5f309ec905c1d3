"""The verbs of an engine, with the events, messages and exit codes of a real one."""

import os
import re
import signal
import time
from typing import Any, Dict, Optional

from xscontainer.simulator.engines.container import Container
from xscontainer.simulator.engines.running import Running, signal_number
from xscontainer.simulator.engines.store import ApiError

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")


class Lifecycle(Running):
    """All verbs of one engine."""

    # -- verbs ------------------------------------------------------------------------------------------------------
    def create(self, name: str, body: Dict[str, Any]) -> Container:
        if name and not NAME.match(name.lstrip("/")):
            raise ApiError(400, f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
        if not isinstance(body, dict) or not body:
            raise ApiError(400, "Config cannot be empty in order to create a container")
        image_id = self.image(str(body.get("Image") or ""))
        if not (body.get("Cmd") or body.get("Entrypoint")):
            raise ApiError(400, "No command specified")
        with self.lock:
            name = name.lstrip("/") or "sim_" + os.urandom(4).hex()
            self._check_free(name)
            container = Container(os.urandom(32).hex(), name, body, image_id, time.time())
            self.containers[container.id] = container
            self.names[name] = container.id
            self.publish(container, "create")
            return container

    def _check_free(self, name: str, prefix: str = "") -> None:
        if name in self.names:
            raise ApiError(
                409, f'{prefix}Conflict. The container name "/{name}" is already in use by container '
                f'"{self.names[name]}". '
                "You have to remove (or rename) that container to be able to reuse that name.")

    def start(self, wanted: str) -> bool:
        """Return whether anything changed."""
        with self.lock:
            container = self.find(wanted)
            if container.state == "paused":
                raise ApiError(409, "cannot start a paused container, try unpause instead")
            if container.state in ("running", "restarting"):
                return False
            if container.state in ("dead", "removing"):
                raise ApiError(409, "container is marked for removal and cannot be started")
            container.restart_count = 0
            self.bring_up(container)
            return True

    def stop(self, wanted: str, seconds: Optional[float]) -> bool:
        with self.lock:
            container = self.find(wanted)
            if not container.up and container.state != "restarting":
                return False
            if self.podman and seconds is None:
                self.publish(container, "stop")  # mostly; with a timeout mostly not
            self.terminate(container, seconds)
            if not self.podman:
                self.publish(container, "stop")
            return True

    def restart(self, wanted: str, seconds: Optional[float]) -> None:
        with self.lock:
            container = self.find(wanted)
            if container.state in ("dead", "removing"):
                raise ApiError(409, "container is marked for removal and cannot be started")
            if self.podman:
                self.publish(container, "restart")
            if container.up or container.state == "restarting":
                self.terminate(container, seconds)
                if not self.podman:
                    self.publish(container, "stop")
            self.bring_up(container)
            if not self.podman:
                self.publish(container, "restart")

    def kill(self, wanted: str, name: str) -> None:
        number = signal_number(name)
        with self.lock:
            try:
                container = self.find(wanted)
            except ApiError as error:
                raise ApiError(error.status, f"Cannot kill container: {wanted}: {error.message}") from error
            if container.state == "restarting":
                self.end_restarting(container)
                return
            if not container.up:
                raise ApiError(
                    409, f"Cannot kill container: {wanted}: Container {container.id} is not running")
            container.stopped_by_hand = True
            self.publish(container, "kill", signal=str(number))
            if number == signal.SIGKILL:
                self.die(container, 137)
            elif number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT) and not self.ignores(container):
                self.die(container, self.term_code(container))

    def pause(self, wanted: str) -> None:
        with self.lock:
            container = self.find(wanted)
            if container.state == "paused":
                raise ApiError(409, f"Container {container.id} is already paused")
            if container.state == "restarting":
                raise ApiError(409, f"Container {container.id} is restarting, wait until the container is running")
            if container.state != "running":
                raise ApiError(409, f"Container {container.id} is not running")
            self.set_state(container, "paused")
            self.publish(container, "pause")

    def unpause(self, wanted: str) -> None:
        with self.lock:
            container = self.find(wanted)
            if container.state != "paused":
                raise ApiError(500, f"Container {container.id} is not paused")
            self.set_state(container, "running")
            self.publish(container, "unpause")

    def rename(self, wanted: str, name: str) -> None:
        new = name.lstrip("/")
        if not new:
            raise ApiError(400, "Neither old nor new names may be empty")
        with self.lock:
            container = self.find(wanted)
            if new == container.name:
                raise ApiError(400, "Renaming a container with the same name as its current name")
            prefix = "Error when allocating new name: "
            if not NAME.match(new):
                raise ApiError(
                    400, f"{prefix}Invalid container name (/{new}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
            self._check_free(new, prefix)
            old = container.name
            del self.names[old]
            self.names[new] = container.id
            container.name = new
            container.touch()
            self.publish(container, "rename", oldName="/" + old)

    def remove(self, wanted: str, force: bool) -> None:
        with self.lock:
            container = self.find(wanted)
            if container.up or container.state == "restarting":
                if not force:
                    word = {"paused": "paused", "restarting": "restarting"}.get(container.state, "running")
                    first = "Unpause and then stop" if word == "paused" else "Stop"
                    raise ApiError(
                        409, f"You cannot remove a {word} container {container.id}. {first} the container before "
                        "attempting removal or force remove")
                if container.state == "restarting":
                    self.end_restarting(container)
                else:
                    container.stopped_by_hand = True
                    self.publish_signal(container, 9)
                    self.die(container, 137)
            self.forget(container)

    def wait(self, wanted: str, condition: str) -> int:
        """Block until the container has ended or is removed; return its exit code."""
        with self.changed:
            container = self.find(wanted)
            life = container.life + (condition == "next-exit")
            def over() -> bool:
                if condition == "removed":
                    return container.id not in self.containers
                return container.life >= life and not container.up and container.state != "restarting"
            while not over() and not self.stopping.is_set():
                self.changed.wait(1.0)
            return container.exit_code

    # -- for tests --------------------------------------------------------------------------------------------------
    def force_state(self, wanted: str, state: str, exit_code: int = 0) -> None:
        """Put a container into a state (dead, removing, restarting ...) without history and events."""
        with self.lock:
            container = self.find(wanted)
            container.life += 1
            container.exit_code = exit_code
            container.started = container.started or (0.0 if state == "created" else time.time())
            if state not in ("running", "paused", "created"):
                container.finished, container.pid = time.time(), 0
            self.set_state(container, state)

    def run_out_of_memory(self, wanted: str) -> None:
        """Let the kernel kill the container's process."""
        with self.lock:
            container = self.find(wanted)
            if container.up:
                container.oom_killed = not self.podman  # 4.3 does not see it with cgroups v1
                self.publish(container, "oom")
                self.die(container, 137)

    def finish(self, wanted: str, exit_code: int) -> None:
        """End the container's process as if by itself."""
        with self.lock:
            container = self.find(wanted)
            if container.up:
                self.die(container, exit_code)
