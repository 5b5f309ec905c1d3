"""A scene to measure: the daemon of one host as a process, guests with a real sshd, real or embedded engines."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Dict, List, Optional, Type, TypeVar

from xscontainer import keys
from xscontainer.service.daemon import ENVIRONMENT
from xscontainer.simulator.engines import Acceptor, EmbeddedEngine, Identity
from xscontainer.simulator.engines.real import RealEngine
from xscontainer.simulator.guests import OpenSSHGuest
from xscontainer.simulator.install import install_plugin
from xscontainer.simulator.xapi import Pool
from xscontainer.xapi.session import Session

LOG_LEVEL = os.environ.get("BENCH_LOG_LEVEL", "error")  # of the daemons
TICK = 0.0005  # seconds between two samples of the pool's database: the resolution of all latencies


class VM:
    """A VM with its guest and engine."""

    def __init__(self, name: str, ref: str, uuid: str, guest: OpenSSHGuest, engine: Any) -> None:
        self.name, self.ref, self.uuid, self.guest, self.engine = name, ref, uuid, guest, engine


Self = TypeVar("Self", bound="Scene")


class Scene:
    """A pool of two hosts whose VMs run on the second; a context manager.

    :param count: VMs.
    :param containers: in each VM.
    :param real: a dockerd for each VM, instead of a light engine.
    """

    REAL: Type[RealEngine] = RealEngine
    IDENTITY: Optional[Identity] = None  # of light engines

    def __init__(self, count: int, containers: int = 5, real: bool = False, daemon: bool = True) -> None:
        self.directory = tempfile.mkdtemp(prefix="xsb")
        self._count, self._containers, self._real, self._with_daemon = count, containers, real, daemon
        self.vms: List[VM] = []
        self.daemons: Dict[int, "subprocess.Popen[bytes]"] = {}
        self._acceptor: Optional[Acceptor] = None

    def __enter__(self: Self) -> Self:
        try:
            self._acceptor = Acceptor()
            self.pool = Pool(os.path.join(self.directory, "pool")).start()
            self.session = Session.login(self.pool.coordinator.socket_path, "bench", 120.0, 10.0)
            self.public_key = self._make_key()
            for number in range(self._count):
                self.vms.append(self._make_vm(number))
            self.configs = [self._configure(host) for host in self.pool.hosts]
            if self._with_daemon:
                for number in range(len(self.pool.hosts)):
                    self.start_daemon(number)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: Optional[type], *_: object) -> None:
        self.close()

    def _make_key(self) -> str:
        """Make the pool's key pair like the daemon at its first start, before the guests are made."""
        from xscontainer.engine.ssh.keypair import new_key_pair
        from xscontainer.xapi.secret import KeyPair, key_pair

        xapi = self.session.xenapi
        return key_pair(self.session, xapi.pool.get_all()[0], {}, lambda: KeyPair(*new_key_pair())).public

    def _make_vm(self, number: int) -> VM:
        name = f"vm{number:03}"
        home = os.path.join(self.directory, name)
        guest = OpenSSHGuest(home, acceptor=self._acceptor)
        guest.authorize(self.public_key)
        guest.start()
        engine: Any
        if self._real:
            engine = self.REAL(os.path.join(self.directory, name + "e"), socket_path=guest.engine_socket)
        else:
            engine = EmbeddedEngine(os.path.join(self.directory, name + "e"), socket_path=guest.engine_socket,
                                    identity=self.IDENTITY, acceptor=self._acceptor)
        engine.start()
        for index in range(self._containers):
            engine.run(f"container-{index:04}", ("sleep", "1000000"))
        ref = self.pool.create_vm(
            name, host=self.pool.hosts[1], networks={"0/ip": guest.address},
            other_config={keys.MONITOR: "True", keys.USERNAME: guest.user, keys.SSH_PORT: str(guest.port),
                          keys.ENGINE_SOCKET: guest.engine_socket})
        return VM(name, ref, self.pool.vm(ref)["uuid"], guest, engine)

    def _configure(self, host: Any) -> str:
        run = os.path.join(host.directory, "run")
        os.makedirs(run, mode=0o700)
        path = os.path.join(host.directory, "xscontainer.conf")
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(f"[daemon]\nsocket = {run}/daemon.sock\n"
                         f"inventory = {host.inventory_path}\nlog_level = {LOG_LEVEL}\n"
                         f"[xapi]\nsocket = {host.socket_path}\n[address]\nallow_loopback = yes\n")
        install_plugin(host.plugin_dir, path)
        return path

    def start_daemon(self, number: int = 1) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen([sys.executable, "-W", "ignore", "-m", "xscontainer.service.daemon",
                                    "--config", self.configs[number]], env=dict(os.environ, **ENVIRONMENT))
        self.daemons[number] = process
        return process

    def stop_daemons(self) -> None:
        for process in self.daemons.values():
            process.send_signal(signal.SIGTERM)
        for process in self.daemons.values():
            process.wait(60)
        self.daemons = {}

    def close(self) -> None:
        self.stop_daemons()
        for vm in self.vms:
            vm.guest.close()
            vm.engine.close()
        for name in ("session", "pool"):
            if hasattr(self, name):
                (self.session.logout if name == "session" else self.pool.stop)()
        if self._acceptor:
            self._acceptor.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    # --- looking -------------------------------------------------------------

    def ps(self, vm: VM) -> str:
        return self.pool.other_config(vm.ref).get(keys.PS, "")

    def wait(self, ready: "Callable[[], bool]", timeout: float = 60.0) -> float:
        """Wait until ``ready()`` and return the seconds; raises TimeoutError."""
        started = time.monotonic()
        while not ready():
            if time.monotonic() - started > timeout:
                raise TimeoutError("it did not happen")
            time.sleep(TICK)
        return time.monotonic() - started

    def published(self) -> int:
        return sum(all(key in self.pool.other_config(vm.ref) for key in (keys.PS, keys.INFO, keys.VERSION))
                   for vm in self.vms)

    def wait_published(self, timeout: float = 120.0) -> float:
        return self.wait(lambda: self.published() == len(self.vms), timeout)

    def call(self, host: int, function: str, **arguments: str) -> str:
        """Call host.call_plugin like any client."""
        result: str = self.session.xenapi.host.call_plugin(
            self.pool.hosts[host].ref, "xscontainer", function, arguments)
        return result


def cpu(pid: int) -> float:
    """Return the seconds of CPU that a process has used."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
        fields = stream.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def status(pid: int, field: str) -> int:
    """Return a number of /proc/PID/status, such as VmRSS (KiB) or Threads."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as stream:
        for line in stream:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    raise KeyError(field)


def wakeups(pid: int) -> int:
    """Return the number of voluntary context switches of a process's threads."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{thread}/status", encoding="utf-8") as stream:
                total += sum(int(line.split()[1]) for line in stream if line.startswith("voluntary"))
        except OSError:
            continue  # it ended meanwhile
    return total
