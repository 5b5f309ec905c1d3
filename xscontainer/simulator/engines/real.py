"""A real dockerd of its own for one guest: own data, own socket, nothing shared with another dockerd.

Needs root, dockerd and containerd. Runs inside containers and VMs alike: the vfs storage driver needs no overlay, and
without iptables and bridge no network rights are needed (containers get ``network none``).

:meth:`RealEngine.close` removes everything: dockerd, containerd, shims, containers, mounts, cgroups, files.
"""

import os
import shutil
import socket
import subprocess
import time
from typing import Dict, List, Optional, Sequence

import docker

from xscontainer.simulator.engines import processes, trial
from xscontainer.simulator.engines.docker_engine import IMAGE, DockerEngine
from xscontainer.simulator.engines.errors import NotAvailable, SimulatorError
from xscontainer.simulator.engines.image import busybox_tar
from xscontainer.simulator.engines.leftovers import Leftovers, remove_quietly

FLAGS = (
    "--storage-driver=vfs",
    "--iptables=false",
    "--ip6tables=false",
    "--bridge=none",
    "--shutdown-timeout=1",
    "--exec-opt=native.cgroupdriver=cgroupfs",
)


class RealEngine(DockerEngine):
    """dockerd with its socket at ``<directory>/docker.sock``; a context manager (entering starts it).

    :param directory: created if absent; removed by close() with all that is in it.
    :param socket_path: another place for the socket; at most 100 characters.
    :param live_restore: containers outlive stop() and kill() of dockerd (dockerd's live-restore).
    :param flags: more arguments for dockerd.
    """

    PROGRAM = "dockerd"
    SOCKET = "docker.sock"
    STATE = "exec"  # the directory below the engine's own that is in the command line of every process that outlives it

    def __init__(
        self, directory: str, socket_path: str = "", live_restore: bool = False, flags: Sequence[str] = ()
    ) -> None:
        path = os.path.abspath(directory)
        log_path = os.path.join(path, self.PROGRAM + ".log")
        super().__init__(path, socket_path or os.path.join(path, self.SOCKET), log_path)
        self._flags = list(flags) + (["--live-restore"] if live_restore else [])
        # As a name of its own under every cgroup controller, so that close() can find and remove what remains.
        self._cgroup = "xs-" + os.urandom(6).hex()
        self._leftovers = Leftovers(path, os.path.join(path, self.STATE), self._cgroup)
        self._process: Optional["subprocess.Popen[bytes]"] = None

    @classmethod
    def missing(cls) -> str:
        """Return why a real engine cannot run here, or the empty string. The first call takes a second."""
        return cls.absent() or trial.why_not(cls.PROGRAM, cls)

    @staticmethod
    def absent() -> str:
        """Return what a real engine lacks here, as far as can be found without starting one; else ""."""
        if os.geteuid() != 0:
            return "dockerd needs root"
        for program in ("dockerd", "containerd", "busybox"):
            if processes.find_program(program) is None:
                return f"{program} is not installed"
        return processes.servers_off()

    # -- the daemon's life ------------------------------------------------------------------------------------------
    def start(self, timeout: float = 30.0) -> None:
        """Start dockerd and wait until it answers; imports the image the first time.

        :raises NotAvailable: not root, or a program is missing.
        :raises SimulatorError: dockerd ended or did not answer within ``timeout`` seconds (with the log's tail).
        """
        reason = self.absent()
        if reason:
            raise NotAvailable(reason)
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        # An empty configuration, so that the machine's /etc/docker/daemon.json has no effect.
        with open(os.path.join(self.directory, "daemon.json"), "w", encoding="ascii") as config:
            config.write("{}")
        with open(self.log_path, "ab") as log:
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                cwd=self.directory,
                # A containerd that dockerd gives up writes its stacks there.
                env=dict(_environment(), TMPDIR=self.directory),
            )
        self._wait_ready(timeout)
        if not self.client().images(IMAGE):
            # Not APIClient.import_image*: they guess the kind of source from the argument's type.
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
            if _listens(self.socket_path):
                try:
                    self.client().ping()
                    return
                except Exception as error:  # docker's type for a broken connection depends on its version
                    if time.monotonic() > deadline:
                        raise SimulatorError(f"dockerd does not answer: {self.log_tail()}") from error
                    self._drop_client()
            elif time.monotonic() > deadline:
                raise SimulatorError(f"dockerd does not listen after {timeout:g} s: {self.log_tail()}")
            time.sleep(0.01)

    def stop(self, timeout: float = 15.0) -> None:
        """End dockerd as its service manager does (SIGTERM). Containers end, too, unless live_restore is set."""
        self._drop_client()
        if self._process is not None:
            processes.end(self._process, timeout)
            self._process = None

    def kill(self) -> None:
        """Kill dockerd and its containerd (SIGKILL); containers and their shims live on."""
        self._drop_client()
        if self._process is not None:
            below = processes.descendants([self._process.pid])
            shims = processes.mentioning("-address " + os.path.join(self.directory, "exec"))
            processes.kill([self._process.pid])
            self._process.wait()
            self._process = None
            daemons = {pid for pid in below if pid not in shims and _is_containerd(pid)}
            processes.kill(daemons)
            processes.wait_gone(daemons, 5.0)
            # Where pid 1 does not reap, the dead containerd stays a zombie, which the next dockerd takes for alive.
            remove_quietly(os.path.join(self.directory, "exec", "containerd", "containerd.pid"))

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        """End everything and remove the directory, also after a failed start. Callable twice."""
        # Kill containers, too: nobody waits for them any more.
        self.kill()
        self._leftovers.kill()
        self._leftovers.unmount()
        self._leftovers.remove_cgroups()
        for path in self._leftovers.shim_sockets():
            remove_quietly(path)
        shutil.rmtree(self.directory, ignore_errors=True)
        remove_quietly(self.socket_path)

    def make_dead(self, container: str) -> None:
        """Bring a container into the state "dead", as when its files cannot be removed."""
        client = self.client()
        record = client.inspect_container(container)
        full, name = record["Id"], record["Name"].lstrip("/")
        # dockerd unmounts what is mounted in a container's file system, but not in its own records: a mount point there
        # cannot be removed. So the removal fails half-way, which is what "dead" means.
        point = os.path.join(self.directory, "data", "image", "vfs", "layerdb", "mounts", full, "held")
        os.makedirs(point, exist_ok=True)
        subprocess.check_call([str(processes.find_program("mount")), "-t", "tmpfs", "held", point])
        try:
            client.remove_container(full, force=True)
        except docker.errors.APIError:
            # Lists show the state that was stored last, which was "removing": make dockerd store it again.
            client.rename(full, name + "-dead")
            client.rename(full, name)
            return
        raise SimulatorError("the container was removed although a mount held its files")


def _environment() -> Dict[str, str]:
    """Return this environment without the terminal's size: dockerd's ``top`` runs ps, which would cut its lines."""
    return {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}


def _listens(socket_path: str) -> bool:
    # Not with docker's client, which leaks a socket for every refused connection.
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(socket_path)
        except OSError:
            return False
    return True


def _is_containerd(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as name:
            return name.read().strip() == "containerd"
    except OSError:
        return False
