"""The function ``get_stats``, through the plugin of a simulated pool."""

import json
import threading
import time
from typing import Any, Dict, Iterator, List

import pytest

from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one world serves all tests
from tests.verbs.stats.scene import BUSY, IDENTITIES, pool, readings
from xscontainer.errors import XapiError
from xscontainer.simulator.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: Any) -> Iterator[World]:
    yield from pool(str(tmp_path_factory.mktemp("w")))


def stats(world: World, vm: str, host: int = 0, **arguments: str) -> Dict[str, Any]:
    text = world.call(host, "get_stats", vmuuid=world.vm(vm).uuid, **arguments)
    assert text.startswith("True{")
    text.encode("ascii")
    found: Dict[str, Any] = json.loads(text[4:])
    return found


def failure(world: World, vm: str, **arguments: str) -> List[str]:
    with pytest.raises(XapiError) as raised:
        stats(world, vm, 0, **arguments)
    return list(raised.value.details)


@pytest.mark.parametrize("vm", sorted(IDENTITIES))
def test_the_first_look_shows_the_running_containers_with_their_cpu(world: World, vm: str) -> None:
    begun = time.time()
    found = stats(world, vm)
    assert set(found) == {"time", "containers", "total", "left_out"} and found["left_out"] == 0
    assert begun - 2.5 <= found["time"] <= time.time() + 0.1
    shown = {each["name"]: each for each in found["containers"]}
    assert set(shown) == {"busy", "idle"}
    busy = shown["busy"]
    assert set(busy) == {"id", "name", "cpu_percent", "cores", "memory", "memory_limit", "network_received",
                         "network_sent", "block_read", "block_written", "pids"}
    assert busy["id"] == world.vm(vm).engine.life.find("busy").id
    assert 130 < busy["cpu_percent"] < 170 and 1.3 < busy["cores"] < 1.7
    assert (busy["memory"], busy["pids"]) == (BUSY.memory, BUSY.pids)
    assert shown["idle"]["cpu_percent"] < 10
    assert busy["memory"] < busy["memory_limit"]


@pytest.mark.parametrize("vm", sorted(IDENTITIES))
def test_the_total_stands_beside_what_the_vm_has(world: World, vm: str) -> None:
    ref = world.vm(vm).ref
    world.pool.set_field("VM", ref, "VCPUs_at_startup", 4)
    world.pool.set_field("VM", ref, "memory_target", 4 << 30)
    found = stats(world, vm)
    total, containers = found["total"], found["containers"]
    assert (total["containers"], total["vcpus"], total["vm_memory"]) == (2, 4, 4 << 30)
    assert total["memory"] == sum(each["memory"] for each in containers)
    assert total["cores"] == pytest.approx(sum(each["cores"] for each in containers), abs=0.001)
    assert total["cpu_share"] == pytest.approx(total["cores"] / 4, abs=0.001)
    assert total["memory_share"] == pytest.approx(total["memory"] / (4 << 30), abs=0.001)


def test_resources_that_xapi_does_not_know_are_null(world: World) -> None:
    ref = world.vm("new").ref
    world.pool.set_field("VM", ref, "VCPUs_at_startup", 0)
    world.pool.set_field("VM", ref, "memory_target", 0)
    total = stats(world, "new")["total"]
    assert [total[name] for name in ("vcpus", "vm_memory", "cpu_share", "memory_share")] == [None] * 4
    assert total["cores"] is not None and total["memory"] is not None


@pytest.mark.parametrize("vm", sorted(IDENTITIES))
@pytest.mark.parametrize("short", [False, True])
def test_one_container_is_found_by_name_and_id(world: World, vm: str, short: bool) -> None:
    whole = world.vm(vm).engine.life.find("idle").id
    found = stats(world, vm, host=1, container=whole[:12] if short else "idle")
    assert [(each["id"], each["name"]) for each in found["containers"]] == [(whole, "idle")]
    assert stats(world, vm, container=whole)["containers"][0]["id"] == whole


@pytest.mark.parametrize("vm", sorted(IDENTITIES))
def test_a_container_that_does_not_run_or_exist_is_an_error(world: World, vm: str) -> None:
    ended = world.vm(vm).engine.life.find("ended").id
    for name in ("ended", ended):
        code, sentence = failure(world, vm, container=name)
        assert code == "CONTAINER_CONFLICT" and "not running" in sentence
    for name in ("nobody", "f" * 64):
        assert failure(world, vm, container=name)[0] == "CONTAINER_NOT_FOUND"


@pytest.mark.parametrize("name, value", [("container", ""), ("container", "../x"), ("container", "a b"),
                                         ("vmuuid", "x")])
def test_malformed_arguments_are_refused(world: World, name: str, value: str) -> None:
    arguments = {"vmuuid": world.vm("new").uuid, name: value}
    with pytest.raises(XapiError) as raised:
        world.call(0, "get_stats", **arguments)
    assert raised.value.details[0] == "ARGUMENT_INVALID"


def test_lookers_at_once_cost_one_reading_and_nobody_costs_none(world: World) -> None:
    engines = {name: world.vm(name).engine for name in IDENTITIES}
    for name in engines:
        stats(world, name)
    before = {name: readings(engine) for name, engine in engines.items()}
    for name, engine in engines.items():  # the monitors are at work meanwhile
        engine.do("pause", "idle")
        world.wait_published(name, lambda listed: listed["idle"].state == "paused")
        engine.do("unpause", "idle")
        world.wait_published(name, lambda listed: listed["idle"].state == "running")
    time.sleep(2.1)  # a reading counts for two seconds
    assert {name: readings(engine) for name, engine in engines.items()} == before
    found: Dict[str, List[Any]] = {name: [] for name in engines}
    lookers = [threading.Thread(target=lambda name=name: found[name].append(stats(world, name)))
               for name in engines for _ in range(3)]
    for looker in lookers:
        looker.start()
    for looker in lookers:
        looker.join(20)
    for shown in found.values():
        assert len(shown) == 3 and all(each["containers"] == shown[0]["containers"] for each in shown)
    cost = {name: readings(engine) - before[name] for name, engine in engines.items()}
    assert cost == {"old": 2, "new": 2, "podman": 1}, "two containers of a Docker, all at once of a podman"


def test_an_engine_that_cannot_measure_says_why(world: World) -> None:
    engine = world.vm("podman").engine
    engine.faults.set("status", match="libpod/containers/stats", status=409,
                      body=b"stats is not supported in rootless mode without cgroups v2")
    try:
        world.wait(lambda: _code(world, "podman") == "STATS_UNAVAILABLE", "the refusal", 10)
        assert "cgroup v2" in failure(world, "podman")[1]
    finally:
        engine.faults.clear()


def _code(world: World, vm: str) -> str:
    try:
        stats(world, vm)
    except XapiError as error:
        return str(error.details[0])
    return ""


def test_a_container_that_was_restarted_has_a_rate_again(world: World) -> None:
    engine = world.vm("new").engine
    stats(world, "new")
    engine.do("restart", "busy")
    with engine.life.lock:
        engine.life.find("busy").load = BUSY
    time.sleep(2.1)  # a reading counts for two seconds
    found = {each["name"]: each for each in stats(world, "new")["containers"]}
    assert found["busy"]["cores"] is not None and found["busy"]["cores"] > 1.0


def test_the_stats_go_with_the_connection(world: World) -> None:
    """A monitor that connects again begins anew, and a look meanwhile is answered."""
    engine = world.vm("new").engine
    engine.kill()
    engine.start()
    world.wait(lambda: _code(world, "new") == "", "the stats after the restart", 20)
