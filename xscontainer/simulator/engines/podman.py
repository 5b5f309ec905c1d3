"""A real podman of its own for one guest: own data, own socket, nothing shared with another podman.

It needs root (to become the user who runs it), podman and an OCI runtime. Containers outlive the service,
which may come and go as under systemd's podman.socket.
"""

import os
import shutil
import subprocess
from typing import Any, Dict, List, Sequence, Union

from xscontainer.simulator.engines import processes
from xscontainer.simulator.engines.docker_engine import IMAGE
from xscontainer.simulator.engines.errors import NotAvailable, SimulatorError
from xscontainer.simulator.engines.image import busybox_tar
from xscontainer.simulator.engines.leftovers import remove_quietly
from xscontainer.simulator.engines.real import RealEngine
from xscontainer.simulator.engines.socket_activation import SocketActivation

# Limits that any machine grants, own locks, and events in a file, since there may be no journal.
_CONTAINERS_CONF = """[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"
[engine]
lock_type = "file"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
_STORAGE_CONF = """[storage]
driver = "vfs"
graphroot = "{state}/root"
runroot = "{state}/r"
"""


class PodmanEngine(RealEngine):
    """``podman system service`` at ``<directory>/podman.sock``; used like :class:`RealEngine`.

    :param idle: seconds without a request after which the service ends by itself; 0: never.
    :param activated: another listener starts the service at the first connection, as systemd does.
    :param uid: the user who runs it. A user other than root has no rights of root's, and works in a user namespace
        and in a directory that the user can reach. Without a cgroup of its own such a podman pauses nothing.
    """

    PROGRAM = "podman"
    SOCKET = "podman.sock"
    STATE = "s"  # short: podman refuses a path of more than 50 characters

    def __init__(self, directory: str, socket_path: str = "", idle: int = 0, activated: bool = False,
                 uid: int = 0) -> None:
        super().__init__(directory, socket_path)
        self._idle = idle
        self._activated = activated
        self._uid = uid
        self._state = os.path.join(self.directory, self.STATE)
        self._activation = SocketActivation(self.socket_path, lambda: self.running, self._start_service)

    @property
    def activations(self) -> int:
        """Number of times that the service was started for its socket."""
        return self._activation.count

    @staticmethod
    def absent() -> str:
        """Return what a real podman lacks here, as far as can be found without starting one; else ""."""
        if os.geteuid() != 0:
            return "podman needs root here"
        for program in ("podman", "conmon", "busybox"):
            if processes.find_program(program) is None:
                return f"{program} is not installed"
        return processes.servers_off() if _runtime() else "neither runc nor crun is installed"

    # -- the service's life -----------------------------------------------------------------------------------------
    def start(self, timeout: float = 30.0) -> None:
        """Start the service, or with ``activated`` listen for it; imports the image the first time.

        :raises NotAvailable: not root, or a program is missing.
        :raises SimulatorError: it ended or did not answer within ``timeout`` seconds.
        """
        reason = self.absent()
        if reason:
            raise NotAvailable(reason)
        if not os.path.isdir(self._state):
            self._prepare()
        os.makedirs(os.path.dirname(self.socket_path), exist_ok=True)
        if self._activated:
            self._activation.start()
        else:
            self._start_service()
            self._wait_ready(timeout)

    def _prepare(self) -> None:
        os.makedirs(self._state, mode=0o700)
        for path in (self.directory, self._state):
            os.chown(path, self._uid, self._uid)
        for name, text in (("containers.conf", _CONTAINERS_CONF), ("storage.conf", _STORAGE_CONF)):
            with open(os.path.join(self._state, name), "w", encoding="ascii") as file:
                file.write(text.replace("{state}", self._state))
        imported = subprocess.run(self._podman() + ["import", "-", IMAGE], input=busybox_tar(), env=self._environment(),
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
        if imported.returncode:
            raise SimulatorError("podman imports no image: " + imported.stdout.decode("utf-8", "replace")[-2000:])

    def _podman(self) -> List[str]:
        as_user = ["setpriv", f"--reuid={self._uid}", f"--regid={self._uid}", "--clear-groups"] if self._uid else []
        return as_user + [
            str(processes.find_program("podman")), "--root", self._state + "/root",
            "--runroot", self._state + "/r", "--tmpdir", self._state + "/tmp",
            "--storage-driver", "vfs", "--runtime", _runtime()]

    def _environment(self) -> Dict[str, str]:
        own = {"HOME": self._state, "XDG_RUNTIME_DIR": self._state} if self._uid else {}
        return dict(os.environ, CONTAINERS_CONF=self._state + "/containers.conf",
                    CONTAINERS_STORAGE_CONF=self._state + "/storage.conf", TMPDIR=self._state, **own)

    def _start_service(self, before: Sequence[str] = (), descriptor: int = -1) -> None:
        """Start the service on its own socket, or, after the words ``before``, on the listener ``descriptor``."""
        command = list(before) + self._podman() + ["system", "service", "--time", str(self._idle)]
        if descriptor < 0:
            command.append("unix://" + self.socket_path)
        with open(self.log_path, "ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory, start_new_session=True,
                env=self._environment(), pass_fds=() if descriptor < 0 else (descriptor,))

    def stop(self, timeout: float = 15.0) -> None:
        """End the service and its listener; containers stay."""
        self._activation.stop()
        super().stop(timeout)
        remove_quietly(self.socket_path)

    def kill(self) -> None:
        """Kill the service; containers and the socket's file stay."""
        self._activation.stop()
        self._drop_client()
        if self._process is not None:
            processes.kill([self._process.pid])
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End everything and remove the directory, also after a failed start. Callable twice."""
        self.kill()
        self._leftovers.kill()
        _end_namespace(self._state)
        self._leftovers.unmount()
        self._leftovers.remove_cgroups()
        shutil.rmtree(self.directory, ignore_errors=True)
        remove_quietly(self.socket_path)

    # -- containers -------------------------------------------------------------------------------------------------
    def run(
        self, name: str, command: Union[str, Sequence[str]] = ("sleep", "1000000"), image: str = IMAGE,
        start: bool = True, **options: Any
    ) -> str:
        """Create (and start) a container without network; return its id. Parameters as for RealEngine."""
        if not self._uid:  # other users may make no cgroup
            options["HostConfig"] = {"CgroupParent": "/" + self._cgroup, **options.get("HostConfig", {})}
        return super().run(name, command, image, start, **options)

    def make_dead(self, container: str) -> None:
        """Refuse: podman knows no such state."""
        raise NotAvailable("podman has no dead containers")


def _end_namespace(state: str) -> None:
    """End the process that keeps a user's namespace. Its command line does not name the engine."""
    for root, _, files in os.walk(state):
        if "pause.pid" in files:
            with open(os.path.join(root, "pause.pid"), encoding="ascii") as file:
                pid = int(file.read())
            processes.kill([pid])
            processes.wait_gone({pid}, 2.0)


def _runtime() -> str:
    """Return runc's path, else crun's, which refuses machines with both kinds of cgroups."""
    return next((path for path in map(processes.find_program, ("runc", "crun")) if path), "")
