"""The function ``get_stats`` on a real dockerd and a real podman, and its form on all engines."""

import json
import os
import time
from typing import Any, Dict, Iterator, Type

import pytest

from tests.bench.scene import Scene
from tests.need import need
from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one scene serves all tests
from tests.verbs.stats.scene import pool
from xscontainer.simulator.engines.podman import PodmanEngine
from xscontainer.simulator.engines.real import RealEngine
from xscontainer.simulator.guests import OpenSSHGuest

pytestmark = pytest.mark.real

LOOP = ["sh", "-c", "while true; do :; done"]


def scene_with(kind: Type[RealEngine]) -> Iterator[Scene]:
    """Yield a scene of one VM with two containers: busy and sleeps."""
    need(not kind.missing(), kind.missing())
    need(not OpenSSHGuest.missing(), f"OpenSSH: {OpenSSHGuest.missing()}")

    class Made(Scene):
        REAL = kind

    with Made(1, containers=0, real=True) as made:
        engine = made.vms[0].engine
        engine.run("sleeps", StopSignal="SIGKILL")
        engine.run("busy", LOOP, StopSignal="SIGKILL")
        made.wait(lambda: "busy" in made.ps(made.vms[0]))
        yield made
        engine.do("remove", "busy")
        engine.client().close()


@pytest.fixture(scope="module", params=[RealEngine, PodmanEngine], ids=["dockerd", "podman"])
def scene(request: Any) -> Iterator[Scene]:
    yield from scene_with(request.param)


def stats(scene: Scene) -> Dict[str, Any]:
    found: Dict[str, Any] = json.loads(scene.call(0, "get_stats", vmuuid=scene.vms[0].uuid)[4:])
    return found


def used(pid: int) -> float:
    """Return the seconds of CPU that a process has used."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def by_name(found: Dict[str, Any]) -> Dict[str, Any]:
    return {each["name"]: each for each in found["containers"]}


def test_the_cpu_of_a_busy_container_is_what_the_kernel_counts(scene: Scene) -> None:
    pid = scene.vms[0].engine.client().inspect_container("busy")["State"]["Pid"]
    first = by_name(stats(scene))
    assert first["busy"]["cpu_percent"] > 1.0, "the first look shows it, too"
    begun, cpu = time.monotonic(), used(pid)
    scene.wait(lambda: time.monotonic() - begun > 2.1)  # a reading counts for two seconds
    found = by_name(stats(scene))
    share = (used(pid) - cpu) / (time.monotonic() - begun)
    assert found["busy"]["cores"] == pytest.approx(share, rel=0.25)
    assert found["busy"]["cpu_percent"] == pytest.approx(100 * found["busy"]["cores"], rel=0.01)
    assert found["sleeps"]["cpu_percent"] < 5.0


def test_memory_and_processes_are_those_of_the_engines_own_client(scene: Scene) -> None:
    theirs = scene.vms[0].engine.client().stats("sleeps", stream=False)
    ours = by_name(stats(scene))["sleeps"]
    details = theirs["memory_stats"].get("stats", {})
    inactive = details.get("total_inactive_file", details.get("inactive_file", 0))
    assert abs(ours["memory"] - (theirs["memory_stats"]["usage"] - inactive)) < 1 << 20
    assert ours["memory_limit"] == theirs["memory_stats"]["limit"]
    assert ours["pids"] == theirs["pids_stats"]["current"]


def form(value: Any) -> Any:
    """Return the names of an answer, and whether each value is a number, a text, an object or a list."""
    if isinstance(value, dict):
        return {name: form(member) for name, member in value.items()}
    if isinstance(value, list):
        return [form(value[0])] if value else []
    return "text" if isinstance(value, str) else "number"


def test_real_and_simulated_engines_give_the_same_form(scene: Scene, tmp_path_factory: Any) -> None:
    real = stats(scene)
    for world in pool(str(tmp_path_factory.mktemp("w"))):
        for vm in ("old", "podman"):
            simulated = json.loads(world.call(0, "get_stats", vmuuid=world.vm(vm).uuid)[4:])
            assert form(simulated) == form(real)
            assert simulated["containers"][0]["cpu_percent"] is not None
    assert real["containers"][0]["cpu_percent"] is not None
