"""The functions ``list`` and ``get_summary``, through the plugin of a simulated pool."""

import json
import time
from typing import Any, Dict, Iterator, List

import pytest

from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one world serves all tests
from xscontainer import keys
from xscontainer.clients import xmlform
from xscontainer.errors import XapiError
from xscontainer.simulator.world import ContainerSpec, GuestSpec, Parts, World

COMPOSE = {"com.docker.compose.project": "shop", "com.docker.compose.service": "web",
           "com.docker.compose.container-number": "2", "com.docker.compose.oneoff": "False"}
GROUP = {"kind": "compose", "name": "shop", "service": "web", "number": 2, "one_off": False, "unit": ""}
CALL = "GET /containers/json"


@pytest.fixture(scope="module")
def world(tmp_path_factory: Any) -> Iterator[World]:
    guests = (GuestSpec("alpha", (ContainerSpec("idle", state="created"),), 0), GuestSpec("beta", (), 0),
              GuestSpec("gamma", (ContainerSpec("far"),), 1))
    with World(str(tmp_path_factory.mktemp("w")), hosts=2, guests=guests, parts=Parts(engine="embedded")) as made:
        made.vm("alpha").engine.run("web", ("sleep", "1000"), Labels=COMPOSE)
        made.wait_published("alpha", lambda listed: "web" in listed)
        made.wait_published("gamma", lambda listed: "far" in listed)
        made.wait_published("beta")
        yield made


def answer(world: World, function: str, host: int = 0, **arguments: str) -> Dict[str, Any]:
    text = world.call(host, function, **arguments)
    assert text.startswith("True{")
    text.encode("ascii")
    found: Dict[str, Any] = json.loads(text[4:])
    return found


def listed(world: World, vm: str = "alpha", host: int = 0) -> Dict[str, Any]:
    return answer(world, "list", host, vmuuid=world.vm(vm).uuid)


def row(found: Dict[str, Any], vm: str) -> Dict[str, Any]:
    return next(each for each in found["vms"] if each["name"] == vm)


def by_name(found: Dict[str, Any]) -> Dict[str, Any]:
    return {each["name"]: each for each in found["containers"]}


def test_the_list_shows_what_is_published_and_the_details(world: World) -> None:
    found = listed(world)
    vm = world.vm("alpha")
    assert found["vm"] == {"uuid": vm.uuid, "name": "alpha", "power_state": "Running", "monitored": True}
    assert found["problem"] is None and found["left_out"] == 0
    assert found["engine"]["version"] and found["engine"]["api_version"]
    web = by_name(found)["web"]
    assert web["group"] == GROUP and web["state"] == "running"
    assert abs(web["started_at"] - time.time()) < 60
    assert web["networks"] == [{"name": "none", "ip": "", "ip6": ""}] and web["mounts"] == []
    assert web["restart_count"] is None
    assert by_name(found)["idle"]["group"] is None and by_name(found)["idle"]["started_at"] is None
    published = xmlform.as_json(xmlform.read_docker_ps(vm.other_config[keys.PS]).containers)
    assert [dict(each, networks=None, mounts=None) for each in found["containers"]] == published


def test_any_host_gives_the_list(world: World) -> None:
    assert listed(world, "gamma", 0) == listed(world, "gamma", 1)
    assert list(by_name(listed(world, "gamma", 0))) == ["far"]


def test_the_engine_is_asked_once_for_each_change(world: World) -> None:
    engine = world.vm("alpha").engine
    listed(world)
    world.wait(lambda: _quiet(world), "the list to be current")
    before = engine.requests[CALL]
    first = [listed(world) for _ in range(5)]
    assert engine.requests[CALL] == before and all(found == first[0] for found in first)
    engine.do("pause", "web")
    try:
        world.wait(lambda: by_name(listed(world))["web"]["state"] == "paused", "the new state", 10)
    finally:
        engine.do("unpause", "web")
    world.wait_published("alpha", lambda names: names["web"].state == "running")


def _quiet(world: World) -> bool:
    before = world.vm("alpha").engine.requests[CALL]
    listed(world)
    return bool(world.vm("alpha").engine.requests[CALL] == before)


def test_the_list_is_never_older_than_the_answer_to_an_action(world: World) -> None:
    for _ in range(5):
        for verb, state in (("pause", "paused"), ("unpause", "running")):
            world.act(0, verb, "alpha", "web")
            world.wait(lambda: by_name(listed(world))["web"]["state"] == state, state, 5)  # noqa: B023
    world.wait_published("alpha", lambda names: names["web"].state == "running")


def test_an_engine_that_cannot_be_reached_is_a_problem(world: World) -> None:
    vm = world.vm("beta")
    vm.engine.stop()
    try:
        found = listed(world, "beta")
        assert found["containers"] == [] and found["left_out"] == 0
        assert found["problem"]["code"].startswith("ENGINE_") and found["problem"]["message"]
    finally:
        vm.engine.start()
    world.wait(lambda: listed(world, "beta")["problem"] is None, "the list to be back")


def test_the_summary_says_why_no_list_is_shown(world: World) -> None:
    vm = world.vm("beta")
    with world.session() as session:
        session.xenapi.VM.add_to_other_config(vm.ref, keys.MODE, "carrier pigeon")
        try:
            world.wait(lambda: keys.STATUS in vm.other_config, "the reason")
            found = answer(world, "get_summary")
            assert row(found, "beta")["problem"]["code"] == json.loads(vm.other_config[keys.STATUS])["code"]
            assert row(found, "beta")["containers"] == 0 and found["problems"] == 1
            assert listed(world, "beta")["problem"]["code"] == row(found, "beta")["problem"]["code"]
        finally:
            session.xenapi.VM.remove_from_other_config(vm.ref, keys.MODE)
    world.wait(lambda: listed(world, "beta")["problem"] is None and not answer(world, "get_summary")["problems"],
               "the list to be back")


def test_the_summary_counts_the_containers_of_this_host(world: World) -> None:
    host = world.pool.hosts[0]
    found = answer(world, "get_summary")
    assert [each["name"] for each in found["vms"]] == ["alpha", "beta"]
    alpha = row(found, "alpha")
    assert alpha["host"] == {"uuid": host.uuid, "name": world.pool.record("host", host.ref)["name_label"]}
    assert alpha["counts"] == {"running": 1, "created": 1} and alpha["containers"] == 2 and alpha["health"] == {}
    assert alpha["monitored"] is True and alpha["problem"] is None and alpha["engine"]["version"]
    assert found["counts"] == {"running": 1, "created": 1} and found["containers"] == 2
    assert found["problems"] == 0 and found["left_out"] == 0 and alpha["resources"] is None
    assert [each["name"] for each in answer(world, "get_summary", 1)["vms"]] == ["gamma"]


def test_the_summary_counts_health(world: World) -> None:
    engine = world.vm("alpha").engine
    engine.do("health", "web", status="unhealthy")
    try:
        world.wait_published("alpha", lambda names: names["web"].health == "unhealthy")
        found = answer(world, "get_summary")
        assert found["health"] == row(found, "alpha")["health"] == {"unhealthy": 1}
    finally:
        engine.do("health", "web", status="")
    world.wait_published("alpha", lambda names: not names["web"].health)


def test_the_summary_of_one_vm_is_given_by_any_host(world: World) -> None:
    for host in (0, 1):
        found = answer(world, "get_summary", host, vmuuid=world.vm("gamma").uuid)
        assert [each["name"] for each in found["vms"]] == ["gamma"]
        assert found["vms"][0]["host"]["uuid"] == world.pool.hosts[1].uuid
        assert found["counts"] == {"running": 1}


def test_the_summary_asks_no_engine(world: World) -> None:
    world.wait(lambda: _quiet(world), "the list to be current")
    engine = world.vm("alpha").engine
    before = dict(engine.requests)
    for _ in range(5):
        answer(world, "get_summary")
        answer(world, "get_summary", vmuuid=world.vm("alpha").uuid)
    assert dict(engine.requests) == before


def test_the_summary_shows_resources_only_if_somebody_looked(world: World) -> None:
    uuid = world.vm("alpha").uuid
    assert row(answer(world, "get_summary"), "alpha")["resources"] is None
    stats = answer(world, "get_stats", vmuuid=uuid)
    found = row(answer(world, "get_summary"), "alpha")["resources"]
    assert found == row(answer(world, "get_summary", 1, vmuuid=uuid), "alpha")["resources"]
    assert abs(found.pop("time") - stats["time"]) < 0.1
    assert found == {name: stats["total"][name] for name in ("containers", "cores", "memory")}
    assert found["containers"] == 1 and found["memory"] > 0
    assert row(answer(world, "get_summary"), "beta")["resources"] is None


def test_a_vm_that_is_off_has_a_summary_and_no_list(world: World) -> None:
    ref = world.pool.create_vm("off", other_config={keys.MONITOR: "True"}, power_state="Halted")
    uuid = str(world.pool.vm(ref)["uuid"])
    found = answer(world, "get_summary", vmuuid=uuid)
    assert found["vms"] == [{"uuid": uuid, "name": "off", "power_state": "Halted", "host": None, "monitored": True,
                             "engine": None, "problem": None, "counts": {}, "health": {}, "containers": 0,
                             "resources": None}]
    assert code(world, "list", vmuuid=uuid) == "VM_NOT_RUNNING"


def test_a_vm_that_is_not_registered_has_a_summary_that_says_so(world: World) -> None:
    ref = world.pool.create_vm("plain", host=world.pool.hosts[0], other_config={})
    uuid = str(world.pool.vm(ref)["uuid"])
    found = answer(world, "get_summary", vmuuid=uuid)["vms"][0]
    assert found["monitored"] is False and found["problem"]["code"] == "NOT_REGISTERED"
    assert code(world, "list", vmuuid=uuid) == "VM_NOT_REGISTERED"
    assert "plain" not in [each["name"] for each in answer(world, "get_summary")["vms"]]


def code(world: World, function: str, **arguments: str) -> str:
    with pytest.raises(XapiError) as caught:
        world.call(0, function, **arguments)
    return str(caught.value.details[0])


@pytest.mark.parametrize("function, arguments, expected", [
    ("list", {}, "ARGUMENT_INVALID"),
    ("list", {"vmuuid": "alpha"}, "ARGUMENT_INVALID"),
    ("list", {"vmuuid": "4a1b2c3d-0000-4000-8000-123456789abc"}, "OBJECT_GONE"),
    ("get_summary", {"vmuuid": ""}, "ARGUMENT_INVALID"),
    ("get_summary", {"vmuuid": "x" * 9999}, "ARGUMENT_INVALID"),
    ("get_summary", {"vmuuid": "4a1b2c3d-0000-4000-8000-123456789abc"}, "OBJECT_GONE"),
], ids=str)
def test_wrong_arguments_are_refused(world: World, function: str, arguments: Dict[str, str], expected: str) -> None:
    assert code(world, function, **arguments) == expected


def test_without_the_daemon_the_answers_are_the_same(world: World) -> None:
    world.wait(lambda: _quiet(world), "the list to be current")
    uuid = world.vm("alpha").uuid
    calls: List[Any] = [("list", {"vmuuid": uuid}), ("get_summary", {"vmuuid": uuid}), ("get_summary", {})]
    with_daemon = [answer(world, function, 0, **arguments) for function, arguments in calls]
    for found in with_daemon[1:]:
        row(found, "alpha")["resources"] = None  # which only the daemon remembers
    world.daemon(0).stop()
    try:
        assert [answer(world, function, 0, **arguments) for function, arguments in calls] == with_daemon
    finally:
        world.daemon(0).start()


def test_after_a_restart_of_the_daemon_the_published_list_counts(world: World) -> None:
    """The engine does not answer, and the older list is not stale yet."""
    vm = world.vm("gamma")
    world.daemon(1).stop()
    vm.engine.stop()
    try:
        world.daemon(1).start()
        for arguments in ({}, {"vmuuid": vm.uuid}):
            found = row(answer(world, "get_summary", 1, **arguments), "gamma")
            assert found["counts"] == {"running": 1} and found["problem"] is None
    finally:
        vm.engine.start()
    world.wait_published("gamma", lambda listed: "far" in listed)
