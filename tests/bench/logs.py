"""The time of get_logs, the latency of a log that is followed, and followers that read nothing."""

import json
import time
from datetime import datetime
from functools import partial
from typing import Any, Callable, Dict, List

from tests.bench.figures import Report, quantile
from tests.bench.scene import VM, Scene, status
from tests.noise import noise
from xscontainer.errors import XapiError
from xscontainer.simulator.engines.podman import PodmanEngine

ROUNDS = 30
LINES = 100
FOLLOWERS = 50
NOISY = 13  # VMs
SECONDS = 15.0  # of noise
_EPOCH = datetime(1970, 1, 1)


class OverPodman(Scene):
    REAL = PodmanEngine


def _logs(scene: Scene, vm: VM, host: int = 1, container: str = "writes", **arguments: str) -> Dict[str, Any]:
    found: Dict[str, Any] = json.loads(scene.call(
        host, "get_logs", vmuuid=vm.uuid, container=container, **arguments)[len("True"):])
    return found


def _timed(work: "Callable[[], Any]") -> float:
    """Return the milliseconds that it takes."""
    started = time.monotonic()
    work()
    return (time.monotonic() - started) * 1000


def measure_logs(report: Report) -> None:
    report.title(f"get_logs of {LINES} lines: how much longer than the engine's own work?")
    for what, kind in (("dockerd", Scene), ("podman", OverPodman)):
        if kind.REAL.missing():
            report.note(what, f"not measured: {kind.REAL.missing()}")
            continue
        with kind(1, real=True) as scene:
            scene.wait_published()
            _of_one(report, what, scene, scene.vms[0])


def _of_one(report: Report, what: str, scene: Scene, vm: VM) -> None:
    vm.engine.run("writes", ("sh", "-c", "for i in $(/bin/busybox seq 200); do echo a line of the log, number $i; done;"
                                         " while true; do sleep 0.5; echo tick; done"))
    client = vm.engine.new_client()
    own = partial(client.logs, "writes", timestamps=True, tail=LINES)
    scene.wait(lambda: own().count(b"\n") == LINES)
    logs, inspect, alone = [], [], []
    for _ in range(ROUNDS):
        inspect.append(-_timed(lambda: client.inspect_container("writes")) + _timed(
            lambda: scene.call(1, "get_inspect", vmuuid=vm.uuid, object="writes")))
        alone.append(_timed(own))
        logs.append(_timed(lambda: _logs(scene, vm, tail=str(LINES))) - alone[-1])
        time.sleep(0.05)
    client.close()
    report.note(f"{what}: the engine's own time, median", f"{quantile(alone, 0.5):10.4g} ms")
    report.figure(f"{what}: get_logs, median", quantile(logs, 0.5), "ms", 20)
    report.note(f"{what}: get_inspect, median, to compare", f"{quantile(inspect, 0.5):10.4g} ms")
    delays = _followed(scene, vm)
    report.figure(f"{what}: line -> get_logs(follow), other host, median", quantile(delays, 0.5), "ms", 1000)
    report.figure(f"{what}: line -> get_logs(follow), other host, slowest", max(delays), "ms", 1000)


def _followed(scene: Scene, vm: VM) -> "List[float]":
    """Return the milliseconds from the engine's stamp of a line until a client on the other host has it."""
    token, delays = _logs(scene, vm, 0, follow="new", tail="0")["follow"], []  # type: str, List[float]
    while len(delays) < ROUNDS:
        found = _logs(scene, vm, 0, follow=token, wait="10")
        now = time.time()
        for line in found["lines"]:
            stamp = datetime.strptime(line["time"][:26], "%Y-%m-%dT%H:%M:%S.%f")
            # podman stamps whole seconds: such a line is up to a second younger.
            if not line["time"].endswith(".000000000Z"):
                delays.append((now - (stamp - _EPOCH).total_seconds()) * 1000)
            else:
                delays.append(max(0.0, now - (stamp - _EPOCH).total_seconds() - 1.0) * 1000)
    return delays


_TEXT = ("x" * 1200 + "\n") * 10


def _latency(scene: Scene, vm: VM, seconds: float) -> float:
    """Return the median of the milliseconds of a get_inspect."""
    taken, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        taken.append(_timed(lambda: scene.call(1, "get_inspect", vmuuid=vm.uuid, object="container-0000")))
        time.sleep(0.1)
    return quantile(taken, 0.5)


def measure_followers(report: Report) -> None:
    report.title(f"{FOLLOWERS} clients follow the logs of {NOISY} noisy VMs and read nothing")
    with Scene(NOISY + 1, containers=1) as scene:
        scene.wait_published()
        *noisy, other = scene.vms
        pid = scene.daemons[1].pid
        with noise(noisy, "container-0000", _TEXT, 0.05):
            time.sleep(2.0)
            before = _latency(scene, other, SECONDS / 2)
            rss = status(pid, "VmRSS")
            tokens, refused = _open(scene, noisy)
            opened = status(pid, "VmRSS")
        with noise(noisy, "container-0000", _TEXT, 0.05) as count:
            during = _latency(scene, other, SECONDS)
            report.note("lines that the containers wrote meanwhile", count[0] * _TEXT.count("\n"))
            later = status(pid, "VmRSS")
        report.note("followers that were opened, and refused with BUSY", f"{len(tokens)}, {refused}")
        report.figure("memory of the monitor: what the followers need", (opened - rss) / 1000.0, "MB", 6)
        report.figure(f"memory of the monitor: growth in {SECONDS:g} s", (later - opened) / 1000.0, "MB", 1)
        report.note("get_inspect of another VM before, median", f"{before:10.4g} ms")
        report.figure("get_inspect of another VM meanwhile, median: times as long", during / before, "", 1.2)


def _open(scene: Scene, vms: "List[VM]") -> "Any":
    """Open followers and ask each once, so that its stream is open; returns the tokens and the number refused."""
    tokens, refused = [], 0
    for number in range(FOLLOWERS):
        vm = vms[number % len(vms)]
        try:
            token = _logs(scene, vm, container="container-0000", follow="new", tail="0")["follow"]
            _logs(scene, vm, container="container-0000", follow=token, wait="0")
            tokens.append(token)
        except XapiError as error:
            assert error.details[0] == "BUSY"
            refused += 1
    return tokens, refused
