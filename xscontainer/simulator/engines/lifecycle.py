"""What the verbs of an engine do to its containers, with the events, words and codes of a real one."""

import os
import re
import signal
import threading
import time
from typing import Any, Callable, Dict, List, Optional

from xscontainer.simulator.engines import program
from xscontainer.simulator.engines.clock import Clock
from xscontainer.simulator.engines.container import Container, Health, network_id, stamp
from xscontainer.simulator.engines.events import EventLog

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")
RESTART_DELAY = 0.1
MAX_RESTART_DELAY = 60.0
A_DAY = 86400.0


class ApiError(Exception):
    """An answer other than success: HTTP status and the engine's words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Lifecycle:
    """All containers and images of one engine. Methods raise ApiError; each is safe in any thread.

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
        self._stopping = stopping
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
        """Whether anything changed."""
        with self.lock:
            container = self.find(wanted)
            if container.state == "paused":
                raise ApiError(409, "cannot start a paused container, try unpause instead")
            if container.state in ("running", "restarting"):
                return False
            if container.state in ("dead", "removing"):
                raise ApiError(409, "container is marked for removal and cannot be started")
            container.restart_count = 0
            self._bring_up(container)
            return True

    def stop(self, wanted: str, seconds: Optional[float]) -> bool:
        with self.lock:
            container = self.find(wanted)
            if not container.up and container.state != "restarting":
                return False
            self._terminate(container, seconds)
            self.publish(container, "stop")
            return True

    def restart(self, wanted: str, seconds: Optional[float]) -> None:
        with self.lock:
            container = self.find(wanted)
            if container.state in ("dead", "removing"):
                raise ApiError(409, "container is marked for removal and cannot be started")
            if container.up or container.state == "restarting":
                self._terminate(container, seconds)
                self.publish(container, "stop")
            self._bring_up(container)
            self.publish(container, "restart")

    def kill(self, wanted: str, name: str) -> None:
        number = signal_number(name)
        with self.lock:
            try:
                container = self.find(wanted)
            except ApiError as error:
                raise ApiError(error.status, f"Cannot kill container: {wanted}: {error.message}") from error
            if container.state == "restarting":
                self._end_restarting(container)
                return
            if not container.up:
                raise ApiError(
                    409, f"Cannot kill container: {wanted}: Container {container.id} is not running")
            container.stopped_by_hand = True
            self.publish(container, "kill", signal=str(number))
            if number == signal.SIGKILL:
                self._die(container, 137)
            elif number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT) and not self._ignores(container):
                self._die(container, self._term_code(container))

    def pause(self, wanted: str) -> None:
        with self.lock:
            container = self.find(wanted)
            if container.state == "paused":
                raise ApiError(409, f"Container {container.id} is already paused")
            if container.state == "restarting":
                raise ApiError(409, f"Container {container.id} is restarting, wait until the container is running")
            if container.state != "running":
                raise ApiError(409, f"Container {container.id} is not running")
            self._set(container, "paused")
            self.publish(container, "pause")

    def unpause(self, wanted: str) -> None:
        with self.lock:
            container = self.find(wanted)
            if container.state != "paused":
                raise ApiError(500, f"Container {container.id} is not paused")
            self._set(container, "running")
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
                    self._end_restarting(container)
                else:
                    container.stopped_by_hand = True
                    self.publish(container, "kill", signal="9")
                    self._die(container, 137)
            del self.containers[container.id]
            del self.names[container.name]
            container.life += 1
            self.publish(container, "destroy")
            self.changed.notify_all()

    def wait(self, wanted: str, condition: str) -> int:
        """Block until the container is not running, or removed; its exit code."""
        with self.changed:
            container = self.find(wanted)
            life = container.life + (condition == "next-exit")
            def over() -> bool:
                if condition == "removed":
                    return container.id not in self.containers
                return container.life >= life and not container.up and container.state != "restarting"
            while not over() and not self._stopping.is_set():
                self.changed.wait(1.0)
            return container.exit_code

    # -- what happens inside ----------------------------------------------------------------------------------------
    def publish(self, container: Container, action: str, **attributes: str) -> None:
        """An event of this container, with what engines always say about it."""
        full = {**container.labels, **attributes, "image": container.image, "name": container.name}
        self.events.publish("container", action, container.id, dict(sorted(full.items())))

    def _publish_network(self, container: Container, action: str) -> None:
        name = container.network
        kind = {"none": "null"}.get(name, name)
        self.events.publish("network", action, network_id(name),
                            {"container": container.id, "name": name, "type": kind})

    def _set(self, container: Container, state: str) -> None:
        container.state = state
        container.touch()
        self.changed.notify_all()

    def _bring_up(self, container: Container) -> None:
        container.life += 1
        container.stopped_by_hand = False
        container.started, container.exit_code, container.error = time.time(), 0, ""
        self._pids += 1
        container.pid = self._pids
        self._publish_network(container, "connect")
        self._start_health(container)
        self._set(container, "running")
        self.publish(container, "start")
        run = program.run(container.command)
        container.logs += run.output
        if run.seconds < A_DAY:  # what ends later ends in no test, and would cost a thread
            self._later(container, run.seconds, lambda: self._die(container, run.exit_code))

    def _later(self, container: Container, seconds: float, call: Callable[[], None]) -> None:
        """Plan something that happens only if this life of the container still goes on."""
        life = container.life

        def act() -> None:
            with self.lock:
                if container.life != life or container.id not in self.containers:
                    return
                if container.state == "paused":
                    # A frozen process does nothing; look again once it may have been thawed.
                    self.clock.later(0.05, act)
                elif container.state in ("running", "restarting"):
                    call()

        self.clock.later(seconds, act)

    def _die(self, container: Container, code: int) -> None:
        container.exit_code, container.finished, container.pid = code, time.time(), 0
        again = self._restarts(container)
        if container.state == "paused" and code == 137:
            container.state = "running"
        self._set(container, "restarting" if again else "exited")
        self.publish(container, "die", exitCode=str(code))
        self._publish_network(container, "disconnect")
        if again:
            delay = min(MAX_RESTART_DELAY, RESTART_DELAY * 2 ** container.restart_count)
            container.restart_count += 1
            self._later(container, delay, lambda: self._bring_up(container))
        elif container.host_config.get("AutoRemove"):
            self.remove(container.id, False)

    def _restarts(self, container: Container) -> bool:
        policy = container.host_config.get("RestartPolicy") or {}
        name, most = policy.get("Name"), policy.get("MaximumRetryCount") or 0
        if container.stopped_by_hand:
            return False
        if name == "on-failure":
            return container.exit_code != 0 and (not most or container.restart_count < most)
        return name in ("always", "unless-stopped")

    def _end_restarting(self, container: Container) -> None:
        container.life += 1
        container.stopped_by_hand = True
        self._set(container, "exited")

    def _terminate(self, container: Container, seconds: Optional[float]) -> None:
        """SIGTERM, patience, SIGKILL. Gives the lock away while it waits."""
        if container.state == "restarting":
            self._end_restarting(container)
            return
        if seconds is None:
            seconds = float(container.config.get("StopTimeout") or 10)
        container.stopped_by_hand = True
        self.publish(container, "kill", signal=str(signal_number(container.config.get("StopSignal") or "SIGTERM")))
        if container.state == "running" and not self._ignores(container):
            self._die(container, self._term_code(container))
            return
        deadline, life = time.monotonic() + seconds, container.life
        while time.monotonic() < deadline and container.up and container.life == life and not self._stopping.is_set():
            self.changed.wait(max(0.0, deadline - time.monotonic()))
        if container.up and container.life == life:
            self.publish(container, "kill", signal="9")
            if container.state == "paused":
                self._set(container, "running")
                self.publish(container, "unpause")
            self._die(container, 137)

    @staticmethod
    def _ignores(container: Container) -> bool:
        return program.run(container.command).ignores_term and not container.host_config.get("Init")

    @staticmethod
    def _term_code(container: Container) -> int:
        return 143 if container.host_config.get("Init") else 0

    # -- health -----------------------------------------------------------------------------------------------------
    def _start_health(self, container: Container) -> None:
        check = container.config.get("Healthcheck") or {}
        words = [str(word) for word in check.get("Test") or []]
        if not words or words[0] == "NONE":
            container.health = None
            return
        container.health = Health()
        command = words[1:] if words[0] == "CMD" else ["/bin/sh", "-c"] + words[1:]
        self._plan_probe(container, command, (check.get("Interval") or 30000000000) / 1e9, check.get("Retries") or 3)

    def _plan_probe(self, container: Container, command: List[str], interval: float, retries: int) -> None:
        def probe() -> None:
            run = program.run(command)
            shown, exec_id = " ".join(command), os.urandom(32).hex()
            # The blank at the end is the real engine's when there are no arguments.
            shown = f"{command[0]} {' '.join(command[1:])}"
            code = run.exit_code if run.seconds != program.FOREVER else 0
            for action in (f"exec_create: {shown}", f"exec_start: {shown}"):
                self.publish(container, action, execID=exec_id)
            self.publish(container, "exec_die", execID=exec_id, exitCode=str(code))
            self._judge(container, code, retries)
            self._plan_probe(container, command, interval, retries)
        self._later(container, interval, probe)

    def _judge(self, container: Container, code: int, retries: int) -> None:
        health = container.health
        if health is None:
            return
        now = stamp(time.time())
        health.log.append({"Start": now, "End": now, "ExitCode": code, "Output": ""})
        health.failing_streak = health.failing_streak + 1 if code else 0
        if not code:
            self.set_health(container.id, "healthy")
        elif health.failing_streak >= retries:
            self.set_health(container.id, "unhealthy")

    def set_health(self, wanted: str, status: str) -> None:
        """``starting``, ``healthy`` or ``unhealthy``, with the event if it changes."""
        with self.lock:
            container = self.find(wanted)
            if container.health is None:
                container.health = Health()
            if container.health.status != status:
                container.health.status = status
                self._set(container, container.state)
                self.publish(container, f"health_status: {status}")

    # -- for tests --------------------------------------------------------------------------------------------------
    def force_state(self, wanted: str, state: str, exit_code: int = 0) -> None:
        """Put a container into a state without its history and without an event (dead, removing, restarting ...)."""
        with self.lock:
            container = self.find(wanted)
            container.life += 1
            container.exit_code = exit_code
            container.started = container.started or (0.0 if state == "created" else time.time())
            if state not in ("running", "paused", "created"):
                container.finished, container.pid = time.time(), 0
            self._set(container, state)

    def finish(self, wanted: str, exit_code: int) -> None:
        """The container's process ends by itself."""
        with self.lock:
            container = self.find(wanted)
            if container.up:
                self._die(container, exit_code)


_SIGNALS: Dict[str, int] = {name: int(number) for name, number in signal.Signals.__members__.items()}


def signal_number(name: str) -> int:
    """SIGTERM, TERM or 15 as a number; empty is SIGKILL.

    :raises ApiError: 400 for anything else.
    """
    text = name or "SIGKILL"
    if text.isdigit() and 0 < int(text) < 65:
        return int(text)
    number = _SIGNALS.get(text.upper()) or _SIGNALS.get("SIG" + text.upper())
    if number is None:
        raise ApiError(400, f"Invalid signal: {name}")
    return number
