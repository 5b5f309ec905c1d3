"""get_events through the plugin of a simulated pool: on each host, and over the life of a VM."""

import json
import time
from typing import Any, Dict, Iterator, List

import pytest

from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one world serves all tests
from tests.waiting import until
from xscontainer.errors import XapiError
from xscontainer.simulator.world import ContainerSpec, GuestSpec, Parts, World


@pytest.fixture(scope="module")
def world(tmp_path_factory: Any) -> Iterator[World]:
    with World(str(tmp_path_factory.mktemp("w")), hosts=2,
               guests=(GuestSpec("vm", (ContainerSpec("web", command=("nginx",)),), host=1),),
               parts=Parts(ssh="embedded", engine="embedded")) as made:
        made.wait_published("vm", lambda listed: "web" in listed)
        yield made


def get_events(world: World, host: int = 0, **arguments: str) -> Dict[str, Any]:
    result = world.call(host, "get_events", vmuuid=world.vm("vm").uuid, **arguments)
    assert result.startswith("True{")
    found: Dict[str, Any] = json.loads(result[4:])
    return found


def actions(world: World) -> List[str]:
    return [event["action"] for event in get_events(world)["events"]]


@pytest.mark.parametrize("host", [0, 1], ids=["coordinator", "member"])
def test_an_action_on_any_host_is_recorded_and_marked(world: World, host: int) -> None:
    last = get_events(world, host)["last"]
    world.act(host, "restart", "vm", "web")
    until(lambda: get_events(world, host)["events"][-1]["action"] == "restart")
    new = get_events(world, host, after=str(last))["events"]
    assert [event["action"] for event in new] == ["kill", "die", "stop", "start", "restart"]
    assert {event["by"] for event in new} == {"xscontainer (restart)"}


@pytest.mark.parametrize("name, value", [
    ("since", "soon"), ("since", ""), ("after", "-1"), ("after", "x"), ("after", "1e3"), ("after", "9" * 16),
    ("wait", "21"), ("wait", "-1"), ("wait", "x"), ("wait", "1.5")])
def test_wrong_arguments_are_refused(world: World, name: str, value: str) -> None:
    with pytest.raises(XapiError) as caught:
        get_events(world, 0, **{name: value})
    assert "ARGUMENT_INVALID" in caught.value.details and name in str(caught.value.details)


def test_the_record_survives_a_reboot(world: World) -> None:
    before = get_events(world)["events"]
    vm = world.vm("vm")
    with world.session() as session:
        session.xenapi.VM.hard_reboot(vm.ref)
    vm.engine.do("start", "web")
    until(lambda: len(get_events(world)["events"]) > len(before))
    assert get_events(world)["events"][:len(before)] == before


def test_the_engine_is_asked_without_the_daemon(world: World) -> None:
    world.vm("vm").engine.do("pause", "web")
    until(lambda: actions(world)[-1] == "pause")
    known = get_events(world)["events"]
    world.daemon(1).stop()
    begun = time.monotonic()
    found = get_events(world, 1)
    assert [event["action"] for event in found["events"]][-1] == "pause" and time.monotonic() - begun < 10
    assert found["events"][-1]["number"] == known[-1]["number"], "an event has the same number"
    assert found["since"] <= found["events"][0]["time"] + 1e-6
    world.daemon(1).start()
    until(lambda: actions(world)[-1:] == ["pause"])
    assert get_events(world)["last"] == known[-1]["number"]


def test_a_deregistered_vm_has_no_record(world: World) -> None:
    uuid = world.vm("vm").uuid
    world.call(0, "deregister", vmuuid=uuid)
    with pytest.raises(XapiError):
        until(lambda: get_events(world) is None)
    world.vm("vm").engine.stop()
    world.vm("vm").engine.start()  # it forgets its events
    world.call(0, "register", vmuuid=uuid)
    world.wait_published("vm", lambda listed: "web" in listed)
    assert [event for event in get_events(world)["events"] if event["action"] == "restart"] == []
