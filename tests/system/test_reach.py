"""Ways to a VM: a configured address, IPv6, an engine's socket that has to be found. Real sshd."""

import os
import shutil
import socket
import time
from functools import partial
from typing import Any, Callable, Iterator, Optional

import pytest

from tests.bench.scene import VM
from tests.clients import FastXmlParser, MonoXml
from tests.need import need, need_program
from tests.system.rules import check_inspect, check_ps, check_top
from tests.system.world import World, change
from tests.waiting import until
from xscontainer import keys
from xscontainer.simulator.engines import EmbeddedEngine
from xscontainer.simulator.engines.podman import PodmanEngine
from xscontainer.simulator.guests import OpenSSHGuest

pytestmark = pytest.mark.real

COMES_BACK = 10.0  # seconds; mostly it takes one, and `make bench` measures it
IN_A_FILE = 5.0  # podman looks four times a second into the file that keeps its events; and that twice
CONF = "[publish]\nstale_after = 2\n"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(1, conf=CONF) as made:
        made.wait_right()
        yield made


@pytest.fixture
def vm(world: World) -> Iterator[VM]:
    """One that is shown; reached as at first afterwards."""
    vm = world.vms[0]
    before = world.pool.other_config(vm.ref)
    yield vm
    for key in (keys.ADDRESS, keys.ENGINE):
        world.pool.remove_key(vm.ref, key)
    world.pool.set_key(vm.ref, keys.SSH_PORT, before[keys.SSH_PORT])
    vm.guest.start()
    world.pool.set_networks(vm.ref, {"0/ip": vm.guest.address})
    until(lambda: vm.guest.sessions == 1, "it is not reached as at first")
    change(vm)  # nor shown, if that is an old connection, or one that is being made
    world.wait_right(vm)


def twin(world: World, vm: VM, name: str, **options: Any) -> OpenSSHGuest:
    """Start the same guest at another address."""
    made = world.guest(name, engine_socket=vm.guest.engine_socket, **options)
    shutil.copy(vm.guest.host_key_path, made.host_key_path)
    made.start()
    return made


# --- addresses


def test_a_configured_address_needs_no_guest_tools(world: World, vm: VM) -> None:
    world.pool.set_networks(vm.ref, {})
    vm.guest.stop()
    world.wait_status(vm, "ADDRESS_UNKNOWN", seconds=20.0)
    assert keys.ADDRESS in str(world.key(vm, keys.STATUS))
    vm.guest.start()
    world.pool.set_key(vm.ref, keys.ADDRESS, vm.guest.address)
    world.wait_right(vm, seconds=COMES_BACK)


def test_an_address_that_may_not_be_used_is_reported(world: World, vm: VM) -> None:
    for address, code in ((world.pool.hosts[0].address, "ADDRESS_REFUSED"), ("10.0.0.300", "ARGUMENT_INVALID")):
        world.pool.set_key(vm.ref, keys.ADDRESS, address)
        world.wait_status(vm, code)
        assert address in str(world.key(vm, keys.STATUS)) and keys.ADDRESS in str(world.key(vm, keys.STATUS))
        assert world.failure(0, "get_top", vmuuid=vm.uuid, object="container-0000")[0] == code
    world.pool.set_key(vm.ref, keys.ADDRESS, "localhost")
    world.pool.set_key(vm.ref, keys.SSH_PORT, "1")
    world.wait_status(vm, "GUEST_REFUSED", seconds=20.0)


def test_a_host_name_as_address_is_resolved(world: World, vm: VM) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    guest = twin(world, vm, "named", address="127.0.0.1", port=port)
    try:
        world.pool.set_networks(vm.ref, {})
        world.pool.set_key(vm.ref, keys.SSH_PORT, str(port))
        world.pool.set_key(vm.ref, keys.ADDRESS, "LocalHost")
        until(lambda: guest.sessions == 1 and vm.guest.sessions == 0, "it is not reached by its name")
        change(vm)
        world.wait_right(vm, seconds=COMES_BACK)
        world.pool.remove_key(vm.ref, keys.ADDRESS)
        world.pool.set_key(vm.ref, keys.SSH_PORT, str(vm.guest.port))
        world.pool.set_networks(vm.ref, {"0/ip": vm.guest.address})
        until(lambda: vm.guest.sessions == 1 and guest.sessions == 0, "it is still reached by its name")
    finally:
        guest.close()


def test_a_guest_with_only_ipv6_is_shown(world: World, vm: VM) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
            port = probe.getsockname()[1]
    except OSError:
        need(False, "IPv6 on the loopback interface")
    guest = twin(world, vm, "six", address="::1", port=port)
    try:
        vm.guest.stop()
        world.pool.set_key(vm.ref, keys.SSH_PORT, str(port))
        world.pool.set_networks(vm.ref, {"0/ipv6/0": "fe80::5", "0/ipv6/1": "::1"})
        change(vm)
        world.wait_right(vm, seconds=COMES_BACK)
        assert guest.sessions == 1
    finally:
        guest.close()


def test_a_guest_that_moves_while_its_connection_is_silent_is_found_soon(world: World, vm: VM) -> None:
    """Nobody ends the old connection, and its silence alone would be believed for 45 seconds."""
    moved = twin(world, vm, "moved", port=vm.guest.port)
    try:
        vm.guest.freeze()
        world.pool.set_networks(vm.ref, {"0/ip": moved.address})
        change(vm)
        world.wait_right(vm, seconds=10.0)
        assert moved.sessions == 1
    finally:
        vm.guest.thaw()
        world.pool.set_networks(vm.ref, {"0/ip": vm.guest.address})
        moved.close()


def test_a_connection_that_answers_is_kept_when_reported_addresses_change(world: World, vm: VM) -> None:
    before = vm.guest.accepted
    for networks in ({"0/ip": "127.200.200.200"}, {}, {"0/ip": "127.200.200.201", "0/ipv6/0": "2001:db8::1"}):
        world.pool.set_networks(vm.ref, networks)
        change(vm)
        world.wait_right(vm)
    # The last doubt is over: the guest has been asked, and has answered.
    time.sleep(4.5)
    assert vm.guest.accepted == before, world.log(1)[-1000:]


# --- engines that have to be found


@pytest.fixture
def add(world: World) -> Iterator[Callable[..., VM]]:
    """Yield a function that adds a VM with a /run of its own, whose engine has to be found.

    Its arguments are (name, engine, **other_config); ``engine`` makes one for (directory, the guest's /run).
    """
    need(os.geteuid() == 0, "root, to give a guest its own /run")
    need_program("unshare")
    made = []

    def make(name: str, engine: Callable[[str, str], Any], **other_config: str) -> VM:
        run = os.path.join(world.directory, "r" + name)
        guest = world.guest(name, run=run)
        vm = VM(name, "", "", guest, engine(guest.directory + "e", run))
        world.vms.append(vm)
        made.append(vm)
        guest.start()
        vm.engine.start()
        config = {keys.MONITOR: "True", keys.USERNAME: guest.user, keys.SSH_PORT: str(guest.port), **other_config}
        vm.ref = world.pool.create_vm(name, host=world.pool.hosts[1], networks={"0/ip": guest.address},
                                      other_config=config)
        vm.uuid = world.pool.vm(vm.ref)["uuid"]
        return vm

    yield make
    for vm in made:
        world.session.xenapi.VM.hard_shutdown(vm.ref)
        world.session.xenapi.VM.destroy(vm.ref)
        until(partial(lambda vm: vm.guest.sessions == 0, vm), "a destroyed VM is still connected")
        world.vms.remove(vm)
        vm.guest.close()
        vm.engine.close()


def podman_at(inside: str, **options: Any) -> Callable[[str, str], PodmanEngine]:
    need(not PodmanEngine.missing(), PodmanEngine.missing())
    return lambda directory, run: PodmanEngine(directory, run + inside, **options)


SOCKETS = {"root": "/podman/podman.sock", "rootless": "/user/0/podman/podman.sock"}


@pytest.mark.parametrize("whose", list(SOCKETS))
def test_a_podman_is_found_shown_and_controlled(world: World, add: Callable[..., VM], whose: str) -> None:
    vm = add(whose, podman_at(SOCKETS[whose]))
    vm.engine.run("one", StopSignal="SIGKILL")
    world.wait_right(vm)
    for verb, status in (("pause", "Up (Paused)"), ("pause", "Up (Paused)"), ("unpause", "Up"),
                         ("stop", "Exited (137)"), ("stop", "Exited (137)"), ("start", "Up"), ("restart", "Up")):
        assert world.call(0, verb, vmuuid=vm.uuid, container="one") == "True"
        shown = {"one": status}
        until(partial(lambda shown: world.shown(vm) == shown, shown), f"{verb} is not shown", COMES_BACK)
    called = {"vmuuid": vm.uuid, "object": "one"}
    with FastXmlParser() as orchestra, MonoXml() as center:
        assert len(check_ps(world.ps(vm), orchestra, center)) == 1
        assert check_inspect(world.call(1, "get_inspect", **called), orchestra, center)
        assert "sleep" in check_top(world.call(0, "get_top", **called), orchestra, center)[0]["CMD"]
    vm.engine.do("stop", "one")
    until(lambda: world.shown(vm).get("one", "").startswith("Exited"), seconds=IN_A_FILE)
    assert world.failure(0, "get_top", **called)[0] == "CONTAINER_CONFLICT"
    vm.engine.do("rename", "one", name="two")
    until(lambda: set(world.shown(vm)) == {"two"}, seconds=IN_A_FILE)
    vm.engine.do("remove", "two")
    until(lambda: world.shown(vm) == {}, seconds=IN_A_FILE)
    vm.engine._drop_client()


def test_a_podman_that_ends_when_idle_stays_shown(world: World, add: Callable[..., VM]) -> None:
    """Following its events keeps Podman alive. If it ends all the same, the next request starts it again."""
    vm = add("idle", podman_at(SOCKETS["root"], idle=2, activated=True))
    vm.engine.run("one")
    world.wait_right(vm)
    gone = []
    watcher = world.session.xenapi.VM
    activations = vm.engine.activations
    vm.engine._drop_client()
    for _ in range(2):
        vm.engine._process.terminate()
        until(partial(lambda before: vm.engine.activations > before, vm.engine.activations))
        gone.append(keys.PS not in watcher.get_other_config(vm.ref))
        change(vm)
        until(lambda: world.right(vm), seconds=COMES_BACK)
    assert gone == [False, False] and vm.engine.activations == activations + 2
    vm.engine._drop_client()


def test_a_podman_without_activation_is_shown_again_when_it_is_started(world: World, add: Callable[..., VM]) -> None:
    vm = add("plain", podman_at(SOCKETS["root"], idle=1))
    vm.engine.run("one")
    world.wait_right(vm)
    vm.engine.stop()
    vm.engine.start()
    change(vm)
    world.wait_right(vm, seconds=COMES_BACK)
    assert world.status(vm) == ""
    vm.engine._drop_client()


class Both:
    """A docker and a podman in one guest: light ones. What a test asks of the engine is asked of docker."""

    def __init__(self, directory: str, run: str) -> None:
        os.makedirs(run + "/podman")
        self.docker = EmbeddedEngine(directory + "d", socket_path=run + "/docker.sock")
        self.podman = EmbeddedEngine(directory + "p", socket_path=run + "/podman/podman.sock")
        self.run, self.list = self.docker.run, self.docker.list

    def start(self) -> None:
        self.docker.start()
        self.podman.start()

    def close(self) -> None:
        self.docker.close()
        self.podman.close()


def test_one_of_two_engines_is_shown_and_stays(world: World, add: Callable[..., VM]) -> None:
    vm = add("both", Both)
    vm.engine.docker.run("of-docker")
    vm.engine.podman.run("of-podman")
    world.wait_right(vm)
    vm.engine.docker.restart(1.0)
    change(vm)
    world.wait_right(vm, seconds=COMES_BACK)
    world.pool.set_key(vm.ref, keys.ENGINE, "podman")
    until(lambda: set(world.shown(vm)) == {"of-podman"}, seconds=COMES_BACK)
    world.pool.set_key(vm.ref, keys.ENGINE, "containerd")
    world.wait_status(vm, "ARGUMENT_INVALID")
    world.pool.remove_key(vm.ref, keys.ENGINE)
    world.wait_right(vm, seconds=COMES_BACK)


def test_a_missing_engine_is_reported_with_all_places_that_were_tried(world: World, add: Callable[..., VM]) -> None:
    def far(directory: str, run: str) -> EmbeddedEngine:
        return EmbeddedEngine(directory, socket_path=run + "/far.sock")

    vm = add("far", far)
    world.wait_status(vm, "ENGINE_SOCKET_ABSENT", seconds=20.0)
    said: Optional[str] = world.key(vm, keys.STATUS)
    for word in ("/var/run/docker.sock", "/run/podman/podman.sock", "/run/user/0/podman/podman.sock",
                 keys.ENGINE_SOCKET):
        assert word in str(said)
    world.pool.set_key(vm.ref, keys.ENGINE_SOCKET, "/run/far.sock")
    change(vm)
    world.wait_right(vm, seconds=COMES_BACK)
