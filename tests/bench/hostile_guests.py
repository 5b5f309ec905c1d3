"""Measure what guests that keep the monitor busy cost it, XAPI and other VMs, and how often a list is absent."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import Callable, Dict, Iterator, List, NamedTuple

from tests.bench.figures import Report, quantile
from tests.bench.scene import VM, Scene, cpu
from tests.monitoring.gap import watch_updates
from xscontainer import keys
from xscontainer.simulator.xapi import Pool

WINDOW = 10.0  # seconds over which a core is shared
PACE = 0.9  # seconds between two changes of the honest VM


class Course(NamedTuple):
    """The figures of a run.

    :ivar latencies: of the honest VM's changes, milliseconds.
    :ivar core: highest CPU use over WINDOW, percent of a core.
    """

    latencies: List[float]
    core: float
    writes: float  # per second
    kilobytes: float  # per second

    @property
    def median(self) -> float:
        return quantile(self.latencies, 0.5)


def _follow(scene: Scene, vm: VM, seconds: float) -> Course:
    """Measure the honest VM and the host for some seconds."""
    pid = scene.daemons[1].pid
    spent, latencies = [(time.monotonic(), cpu(pid))], []
    scene.pool.stats.reset()
    ends = spent[0][0] + seconds
    number = 0
    while time.monotonic() < ends:
        verb, shown = (("pause", "Up (Paused)"), ("unpause", "Up"))[number % 2]
        began = time.monotonic()
        vm.engine.do(verb, "container-0000")
        scene.wait(partial(_shows, scene, vm, shown, 1 + number % 2), 30.0)
        latencies.append((time.monotonic() - began) * 1000)
        number += 1
        time.sleep(PACE)
        spent.append((time.monotonic(), cpu(pid)))
    if number % 2:
        vm.engine.do("unpause", "container-0000")
    windows = [(later[1] - earlier[1]) / (later[0] - earlier[0]) for earlier in spent for later in spent
               if later[0] - earlier[0] >= min(WINDOW, seconds * 0.8)]
    elapsed = spent[-1][0] - spent[0][0]
    stats = scene.pool.stats
    return Course(latencies, max(windows) * 100, stats.calls("VM.add_to_other_config", "xscontainer") / elapsed,
                  stats.bytes("VM.add_to_other_config", "xscontainer") / 1000.0 / elapsed)


def _shows(scene: Scene, vm: VM, status: str, times: int) -> bool:
    return scene.ps(vm).count(f"<status>{status}</status>") == times


@contextmanager
def _hostile(mode: str, vms: "List[VM]") -> "Iterator[None]":
    """Make the VMs' engines or SSH servers hostile for the block, which begins when all are monitored."""
    processes: List["subprocess.Popen[bytes]"] = []
    try:
        for vm in vms:
            if mode == "bytes":
                vm.guest.stop()
                where = (f"{vm.guest.address}:{vm.guest.port}", vm.guest.host_key_path)
            else:
                vm.engine.stop()
                where = (vm.guest.engine_socket, "")
                if os.path.exists(where[0]):
                    os.unlink(where[0])
            program = [sys.executable, "-W", "ignore", "-m", "tests.bench.hostile", mode, *where]
            processes.append(subprocess.Popen(program, stdout=subprocess.PIPE))
        for process in processes:
            assert process.stdout and process.stdout.readline() == b"followed\n"
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
            assert process.stdout
            process.stdout.close()


def _compare(report: Report, what: str, mode: str, number: int, most: float) -> None:
    with Scene(1 + number, containers=2) as scene:
        scene.wait_published()
        time.sleep(3.0)
        quiet = _follow(scene, scene.vms[0], 8.0)
        with _hostile(mode, scene.vms[1:]):
            course = _follow(scene, scene.vms[0], 22.0)
        report.note(f"{what}: an honest VM's median without / with", f"{quiet.median:.1f} / {course.median:.1f} ms")
        report.figure(f"{what}: that many times as long", course.median / quiet.median, "", 2)
        report.figure(f"{what}: core of the monitor, most over 10 s", course.core, "%", most)
        if mode == "flap":
            report.figure(f"{what}: writes into XAPI", course.writes, "/s", 20 * 1.1)
            report.figure(f"{what}: the same in bytes", course.kilobytes, "KB/s", 1000 * 1.1)


def measure_floods(report: Report) -> None:
    report.title("Guests that send without an end: one may take a tenth of a core, all together a half")
    _compare(report, "blank lines by 1 guest", "blank", 1, 10)
    _compare(report, "one-byte SSH packets by 1 guest", "bytes", 1, 10)
    _compare(report, "blank lines by 10 guests", "blank", 10, 50)


def measure_flapping(report: Report) -> None:
    report.title("Guests that change without an end: 900 containers each, 100 times a second")
    _compare(report, "10 flapping guests", "flap", 10, 50)


def _repeatedly(change: "Callable[[int], None]", pause: float) -> "Callable[[], float]":
    """Call ``change`` repeatedly in a thread; the returned function stops it and returns the calls per second."""
    stop, count, began = threading.Event(), [0], time.monotonic()

    def run() -> None:
        while not stop.wait(pause):
            count[0] += 1
            change(count[0])

    thread = threading.Thread(target=run)
    thread.start()

    def end() -> float:
        stop.set()
        thread.join()
        return count[0] / (time.monotonic() - began)
    return end


def measure_restless(report: Report) -> None:
    report.title("Addresses and settings that change without an end")
    with Scene(2, containers=2) as scene:
        scene.wait_published()
        honest, restless = scene.vms
        many: Dict[str, str] = {f"{vif}/ipv4/{index}": f"10.{vif}.{index}.1" for vif in range(1, 101)
                                for index in range(100)}
        end = _repeatedly(lambda number: scene.pool.set_networks(
            restless.ref, {**many, "0/ip": restless.guest.address if number % 2 else "127.200.1.1"}), 0.01)
        course = _follow(scene, honest, 12.0)
        scene.call(1, "deregister", vmuuid=honest.uuid)
        scene.wait(lambda: not scene.ps(honest), 30.0)
        scene.call(1, "register", vmuuid=honest.uuid)
        again = scene.wait(lambda: bool(scene.ps(honest)), 30.0)
        report.note("10,000 addresses of a guest change, times a second", f"{end():.0f}")
        report.figure("the same: core of the monitor, most over 10 s", course.core, "%", 50)
        report.figure("the same: another VM is registered and shown after", again, "s", 1)
        scene.pool.set_networks(restless.ref, {"0/ip": restless.guest.address})
        time.sleep(6.0)
        before = restless.guest.accepted
        xapi = scene.session.xenapi

        def flap(number: int) -> None:
            if number % 2:
                xapi.VM.add_to_other_config(restless.ref, keys.ENGINE, "docker")
            else:
                xapi.VM.remove_from_other_config(restless.ref, keys.ENGINE)

        end = _repeatedly(flap, 0.05)
        course = _follow(scene, honest, 30.0)
        report.note("a setting of a VM changes, times a second", f"{end():.0f}")
        report.figure("the same: reconnects", (restless.guest.accepted - before) / 30.0, "/s", 0.7)


def measure_gap(report: Report) -> None:
    report.title("A list is replaced: of 25 updates, how many do clients see without it?")
    for size in (20000, 200000):
        for what, paired, wake in (("remove, then add", False, False), ("both requests back to back", True, False),
                                   ("the same after a wake", True, True)):
            directory = tempfile.mkdtemp(prefix="xsg")
            try:
                with Pool(directory, hosts=2) as pool:
                    seen = watch_updates(pool, 25, size, paired, wake)
            finally:
                shutil.rmtree(directory, ignore_errors=True)
            report.note(f"{size // 1000} KB, {what}: a client that polls without a pause", seen.tight)
            if wake:
                report.figure(f"{size // 1000} KB, {what}: Xen Orchestra's client", seen.orchestra, "", 0)
            else:
                report.note(f"{size // 1000} KB, {what}: Xen Orchestra's client", seen.orchestra)
