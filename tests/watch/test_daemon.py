"""The daemon as a process: what systemd, logs and files see of it."""

import contextlib
import logging
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from typing import Any, Dict, Iterator, List, Optional

import pytest

from tests.need import need
from tests.waiting import until
from xscontainer import daemon, keys, settings, systemd
from xscontainer.daemon import Daemon
from xscontainer.simulator.guests import OpenSSHGuest
from xscontainer.simulator.world import ContainerSpec, GuestSpec, World
from xscontainer.simulator.xapi import Pool
from xscontainer.vmrecord import VMChange
from xscontainer.xapi.events import Batch

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SPECS = [GuestSpec(f"web-{number}", (ContainerSpec("alpha"),), host=0) for number in range(20)]


class Process:
    """The daemon with a service manager that hears it."""

    def __init__(self, directory: str, config: str, environment: Optional[Dict[str, str]] = None,
                 abstract: bool = False) -> None:
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = os.path.join(directory, "notify")
        self.manager.bind("\0" + path if abstract else path)
        self.heard: List[str] = []
        self.log_path = os.path.join(directory, "log")
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "xscontainer.daemon", "--config", config],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, cwd="/",
                env=dict(os.environ, PYTHONPATH=ROOT, NOTIFY_SOCKET="@" + path if abstract else path,
                         **(environment or {})))

    def hear(self, what: str) -> None:
        """Until it has said so."""
        def said() -> bool:
            while select.select([self.manager], [], [], 0)[0]:
                self.heard += self.manager.recv(4096).decode().split("\n")
            assert self.process.poll() is None or what in self.heard, self.log()
            return any(line.startswith(what) for line in self.heard)

        until(said, what)

    def log(self) -> str:
        with open(self.log_path, encoding="utf-8") as log:
            return log.read()

    def terminate(self) -> float:
        """Seconds that it took to end, with exit code 0."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        assert code == 0, self.log()
        return time.monotonic() - begun

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.manager.close()


@pytest.fixture
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with Pool(str(tmp_path_factory.mktemp("d")), hosts=2, tcp=False) as made:
        yield made


def write_settings(pool: Pool, number: int = 0, **sections: Dict[str, object]) -> str:
    host = pool.hosts[number]
    path = os.path.join(host.directory, "conf")
    sections.setdefault("daemon", {}).update(
        socket=os.path.join(host.directory, "r", "d"), inventory=host.inventory_path)
    sections.setdefault("xapi", {})["socket"] = host.socket_path
    with open(path, "w") as out:
        for section, values in sections.items():
            out.write(f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items()))
    return path


@pytest.fixture
def start(pool: Pool) -> Iterator[Any]:
    """Starts a daemon on a host of the pool."""
    made: List[Process] = []

    def make(number: int = 0, environment: Optional[Dict[str, str]] = None, abstract: bool = False,
             **sections: Any) -> Process:
        made.append(Process(pool.hosts[number].directory, write_settings(pool, number, **sections), environment,
                            abstract))
        return made[-1]

    yield make
    for process in made:
        process.close()


def end(config: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """A daemon that cannot run, to its end."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "xscontainer.daemon", "--config", config, *arguments], timeout=30,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, cwd="/",
        env=dict(os.environ, PYTHONPATH=ROOT))


@pytest.mark.parametrize("abstract", [False, True])
def test_what_it_tells_systemd(start: Any, abstract: bool) -> None:
    process = start(environment={"WATCHDOG_USEC": "200000"}, abstract=abstract)
    process.hear("READY=1")
    process.hear("WATCHDOG=1")
    process.hear("STATUS=monitoring 0 VMs")
    process.terminate()
    process.hear("STOPPING=1")
    assert process.heard[0] == "READY=1" and process.heard[-1] == "STOPPING=1"


def test_its_socket_is_for_root_alone(pool: Pool, start: Any) -> None:
    start().hear("READY=1")
    path = os.path.join(pool.hosts[0].directory, "r", "d")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700


@pytest.mark.parametrize("text, words", [
    ("[xapi]\ntimeout = soon\n", "timeout"), ("no section\n", "INI"), ("[publish]\nburst = 0\n", "burst")])
def test_settings_that_are_wrong(tmp_path: Any, text: str, words: str) -> None:
    path = tmp_path / "conf"
    path.write_text(text)
    done = end(str(path))
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.startswith("xscontainer-monitor: ") and done.stderr.count("\n") == 1


def test_settings_that_are_not_there(tmp_path: Any) -> None:
    done = end(str(tmp_path / "none"))
    assert done.returncode == 2 and "does not exist" in done.stderr


def test_a_log_file_that_cannot_be_written(pool: Pool) -> None:
    done = end(write_settings(pool, daemon={"log_file": "/proc/none/log"}))
    # Not 2, after which it would not be tried again: what a log lies on may only be late, or full for a while.
    assert done.returncode == 1 and "/proc/none/log" in done.stderr and "Traceback" not in done.stderr


def test_settings_that_nobody_knows_are_told(start: Any) -> None:
    process = start(nonsense={"a": "b"}, daemon={"colour": "blue"})
    process.hear("READY=1")
    assert "nonsense" in process.log() and "colour" in process.log()


def test_a_second_daemon_says_why_it_ends(pool: Pool, start: Any) -> None:
    start().hear("READY=1")
    done = end(os.path.join(pool.hosts[0].directory, "conf"))
    assert done.returncode == 1 and "Another daemon" in done.stderr and "Traceback" not in done.stderr


def test_it_is_ready_and_ends_without_xapi(pool: Pool, start: Any) -> None:
    pool.coordinator.crash()
    process = start()
    process.hear("READY=1")
    until(lambda: "XAPI" in process.log())
    assert process.terminate() < 5.0


def test_it_ends_while_the_coordinator_is_away(pool: Pool, start: Any) -> None:
    process = start(1, xapi={"event_timeout": 1})
    process.hear("READY=1")
    until(lambda: "the pool has" in process.log())
    pool.set_coordinator_down(True)
    assert process.terminate() < 5.0


def test_one_that_was_killed_leaves_nothing_in_the_way(pool: Pool, start: Any) -> None:
    first = start()
    first.hear("READY=1")
    first.process.kill()
    first.process.wait()
    first.close()
    os.unlink(os.path.join(pool.hosts[0].directory, "notify"))
    start().hear("READY=1")


def test_a_log_file_that_is_moved_away(pool: Pool, start: Any) -> None:
    """logrotate does."""
    path = os.path.join(pool.hosts[0].directory, "xscontainer.log")

    def log() -> str:
        with open(path, encoding="utf-8") as lines:
            return lines.read()

    process = start(daemon={"log_file": path})
    process.hear("READY=1")
    until(lambda: "is ready" in log())
    os.rename(path, path + ".1")
    process.terminate()
    assert "has stopped" in log() and "is ready" not in log()


# --- with guests


@pytest.mark.real
def test_twenty_vms_and_the_end(tmp_path_factory: pytest.TempPathFactory) -> None:
    need(not OpenSSHGuest.missing(), f"OpenSSH: {OpenSSHGuest.missing()}")
    with World(str(tmp_path_factory.mktemp("w")), hosts=1, guests=SPECS, engine="embedded", daemons=False,
               settings={"daemon": {"log_level": "debug"}}) as world:
        monitor = world.daemons[0]
        monitor.start()
        world.wait_all_published()
        # Nobody's secret, anywhere one can look without being root or pool-operator.
        secrets = [secret["value"] for secret in world.pool.records("secret").values() if "PRIVATE" in secret["value"]]
        body = secrets[0].split("\n")[5]
        with open(monitor.log_path, encoding="utf-8") as log:
            lines = log.read()
        with open(f"/proc/{monitor.pid}/cmdline", "rb") as cmdline, open(f"/proc/{monitor.pid}/environ", "rb") as env:
            assert body.encode() not in cmdline.read() + env.read()
        assert body not in lines and all(body not in str(vm.other_config) for vm in world.vms)
        for vm in world.vms:
            assert f"'{vm.name}' ({vm.uuid})" in lines
        # One more that answers nothing, and one that is not there at all.
        world.vms[0].guest.misbehave("silent")
        world.vms[0].guest.kill()
        world.vms[0].guest.start()
        world.pool.create_vm("nowhere", host=world.pool.hosts[0], other_config={keys.MONITOR: "True"},
                             networks={"0/ip": "127.255.255.254"})
        until(lambda: "nowhere" in monitor.log_tail(100000))
        shown = [vm.other_config.get(keys.PS) for vm in world.vms]
        begun = time.monotonic()
        assert monitor.stop() == 0
        assert time.monotonic() - begun < 2.0
        # A restart of the service makes no container vanish.
        assert [vm.other_config.get(keys.PS) for vm in world.vms] == shown
        assert "Traceback" not in monitor.log_tail(1000000)


# --- parts of it


def test_a_thread_that_ends_ends_the_service(pool: Pool, monkeypatch: pytest.MonkeyPatch,
                                             caplog: pytest.LogCaptureFixture) -> None:
    """systemd starts it again, which is better than half a service."""
    monkeypatch.setattr(daemon, "HEALTH_INTERVAL", 0.05)
    monkeypatch.setattr(threading, "stack_size", lambda _size: 0)
    made = Daemon(settings.load(write_settings(pool)).settings)
    monkeypatch.setattr(made._registry, "run", lambda: None)
    with caplog.at_level(logging.CRITICAL):
        assert made.run(threading.Event()) == 1
    assert "registry" in caplog.text


def test_a_registry_that_is_stuck_ends_the_service(pool: Pool, monkeypatch: pytest.MonkeyPatch,
                                                   caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(daemon, "HEALTH_INTERVAL", 0.05)
    monkeypatch.setattr(daemon, "STUCK_AFTER", 0.2)
    monkeypatch.setattr(threading, "stack_size", lambda _size: 0)
    made = Daemon(settings.load(write_settings(pool)).settings)
    blocked = threading.Event()
    monkeypatch.setattr(made._registry, "_apply", lambda _batch: blocked.wait(10))
    made._registry.deliver(Batch([VMChange("u", None)], None, False))
    release = threading.Timer(1.0, blocked.set)
    release.start()
    with caplog.at_level(logging.CRITICAL):
        assert made.run(threading.Event()) == 1
    release.join()
    assert "stuck" in caplog.text


def test_an_address_that_a_host_gets_is_forbidden_at_once(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest may report it the moment after."""
    monkeypatch.setattr(threading, "stack_size", lambda _size: 0)
    made = Daemon(settings.load(write_settings(pool, xapi={"event_timeout": 1})).settings)
    stop = threading.Event()
    thread = threading.Thread(target=made.run, args=(stop,))
    thread.start()
    try:
        until(lambda: made._host.ref == pool.hosts[0].ref)
        pool.set_field("host", pool.hosts[1].ref, "address", "10.9.8.7")
        until(lambda: "10.9.8.7" in made._access.facts.host_addresses)
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


def test_a_coordinator_that_changes_is_noticed(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "stack_size", lambda _size: 0)
    made = Daemon(settings.load(write_settings(pool, 1, xapi={"event_timeout": 1})).settings)
    stop = threading.Event()
    thread = threading.Thread(target=made.run, args=(stop,))
    thread.start()
    try:
        until(lambda: made._host.ref == pool.hosts[1].ref)
        assert not made._host.is_coordinator
        pool.set_field("pool", next(iter(pool.records("pool"))), "master", pool.hosts[1].ref)
        until(lambda: made._host.is_coordinator)
        ref = pool.create_vm("clone", power_state="Halted", other_config={keys.PS: "<docker_ps/>"})
        until(lambda: keys.PS not in pool.other_config(ref))
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


def test_systemd_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for address in ("", str(tmp_path / "none"), "@none"):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        systemd.notify("READY=1")


@pytest.mark.parametrize("usec, pid, seconds", [
    ("30000000", None, 15.0), ("30000000", "1", 0.0), ("", None, 0.0), ("nonsense", None, 0.0), (None, None, 0.0)])
def test_the_watchdogs_interval(monkeypatch: pytest.MonkeyPatch, usec: Any, pid: Any, seconds: float) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        with contextlib.suppress(KeyError):
            monkeypatch.delenv(name)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert systemd.watchdog_interval() == seconds
