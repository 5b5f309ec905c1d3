"""The time and CPU of get_stats, for each kind of engine."""

import time
from typing import Callable, Dict, Tuple

from tests.bench.figures import Report, quantile
from tests.bench.scene import Scene, cpu
from tests.bench.tls import OverTLS
from xscontainer.engine.stats import CACHED_SECONDS
from xscontainer.simulator.engines import Identity
from xscontainer.simulator.engines.podman import PodmanEngine
from xscontainer.simulator.engines.real import RealEngine

CONTAINERS = 20
LOOKS = 10


class OverPodman(Scene):
    REAL = PodmanEngine


class OverNewDocker(Scene):
    IDENTITY = Identity("29.0.0", "1.52", "1.44")


class DockerOverTLS(OverTLS):
    def __init__(self, count: int, containers: int, real: bool) -> None:
        super().__init__(count, containers=containers)


# Name of the engine -> its scene, whether it is a real engine, and the most milliseconds for one look.
_KINDS: Dict[str, Tuple[Callable[..., Scene], bool, float]] = {
    "podman": (OverPodman, True, 60), "docker >= 25 (simulated)": (OverNewDocker, False, 150),
    "dockerd 20.10": (Scene, True, 1500), "dockerd 20.10 over TLS": (DockerOverTLS, True, 1500)}


def _look(scene: Scene) -> float:
    """Return the milliseconds of one look."""
    started = time.monotonic()
    text = scene.call(1, "get_stats", vmuuid=scene.vms[0].uuid)
    took = 1000 * (time.monotonic() - started)
    assert text.count('"cpu_percent":') == CONTAINERS and '"cpu_percent":null' not in text
    return took


def measure_stats(report: Report) -> None:
    report.title(f"get_stats of {CONTAINERS} running containers")
    for what, (kind, real, most) in _KINDS.items():
        why_not = PodmanEngine.missing() if kind is OverPodman else RealEngine.missing()
        if real and why_not:
            report.note(what, f"not measured: {why_not}")
            continue
        with kind(1, containers=CONTAINERS, real=real) as scene:
            scene.wait_published()
            time.sleep(1.0)
            report.note(f"{what}: first look, which takes two samples", f"{_look(scene):10.4g} ms")
            pid = scene.daemons[1].pid
            looks, used = [], 0.0
            for number in range(LOOKS):
                # Not in step with the collector of dockerd 20.10, which ticks once a second.
                time.sleep(CACHED_SECONDS + 0.05 + number / LOOKS)
                before = cpu(pid)
                looks.append(_look(scene))
                used += 1000 * (cpu(pid) - before)
            report.figure(f"{what}: next looks, median", quantile(looks, 0.5), "ms", most)
            report.note(f"{what}: next looks, slowest", f"{max(looks):10.4g} ms")
            # Over TLS each request has a handshake of its own.
            report.figure(f"{what}: CPU of the monitor for a look", used / LOOKS, "ms",
                          60 if kind is DockerOverTLS else 30)


def measure_unwatched_stats(report: Report) -> None:
    report.title("Nobody looks: requests for stats in 10 s")
    with OverNewDocker(10, containers=CONTAINERS) as scene:
        scene.wait_published()
        time.sleep(10)
        asked = sum(count for vm in scene.vms for name, count in vm.engine.requests.items() if "stats" in name)
        report.figure("10 VMs", asked, "", 0)
