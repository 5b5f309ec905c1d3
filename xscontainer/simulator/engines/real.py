"""A real dockerd of its own for one guest: own data, own socket, nothing shared with another dockerd.

Needs root, dockerd and containerd. Runs inside containers and VMs alike: the vfs storage driver needs no overlay, and
without iptables and bridge no network rights are needed (containers get ``network none``).

Everything is gone after :meth:`RealEngine.close`: dockerd, containerd, shims, containers, mounts, cgroups, files.
"""

import os
import shutil
import socket
import subprocess
import threading
import time
from typing import Any, Dict, List, Optional, Sequence, Set, Union

import docker

from xscontainer.simulator.engines import processes
from xscontainer.simulator.engines.errors import NotAvailable, SimulatorError
from xscontainer.simulator.engines.image import busybox_tar
from xscontainer.simulator.engines.started import Started

IMAGE = "busybox:latest"
FLAGS = (
    "--storage-driver=vfs",
    "--iptables=false",
    "--ip6tables=false",
    "--bridge=none",
    "--shutdown-timeout=1",
    "--exec-opt=native.cgroupdriver=cgroupfs",
)
MAX_SOCKET_PATH = 100
SHIM_SOCKETS = "/run/containerd/s"


def _environment() -> Dict[str, str]:
    """Ours, but for what is said of our terminal: ps, which dockerd runs for ``top``, cuts its lines to that width."""
    return {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}


class RealEngine(Started):
    """dockerd with its socket at ``<directory>/docker.sock``; a context manager (entering starts it).

    :param directory: created if absent; removed by close() with all that is in it.
    :param socket_path: another place for the socket; at most 100 characters.
    :param live_restore: containers outlive stop() and kill() of dockerd (dockerd's live-restore).
    :param flags: more arguments for dockerd.
    """

    STATE = "exec"  # the directory below ours that whatever outlives the engine has in its command line

    def __init__(
        self, directory: str, socket_path: str = "", live_restore: bool = False, flags: Sequence[str] = ()
    ) -> None:
        self.directory = os.path.abspath(directory)
        self.socket_path = socket_path or os.path.join(self.directory, "docker.sock")
        if len(self.socket_path) > MAX_SOCKET_PATH:
            raise SimulatorError(f"the socket path is longer than {MAX_SOCKET_PATH} characters: {self.socket_path}")
        self.log_path = os.path.join(self.directory, "dockerd.log")
        self._flags = list(flags) + (["--live-restore"] if live_restore else [])
        # As a name of its own under every cgroup controller, so that close() can find and remove what is left.
        self._cgroup = "xs-" + os.urandom(6).hex()
        self._process: Optional["subprocess.Popen[bytes]"] = None
        self._client: Optional[docker.APIClient] = None
        self._client_lock = threading.Lock()

    @staticmethod
    def missing() -> str:
        """Why a real engine cannot run here, or the empty string."""
        if os.geteuid() != 0:
            return "dockerd needs root"
        for program in ("dockerd", "containerd", "busybox"):
            if processes.find_program(program) is None:
                return f"{program} is not installed"
        return ""

    # -- the daemon's life ------------------------------------------------------------------------------------------
    def start(self, timeout: float = 30.0) -> None:
        """Start dockerd and wait until it answers; imports the image the first time.

        :raises NotAvailable: not root, or a program is missing.
        :raises SimulatorError: dockerd ended or did not answer within ``timeout`` seconds (with the log's tail).
        """
        reason = self.missing()
        if reason:
            raise NotAvailable(reason)
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        # An empty one of its own: the machine's /etc/docker/daemon.json is not ours to follow.
        with open(os.path.join(self.directory, "daemon.json"), "w", encoding="ascii") as config:
            config.write("{}")
        with open(self.log_path, "ab") as log:
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                cwd=self.directory,
                # A containerd that is given up writes its stacks there.
                env=dict(_environment(), TMPDIR=self.directory),
            )
        self._wait_ready(timeout)
        if not self.client().images(IMAGE):
            # Not APIClient.import_image*: those guess from the type of the argument what is meant.
            self.client().import_image_from_data(busybox_tar(), *IMAGE.split(":"))

    def _command(self) -> List[str]:
        under = os.path.join
        return [
            str(processes.find_program("dockerd")),
            "--data-root=" + under(self.directory, "data"),
            "--exec-root=" + under(self.directory, "exec"),
            "--pidfile=" + under(self.directory, "dockerd.pid"),
            "--config-file=" + under(self.directory, "daemon.json"),
            "--host=unix://" + self.socket_path,
            "--cgroup-parent=/" + self._cgroup,
        ] + list(FLAGS) + self._flags

    def _wait_ready(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            process = self._process
            if process is None or process.poll() is not None:
                raise SimulatorError("dockerd ended at once: " + self.log_tail())
            if self._listens():
                try:
                    self.client().ping()
                    return
                except Exception as error:  # docker has several types for a broken connection, by version
                    if time.monotonic() > deadline:
                        raise SimulatorError(f"dockerd does not answer: {self.log_tail()}") from error
                    self._drop_client()
            elif time.monotonic() > deadline:
                raise SimulatorError(f"dockerd does not listen after {timeout:g} s: {self.log_tail()}")
            time.sleep(0.01)

    def _listens(self) -> bool:
        # Not by way of the client: it leaves a socket behind for every refused connection.
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self.socket_path)
            except OSError:
                return False
        return True

    def stop(self, timeout: float = 15.0) -> None:
        """End dockerd as its service manager does (SIGTERM); containers end too unless live_restore."""
        self._drop_client()
        if self._process is not None:
            processes.end(self._process, timeout)
            self._process = None

    def kill(self) -> None:
        """dockerd and its containerd die at once (SIGKILL); containers and their shims live on."""
        self._drop_client()
        if self._process is not None:
            below = processes.descendants([self._process.pid])
            shims = processes.mentioning("-address " + os.path.join(self.directory, "exec"))
            processes.kill([self._process.pid])
            self._process.wait()
            self._process = None
            daemons = {pid for pid in below if pid not in shims and self._is_containerd(pid)}
            processes.kill(daemons)
            processes.wait_gone(daemons, 5.0)
            # Where pid 1 does not reap, the dead containerd stays a zombie that the next dockerd takes for alive.
            _remove_quietly(os.path.join(self.directory, "exec", "containerd", "containerd.pid"))

    @staticmethod
    def _is_containerd(pid: int) -> bool:
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as name:
                return name.read().strip() == "containerd"
        except OSError:
            return False

    def restart(self, down: float = 0.0) -> None:
        """stop(), stay away for ``down`` seconds, start()."""
        self.stop()
        time.sleep(down)
        self.start()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        """End everything and remove the directory, also after a failed start. Callable twice."""
        # No mercy for containers: nobody waits for them any more.
        self.kill()
        self._kill_rest()
        self._unmount()
        self._remove_cgroups()
        for path in self._shim_sockets():
            _remove_quietly(path)
        shutil.rmtree(self.directory, ignore_errors=True)
        _remove_quietly(self.socket_path)

    def _kill_rest(self) -> None:
        """Shims, their containers and whatever else of ours outlived its dockerd."""
        for _ in range(5):
            found = processes.mentioning(os.path.join(self.directory, self.STATE))
            found |= processes.descendants(found)
            for group in self._cgroups():
                found |= _members(group)
                # A paused container is frozen and dies of no signal.
                _write_quietly(os.path.join(group, "freezer.state"), "THAWED")
                _write_quietly(os.path.join(group, "cgroup.freeze"), "0")
            if not found:
                return
            processes.kill(found)
            processes.wait_gone(found, 2.0)

    def _cgroups(self) -> List[str]:
        """Our groups under every cgroup hierarchy, deepest first."""
        base = "/sys/fs/cgroup"
        if not os.path.isdir(base):
            return []
        tops = [base] + [os.path.join(base, name) for name in os.listdir(base)]
        return [root for top in tops for root, _, _ in os.walk(os.path.join(top, self._cgroup), topdown=False)]

    def _unmount(self) -> None:
        umount = processes.find_program("umount")
        for point in processes.mounts_below(self.directory):
            if umount:
                subprocess.call([umount, "-l", point], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _shim_sockets(self) -> List[str]:
        """Sockets of killed shims: containerd keeps them outside its own directory."""
        found = []
        for root, _, files in os.walk(os.path.join(self.directory, "exec", "containerd")):
            if "address" in files:
                with open(os.path.join(root, "address"), encoding="utf-8", errors="replace") as address:
                    path = address.read().strip()
                if path.startswith("unix://" + SHIM_SOCKETS + "/"):
                    found.append(path[len("unix://"):])
        return found

    def _remove_cgroups(self) -> None:
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            left = self._cgroups()
            if not left:
                return
            for group in left:
                try:
                    os.rmdir(group)
                except OSError:
                    # The kernel lets go of a killed process' group a moment after its end.
                    time.sleep(0.01)

    def log_tail(self, size: int = 2000) -> str:
        """The end of dockerd's log."""
        return processes.log_tail(self.log_path, size)

    # -- containers -------------------------------------------------------------------------------------------------
    def client(self) -> docker.APIClient:
        """The client for this engine. One thread at a time: make an own one with new_client() for another thread."""
        with self._client_lock:
            if self._client is None:
                self._client = self.new_client()
            return self._client

    def new_client(self, timeout: float = 30.0) -> docker.APIClient:
        """A docker.APIClient of the caller's own; the caller closes it."""
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
        """Create (and start) a container without network; its id.

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
        """start, stop, restart, kill, pause, unpause, remove or rename (new name as ``name=``) a container."""
        if verb in ("stop", "restart"):
            options.setdefault("timeout", 0)
        if verb == "remove":
            options.setdefault("force", True)
            self.client().remove_container(container, **options)
        else:
            getattr(self.client(), verb)(container, **options)

    def make_dead(self, container: str) -> None:
        """Bring a container into the state "dead", as when its files cannot be removed."""
        client = self.client()
        record = client.inspect_container(container)
        full, name = record["Id"], record["Name"].lstrip("/")
        # dockerd unmounts what it finds in a container's file system, but not in its book-keeping: a mount point there
        # cannot be removed, so the removal fails half-way, which is what "dead" means.
        point = os.path.join(self.directory, "data", "image", "vfs", "layerdb", "mounts", full, "held")
        os.makedirs(point, exist_ok=True)
        subprocess.check_call([str(processes.find_program("mount")), "-t", "tmpfs", "held", point])
        try:
            client.remove_container(full, force=True)
        except docker.errors.APIError:
            # Lists are made from what was last stored, and that was "removing": have it stored again.
            client.rename(full, name + "-dead")
            client.rename(full, name)
            return
        raise SimulatorError("the container was removed although a mount held its files")

    def list(self) -> List[Dict[str, Any]]:
        """All containers as the Engine API lists them."""
        found: List[Dict[str, Any]] = self.client().containers(all=True)
        return found


def _remove_quietly(path: str) -> None:
    try:
        os.remove(path)
    except OSError:
        return


def _write_quietly(path: str, text: str) -> None:
    try:
        # Not "w": that would try to create the file where the hierarchy has none.
        with open(path, "r+", encoding="ascii") as file:
            file.write(text)
    except OSError:
        return


def _members(group: str) -> Set[int]:
    try:
        with open(os.path.join(group, "cgroup.procs"), encoding="ascii") as file:
            return {int(line) for line in file}
    except (OSError, ValueError):
        return set()
