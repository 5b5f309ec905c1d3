"""Guests that move, vanish, freeze, change their keys and refuse logins. Real sshd, light engines."""

import json
import os
import shutil
from typing import Iterator, List

import pytest

from tests.bench.scene import VM
from tests.need import need_program
from tests.system.world import World, change
from tests.waiting import until
from xscontainer import keys
from xscontainer.monitoring.change_limit import CHANGES_INTERVAL

pytestmark = pytest.mark.real

STALE_AFTER = 1.0
COMES_BACK = 10.0  # seconds; mostly it takes one, and `make bench` measures it
# The same after a change of the VM's keys: the tests change this VM more often than an administrator would.
TAKEN_UP = COMES_BACK + CHANGES_INTERVAL
CONF = (f"[ssh]\nkeepalive = 0.5\ndead_after = 1.5\nbanner_timeout = 1.5\nauth_timeout = 1.5\n"
        f"[publish]\nstale_after = {STALE_AFTER}\n")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(1, conf=CONF) as made:
        made.wait_right()
        yield made


@pytest.fixture
def vm(world: World) -> Iterator[VM]:
    """One that is shown, and is again afterwards."""
    vm = world.vms[0]
    world.wait_right(vm)
    yield vm
    vm.guest.start()
    world.wait_right(vm)


def reconnect(vm: VM) -> None:
    """Standing connections end, new ones are answered at once."""
    vm.guest.stop()
    vm.guest.start()


def reconnect_until_told(world: World, vm: VM, code: str) -> None:
    """A key is looked at when the VM is connected to, once its change was taken up."""
    until(lambda: is_published_again(world, vm, code), f"{code} is not told", 30.0)


def is_published_again(world: World, vm: VM, code: str) -> bool:
    """Return whether the code is published soon after a new connection."""
    reconnect(vm)
    try:
        world.wait_status(vm, code, seconds=COMES_BACK)
    except AssertionError:
        return False
    return True


def test_one_connection_carries_everything(world: World, vm: VM) -> None:
    before = vm.guest.accepted
    for function in ("get_inspect", "get_top", "pause", "unpause"):
        world.call(0, function, vmuuid=vm.uuid, container="container-0000", object="container-0000")
    change(vm)
    world.wait_right(vm)
    assert vm.guest.accepted == before and vm.guest.sessions == 1


def test_a_guest_that_moves_to_another_address_is_followed(world: World, vm: VM) -> None:
    moved = world.guest("moved", port=vm.guest.port, engine_socket=vm.guest.engine_socket)
    shutil.copy(vm.guest.host_key_path, moved.host_key_path)
    try:
        moved.start()
        vm.guest.stop()
        world.pool.set_networks(vm.ref, {"0/ip": moved.address, "0/ipv6/0": "fe80::1"})
        change(vm)
        world.wait_right(vm, seconds=COMES_BACK)
        assert moved.sessions == 1
    finally:
        vm.guest.start()
        world.pool.set_networks(vm.ref, {"0/ip": vm.guest.address})
        moved.close()


def test_a_second_address_is_tried_when_the_first_is_silent(world: World, vm: VM) -> None:
    world.pool.set_networks(vm.ref, {"0/ip": "127.200.200.200", "1/ip": vm.guest.address})
    change(vm)
    reconnect(vm)
    world.wait_right(vm, seconds=COMES_BACK)
    world.pool.set_networks(vm.ref, {"0/ip": vm.guest.address})


def test_a_guest_that_vanishes_and_reappears_is_shown_again(world: World, vm: VM) -> None:
    world.pool.set_networks(vm.ref, {})
    vm.guest.stop()
    world.wait_status(vm, "ADDRESS_UNKNOWN")
    assert world.failure(0, "get_top", vmuuid=vm.uuid, object="container-0000")[0] == "ADDRESS_UNKNOWN"
    change(vm)
    vm.guest.start()
    world.pool.set_networks(vm.ref, {"0/ip": vm.guest.address})
    world.wait_right(vm, seconds=COMES_BACK)


def test_an_address_that_comes_late_is_used_at_once(world: World, vm: VM) -> None:
    world.pool.set_networks(vm.ref, {})
    vm.guest.stop()
    world.wait_status(vm, "ADDRESS_UNKNOWN")
    vm.guest.start()
    change(vm)
    # Neither is of any use: a host of the pool's own, and nonsense.
    world.pool.set_networks(vm.ref, {"0/ip": world.pool.hosts[0].address, "1/ip": "127.0.0.1; reboot"})
    world.wait_status(vm, "ADDRESS_REFUSED")
    world.pool.set_networks(vm.ref, {"0/ip": vm.guest.address})
    world.wait_right(vm, seconds=1.0)


def test_an_sshd_that_is_gone_for_long_is_reported_and_found_again(world: World, vm: VM) -> None:
    vm.guest.stop()
    world.wait_status(vm, "GUEST_REFUSED")
    change(vm)
    vm.guest.start()
    world.wait_right(vm, seconds=COMES_BACK)


def test_the_list_is_right_after_sshd_restarts(world: World, vm: VM) -> None:
    reconnect(vm)
    change(vm)
    world.wait_right(vm, seconds=COMES_BACK)
    assert world.status(vm) == ""


@pytest.mark.parametrize("down", [0.0, 1.0])
def test_the_list_is_right_after_the_engine_restarts(world: World, vm: VM, down: float) -> None:
    vm.engine.restart(down)
    change(vm)
    world.wait_right(vm, seconds=COMES_BACK)


def test_an_engine_that_died_and_left_its_socket_is_reported(world: World, vm: VM) -> None:
    accepted = vm.guest.accepted
    vm.engine.kill()
    world.wait_status(vm, "ENGINE_STOPPED")
    assert world.failure(0, "start", vmuuid=vm.uuid, container="container-0000")[0] == "ENGINE_STOPPED"
    vm.engine.start()
    change(vm)
    world.wait_right(vm, seconds=COMES_BACK)
    assert vm.guest.accepted <= accepted + 2  # the SSH connection was not to blame


def test_a_changed_host_key_is_reported_until_the_pin_is_removed(world: World, vm: VM) -> None:
    vm.guest.rotate_host_key()
    reconnect(vm)
    world.wait_status(vm, "HOST_KEY_CHANGED")
    assert not {keys.INFO, keys.VERSION} & set(world.pool.other_config(vm.ref))
    assert world.failure(1, "stop", vmuuid=vm.uuid, container="container-0000")[0] == "HOST_KEY_CHANGED"
    assert world.key(vm, keys.HOST_KEY) != vm.guest.host_key_base64
    change(vm)
    world.session.xenapi.VM.remove_from_other_config(vm.ref, keys.HOST_KEY)
    world.wait_right(vm, seconds=TAKEN_UP)
    assert world.key(vm, keys.HOST_KEY) == vm.guest.host_key_base64


def test_a_pin_that_is_no_key_is_reported(world: World, vm: VM) -> None:
    good = world.key(vm, keys.HOST_KEY)
    assert good
    world.pool.set_key(vm.ref, keys.HOST_KEY, "nonsense")
    reconnect_until_told(world, vm, "HOST_KEY_UNREADABLE")
    world.pool.set_key(vm.ref, keys.HOST_KEY, good)
    world.wait_right(vm, seconds=TAKEN_UP)


def test_a_guest_that_forgets_our_key_is_reported_and_found_again(world: World, vm: VM) -> None:
    vm.guest.revoke_all()
    reconnect(vm)
    world.wait_status(vm, "KEY_NOT_ACCEPTED")
    assert world.failure(1, "start", vmuuid=vm.uuid, container="container-0000")[0] == "KEY_NOT_ACCEPTED"
    vm.guest.authorize(world.public_key)
    # A guest that refuses logins is left alone for a while, unless somebody has a look.
    assert json.loads(world.call(1, "diagnose", vmuuid=vm.uuid)[4:])["fingerprint"]
    world.wait_right(vm, seconds=2 * COMES_BACK)


def test_a_frozen_guest_is_reported_and_found_again(world: World, vm: VM) -> None:
    vm.guest.freeze()
    try:
        world.wait_status(vm, "GUEST_SILENT", "TRANSPORT_LOST", seconds=20.0)
    finally:
        vm.guest.thaw()
    change(vm)
    world.wait_right(vm, seconds=15.0)
    until(lambda: vm.guest.sessions == 1, f"{vm.guest.sessions} connections")


def test_wrong_settings_of_a_vm_are_reported(world: World, vm: VM) -> None:
    good = world.pool.other_config(vm.ref)
    for key, value in ((keys.SSH_PORT, "70000"), (keys.USERNAME, "a b"), (keys.ENGINE_SOCKET, "/a/$(reboot)")):
        world.pool.set_key(vm.ref, key, value)
        world.wait_status(vm, "ARGUMENT_INVALID")
        world.pool.set_key(vm.ref, key, good[key])
        world.wait_right(vm, seconds=TAKEN_UP)


@pytest.mark.parametrize("fault", ["garbage", "close", "silent"])
def test_a_guest_that_stops_misbehaving_is_shown_again(world: World, vm: VM, fault: str) -> None:
    vm.guest.misbehave(fault, times=2)
    reconnect(vm)
    until(lambda: vm.guest.faults.fired[fault] >= 2, "it was not tried again", 30.0)
    change(vm)
    world.wait_right(vm, seconds=2 * COMES_BACK)


def test_an_engine_with_malformed_answers_is_reported(world: World, vm: VM) -> None:
    vm.engine.faults.set("body", match="containers/json", body=b'{"not": "a list"')
    change(vm)
    world.wait_status(vm, "ENGINE_GARBAGE")
    vm.engine.faults.clear()
    world.wait_right(vm, seconds=2 * COMES_BACK)


# --- where sshd opens no channel to a socket ----------------------------------------------------


@pytest.mark.parametrize("tools", [["docker"], ["socat"], ["ncat"]], ids=lambda tools: tools[0])
def test_a_program_connects_where_sshd_refuses_to_forward(world: World, tools: List[str]) -> None:
    need_program(tools[0])
    vm = world.add_vm("only-" + tools[0], options={"AllowStreamLocalForwarding": "no"}, tools=tools)
    try:
        world.wait_right(vm)
        change(vm)
        world.wait_right(vm, seconds=COMES_BACK)
        assert world.call(0, "stop", vmuuid=vm.uuid, container="one") == "True"
        until(lambda: world.shown(vm).get("one", "").startswith("Exited"))
        assert "<Path>" in world.call(1, "get_inspect", vmuuid=vm.uuid, object="two")
        reconnect(vm)
        change(vm)
        world.wait_right(vm, seconds=COMES_BACK)
    finally:
        drop(world, vm)


def test_forwarding_refused_is_published_where_no_stand_in_exists(world: World) -> None:
    vm = world.add_vm("nothing", options={"AllowStreamLocalForwarding": "no"}, tools=["true"])
    try:
        world.wait_status(vm, "FORWARDING_REFUSED")
        vm.guest.set_forwarding(True)
        reconnect(vm)
        world.wait_right(vm, seconds=2 * COMES_BACK)
    finally:
        drop(world, vm)


def drop(world: World, vm: VM) -> None:
    world.session.xenapi.VM.hard_shutdown(vm.ref)
    world.session.xenapi.VM.destroy(vm.ref)
    until(lambda: vm.guest.sessions == 0, "a destroyed VM is still connected")
    world.vms.remove(vm)
    vm.guest.close()
    vm.engine.close()
    assert not os.path.exists(vm.guest.directory)
