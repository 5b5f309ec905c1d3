"""The daemon as a process: its messages to systemd, its log and its files."""

import contextlib
import logging
import os
import random
import select
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from typing import Any, Dict, Iterator, List, Optional

import pytest

from tests.need import need
from tests.waiting import until
from xscontainer import certificates, keys, settings
from xscontainer.core.vm_record import VMChange
from xscontainer.errors import ObjectGone
from xscontainer.host import systemd
from xscontainer.monitoring.upkeep import Chore, Upkeep
from xscontainer.service import daemon
from xscontainer.service.daemon import Daemon
from xscontainer.simulator.guests import OpenSSHGuest
from xscontainer.simulator.world import ContainerSpec, GuestSpec, Parts, World
from xscontainer.simulator.xapi import Pool
from xscontainer.xapi import pool as xapi_pool
from xscontainer.xapi import stored_certificate
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session
from xscontainer.xapi.watch import Batch

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SPECS = [GuestSpec(f"web-{number}", (ContainerSpec("alpha"),), host=0) for number in range(20)]


class Process:
    """The daemon as a process, and a service manager that receives its notifications."""

    def __init__(self, directory: str, config: str, environment: Optional[Dict[str, str]] = None,
                 abstract: bool = False) -> None:
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = os.path.join(directory, "notify")
        self.manager.bind("\0" + path if abstract else path)
        self.heard: List[str] = []
        self.log_path = os.path.join(directory, "log")
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "xscontainer.service.daemon", "--config", config],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, cwd="/",
                env=dict(os.environ, PYTHONPATH=ROOT, NOTIFY_SOCKET="@" + path if abstract else path,
                         **(environment or {})))

    def hear(self, message: str) -> None:
        """Wait until the daemon has sent this notification."""
        def said() -> bool:
            while select.select([self.manager], [], [], 0)[0]:
                self.heard += self.manager.recv(4096).decode().split("\n")
            assert self.process.poll() is None or message in self.heard, self.log()
            return any(line.startswith(message) for line in self.heard)

        until(said, message)

    def log(self) -> str:
        with open(self.log_path, encoding="utf-8") as log:
            return log.read()

    def terminate(self) -> float:
        """Stop the daemon, check its exit code, and return the seconds that this took."""
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
    """Return a function that starts a daemon on a host of the pool."""
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
    """Run a daemon that cannot start, until it exits."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "xscontainer.service.daemon", "--config", config, *arguments],
        timeout=30, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
        cwd="/", env=dict(os.environ, PYTHONPATH=ROOT))


@pytest.mark.parametrize("abstract", [False, True])
def test_the_daemon_notifies_systemd_of_start_watchdog_status_and_stop(start: Any, abstract: bool) -> None:
    process = start(environment={"WATCHDOG_USEC": "200000"}, abstract=abstract)
    process.hear("READY=1")
    process.hear("WATCHDOG=1")
    process.hear("STATUS=monitoring 0 VMs")
    process.terminate()
    process.hear("STOPPING=1")
    assert process.heard[0] == "READY=1" and process.heard[-1] == "STOPPING=1"


def test_only_root_can_use_the_socket_of_the_daemon(pool: Pool, start: Any) -> None:
    start().hear("READY=1")
    path = os.path.join(pool.hosts[0].directory, "r", "d")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700


@pytest.mark.parametrize("text, words", [
    ("[xapi]\ntimeout = soon\n", "timeout"), ("no section\n", "INI"), ("[publish]\nburst = 0\n", "burst")])
def test_invalid_settings_end_the_daemon_with_code_2(tmp_path: Any, text: str, words: str) -> None:
    path = tmp_path / "conf"
    path.write_text(text)
    done = end(str(path))
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.startswith("xscontainer-monitor: ") and done.stderr.count("\n") == 1


def test_a_missing_settings_file_ends_the_daemon_with_code_2(tmp_path: Any) -> None:
    done = end(str(tmp_path / "none"))
    assert done.returncode == 2 and "does not exist" in done.stderr


def test_a_log_file_that_cannot_be_written_ends_the_daemon_with_code_1(pool: Pool) -> None:
    done = end(write_settings(pool, daemon={"log_file": "/proc/none/log"}))
    # After code 2 systemd would not try again, but the log's file system may only be late, or full for a while.
    assert done.returncode == 1 and "/proc/none/log" in done.stderr and "Traceback" not in done.stderr


def test_unknown_settings_are_logged(start: Any) -> None:
    process = start(nonsense={"a": "b"}, daemon={"colour": "blue"})
    process.hear("READY=1")
    assert "nonsense" in process.log() and "colour" in process.log()


def test_a_second_daemon_exits_with_the_reason(pool: Pool, start: Any) -> None:
    start().hear("READY=1")
    done = end(os.path.join(pool.hosts[0].directory, "conf"))
    assert done.returncode == 1 and "Another daemon" in done.stderr and "Traceback" not in done.stderr


def test_the_daemon_becomes_ready_and_stops_without_xapi(pool: Pool, start: Any) -> None:
    pool.coordinator.crash()
    process = start()
    process.hear("READY=1")
    until(lambda: "XAPI" in process.log())
    assert process.terminate() < 5.0


def test_the_daemon_stops_while_the_coordinator_is_away(pool: Pool, start: Any) -> None:
    process = start(1, xapi={"event_timeout": 1})
    process.hear("READY=1")
    until(lambda: "the pool has" in process.log())
    pool.set_coordinator_down(True)
    assert process.terminate() < 5.0


def test_a_daemon_starts_after_one_that_was_killed(pool: Pool, start: Any) -> None:
    first = start()
    first.hear("READY=1")
    first.process.kill()
    first.process.wait()
    first.close()
    os.unlink(os.path.join(pool.hosts[0].directory, "notify"))
    start().hear("READY=1")


def test_a_log_file_that_is_moved_away_is_created_again(pool: Pool, start: Any) -> None:
    """Logrotate moves log files."""
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
def test_twenty_vms_are_monitored_and_a_stop_leaves_their_lists(tmp_path_factory: pytest.TempPathFactory) -> None:
    need(not OpenSSHGuest.missing(), f"OpenSSH: {OpenSSHGuest.missing()}")
    with World(str(tmp_path_factory.mktemp("w")), hosts=1, guests=SPECS,
               parts=Parts(engine="embedded", daemons=False, settings={"daemon": {"log_level": "debug"}})) as world:
        monitor = world.daemons[0]
        monitor.start()
        world.wait_all_published()
        # The private key is in no place that others than root and pool-operators can read.
        secrets = [secret["value"] for secret in world.pool.records("secret").values() if "PRIVATE" in secret["value"]]
        body = secrets[0].split("\n")[5]
        with open(monitor.log_path, encoding="utf-8") as log:
            lines = log.read()
        with open(f"/proc/{monitor.pid}/cmdline", "rb") as cmdline, open(f"/proc/{monitor.pid}/environ", "rb") as env:
            assert body.encode() not in cmdline.read() + env.read()
        assert body not in lines and all(body not in str(vm.other_config) for vm in world.vms)
        for vm in world.vms:
            assert f"'{vm.name}' ({vm.uuid})" in lines
        # Add a guest that never answers, and a VM without a guest.
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
        # A stop of the service keeps the lists.
        assert [vm.other_config.get(keys.PS) for vm in world.vms] == shown
        assert "Traceback" not in monitor.log_tail(1000000)


# --- parts of the daemon


def test_a_thread_that_ends_ends_the_service(pool: Pool, monkeypatch: pytest.MonkeyPatch,
                                             caplog: pytest.LogCaptureFixture) -> None:
    """Systemd starts the service again, which is better than a service without one of its threads."""
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


def test_an_event_stream_that_is_stuck_ends_the_service(pool: Pool, monkeypatch: pytest.MonkeyPatch,
                                                        caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(daemon, "HEALTH_INTERVAL", 0.05)
    monkeypatch.setattr(daemon, "STUCK_AFTER", 1.0)
    monkeypatch.setattr(daemon, "POLL_MARGIN", 0.1)
    monkeypatch.setattr(threading, "stack_size", lambda _size: 0)
    made = Daemon(settings.load(write_settings(pool)).settings)
    made._settings = made._settings._replace(xapi=made._settings.xapi._replace(event_timeout=0.2))
    blocked = threading.Event()
    monkeypatch.setattr(made._watch, "_deliver", lambda _batch: blocked.wait(10))
    monkeypatch.setattr("xscontainer.monitoring.registry.ROUND", 0.02)
    release = threading.Timer(3.0, blocked.set)
    release.start()
    with caplog.at_level(logging.CRITICAL):
        assert made.run(threading.Event()) == 1
    release.join()
    assert "the XAPI event stream is stuck" in caplog.text


def test_an_address_that_a_host_gets_is_forbidden_at_once(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest may report this address immediately afterwards."""
    monkeypatch.setattr(threading, "stack_size", lambda _size: 0)
    made = Daemon(settings.load(write_settings(pool, xapi={"event_timeout": 1})).settings)
    stop = threading.Event()
    thread = threading.Thread(target=made.run, args=(stop,))
    thread.start()
    try:
        until(lambda: made._pool._state is not None and made._pool.state.this_host == pool.hosts[0].ref)
        pool.set_field("host", pool.hosts[1].ref, "address", "10.9.8.7")
        until(lambda: "10.9.8.7" in made._pool.state.host_addresses)
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


def test_a_change_of_the_coordinator_is_noticed(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "stack_size", lambda _size: 0)
    made = Daemon(settings.load(write_settings(pool, 1, xapi={"event_timeout": 1})).settings)
    stop = threading.Event()
    thread = threading.Thread(target=made.run, args=(stop,))
    thread.start()
    try:
        until(lambda: made._pool._state is not None and made._pool.state.this_host == pool.hosts[1].ref)
        assert not made._pool.state.is_coordinator
        pool.set_field("pool", next(iter(pool.records("pool"))), "master", pool.hosts[1].ref)
        until(lambda: made._pool.state.is_coordinator)
        ref = pool.create_vm("clone", power_state="Halted", other_config={keys.PS: "<docker_ps/>"})
        until(lambda: keys.PS not in pool.other_config(ref))
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


def test_an_absent_systemd_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for address in ("", str(tmp_path / "none"), "@none"):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        systemd.notify("READY=1")


@pytest.mark.parametrize("usec, pid, seconds", [
    ("30000000", None, 15.0), ("30000000", "1", 0.0), ("", None, 0.0), ("nonsense", None, 0.0), (None, None, 0.0)])
def test_the_watchdog_is_notified_at_half_its_interval(monkeypatch: pytest.MonkeyPatch, usec: Any, pid: Any,
                                                       seconds: float) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        with contextlib.suppress(KeyError):
            monkeypatch.delenv(name)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert systemd.watchdog_interval() == seconds


def _malformed(pool: Pool) -> None:
    """Give the pool's CA and client certificate a version that X.509 does not have."""
    session = Session.login(pool.coordinator.socket_path, "test", 10.0, 5.0)
    try:
        vm = xapi_vm.record(session, pool.vm(pool.create_vm("for certificates", networks={"0/ip": "10.0.0.5"}))["uuid"])
        certificates.issue(session, vm, ["10.0.0.5"])
        for name in (keys.TLS_CA_SECRET, keys.TLS_CLIENT_SECRET):
            kept = stored_certificate.read(session, xapi_pool.record(session).other_config[name])
            der = ssl.PEM_cert_to_DER_cert(kept.certificate).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x09")
            ref = session.xenapi.secret.get_by_uuid(kept.certificate_uuid)
            session.xenapi.secret.set_value(ref, ssl.DER_cert_to_PEM_cert(der))
    finally:
        session.logout()


def test_malformed_certificates_of_the_pool_do_not_stop_monitoring(pool: Pool, start: Any) -> None:
    _malformed(pool)
    ref = pool.create_vm("web", pool.hosts[0], networks={"0/ip": "10.0.0.6"}, other_config={keys.MONITOR: "True"})
    process = start()
    process.hear("READY=1")
    until(lambda: "1 of them are monitored here" in process.log(), "the first list of VMs")
    pool.create_vm("another", pool.hosts[0], networks={"0/ip": "10.0.0.7"}, other_config={keys.MONITOR: "True"})
    until(lambda: "renewing the pool's TLS certificates failed" in process.log(), "a line in the log")
    until(lambda: keys.STATUS in pool.other_config(ref), "a status of the VM")
    assert "Traceback" not in process.log()
    assert process.terminate() < 30.0


def test_a_chore_that_fails_runs_again_and_does_not_stop_the_others(
        caplog: pytest.LogCaptureFixture) -> None:
    ran: List[str] = []

    def fail(error: BaseException) -> None:
        ran.append(type(error).__name__)
        raise error

    panic = type("PanicException", (BaseException,), {})
    upkeep = Upkeep([Chore("one", lambda: fail(ObjectGone("It is gone."))), Chore("two", lambda: fail(KeyError("x"))),
                     Chore("three", lambda: fail(panic("x"))), Chore("four", lambda: ran.append("four"))])
    thread = threading.Thread(target=upkeep.run, name="upkeep")
    thread.start()
    try:
        for rounds in (1, 2):
            upkeep.wake()
            until(lambda: len(ran) == 4 * rounds, "a round")  # noqa: B023 - called at once
    finally:
        upkeep.stop()
        thread.join(10.0)
    assert not thread.is_alive()
    assert ran == ["ObjectGone", "KeyError", "PanicException", "four"] * 2
    assert "It is gone." in caplog.text


_GARBAGE = ["", " ", "\u202e\x7f", "é" * 500, "10.0.0.1,\n,/24", "{\"a\":", "<x>", "-1", "9" * 400, "True", "sha1,all",
            "/../", "%s%n"]


def test_garbage_in_records_of_vms_does_not_stop_monitoring(pool: Pool, start: Any) -> None:
    """Each key that the daemon reads, and some fields of the VM's record, hold invalid values."""
    chance = random.Random(7)
    names = [value for name, value in vars(keys).items() if name.isupper() and isinstance(value, str)]

    def garbage(count: int) -> None:
        for number in range(count):
            config = {name: chance.choice(_GARBAGE) for name in chance.sample(names, 8)}
            config[keys.MONITOR] = "True"
            networks = {f"{number}/ip": chance.choice(_GARBAGE), chance.choice(["0/ipv6/0", "x", "/"]): "\u202e"}
            ref = pool.create_vm(chance.choice(_GARBAGE), pool.hosts[0], other_config=config, networks=networks)
            if number % 3 == 0:
                pool.set_field("VM", ref, "domid", chance.choice(["x", "", "1.5"]))
        for name in names:
            pool.set_key(next(iter(pool.records("pool"))), name, chance.choice(_GARBAGE), cls="pool")

    garbage(15)
    process = start()
    process.hear("READY=1")
    until(lambda: "are monitored here" in process.log(), "the first list of VMs", 30.0)
    garbage(15)
    ref = pool.create_vm("web", pool.hosts[0], networks={"0/ip": "10.0.0.6"}, other_config={keys.MONITOR: "True"})
    until(lambda: keys.STATUS in pool.other_config(ref), "a status of the honest VM", 60.0)
    assert "Traceback" not in process.log(), process.log()[-4000:]
    assert "event stream broke" not in process.log()
    assert process.terminate() < 40.0


def test_a_destroyed_vm_is_forgotten_by_the_budgets(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "stack_size", lambda _size: 0)
    made = Daemon(settings.load(write_settings(pool, xapi={"event_timeout": 1})).settings)
    ref = pool.create_vm("web", power_state="Halted")
    uuid = pool.vm(ref)["uuid"]
    stop = threading.Event()
    thread = threading.Thread(target=made.run, args=(stop,))
    thread.start()
    try:
        until(lambda: made._census.complete)
        made._budgets.of(uuid)
        pool.db.destroy(pool.db.find("VM", ref))
        until(lambda: uuid not in made._budgets._guests)
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
