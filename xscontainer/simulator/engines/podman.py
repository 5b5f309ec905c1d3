"""A real podman of its own for one guest: own data, own socket, nothing shared with another podman.

Needs root (to become who runs it), podman and an OCI runtime. The service is only a door: containers outlive it, and it
may come and go as systemd's podman.socket lets it.
"""

import os
import select
import shutil
import socket
import subprocess
import sys
import threading
from typing import Any, Dict, List, Optional, Sequence, Union

from xscontainer.simulator.engines import processes
from xscontainer.simulator.engines.errors import NotAvailable, SimulatorError
from xscontainer.simulator.engines.image import busybox_tar
from xscontainer.simulator.engines.real import IMAGE, RealEngine, _remove_quietly

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
# What systemd does for a service that it starts for its socket.
_HAND_OVER = ("import os, sys; os.dup2(int(sys.argv[1]), 3); "
              "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); os.execv(sys.argv[2], sys.argv[2:])")


class PodmanEngine(RealEngine):
    """``podman system service`` at ``<directory>/podman.sock``; used like :class:`RealEngine`.

    :param idle: seconds without a request after which the service ends by itself; 0: never.
    :param activated: somebody else listens, and starts the service when it is asked for, as systemd does.
    :param uid: who runs it. If that is not root: without any rights of root's, in a user namespace, and in a
        directory that this user can get to. Such a podman pauses nothing where it has no cgroup of its own.
    """

    STATE = "s"  # short: podman refuses a longer place than 50 characters

    def __init__(self, directory: str, socket_path: str = "", idle: int = 0, activated: bool = False,
                 uid: int = 0) -> None:
        super().__init__(directory, socket_path or os.path.join(os.path.abspath(directory), "podman.sock"))
        self.log_path = os.path.join(self.directory, "podman.log")
        self.activations = 0
        """How often the service was started for its socket."""
        self._idle = idle
        self._activated = activated
        self._uid = uid
        self._state = os.path.join(self.directory, self.STATE)
        self._listener: Optional[socket.socket] = None
        self._thread: Optional[threading.Thread] = None
        self._stopping = threading.Event()

    @staticmethod
    def missing() -> str:
        """Why a real podman cannot run here, or the empty string."""
        if os.geteuid() != 0:
            return "podman needs root here"
        for program in ("podman", "conmon", "busybox"):
            if processes.find_program(program) is None:
                return f"{program} is not installed"
        return "" if _runtime() else "neither runc nor crun is installed"

    # -- the service's life -----------------------------------------------------------------------------------------
    def start(self, timeout: float = 30.0) -> None:
        """Start the service, or with ``activated`` listen for it; imports the image the first time.

        :raises NotAvailable: not root, or a program is missing.
        :raises SimulatorError: it ended or did not answer within ``timeout`` seconds.
        """
        reason = self.missing()
        if reason:
            raise NotAvailable(reason)
        if not os.path.isdir(self._state):
            self._prepare()
        os.makedirs(os.path.dirname(self.socket_path), exist_ok=True)
        self._stopping.clear()
        if self._activated:
            _remove_quietly(self.socket_path)
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(self.socket_path)
            self._listener.listen(16)
            self._thread = threading.Thread(target=self._activate, args=(self._listener,), name="simulator-podman")
            self._thread.start()
        else:
            self._process = self._spawn(self._command() + ["unix://" + self.socket_path])
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
        return self._as_user() + [
            str(processes.find_program("podman")), "--root", self._state + "/root",
            "--runroot", self._state + "/r", "--tmpdir", self._state + "/tmp",
            "--storage-driver", "vfs", "--runtime", _runtime()]

    def _as_user(self) -> List[str]:
        return ["setpriv", f"--reuid={self._uid}", f"--regid={self._uid}", "--clear-groups"] if self._uid else []

    def _command(self) -> List[str]:
        return self._podman() + ["system", "service", "--time", str(self._idle)]

    def _environment(self) -> Dict[str, str]:
        own = {"HOME": self._state, "XDG_RUNTIME_DIR": self._state} if self._uid else {}
        return dict(os.environ, CONTAINERS_CONF=self._state + "/containers.conf",
                    CONTAINERS_STORAGE_CONF=self._state + "/storage.conf", TMPDIR=self._state, **own)

    def _spawn(self, command: Sequence[str], descriptors: Sequence[int] = ()) -> "subprocess.Popen[bytes]":
        with open(self.log_path, "ab") as log:
            return subprocess.Popen(list(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory,
                                    start_new_session=True, env=self._environment(), pass_fds=tuple(descriptors))

    def _activate(self, listener: socket.socket) -> None:
        """Start the service for whoever connects, and again once it has ended."""
        while not self._stopping.is_set():
            process = self._process
            if process is not None:
                if process.poll() is None:
                    self._stopping.wait(0.01)
                    continue
                self._process = None
            if select.select([listener], [], [], 0.05)[0] and not self._stopping.is_set():
                self.activations += 1
                number = listener.fileno()
                self._process = self._spawn([sys.executable, "-c", _HAND_OVER, str(number)] + self._command(), [number])

    def stop(self, timeout: float = 15.0) -> None:
        """End the service (and who listens for it); containers stay."""
        self._end_thread()
        super().stop(timeout)
        _remove_quietly(self.socket_path)

    def kill(self) -> None:
        """The service dies at once; containers stay, and so does the socket's file."""
        self._end_thread()
        self._drop_client()
        if self._process is not None:
            processes.kill([self._process.pid])
            self._process.wait()
            self._process = None

    def _end_thread(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def close(self) -> None:
        """End everything and remove the directory, also after a failed start. Callable twice."""
        self.kill()
        self._kill_rest()
        self._end_namespace()
        self._unmount()
        self._remove_cgroups()
        shutil.rmtree(self.directory, ignore_errors=True)
        _remove_quietly(self.socket_path)

    def _end_namespace(self) -> None:
        """End the process that keeps a user's namespace, whose command line names nobody."""
        for root, _, files in os.walk(self._state):
            if "pause.pid" in files:
                with open(os.path.join(root, "pause.pid"), encoding="ascii") as file:
                    pid = int(file.read())
                processes.kill([pid])
                processes.wait_gone({pid}, 2.0)

    # -- containers -------------------------------------------------------------------------------------------------
    def run(
        self, name: str, command: Union[str, Sequence[str]] = ("sleep", "1000000"), image: str = IMAGE,
        start: bool = True, **options: Any
    ) -> str:
        """Create (and start) a container without network; its id. Parameters as for RealEngine."""
        if not self._uid:  # others may make none
            options["HostConfig"] = {"CgroupParent": "/" + self._cgroup, **options.get("HostConfig", {})}
        return super().run(name, command, image, start, **options)

    def make_dead(self, container: str) -> None:
        """Podman knows no such state."""
        raise NotAvailable("podman has no dead containers")


def _runtime() -> str:
    """runc where there is one: crun refuses machines with both kinds of cgroups."""
    return next((path for path in map(processes.find_program, ("runc", "crun")) if path), "")
