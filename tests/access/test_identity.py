"""VMs that lead to the guest of another VM, by an address, a clone's host key or a relay; with real daemons."""

import contextlib
import json
import socket
import threading
from typing import Any, Callable, Dict, Iterator, Optional

import pytest

from tests.waiting import until
from xscontainer import keys
from xscontainer.core.identity import QUESTION
from xscontainer.engine.ssh import connection as ssh
from xscontainer.engine.ssh import vm_uuid
from xscontainer.errors import TransportLost, XapiError
from xscontainer.settings import EngineSettings, GuestSettings
from xscontainer.simulator.guests.embedded import EmbeddedSSHGuest
from xscontainer.simulator.world import OWN, ContainerSpec, GuestSpec, Parts, World, WorldVM

pytestmark = pytest.mark.real

SILENT: Optional[str] = None  # the answer of a guest outside Xen
KINDS = ["openssh", "embedded"]


@contextlib.contextmanager
def pool(says: Optional[str] = OWN, ssh: str = "auto", evil_says: Optional[str] = OWN) -> "Iterator[World]":
    """A pool with a monitored VM "honest" and a VM "evil" that is not enabled; both guests accept the pool's key."""
    specs = [GuestSpec("honest", (ContainerSpec("web"),), host=0, says=says),
             GuestSpec("evil", (ContainerSpec("bait"),), host=1, monitored=False, says=evil_says)]
    parts = Parts(ssh, "embedded", settings={"monitor": {"backoff_min": "0.2", "backoff_max": "0.5"}})
    with World(hosts=2, guests=specs, parts=parts) as world:
        world.wait_all_published()
        yield world


def point(world: World, name: str, at: WorldVM, address: str = "", port: int = 0) -> WorldVM:
    """Have the guest tools of a VM report the address of another VM, and enable the first one."""
    vm = world.vm(name)
    world.pool.set_key(vm.ref, keys.SSH_PORT, str(port or at.guest.port))
    world.pool.set_key(vm.ref, keys.ENGINE_SOCKET, at.guest.engine_socket)
    world.pool.set_networks(vm.ref, {"0/ip": address or at.guest.address})
    world.call(1, "register", vmuuid=vm.uuid)
    return vm


def status(vm: WorldVM) -> Dict[str, str]:
    return dict(json.loads(vm.other_config.get(keys.STATUS, "{}")))


def failure(call: "Callable[..., Any]", *arguments: Any, **named: Any) -> str:
    with pytest.raises(XapiError) as caught:
        call(*arguments, **named)
    return str(caught.value.details[0])


def refused(world: World, vm: WorldVM, code: str, holder: WorldVM) -> None:
    """Check that the VM is neither listed nor controlled, and that each error names the holder of the guest."""
    world.wait(lambda: status(vm), "a status")
    assert status(vm)["code"] == code and holder.label() in status(vm)["message"], status(vm)  # type: ignore[attr-defined]
    assert keys.PS not in vm.other_config and keys.HOST_KEY not in vm.other_config
    for host in (0, 1):
        assert failure(world.act, host, "stop", vm.name, "web") == code
    assert failure(world.call, 0, "prepare", vmuuid=vm.uuid) == code
    found = json.loads(world.call(0, "diagnose", vmuuid=vm.uuid)[4:])
    assert found["code"] == code and found["steps"][-1]["step"] == "identity"
    assert holder.uuid in found["message"] and repr(holder.name) in found["message"]


@pytest.fixture(autouse=True)
def _labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorldVM, "label", lambda vm: f"{vm.name!r} ({vm.uuid})", raising=False)


def works(world: World, vm: WorldVM, container: str = "web") -> None:
    """Check that new connections list the VM, and that it is controlled."""
    for daemon in world.daemons:
        daemon.restart()
    for verb, state in (("pause", "paused"), ("unpause", "running")):
        world.act(0, verb, vm.name, container)
        shows(world, vm, container, state)


def shows(world: World, vm: WorldVM, container: str, state: str) -> None:
    world.wait_published(vm.name, lambda found: container in found and found[container].state == state)


@pytest.mark.parametrize("says", [OWN, SILENT, "garbage \0\x1b[2J" * 300], ids=["says so", "silent", "garbage"])
@pytest.mark.parametrize("ssh", KINDS)
def test_a_vm_that_reports_the_address_of_another_gets_no_access_to_its_guest(says: Optional[str], ssh: str) -> None:
    with pool(says, ssh) as world:
        honest = world.vm("honest")
        evil = point(world, "evil", honest)
        refused(world, evil, "ANOTHER_VM", honest)
        works(world, honest)
        refused(world, evil, "ANOTHER_VM", honest)
        found = json.loads(world.call(0, "diagnose", vmuuid=honest.uuid)[4:])
        assert found["code"] == "OK"
        assert any(step["step"] == "identity" and evil.uuid in step["detail"] for step in found["steps"])


@pytest.mark.parametrize("says", [OWN, SILENT], ids=["says so", "silent"])
def test_a_relay_to_another_vm_is_not_followed(says: Optional[str]) -> None:
    with pool(says) as world, relay(world.vm("honest")) as (address, port):
        evil = point(world, "evil", world.vm("honest"), address, port)
        refused(world, evil, "ANOTHER_VM", world.vm("honest"))
        works(world, world.vm("honest"))


def test_a_relay_is_not_followed_although_the_host_key_was_pinned_by_mistake() -> None:
    """An earlier release may have pinned it, or a clone may have inherited it without an owner key."""
    with pool() as world, relay(world.vm("honest")) as (address, port):
        honest, evil = world.vm("honest"), world.vm("evil")
        world.pool.set_key(evil.ref, keys.HOST_KEY, honest.other_config[keys.HOST_KEY])
        point(world, "evil", honest, address, port)
        world.wait(lambda: status(evil), "a status")
        assert status(evil)["code"] == "ANOTHER_VM" and keys.PS not in evil.other_config
        works(world, honest)


def test_without_a_daemon_the_records_of_the_pool_are_checked() -> None:
    with pool(SILENT) as world, relay(world.vm("honest")) as (address, port):
        honest = world.vm("honest")
        for daemon in world.daemons:
            daemon.stop()
        evil = point(world, "evil", honest)
        assert failure(world.act, 1, "stop", "evil", "web") == "ANOTHER_VM"
        point(world, "evil", honest, address, port)
        assert failure(world.act, 1, "stop", "evil", "web") == "ANOTHER_VM"
        assert world.act(0, "pause", "honest", "web") == "True"
        assert keys.HOST_KEY not in evil.other_config


def test_a_guest_that_lies_harms_only_its_own_vm() -> None:
    """The guest claims to be the other VM, whose list stays."""
    with pool() as world:
        honest, evil = world.vm("honest"), world.vm("evil")
        evil.guest.hypervisor.says(honest.uuid)
        point(world, "evil", evil)
        refused(world, evil, "ANOTHER_VM", honest)
        works(world, honest)


def test_the_decision_of_an_admin_is_kept() -> None:
    with pool(SILENT) as world:
        honest = world.vm("honest")
        evil = point(world, "evil", honest)
        refused(world, evil, "ANOTHER_VM", honest)
        shown = json.loads(world.call(0, "hostkey_show", vmuuid=evil.uuid)[4:])
        assert shown["claimed_by"] == [{"uuid": honest.uuid, "name": "honest", "pinned": True}]
        world.call(0, "hostkey_accept", vmuuid=evil.uuid, fingerprint=shown["fingerprint"])
        assert evil.other_config[keys.ACCEPTED] == shown["fingerprint"]
        world.wait_published("evil")
        world.wait(lambda: keys.STATUS not in evil.other_config, "the end of the status")
        works(world, evil)


def test_two_clones_with_one_host_key_are_monitored_separately() -> None:
    with pool() as world:
        honest, evil = world.vm("honest"), world.vm("evil")
        with open(honest.guest.host_key_path, encoding="ascii") as file:
            evil.guest.set_host_key(file.read())
        point(world, "evil", evil)
        assert list(world.wait_published("evil")) == ["bait"]
        assert evil.other_config[keys.HOST_KEY] == honest.other_config[keys.HOST_KEY]
        works(world, honest)
        works(world, evil, "bait")


def test_a_silent_clone_with_the_host_key_of_its_original_waits_for_an_admin() -> None:
    with pool(SILENT, evil_says=SILENT) as world:
        honest, evil = world.vm("honest"), world.vm("evil")
        with open(honest.guest.host_key_path, encoding="ascii") as file:
            evil.guest.set_host_key(file.read())
        point(world, "evil", evil)
        refused(world, evil, "ANOTHER_VM", honest)
        fingerprint = json.loads(world.call(0, "hostkey_show", vmuuid=evil.uuid)[4:])["fingerprint"]
        world.call(0, "hostkey_accept", vmuuid=evil.uuid, fingerprint=fingerprint)
        assert list(world.wait_published("evil")) == ["bait"]
        works(world, honest)


@pytest.mark.parametrize("says", [OWN, SILENT], ids=["says so", "silent"])
def test_the_next_address_is_tried_after_one_of_another_vm(says: Optional[str]) -> None:
    with pool(says, evil_says=says) as world:
        honest, evil = world.vm("honest"), world.vm("evil")
        world.pool.set_networks(evil.ref, {"0/ip": honest.guest.address, "1/ip": evil.guest.address})
        world.call(1, "register", vmuuid=evil.uuid)
        assert list(world.wait_published("evil")) == ["bait"]
        assert evil.other_config[keys.HOST_KEY] == evil.guest.host_key_base64
        works(world, honest)


@pytest.mark.parametrize("says", [OWN, SILENT], ids=["says so", "silent"])
def test_an_address_that_dhcp_hands_over_serves_its_new_holder(says: Optional[str]) -> None:
    """The guest tools of the last holder still report the address."""
    with pool(says, evil_says=says) as world:
        old, new = world.vm("honest"), world.vm("evil")
        old.guest.stop()
        world.pool.set_networks(old.ref, {"0/ip": new.guest.address})  # as if this had always been its address
        point(world, "evil", new)
        assert list(world.wait_published("evil")) == ["bait"]
        world.wait(lambda: f"The VM 'evil' ({new.uuid}), which is running, has" in status(old).get("message", ""),
                   "the name of the VM with that host key")
        assert status(old)["code"] == "HOST_KEY_CHANGED"


def test_two_unknown_vms_at_one_address_are_both_refused() -> None:
    with pool(evil_says=SILENT) as world:
        evil = world.vm("evil")
        ref = world.pool.create_vm("double", world.pool.hosts[0], networks={"0/ip": evil.guest.address})
        double = WorldVM(world.pool, evil.spec._replace(name="double"), str(world.pool.vm(ref)["uuid"]), evil.guest)
        point(world, "evil", evil)
        world.wait(lambda: status(evil), "a status")
        assert status(evil)["code"] == "ADDRESS_CONFLICT" and double.uuid in status(evil)["message"]
        # The guest starts to answer with its uuid.
        evil.guest.hypervisor.says(evil.uuid)
        assert list(world.wait_published("evil")) == ["bait"]


def test_a_guest_is_asked_once_for_its_first_pin_and_not_again() -> None:
    with pool() as world:
        honest = world.vm("honest")
        assert honest.guest.hypervisor.asked == 1
        works(world, honest)
        world.call(0, "get_inspect", vmuuid=honest.uuid, object="web")
        assert json.loads(world.call(0, "diagnose", vmuuid=honest.uuid)[4:])["code"] == "OK"
        assert honest.guest.hypervisor.asked == 1


@contextlib.contextmanager
def relay(to: WorldVM) -> "Iterator[Any]":
    """Relay each connection to a guest; yields the address and port of the relay."""
    listener = socket.socket()
    listener.bind(("127.55.66.77", 0))
    listener.listen(16)
    opened = [listener]
    threads = []

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                data = source.recv(65536)
                target.sendall(data) if data else target.shutdown(socket.SHUT_WR)
                if not data:
                    return

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection((to.guest.address, to.guest.port), 5.0)
                far.settimeout(None)
                opened.extend((near, far))
                for pair in ((near, far), (far, near)):
                    threads.append(threading.Thread(target=pass_on, args=pair))
                    threads[-1].start()

    accepting = threading.Thread(target=serve)
    accepting.start()
    try:
        yield listener.getsockname()
    finally:
        for sock in opened:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        accepting.join(10.0)
        for thread in threads:
            thread.join(10.0)
        for sock in opened:
            sock.close()


# --- one connection, without a pool


def test_an_invalid_answer_of_a_guest_counts_as_none(tmp_path: Any) -> None:
    pair, uuid = ssh.new_key_pair(2048), "11111111-2222-4333-8444-555555555555"
    with EmbeddedSSHGuest(str(tmp_path / "g")) as guest:
        guest.authorize(pair.public)
        connection = ssh.connect(ssh.Target((guest.address,), guest.port, guest.user, "/nowhere"),
                                 ssh.load_private_key(pair.private), GuestSettings(), EngineSettings())
        try:
            for says, answer in ((uuid, uuid), (None, ""), ("x" * 100000, ""), ("", ""), (uuid, uuid)):
                guest.hypervisor.says(says)
                assert vm_uuid.ask_vm_uuid(connection.shell) == answer, says
            assert vm_uuid.ask_vm_uuid(connection.shell, 1.0, "sleep 1.5; " + QUESTION) == ""
            guest.faults.set("no-exec")
            assert vm_uuid.ask_vm_uuid(connection.shell) == ""
            guest.stop()
            until(lambda: connection.closed)
            with pytest.raises(TransportLost):
                vm_uuid.ask_vm_uuid(connection.shell)
        finally:
            connection.close()
