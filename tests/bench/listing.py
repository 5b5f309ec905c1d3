"""``xscontainer ps``: a pool with 2,000 containers, and the way of a container's event to the screen."""

import contextlib
import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from typing import Any, Callable, Iterator, List, Tuple

from tests.bench.figures import Report, quantile
from tests.bench.scene import Scene
from xscontainer import keys
from xscontainer.clients import xmlform
from xscontainer.core.container import containers_from_api
from xscontainer.simulator.xapi import Pool
from xscontainer.xapi import inventory
from xscontainer.xapi.session import Session

VMS, EACH = 100, 20
ROUNDS = 7
CHANGES = 40
_FIELDS = ("uuid", "name_label", "power_state", "resident_on", "other_config")


class Counted(Session):
    """A session that counts the bytes of XAPI's answers."""

    received = 0

    def _exchange(self, method: str, bodies: "List[bytes]") -> "List[Tuple[int, bytes]]":
        answers = super()._exchange(method, bodies)
        self.received += sum(len(body) for _, body in answers)
        return answers


def _entry(vm: int, number: int) -> Any:
    ends = number % 4 == 3
    labels = {"com.docker.compose.project": f"project-{vm}", "com.docker.compose.service": f"service-{number}"}
    return {"Id": f"{vm:032x}{number:032x}", "Names": [f"/project-{vm}-service-{number}"],
            "Image": "registry.example.com/team/service:1.2.3", "Created": 1700000000 + number,
            "Command": "/usr/bin/service --config /etc/service.conf", "Labels": labels,
            "State": "exited" if ends else "running",
            "Status": "Exited (1) 3 hours ago" if ends else "Up 3 hours (healthy)",
            "Ports": [{"IP": ip, "PrivatePort": 80, "PublicPort": 8000 + number, "Type": "tcp"}
                      for ip in ("0.0.0.0", "::")]}


@contextlib.contextmanager
def full_pool() -> "Iterator[Tuple[Pool, str]]":
    """Yield a pool of 4 hosts with 2,000 published containers, and the path of the settings."""
    with tempfile.TemporaryDirectory(prefix="xsb") as directory:
        with Pool(os.path.join(directory, "p"), hosts=4, tcp=False) as pool:
            for vm in range(VMS):
                listed = xmlform.docker_ps(containers_from_api([_entry(vm, each) for each in range(EACH)]).containers)
                pool.create_vm(f"vm{vm:03}", host=pool.hosts[vm % 4], other_config={
                    keys.MONITOR: "True", keys.PS: listed.text,
                    keys.INFO: "<docker_info>" + " " * 900 + "</docker_info>",
                    keys.VERSION: "<docker_version><Version>20.10.24</Version></docker_version>"})
            config = os.path.join(directory, "xscontainer.conf")
            with open(config, "w", encoding="utf-8") as stream:
                stream.write(f"[xapi]\nsocket = {pool.hosts[0].socket_path}\n")
            yield pool, config


def measure_ps(report: Report) -> None:
    report.title(f"xscontainer ps: {VMS * EACH} containers in {VMS} VMs")
    with full_pool() as (pool, config):
        for what, options in (("ps", []), ("ps --all --format wide", ["--all", "--format", "wide"]),
                              ("ps --format ndjson", ["--format", "ndjson"]), ("ps --vm vm042", ["--vm", "vm042"])):
            times = [_seconds(config, ["ps", *options]) for _ in range(ROUNDS)]
            report.figure(f"{what}: time, median", quantile(times, 0.5), "s", 0.6)
        report.note("of that, xscontainer --version", f"{quantile([_seconds(config, ['--version'])] * 3, 0.5):10.4g} s")
        _readings(report, pool)


def _seconds(config: str, arguments: "List[str]") -> float:
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-W", "ignore", "-m", "xscontainer.cli", "--config", config, *arguments],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        raise RuntimeError(done.stderr.decode("utf-8", "replace"))
    return time.monotonic() - started


def _readings(report: Report, pool: Pool) -> None:
    """Compare ways to read the pool, in turns."""
    session = Counted.login(pool.hosts[0].socket_path, "bench", 60.0, 10.0)
    published = sum(len(value) for vm in pool.records("VM").values() for value in vm["other_config"].values())
    report.note("bytes of the published documents", f"{published / 1000:10.4g} KB")

    def fields() -> None:
        refs = session.xenapi.VM.get_all()
        session.together(*((f"VM.get_{field}", (ref,)) for ref in refs for field in _FIELDS))

    def records(query: str) -> "Callable[[], Any]":
        return lambda: session.xenapi.VM.get_all_records_where(query)

    ways = (("whole records of guests, as ps reads", records(inventory.GUESTS)),
            ("the record of one VM by its name", records(f'{inventory.GUESTS} and field "name__label" = "vm042"')),
            (f"{len(_FIELDS)} fields of each VM, pipelined", fields))
    try:
        for what, read in ways:
            times, received = [], 0
            for _ in range(ROUNDS):
                session.received = 0
                started = time.monotonic()
                read()
                times.append(time.monotonic() - started)
                received = session.received
            report.note(f"{what}: bytes from XAPI", f"{received / 1000:10.4g} KB")
            report.note(f"{what}: time", f"{quantile(times, 0.5) * 1000:10.4g} ms")
    finally:
        session.logout()


# --- live -----------------------------------------------------------------------


def measure_watch(report: Report) -> None:
    report.title("ps --watch: a container changes in its engine, until its line is on the screen")
    with Scene(20) as scene:
        scene.wait_published()
        with _screen(scene.configs[0]) as screen:
            _read_until(screen, "vm000/container-0000", "running")
            latencies = []
            for number in range(2 * CHANGES):
                vm = scene.vms[(number // 2) % 4]  # the first ones are in the window
                verb, state = (("pause", "paused"), ("unpause", "running"))[number % 2]
                started = time.monotonic()
                vm.engine.do(verb, "container-0000")
                _read_until(screen, f"{vm.name}/container-0000", state)
                latencies.append((time.monotonic() - started) * 1000)
                time.sleep(0.25)
        report.figure("event -> screen, 20 VMs with 100 containers, median", quantile(latencies, 0.5), "ms", 100)
        report.figure("event -> screen, 20 VMs with 100 containers, p95", quantile(latencies, 0.95), "ms", 200)
    with full_pool() as (pool, config), _screen(config) as screen:
        _read_until(screen, "vm000/project-0-service-0", "running")
        ref = next(ref for ref, vm in pool.records("VM").items() if vm["name_label"] == "vm000")
        latencies = []
        for number in range(CHANGES):
            entries = [_entry(0, each) for each in range(EACH)]
            entries[0].update(State="paused" if number % 2 == 0 else "running", Status="Up 3 hours")
            text = xmlform.docker_ps(containers_from_api(entries).containers).text
            started = time.monotonic()
            pool.set_key(ref, keys.PS, text)
            _read_until(screen, "vm000/project-0-service-0", entries[0]["State"])
            latencies.append((time.monotonic() - started) * 1000)
            time.sleep(0.1)
        report.figure(f"list in XAPI -> screen, {VMS * EACH} containers, median", quantile(latencies, 0.5), "ms", 85)


@contextlib.contextmanager
def _screen(config: str) -> "Iterator[int]":
    """Run ``ps --watch`` on a terminal and yield its other end."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "xscontainer.cli", "--config", config, "ps", "--watch"],
        stdin=theirs, stdout=theirs, stderr=theirs, env=dict(os.environ, TERM="xterm"), start_new_session=True)
    os.close(theirs)
    try:
        yield ours
    finally:
        process.terminate()
        with contextlib.suppress(OSError):  # all is read, so that the process can end
            while os.read(ours, 65536):
                pass
        process.wait(20)
        os.close(ours)


def _read_until(screen: int, name: str, state: str) -> None:
    pattern = re.compile(re.escape(name.encode()) + rb"(?:\x1b\[[0-9;]*m| )+" + state.encode())
    found, deadline = b"", time.monotonic() + 20
    while not pattern.search(found):
        if not select.select([screen], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError(f"{name} is not shown as {state}")
        found += os.read(screen, 65536)
