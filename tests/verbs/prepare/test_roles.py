"""Functions that a vm-operator cannot call through a VM of theirs, on the coordinator and on a member."""

from typing import Any, Iterator, Optional

import pytest
import XenAPI

from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one world serves the whole module
from tests.verbs.prepare.guests import USER
from tests.verbs.prepare.world import VM, Fresh
from xscontainer import keys

pytestmark = pytest.mark.real


@pytest.fixture
def login(world: Fresh) -> Iterator[Any]:
    """Logs in with a role."""
    made = []

    def make(role: str) -> Any:
        if role not in world.pool.sessions.users:
            world.pool.add_user(role, "secret", role)
        client = XenAPI.Session(f"http://127.0.0.1:{world.pool.hosts[0].tcp_port}/")
        client.xenapi.login_with_password(role, "secret", "1.0", "test")
        made.append(client)
        return client.xenapi

    yield make
    for client in made:
        client("close")()


CALLS = [("prepare", {"username": USER}), ("hostkey_accept", {"fingerprint": "SHA256:" + "x" * 43}),
         ("hostkey_show", {"address": "192.0.2.1", "port": "443"}), ("key_rotate", {}),
         ("unprepare", {"forget": "yes"}),
         ("key_rotate", {"finish": "yes", "force": "yes"}), ("key_install", {"remove": "yes"}),
         ("get_config_drive_configuration", {"vdiuuid": "9a0d1c39-5a2c-4f1b-8f0a-000000000000"})]


@pytest.mark.parametrize("host", [0, 1], ids=["coordinator", "member"])
@pytest.mark.parametrize("function, arguments", CALLS, ids=range(len(CALLS)))
def test_an_operator_is_refused(world: Fresh, login: Any, host: int, function: str, arguments: Any) -> None:
    theirs = world.pool.create_vm("theirs", host=world.pool.hosts[host])
    uuid = str(world.pool.vm(theirs)["uuid"])
    operator = login("vm-operator")
    with pytest.raises(XenAPI.Failure) as failure:
        operator.VM.call_host_plugin(theirs, "xscontainer", function, dict(arguments, vmuuid=uuid))
    assert failure.value.details[0] == "NOT_PERMITTED"
    (pool,) = world.pool.records("pool").values()
    assert keys.PREVIOUS_PRIVATE_SECRET not in pool["other_config"]


def test_other_roles_are_not_refused(world: Fresh, login: Any) -> None:
    vm: VM = world.add(host=0)
    with pytest.raises(XenAPI.Failure) as failure:
        login("vm-admin").VM.call_host_plugin(vm.ref, "xscontainer", "prepare", {"vmuuid": vm.uuid, "username": USER})
    assert failure.value.details[0] == "KEY_NOT_ACCEPTED"
    with pytest.raises(XenAPI.Failure) as failure:
        login("vm-admin").VM.call_host_plugin(vm.ref, "xscontainer", "key_rotate", {})
    assert failure.value.details[0] == "NOT_PERMITTED"
    assert login("pool-admin").host.call_plugin(world.pool.hosts[1].ref, "xscontainer", "key_rotate", {
        "finish": "status"}).startswith("True")
    assert login("vm-operator").VM.call_host_plugin(vm.ref, "xscontainer", "hostkey_show", {
        "vmuuid": vm.uuid}).startswith("True")


@pytest.mark.parametrize("host", [None, 0], ids=["off", "on another host"])
def test_an_operator_whose_vm_is_elsewhere_meanwhile(world: Fresh, login: Any, host: Optional[int]) -> None:
    """The call goes on, and the VM that it came through was shut down, or has moved."""
    theirs = world.pool.create_vm("theirs", power_state="Halted") if host is None else world.pool.create_vm(
        "theirs", world.pool.hosts[host])
    off = world.pool.create_vm("off", power_state="Halted")
    arguments = {"vmuuid": str(world.pool.vm(off)["uuid"]), "username": USER}
    for operations, code in (({"OpaqueRef:t": "call_plugin"}, "NOT_PERMITTED"), ({}, "VM_NOT_RUNNING")):
        world.pool.set_field("VM", theirs, "current_operations", operations)
        with pytest.raises(XenAPI.Failure) as failure:
            login("pool-admin").host.call_plugin(world.pool.hosts[1].ref, "xscontainer", "prepare", arguments)
        assert failure.value.details[0] == code
        if code == "NOT_PERMITTED":
            assert "in a moment" in failure.value.details[1] and "coordinator" in failure.value.details[1]
