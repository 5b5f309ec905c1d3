"""The life of a simulated container's process: start, end, restart, signals and health."""

import os
import signal
import time
from typing import Callable, Dict, List, Optional

from xscontainer.simulator.engines import program
from xscontainer.simulator.engines.container import Container, Health, stamp
from xscontainer.simulator.engines.log_entries import entries
from xscontainer.simulator.engines.store import ApiError, Store

RESTART_DELAY = 0.1
MAX_RESTART_DELAY = 60.0
A_DAY = 86400.0


class Running(Store):
    """The processes inside containers. Called with the lock held, except by the clock."""

    # -- starting and ending ---------------------------------------------------------------------------------------
    def bring_up(self, container: Container) -> None:
        container.life += 1
        container.begun = (container.life, len(container.logs))
        container.stopped_by_hand = False
        container.started, container.exit_code, container.error = time.time(), 0, ""
        container.oom_killed = False
        self._pids += 1
        container.pid = self._pids
        self.publish_network(container, "connect")
        self._start_health(container)
        self.set_state(container, "running")
        self.publish(container, "start")
        run = program.predict(container.command)
        container.logs += entries(run.output, bool(container.config["Tty"]))
        if run.seconds < A_DAY:  # no test waits for a later end, which would cost a thread
            self._later(container, run.seconds, lambda: self.die(container, run.exit_code))

    def _later(self, container: Container, seconds: float, call: Callable[[], None]) -> None:
        """Plan an action that is dropped if the container's process has ended before."""
        life = container.life

        def act() -> None:
            with self.lock:
                if container.life != life or container.id not in self.containers:
                    return
                if container.state == "paused":
                    # A frozen process does nothing: look again later.
                    self.clock.later(0.05, act)
                elif container.state in ("running", "restarting"):
                    call()

        self.clock.later(seconds, act)

    def die(self, container: Container, code: int) -> None:
        container.exit_code, container.finished, container.pid = code, time.time(), 0
        again = self._restarts(container)
        if container.state == "paused" and code == 137:
            container.state = "running"
        self.set_state(container, "restarting" if again else "exited")
        self.publish(container, "die", exitCode=str(code))
        self.publish_network(container, "disconnect")
        if again:
            delay = min(MAX_RESTART_DELAY, RESTART_DELAY * 2 ** container.restart_count)
            container.restart_count += 1
            self._later(container, delay, lambda: self.bring_up(container))
        elif container.host_config.get("AutoRemove"):
            self.forget(container)

    def forget(self, container: Container) -> None:
        """Drop the record of a container in any state."""
        del self.containers[container.id]
        del self.names[container.name]
        container.life += 1
        self.publish(container, "destroy")
        self.changed.notify_all()

    def _restarts(self, container: Container) -> bool:
        policy = container.host_config.get("RestartPolicy") or {}
        name, most = policy.get("Name"), policy.get("MaximumRetryCount") or 0
        if container.stopped_by_hand:
            return False
        if name == "on-failure":
            return container.exit_code != 0 and (not most or container.restart_count < most)
        return name in ("always", "unless-stopped")

    def resume(self) -> None:
        """Start the containers whose restart policy demands it, as after a boot."""
        with self.lock:
            for container in self.listed():
                policy = (container.host_config.get("RestartPolicy") or {}).get("Name")
                ended = container.life and container.state in ("exited", "restarting")
                if ended and policy in ("always", "unless-stopped") and not container.stopped_by_hand:
                    self.bring_up(container)

    def end_restarting(self, container: Container) -> None:
        container.life += 1
        container.stopped_by_hand = True
        self.set_state(container, "exited")

    def terminate(self, container: Container, seconds: Optional[float]) -> None:
        """Send SIGTERM, wait, send SIGKILL. The lock is released while it waits."""
        if container.state == "restarting":
            self.end_restarting(container)
            return
        if seconds is None:
            seconds = float(container.config.get("StopTimeout") or 10)
        container.stopped_by_hand = True
        self.publish_signal(container, signal_number(container.config.get("StopSignal") or "SIGTERM"))
        if container.state == "running" and not self.ignores(container):
            self.die(container, self.term_code(container))
            return
        deadline, life = time.monotonic() + seconds, container.life
        while time.monotonic() < deadline and container.up and container.life == life and not self.stopping.is_set():
            self.changed.wait(max(0.0, deadline - time.monotonic()))
        if container.up and container.life == life:
            self.publish_signal(container, 9)
            if container.state == "paused":
                self.set_state(container, "running")
                self.publish(container, "unpause")
            self.die(container, 137)

    @staticmethod
    def ignores(container: Container) -> bool:
        return program.predict(container.command).ignores_term and not container.host_config.get("Init")

    @staticmethod
    def term_code(container: Container) -> int:
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
            run = program.predict(command)
            shown, exec_id = " ".join(command), os.urandom(32).hex()
            # A real engine writes the blank at the end when there are no arguments.
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
        """Set the health to ``starting``, ``healthy`` or ``unhealthy``, with an event if it changes."""
        with self.lock:
            container = self.find(wanted)
            if container.health is None:
                container.health = Health()
            if container.health.status != status:
                container.health.status = status
                self.set_state(container, container.state)
                self.publish(container, f"health_status: {status}")


_SIGNALS: Dict[str, int] = {name: int(number) for name, number in signal.Signals.__members__.items()}


def signal_number(name: str) -> int:
    """Return SIGTERM, TERM or 15 as a number; the empty string is SIGKILL.

    :raises ApiError: 400 for anything else.
    """
    text = name or "SIGKILL"
    if text.isdigit() and 0 < int(text) < 65:
        return int(text)
    number = _SIGNALS.get(text.upper()) or _SIGNALS.get("SIG" + text.upper())
    if number is None:
        raise ApiError(400, f"Invalid signal: {name}")
    return number
