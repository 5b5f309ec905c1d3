"""Tests of access to an engine: addresses, the pool's key, the guest's host key."""

import base64
import json
import logging
import os
import socket
import threading
import time
from typing import Any, Callable, Iterator, List

import pytest

from tests.need import need
from tests.pool_fixtures import ORIGINATOR
from tests.waiting import until
from xscontainer import keys
from xscontainer.access import pool_state
from xscontainer.access.opener import Access, hang_up, require_running_here, session_pool
from xscontainer.access.pool_state import PoolState
from xscontainer.core.target import Reach, Remembered
from xscontainer.core.vm_record import VMRecord
from xscontainer.engine.ssh import keypair
from xscontainer.errors import (
    AddressRefused,
    AddressUnknown,
    AnotherVM,
    GuestUnreachable,
    HostKeyChanged,
    HostKeyUnreadable,
    KeyNotAccepted,
    KeyPairError,
    NameUnresolved,
    VMElsewhere,
    VMNotRunning,
)
from xscontainer.settings import Settings
from xscontainer.simulator.engines import EmbeddedEngine
from xscontainer.simulator.guests import Guest, OpenSSHGuest
from xscontainer.simulator.xapi import Pool
from xscontainer.xapi.pool import PoolRecord
from xscontainer.xapi.session import SessionPool

pytestmark = pytest.mark.real

Record = Callable[[str], VMRecord]


class Scene:
    """A guest with an engine, its VM in the pool, and the access to the engine."""

    def __init__(self, pool: Pool, sessions: SessionPool, record: Record, guest: Guest) -> None:
        self.pool, self.record, self.guest = pool, record, guest
        conf = Settings()
        self.settings = conf._replace(
            daemon=conf.daemon._replace(inventory=pool.coordinator.inventory_path),
            xapi=conf.xapi._replace(socket=pool.coordinator.socket_path, originator=ORIGINATOR),
            address=conf.address._replace(allow_loopback=True))
        self.access = Access(self.settings, sessions)
        self.ref = self.vm()

    def vm(self, **other_config: str) -> str:
        config = {keys.MONITOR: "True", keys.USERNAME: self.guest.user, keys.SSH_PORT: str(self.guest.port),
                  keys.ENGINE_SOCKET: self.guest.engine_socket, **other_config}
        return self.pool.create_vm("web", other_config=config, networks={"0/ip": self.guest.address})

    def authorize(self) -> None:
        key = self.access.pool_key.private()
        self.guest.authorize(f"{key.get_name()} {key.get_base64()}")

    def names(self, ref: str = "") -> List[str]:
        """Return the names of the containers, over a new connection."""
        engine, _ = self.access.open(self.record(ref or self.ref))
        try:
            return [container["Names"][0] for container in engine.containers()]
        finally:
            hang_up(engine)

    def pin(self, ref: str = "") -> Any:
        return self.pool.other_config(ref or self.ref).get(keys.HOST_KEY)


@pytest.fixture
def scene(pool: Pool, sessions: SessionPool, record: Record,
          tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    need(not OpenSSHGuest.missing(), f"OpenSSH: {OpenSSHGuest.missing()}")
    with OpenSSHGuest(str(tmp_path_factory.mktemp("g"))) as guest:
        with EmbeddedEngine(guest.directory, guest.engine_socket) as engine:
            engine.run("alpha")
            yield Scene(pool, sessions, record, guest)


def test_the_first_host_key_is_pinned(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.authorize()
    with caplog.at_level(logging.INFO):
        assert scene.names() == ["/alpha"]
    assert scene.pin() == scene.guest.host_key_base64
    assert "SHA256:" in caplog.text and "'web'" in caplog.text
    caplog.clear()
    assert scene.names() == ["/alpha"] and "pinned" not in caplog.text


def test_a_host_key_is_not_pinned_without_a_login(scene: Scene) -> None:
    """A machine that has not accepted the pool's key may be any machine."""
    with pytest.raises(KeyNotAccepted):
        scene.names()
    assert scene.pin() is None
    assert keys.OWNER not in scene.pool.other_config(scene.ref)


def test_a_probe_distinguishes_a_server_from_a_hanging_machine(scene: Scene) -> None:
    vm = scene.record(scene.ref)
    assert scene.access.answers(vm, Remembered())
    with open(scene.guest.log_path, encoding="utf-8", errors="replace") as log:
        assert "publickey" not in log.read(), "a probe must not log in"
    listening = socket.socket()
    with listening:
        listening.bind((scene.guest.address, 0))
        listening.listen(1)  # the kernel accepts connections, but no server answers
        scene.pool.set_key(scene.ref, keys.SSH_PORT, str(listening.getsockname()[1]))
        assert not scene.access.answers(scene.record(scene.ref), Remembered())
    assert not scene.access.answers(scene.record(scene.ref), Remembered())


def refused(scene: Scene) -> int:
    """Return the number of logins that the guest's sshd has refused."""
    with open(scene.guest.log_path, encoding="utf-8", errors="replace") as log:
        return log.read().count("Failed publickey for")


def test_a_refused_login_is_not_repeated_by_every_action(scene: Scene) -> None:
    for _ in range(10):
        with pytest.raises(KeyNotAccepted) as caught:
            scene.names()
        assert "The next login is tried at" in caught.value.message and caught.value.retry_in > 0.0
    until(lambda: refused(scene) == 1)
    assert scene.access.held(scene.record(scene.ref))
    with pytest.raises(KeyNotAccepted):
        scene.access.open(scene.record(scene.ref), insist=True)
    until(lambda: refused(scene) == 2)
    scene.authorize()
    with pytest.raises(KeyNotAccepted):
        scene.names()
    scene.pool.set_key(scene.ref, keys.POOL_KEY, "SHA256:new")
    assert not scene.access.held(scene.record(scene.ref))
    assert scene.names() == ["/alpha"]
    assert refused(scene) == 2


@pytest.mark.parametrize("change", ["address", "domid", "user", "pool"])
def test_a_change_that_affects_logins_ends_the_wait(scene: Scene, change: str) -> None:
    with pytest.raises(KeyNotAccepted):
        scene.names()
    scene.authorize()
    assert scene.access.held(scene.record(scene.ref))
    if change == "address":
        scene.pool.set_networks(scene.ref, {"0/ip": scene.guest.address, "0/ipv6/0": "fe80::1"})
    elif change == "domid":
        scene.pool.set_field("VM", scene.ref, "domid", 99)
    elif change == "user":
        scene.pool.set_key(scene.ref, keys.ENGINE, "docker")
    else:
        pool = scene.access.pool.state.record
        scene.access.pool.set(scene.access.pool.state._replace(record=pool._replace(
            other_config={**pool.other_config, keys.PREVIOUS_PRIVATE_SECRET: "x"})))
        assert not scene.access.held(scene.record(scene.ref))
        return
    assert scene.names() == ["/alpha"]


def test_a_host_key_that_is_not_pinned_is_refused(scene: Scene) -> None:
    scene.authorize()
    scene.names()
    before = scene.pin()
    scene.guest.rotate_host_key()
    with pytest.raises(HostKeyChanged):
        scene.names()
    assert scene.pin() == before
    # After an admin removes the pin, the new key is pinned.
    scene.pool.remove_key(scene.ref, keys.HOST_KEY)
    scene.names()
    assert scene.pin() == scene.guest.host_key_base64 != before


@pytest.mark.parametrize("form", ["ssh-ed25519 {}", "ssh-ed25519 {} comment", "host ssh-ed25519 {}", " {} "])
def test_a_pinned_key_is_accepted_in_any_form(scene: Scene, form: str) -> None:
    scene.authorize()
    ref = scene.vm(**{keys.HOST_KEY: form.format(scene.guest.host_key_base64)})
    assert scene.names(ref) == ["/alpha"]
    assert scene.pin(ref) == form.format(scene.guest.host_key_base64)


def test_a_malformed_pin_is_refused(scene: Scene) -> None:
    with pytest.raises(HostKeyUnreadable):
        scene.names(scene.vm(**{keys.HOST_KEY: "nonsense"}))


@pytest.mark.parametrize("same", [True, False])
def test_a_key_that_another_host_has_pinned_meanwhile_is_kept(scene: Scene, same: bool) -> None:
    scene.authorize()
    seen = scene.record(scene.ref)
    theirs = scene.guest.host_key_base64 if same else "AAAAC3NzaC1lZDI1NTE5AAAAIGVsc2VlbHNlZWxzZWVsc2VlbHNlZWxzZWVsc2Vl"
    scene.pool.set_key(scene.ref, keys.HOST_KEY, f"ssh-ed25519 {theirs} comment")
    if same:
        hang_up(scene.access.open(seen)[0])
    else:
        with pytest.raises(HostKeyChanged):
            scene.access.open(seen)
    assert theirs in scene.pin()


# --- clones


CARRIED = {keys.OWNER: "00000000-0000-0000-0000-000000000001", keys.PS: "<docker_ps>of another</docker_ps>",
           keys.HOST_KEY: "AAAAC3NzaC1lZDI1NTE5AAAAIGVsc2VlbHNlZWxzZWVsc2VlbHNlZWxzZWVsc2Vl"}


def test_an_inherited_pin_is_ignored(scene: Scene) -> None:
    scene.authorize()
    ref = scene.vm(**CARRIED)
    scene.guest.hypervisor.says(scene.pool.vm(ref)["uuid"])
    assert scene.names(ref) == ["/alpha"]
    assert scene.pin(ref) == scene.guest.host_key_base64
    assert scene.pool.other_config(ref)[keys.OWNER] == scene.pool.vm(ref)["uuid"]


def test_an_unreachable_clone_shows_no_inherited_list(scene: Scene) -> None:
    """The failure is published under the clone's uuid, so the inherited pin must be gone by then."""
    scene.authorize()
    ref = scene.vm(**CARRIED)
    scene.guest.hypervisor.says(scene.pool.vm(ref)["uuid"])
    scene.guest.stop()
    with pytest.raises(GuestUnreachable):
        scene.names(ref)
    assert scene.pin(ref) is None and keys.PS not in scene.pool.other_config(ref)
    scene.guest.start()
    assert scene.names(ref) == ["/alpha"]
    assert scene.pin(ref) == scene.guest.host_key_base64


def test_a_clone_without_an_address_shows_no_inherited_list(scene: Scene) -> None:
    ref = scene.vm(**CARRIED)
    scene.pool.set_networks(ref, {})
    with pytest.raises(AddressUnknown):
        scene.names(ref)
    assert keys.PS not in scene.pool.other_config(ref)


def test_many_claimants_of_an_address_do_not_hide_its_owner(scene: Scene) -> None:
    scene.authorize()
    for number in range(12):
        other = base64.b64encode(b"\0\0\0\x0bssh-ed25519" + bytes([number]) * 36).decode()
        scene.vm(**{keys.HOST_KEY: other})
    scene.pool.set_key(scene.ref, keys.HOST_KEY, scene.guest.host_key_base64)
    with pytest.raises(AnotherVM, match=scene.pool.vm(scene.ref)["uuid"]):
        scene.names(scene.vm())


def test_an_inherited_list_and_accepted_key_are_ignored(scene: Scene) -> None:
    scene.authorize()
    ref = scene.vm(**CARRIED, **{keys.ACCEPTED: "SHA256:x"})
    scene.guest.hypervisor.says(scene.pool.vm(ref)["uuid"])
    assert scene.names(ref) == ["/alpha"]
    assert keys.ACCEPTED not in scene.pool.other_config(ref)


# --- addresses


def test_refused_addresses_are_named_with_the_reason(scene: Scene) -> None:
    hosts_own = scene.pool.hosts[1].address
    scene.pool.set_networks(scene.ref, {"0/ip": hosts_own, "1/ip": "224.0.0.1"})
    with pytest.raises(AddressRefused) as caught:
        scene.names()
    assert hosts_own in str(caught.value) and "belongs to a host" in str(caught.value)


def test_remembered_methods_are_dropped_when_the_settings_change(scene: Scene) -> None:
    scene.authorize()
    nowhere = Remembered(scene.guest.address, "dial-stdio", "/nowhere.sock", Reach("ssh", "", 22))
    engine, remembered = scene.access.open(scene.record(scene.ref), nowhere)
    try:
        assert engine.connection.method == ""
        assert remembered.reach == Reach.of(scene.record(scene.ref).other_config, scene.settings)
    finally:
        hang_up(engine)
    engine, _ = scene.access.open(scene.record(scene.ref), remembered._replace(method="dial-stdio"))
    assert engine.connection.method == "dial-stdio"
    hang_up(engine)


def test_a_guest_without_addresses_raises_an_error_with_a_hint(scene: Scene) -> None:
    scene.pool.set_networks(scene.ref, {})
    with pytest.raises(AddressUnknown) as caught:
        scene.names()
    assert "'web'" in str(caught.value) and keys.ADDRESS in str(caught.value)


@pytest.mark.parametrize("networks", [{}, {"0/ip": "224.0.0.1"}, {"0/ip": "127.99.99.99"}])
def test_only_a_set_address_is_tried(scene: Scene, networks: Any) -> None:
    scene.authorize()
    ref = scene.vm(**{keys.ADDRESS: scene.guest.address})
    scene.pool.set_networks(ref, networks)
    assert scene.names(ref) == ["/alpha"]
    ref = scene.vm(**{keys.ADDRESS: "127.99.99.99"})  # although the guest tools report the correct address
    with pytest.raises(GuestUnreachable) as caught:
        scene.names(ref)
    assert scene.guest.address not in str(caught.value)


@pytest.mark.parametrize("own", ["host", "multicast", "loopback"])
def test_a_set_address_is_checked_too(scene: Scene, sessions: SessionPool, own: str) -> None:
    address = {"host": scene.pool.hosts[1].address, "multicast": "224.0.0.1", "loopback": "127.0.0.1"}[own]
    strict = scene.settings._replace(address=scene.settings.address._replace(allow_loopback=False))
    with pytest.raises(AddressRefused) as caught:
        Access(strict, sessions).open(scene.record(scene.vm(**{keys.ADDRESS: address})))
    text = str(caught.value)
    assert keys.ADDRESS in text and address in text and "remove the key" in text and "'web'" in text


def getent(scene: Scene, monkeypatch: pytest.MonkeyPatch, *answers: str) -> Callable[[], int]:
    """Replace the resolver by one that gives the next of these answers each time; return a counter of its calls."""
    place = os.path.join(scene.guest.directory, "bin")
    os.makedirs(place)
    asked = os.path.join(place, "asked")
    with open(os.path.join(place, "getent"), "w") as script:
        cases = "".join(f"{number}) echo {answer} STREAM;; " for number, answer in enumerate(answers))
        script.write(f"#!/bin/sh\ncase $(cat {asked} | wc -l) in {cases}esac\necho $2 >> {asked}\n")
    os.chmod(os.path.join(place, "getent"), 0o755)
    open(asked, "w").close()
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")

    def count() -> int:
        with open(asked) as lines:
            return len(lines.readlines())
    return count


def test_a_name_is_resolved_once_and_its_address_is_used(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second look-up could return an address that was not checked."""
    scene.authorize()
    asked = getent(scene, monkeypatch, scene.guest.address, scene.pool.hosts[1].address)
    ref = scene.vm(**{keys.ADDRESS: "docker.example"})
    scene.pool.set_networks(ref, {})
    assert scene.names(ref) == ["/alpha"]
    assert asked() == 1
    with pytest.raises(AddressRefused) as caught:
        scene.names(ref)
    assert "docker.example" in str(caught.value) and scene.pool.hosts[1].address in str(caught.value)
    assert asked() == 2


def test_an_unresolved_name_is_an_error(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    getent(scene, monkeypatch)
    with pytest.raises(NameUnresolved, match="docker.example"):
        scene.names(scene.vm(**{keys.ADDRESS: "docker.example"}))


def test_several_addresses_are_tried_side_by_side(scene: Scene) -> None:
    scene.authorize()
    with socket.socket() as silent:  # accepts no connection: its queue is full
        silent.bind(("127.77.77.77", scene.guest.port))
        silent.listen(0)
        fillers = [socket.socket() for _ in range(2)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.77.77.77", scene.guest.port))
            scene.pool.set_networks(scene.ref, {"0/ip": "127.77.77.77", "1/ip": "127.88.88.88",
                                                "2/ip": scene.guest.address})
            begun = time.monotonic()
            assert scene.names() == ["/alpha"]
            assert time.monotonic() - begun < 3.0
        finally:
            for filler in fillers:
                filler.close()


def test_loopback_is_refused_unless_allowed(scene: Scene, sessions: SessionPool) -> None:
    strict = scene.settings._replace(address=scene.settings.address._replace(allow_loopback=False))
    with pytest.raises(AddressRefused):
        Access(strict, sessions).open(scene.record(scene.ref))


def test_a_working_address_and_method_are_remembered(scene: Scene) -> None:
    scene.authorize()
    engine, remembered = scene.access.open(scene.record(scene.ref), Remembered("127.1.1.1", ""))
    hang_up(engine)
    assert remembered.address == scene.guest.address
    assert remembered.socket == ""  # no request has been sent to the engine yet


@pytest.mark.parametrize("state, host, error", [
    ("Halted", 0, VMNotRunning), ("Suspended", 0, VMNotRunning), ("Running", 1, VMElsewhere), ("Running", 0, None)])
def test_a_vm_must_run_on_this_host(scene: Scene, state: str, host: int, error: Any) -> None:
    vm = scene.record(scene.ref)._replace(power_state=state, resident_on=scene.pool.hosts[host].ref)
    if error is None:
        require_running_here(vm, scene.pool.hosts[0].ref)
    else:
        with pytest.raises(error):
            require_running_here(vm, scene.pool.hosts[0].ref)


# --- the pool's key


def test_concurrent_callers_get_one_key_pair(scene: Scene) -> None:
    found: List[str] = []
    threads = [threading.Thread(target=lambda: found.append(scene.access.pool_key.private().get_base64()))
               for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1
    assert scene.access.pool_key.private().get_bits() >= 3072


def test_the_pools_existing_key_is_used(scene: Scene, sessions: SessionPool) -> None:
    def store(session: Any) -> None:
        pool_ref, pair = session.xenapi.pool.get_all()[0], keypair.new_key_pair(2048)
        public.append(pair.public)
        for key, value in ((keys.PRIVATE_SECRET, pair.private), (keys.PUBLIC_SECRET, pair.public)):
            ref = session.xenapi.secret.create({"value": value, "other_config": {}})
            session.xenapi.pool.add_to_other_config(pool_ref, key, session.xenapi.secret.get_uuid(ref))

    public: List[str] = []
    sessions.run(store)
    assert scene.access.pool_key.private().get_base64() == public[0].split()[1]


def test_an_unusable_pool_key_is_an_error(scene: Scene, sessions: SessionPool) -> None:
    def store(session: Any) -> None:
        ref = session.xenapi.secret.create({"value": "not a key", "other_config": {}})
        session.xenapi.pool.add_to_other_config(
            session.xenapi.pool.get_all()[0], keys.PRIVATE_SECRET, session.xenapi.secret.get_uuid(ref))

    sessions.run(store)
    with pytest.raises(KeyPairError) as caught:
        scene.names()
    assert "not a key" not in str(caught.value)


def test_the_private_key_is_only_in_its_secret(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        scene.authorize()
        scene.names()
    private = next(secret["value"] for secret in scene.pool.records("secret").values() if "PRIVATE" in secret["value"])
    body = private.split("\n")[5]
    assert len(body) > 40
    assert body not in caplog.text
    for cls in ("pool", "VM", "host", "task"):
        assert body not in json.dumps(scene.pool.records(cls), default=str)


def test_a_slowly_read_state_does_not_replace_a_newer_one(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event stream brings a newer state while another thread is still reading the state from XAPI."""
    newer: List[PoolState] = []
    read, pool = pool_state.read, scene.access.pool

    def read_slowly(session: Any, inventory: str) -> PoolState:
        found = read(session, inventory)
        newer.append(found._replace(host_addresses=found.host_addresses | {"192.0.2.1"}))
        pool.set(newer[0])
        return found

    monkeypatch.setattr(pool_state, "read", read_slowly)
    assert pool.state == newer[0]
    assert pool.state == newer[0] and len(newer) == 1


@pytest.mark.parametrize("coordinator, changed", [("OpaqueRef:here", False), ("OpaqueRef:there", True)])
def test_only_a_new_coordinator_has_each_vm_decided_again(scene: Scene, coordinator: str,
                                                          changed: bool) -> None:
    pool = scene.access.pool
    here = PoolRecord("OpaqueRef:pool", "OpaqueRef:here", {})
    pool.set(PoolState(here, "OpaqueRef:here", frozenset({"192.0.2.1"})))
    assert pool.change(here._replace(coordinator=coordinator, other_config={"xscontainer-x": "1"})) is changed
    assert pool.state.is_coordinator is not changed and pool.state.record.other_config
    assert not pool.change(host_addresses=frozenset({"192.0.2.2"}))
    assert pool.state.host_addresses == {"192.0.2.2"} and pool.state.record.coordinator == coordinator


def test_sessions_use_the_socket_of_the_settings(scene: Scene) -> None:
    made = session_pool(scene.settings)
    try:
        assert made.run(lambda session: session.xenapi.host.get_all())
    finally:
        made.close()
