"""Every call of the contract as its clients send it, to either host, in front of a real dockerd."""

import json
import pathlib
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest

from tests.bench.scene import VM
from tests.clients import Reader
from tests.clients.following import Follower
from tests.system.rules import check_inspect, check_ps, check_top
from tests.system.world import OBEDIENT, World, failure_of, truth
from tests.waiting import until
from xscontainer import keys
from xscontainer.clients import xmlform
from xscontainer.sanitize import moment

pytestmark = pytest.mark.real

NOBODYS = "4a1b2c3d-0000-4000-8000-123456789abc"
FOLLOWED = 3.0
# Verb -> what is shown then; in this order each changes something.
TURNS = (("pause", "Up (Paused)"), ("unpause", "Up"), ("restart", "Up"), ("stop", "Exited (0)"), ("start", "Up"))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    # Writes as soon as there is something to write: this is not about their pace.
    with World(1, containers=0, real=True, conf="[publish]\ninterval = 0\n") as made:
        made.vms[0].engine.run("Web_1.a-b", OBEDIENT)
        made.wait_right()
        yield made


@pytest.fixture(scope="module")
def vm(world: World) -> VM:
    return world.vms[0]


@pytest.fixture(scope="module")
def admin(world: World) -> Any:
    return world.login("pool-admin").xenapi


def shows(world: World, vm: VM, status: str, name: str = "Web_1.a-b") -> None:
    until(lambda: world.shown(vm).get(name) == status, f"not {status}: {world.shown(vm)}", FOLLOWED)


def names(vm: VM) -> Dict[str, str]:
    whole = str(vm.engine.client().inspect_container("Web_1.a-b")["Id"])
    return {"name": "Web_1.a-b", "short id": whole[:10], "twelve": whole[:12], "id": whole}


@pytest.mark.parametrize("number", [0, 1], ids=["coordinator", "member"])
@pytest.mark.parametrize("by", ["name", "short id", "twelve", "id"])
def test_actions_on_any_host_by_any_name(world: World, vm: VM, admin: Any, number: int, by: str) -> None:
    host, container = world.pool.hosts[number].ref, names(vm)[by]
    for verb, status in TURNS if by in ("name", "id") else TURNS[:2]:
        before = vm.engine.client().inspect_container(container)["State"]["StartedAt"]
        result = admin.host.call_plugin(host, "xscontainer", verb, {"vmuuid": vm.uuid, "container": container})
        assert result == "True"
        shows(world, vm, status)
        after = vm.engine.client().inspect_container(container)["State"]["StartedAt"]
        assert (before != after) == (verb in ("start", "restart"))
    for function in ("get_inspect", "get_top"):
        assert admin.host.call_plugin(host, "xscontainer", function, {"vmuuid": vm.uuid, "object": container}
                                      ).startswith("True<?xml")


def test_a_vm_operator_calls_through_the_vm(world: World, vm: VM, orchestra: Reader, center: Reader) -> None:
    operator = world.login("vm-operator").xenapi
    arguments = {"vmuuid": vm.uuid, "container": "Web_1.a-b", "object": "Web_1.a-b"}
    for verb, status in TURNS:
        assert operator.VM.call_host_plugin(vm.ref, "xscontainer", verb, arguments) == "True"
        shows(world, vm, status)
    inspected = operator.VM.call_host_plugin(vm.ref, "xscontainer", "get_inspect", arguments)
    assert check_inspect(inspected, orchestra, center)["Name"] == "/Web_1.a-b"
    check_top(operator.VM.call_host_plugin(vm.ref, "xscontainer", "get_top", arguments), orchestra, center)
    host = world.pool.hosts[1].ref
    refused = failure_of(lambda: operator.host.call_plugin(host, "xscontainer", "stop", arguments))
    assert refused[0] == "RBAC_PERMISSION_DENIED"
    shows(world, vm, "Up")


@pytest.mark.parametrize("number", [0, 1], ids=["coordinator", "member"])
def test_the_list_and_the_summary_agree_with_the_engine(world: World, vm: VM, admin: Any, number: int) -> None:
    shows(world, vm, "Up")
    host, known = world.pool.hosts[number].ref, vm.engine.client().inspect_container("Web_1.a-b")
    listed = json.loads(admin.host.call_plugin(host, "xscontainer", "list", {"vmuuid": vm.uuid})[4:])
    (container,) = (each for each in listed["containers"] if each["name"] == "Web_1.a-b")
    assert (container["id"], container["state"]) == (known["Id"], "running")
    assert abs(container["started_at"] - (moment(known["State"]["StartedAt"]) or 0)) <= 2
    assert [network["name"] for network in container["networks"]] == list(known["NetworkSettings"]["Networks"])
    assert container["mounts"] == [] and container["group"] is None and listed["problem"] is None
    assert container["started_at"] == {
        found.name: found.started_at for found in xmlform.read_docker_ps(world.ps(vm)).containers}["Web_1.a-b"]
    found = json.loads(admin.host.call_plugin(host, "xscontainer", "get_summary", {"vmuuid": vm.uuid})[4:])
    assert found["containers"] == len(listed["containers"]) and found["problems"] == 0
    assert found["vms"][0]["engine"] == listed["engine"]


def test_an_action_without_effect_is_a_success(world: World, vm: VM, admin: Any) -> None:
    for host in world.pool.hosts:
        for verb, status in (("start", "Up"), ("stop", "Exited (0)"), ("stop", "Exited (0)"), ("start", "Up")):
            assert admin.host.call_plugin(host.ref, "xscontainer", verb, {
                "vmuuid": vm.uuid, "container": "Web_1.a-b"}) == "True"
            shows(world, vm, status)
    for state, verb in (("Up", "unpause"), ("Up (Paused)", "pause")):
        if state != "Up":
            vm.engine.do("pause", "Web_1.a-b")
        shows(world, vm, state)
        assert world.call(1, verb, vmuuid=vm.uuid, container="Web_1.a-b") == "True"
        shows(world, vm, state)
    vm.engine.do("unpause", "Web_1.a-b")
    shows(world, vm, "Up")


def in_state(world: World, **fields: Any) -> str:
    ref = world.pool.create_vm("another", host=world.pool.hosts[1], **fields)
    return str(world.pool.vm(ref)["uuid"])


ON = {keys.MONITOR: "True"}
# Arguments beside a good vmuuid and container -> the code.
FAILURES: "List[Tuple[str, str, Callable[[World], Dict[str, str]]]]" = [
    ("start", "CONTAINER_NOT_FOUND", lambda world: {"container": "nosuch"}),
    ("get_top", "CONTAINER_NOT_FOUND", lambda world: {"object": "f" * 64}),
    ("stop", "ARGUMENT_INVALID", lambda world: {"container": "a b"}),
    ("stop", "ARGUMENT_INVALID", lambda world: {"container": "../../info"}),
    ("pause", "ARGUMENT_INVALID", lambda world: {"container": ""}),
    ("pause", "ARGUMENT_INVALID", lambda world: {"container": "\u540d"}),
    ("start", "ARGUMENT_INVALID", lambda world: {"vmuuid": "no uuid"}),
    ("start", "OBJECT_GONE", lambda world: {"vmuuid": NOBODYS}),
    ("start", "VM_NOT_RUNNING", lambda world: {"vmuuid": in_state(world, power_state="Halted", other_config=ON)}),
    ("get_inspect", "VM_NOT_RUNNING",
     lambda world: {"vmuuid": in_state(world, power_state="Suspended", other_config=ON)}),
    ("start", "VM_NOT_REGISTERED", lambda world: {"vmuuid": in_state(world)}),
    ("start", "VM_NOT_REGISTERED", lambda world: {"vmuuid": in_state(world, other_config={keys.MONITOR: "False"})}),
    ("start", "ADDRESS_UNKNOWN", lambda world: {"vmuuid": in_state(world, other_config=ON)}),
    ("register", "ARGUMENT_INVALID",
     lambda world: {"vmuuid": in_state(world, power_state="Halted", template=True)}),
    ("get_top", "ARGUMENT_INVALID",
     lambda world: {"vmuuid": in_state(world, power_state="Halted", template=True, other_config=ON)}),
    ("deregister", "OBJECT_GONE", lambda world: {"vmuuid": NOBODYS}),
    ("nosuch", "UNKNOWN_XENAPI_PLUGIN_FUNCTION", lambda world: {}),
]


@pytest.mark.parametrize("number", [0, 1], ids=["coordinator", "member"])
@pytest.mark.parametrize("function, code, wrong", FAILURES,
                         ids=[f"{f[0]}-{f[1]}-{n}" for n, f in enumerate(FAILURES)])
def test_failures_have_codes_and_sentences(
        world: World, vm: VM, number: int, function: str, code: str,
        wrong: "Callable[[World], Dict[str, str]]") -> None:
    arguments = {"vmuuid": vm.uuid, "container": "Web_1.a-b", "object": "Web_1.a-b"}
    arguments.update(wrong(world))
    details = world.failure(number, function, **arguments)
    assert details[0] == code and len(details) == 2
    if code != "UNKNOWN_XENAPI_PLUGIN_FUNCTION":
        assert details[1].endswith(".") and " " in details[1]
    world.wait_right(vm)


def test_register_and_deregister_show_and_remove_the_list(
        world: World, vm: VM, admin: Any, orchestra: Reader, center: Reader) -> None:
    for number in (0, 1):
        host = world.pool.hosts[number].ref
        assert admin.host.call_plugin(host, "xscontainer", "deregister", {"vmuuid": vm.uuid}) == "True"
        until(lambda: vm.guest.sessions == 0, "it is still connected", FOLLOWED)
        assert not set(keys.PUBLISHED) & set(world.pool.other_config(vm.ref))
        assert world.key(vm, keys.MONITOR) == "False"
        assert world.failure(number, "stop", vmuuid=vm.uuid, container="Web_1.a-b")[0] == "VM_NOT_REGISTERED"
        assert admin.host.call_plugin(host, "xscontainer", "register", {"vmuuid": vm.uuid}) == "True"
        world.wait_right(vm, seconds=FOLLOWED)
        check_ps(world.ps(vm), orchestra, center)


def test_a_vm_that_was_never_seen_before_is_registered(world: World, admin: Any) -> None:
    new = world.add_vm("new", other_config={keys.MONITOR: "False"})
    admin.VM.remove_from_other_config(new.ref, keys.MONITOR)
    assert admin.host.call_plugin(world.pool.hosts[0].ref, "xscontainer", "register", {"vmuuid": new.uuid}) == "True"
    world.wait_right(new, seconds=FOLLOWED)
    for verb, status in (("pause", "Up (Paused)"), ("unpause", "Up")):
        assert admin.host.call_plugin(world.pool.hosts[0].ref, "xscontainer", verb, {
            "vmuuid": new.uuid, "container": "one"}) == "True"
        shows(world, new, status, "one")


def test_the_calls_of_xencenter_are_served(world: World, vm: VM, orchestra: Reader, center: Reader) -> None:
    """The list is read from the VM; an action goes to the coordinator, with the id it read; tabs ask the VM's host."""
    xapi = world.login("pool-admin").xenapi
    (container,) = [entry["container"] for entry in center.read("docker_ps", xapi.VM.get_other_config(vm.ref)[
        keys.PS])["entry"] if entry["names"] == "Web_1.a-b"]
    coordinator = xapi.pool.get_master(xapi.pool.get_all()[0])
    for verb, status in (("stop", "Exited (0)"), ("start", "Up"), ("pause", "Up (Paused)"), ("unpause", "Up")):
        done = xapi.host.call_plugin(coordinator, "xscontainer", verb, {"vmuuid": vm.uuid, "container": container})
        assert done.lower().startswith("true")
        shows(world, vm, status)
    home = xapi.VM.get_resident_on(vm.ref)
    for function, check in (("get_inspect", check_inspect), ("get_top", check_top)):
        for _ in range(2):
            text = xapi.host.call_plugin(home, "xscontainer", function, {"vmuuid": vm.uuid, "object": container})
            assert check(text, orchestra, center)


def test_actions_work_without_a_daemon(world: World, vm: VM, admin: Any) -> None:
    for number in (0, 1):
        world.kill_daemon(number)
    try:
        for host in world.pool.hosts:
            for verb in ("stop", "start"):
                assert admin.host.call_plugin(host.ref, "xscontainer", verb, {
                    "vmuuid": vm.uuid, "container": "Web_1.a-b"}) == "True"
            assert world.failure(0, "start", vmuuid=vm.uuid, container="nosuch")[0] == "CONTAINER_NOT_FOUND"
    finally:
        for number in (0, 1):
            world.start_daemon(number)
    world.wait_right()


def test_a_dockerd_that_restarts_is_followed(world: World, vm: VM, admin: Any) -> None:
    vm.engine.restart(1.0)
    assert truth(vm)["Web_1.a-b"].startswith("Exited")
    world.wait_right(vm, seconds=FOLLOWED)
    assert admin.host.call_plugin(world.pool.hosts[0].ref, "xscontainer", "start", {
        "vmuuid": vm.uuid, "container": "Web_1.a-b"}) == "True"
    shows(world, vm, "Up")


# --- Xen Orchestra ------------------------------------------------------------------------------


class Orchestra(Follower):
    """Follows one VM, and calls the plugin."""

    def __init__(self, world: World, vm: VM) -> None:
        world.login("pool-admin")
        url = f"http://127.0.0.1:{world.pool.coordinator.tcp_port}"
        super().__init__(str(pathlib.Path(__file__).parent / "orchestra.mjs"), url, "pool-admin", "secret", vm.uuid)

    def call(self, function: str, **arguments: str) -> Dict[str, Any]:
        """The result or failure of a plugin call; lists that it sees before are passed over."""
        self.order(json.dumps([function, arguments]))
        return self.see(lambda told: told["saw"] in ("result", "failure"))

    def see(self, wanted: "Callable[[Dict[str, Any]], Any]") -> Dict[str, Any]:
        """The first thing told that is wanted."""
        while True:
            told = self.next()
            if wanted(told):
                return told


@pytest.fixture
def xo(world: World, vm: VM) -> Iterator[Orchestra]:
    made = Orchestra(world, vm)
    yield made
    made.close()


def test_xen_orchestra_sees_changes_and_makes_them(
        world: World, vm: VM, xo: Orchestra, orchestra: Reader, center: Reader) -> None:
    def status(told: Dict[str, Any]) -> str:
        """Return the status of our container in a list that the client saw."""
        if told["saw"] != "list" or not told["value"]:
            return ""
        found = check_ps(told["value"], orchestra, center).values()
        return str([entry["status"] for entry in found if entry["names"] == "Web_1.a-b"])

    assert xo.see(lambda told: told["saw"] == "fetched")["monitored"] == "True"
    xo.see(lambda told: status(told) == "['Up']")
    vm.engine.do("pause", "Web_1.a-b")
    xo.see(lambda told: status(told) == "['Up (Paused)']")
    whole = names(vm)["id"]
    for verb, wanted in (("unpause", "Up"), ("stop", "Exited (0)"), ("start", "Up")):
        # The list may be seen before the result, so each is waited for as it comes.
        assert xo.call(verb, vmuuid=vm.uuid, container=whole) == {"saw": "result", "value": "True"}
        shows(world, vm, wanted)
    inspected = xo.call("get_inspect", vmuuid=vm.uuid, object=whole)["value"]
    assert check_inspect(inspected, orchestra, center)["Id"] == whole
    assert check_top(xo.call("get_top", vmuuid=vm.uuid, object=whole)["value"], orchestra, center)
    failed = xo.call("stop", vmuuid=vm.uuid, container="nosuch")
    assert failed["saw"] == "failure" and failed["code"] == "CONTAINER_NOT_FOUND" and len(failed["params"]) == 1
    assert xo.call("deregister", vmuuid=vm.uuid)["value"] == "True"
    assert xo.call("register", vmuuid=vm.uuid)["value"] == "True"
    xo.see(lambda told: status(told) == "['Up']")
    world.wait_right(vm)
