"""The real daemon as a child process for one simulated host, with settings and a plugin of that host's own."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from typing import Dict, Mapping, Optional

from xscontainer import settings
from xscontainer.simulator.engines import SimulatorError, processes
from xscontainer.simulator.engines.started import Logged
from xscontainer.simulator.install import ROOT, install_plugin
from xscontainer.simulator.xapi import SimHost

READY_SECONDS = 20.0
# The daemon waits for calls in progress.
STOP_SECONDS = 30.0


class HostDaemon(Logged):
    """``python -m xscontainer.service.daemon`` for ``host``. Its settings file and plugin exist at once.

    :param more: {section: {key: value}} of the settings, beside those that a simulated host needs.
    """

    def __init__(self, host: SimHost, more: Mapping[str, Mapping[str, object]]) -> None:
        self.host = host
        run = os.path.join(host.directory, "run")
        self.config_path = os.path.join(host.directory, "xscontainer.conf")
        self.log_path = os.path.join(host.directory, "daemon.log")
        self._notify_path = os.path.join(run, "n")
        os.makedirs(run, mode=0o700, exist_ok=True)
        sections: Dict[str, Dict[str, object]] = {
            "daemon": {"socket": os.path.join(run, "d"), "inventory": host.inventory_path},
            "xapi": {"socket": host.socket_path},
            "address": {"allow_loopback": "yes"},
        }
        for section, values in more.items():
            sections.setdefault(section, {}).update(values)
        with open(self.config_path, "w", encoding="utf-8") as file:
            for section, values in sections.items():
                file.write(f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items()))
        self.settings = settings.load(self.config_path).settings
        install_plugin(host.plugin_dir, self.config_path, name=self.settings.daemon.plugin_name)
        self._process: Optional["subprocess.Popen[bytes]"] = None
        self._notified: Optional[socket.socket] = None

    @property
    def pid(self) -> int:
        """Return the process' id; 0 if it was not started."""
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, wait: bool = True) -> None:
        """Start the daemon; with ``wait`` return once it takes calls.

        :raises SimulatorError: it ended, or is not ready in time.
        """
        if self.running:
            return
        # PYTHONPATH is for a tree that is not installed; in its own session Ctrl-C does not reach it.
        path = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH", "")]))
        self._listen()
        with open(self.log_path, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "xscontainer.service.daemon", "--config", self.config_path],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.host.directory,
                env=dict(os.environ, PYTHONPATH=path, NOTIFY_SOCKET=self._notify_path), start_new_session=True,
            )
        if wait:
            self.wait_ready()

    def _listen(self) -> None:
        """Make a socket to which the daemon reports that it is ready, as to a service manager."""
        self._deafen()
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.bind(self._notify_path)
        self._notified.settimeout(0.1)

    def _deafen(self) -> None:
        if self._notified is not None:
            self._notified.close()
            self._notified = None
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._notify_path)

    def wait_ready(self, timeout: float = READY_SECONDS) -> None:
        """Wait until the daemon takes calls; return at once if it is known to.

        :raises SimulatorError: it ended, or ``timeout`` seconds are over.
        """
        deadline = time.monotonic() + timeout
        while self._notified is not None:
            with contextlib.suppress(socket.timeout):
                if b"READY=1" in self._notified.recv(4096).split(b"\n"):
                    break
            if not self.running:
                raise SimulatorError(f"the daemon of {self.host.name_label} ended: {self.log_tail()}")
            if time.monotonic() > deadline:
                raise SimulatorError(f"the daemon of {self.host.name_label} is not ready: {self.log_tail()}")
        self._deafen()

    def ask_to_stop(self) -> None:
        """Send SIGTERM without waiting, to end several daemons at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def stop(self, timeout: float = STOP_SECONDS) -> int:
        """End the daemon as systemd does; return its exit code (0 if it did not run)."""
        self._deafen()
        if self._process is None:
            return 0
        processes.end(self._process, timeout)
        code, self._process = self._process.returncode, None
        return code

    def kill(self) -> None:
        """Kill the daemon (SIGKILL)."""
        self._deafen()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Call stop() and start()."""
        self.stop()
        self.start()
