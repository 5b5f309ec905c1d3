"""From a VM to its engine: addresses, the pool's key, the guest's host key."""

import json
import logging
import os
import socket
import threading
import time
from typing import Any, Callable, Iterator, List

import pytest

from tests.need import need
from tests.watch.conftest import ORIGINATOR
from xscontainer import keys
from xscontainer.access import Access, hang_up, require_running_here, session_pool
from xscontainer.engine import keypair
from xscontainer.errors import (
    AddressRefused,
    AddressUnknown,
    GuestUnreachable,
    HostKeyChanged,
    HostKeyUnreadable,
    KeyNotAccepted,
    KeyPairError,
    NameUnresolved,
    VMElsewhere,
    VMNotRunning,
)
from xscontainer.reach import Reach, Remembered
from xscontainer.settings import Settings
from xscontainer.simulator.engines import EmbeddedEngine
from xscontainer.simulator.guests import Guest, OpenSSHGuest
from xscontainer.simulator.xapi import Pool
from xscontainer.vmrecord import VMRecord
from xscontainer.xapi.session import SessionPool

Record = Callable[[str], VMRecord]


class Scene:
    """A guest with an engine, a VM that stands for it, and the way from one to the other."""

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
        """The containers, over a connection made for it."""
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


def test_nothing_is_pinned_that_does_not_let_us_in(scene: Scene) -> None:
    """What answers at the address may be anybody, until it has shown that it is prepared for this pool."""
    with pytest.raises(KeyNotAccepted):
        scene.names()
    assert scene.pin() is None
    assert keys.OWNER not in scene.pool.other_config(scene.ref)


def test_another_key_than_the_pinned_one_is_refused(scene: Scene) -> None:
    scene.authorize()
    scene.names()
    before = scene.pin()
    scene.guest.rotate_host_key()
    with pytest.raises(HostKeyChanged):
        scene.names()
    assert scene.pin() == before
    # Removed on purpose: pinned anew.
    scene.pool.remove_key(scene.ref, keys.HOST_KEY)
    scene.names()
    assert scene.pin() == scene.guest.host_key_base64 != before


@pytest.mark.parametrize("form", ["ssh-ed25519 {}", "ssh-ed25519 {} comment", "host ssh-ed25519 {}", " {} "])
def test_a_pin_in_any_form(scene: Scene, form: str) -> None:
    scene.authorize()
    ref = scene.vm(**{keys.HOST_KEY: form.format(scene.guest.host_key_base64)})
    assert scene.names(ref) == ["/alpha"]
    assert scene.pin(ref) == form.format(scene.guest.host_key_base64)


def test_a_pin_that_is_no_key(scene: Scene) -> None:
    with pytest.raises(HostKeyUnreadable):
        scene.names(scene.vm(**{keys.HOST_KEY: "nonsense"}))


@pytest.mark.parametrize("same", [True, False])
def test_another_host_pinned_meanwhile(scene: Scene, same: bool) -> None:
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


def test_the_pin_of_another_vm_is_not_this_ones(scene: Scene) -> None:
    scene.authorize()
    ref = scene.vm(**CARRIED)
    assert scene.names(ref) == ["/alpha"]
    assert scene.pin(ref) == scene.guest.host_key_base64
    assert scene.pool.other_config(ref)[keys.OWNER] == scene.pool.vm(ref)["uuid"]


def test_a_clone_that_cannot_be_reached_at_first(scene: Scene) -> None:
    """The failure is published, and with it whose keys these are: the carried-in pin must not pass for its own."""
    scene.authorize()
    ref = scene.vm(**CARRIED)
    scene.guest.stop()
    with pytest.raises(GuestUnreachable):
        scene.names(ref)
    assert scene.pin(ref) is None and keys.PS not in scene.pool.other_config(ref)
    scene.guest.start()
    assert scene.names(ref) == ["/alpha"]
    assert scene.pin(ref) == scene.guest.host_key_base64


def test_a_clone_without_an_address_shows_nobody_elses_list(scene: Scene) -> None:
    ref = scene.vm(**CARRIED)
    scene.pool.set_networks(ref, {})
    with pytest.raises(AddressUnknown):
        scene.names(ref)
    assert keys.PS not in scene.pool.other_config(ref)


# --- addresses


def test_addresses_that_are_refused(scene: Scene) -> None:
    hosts_own = scene.pool.hosts[1].address
    scene.pool.set_networks(scene.ref, {"0/ip": hosts_own, "1/ip": "224.0.0.1"})
    with pytest.raises(AddressRefused) as caught:
        scene.names()
    assert hosts_own in str(caught.value) and "belongs to a host" in str(caught.value)


def test_what_worked_elsewhere_is_forgotten(scene: Scene) -> None:
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


def test_a_guest_that_reports_nothing_is_told_what_to_do(scene: Scene) -> None:
    scene.pool.set_networks(scene.ref, {})
    with pytest.raises(AddressUnknown) as caught:
        scene.names()
    assert "'web'" in str(caught.value) and keys.ADDRESS in str(caught.value)


@pytest.mark.parametrize("networks", [{}, {"0/ip": "224.0.0.1"}, {"0/ip": "127.99.99.99"}])
def test_only_the_address_that_is_set_is_tried(scene: Scene, networks: Any) -> None:
    scene.authorize()
    ref = scene.vm(**{keys.ADDRESS: scene.guest.address})
    scene.pool.set_networks(ref, networks)
    assert scene.names(ref) == ["/alpha"]
    ref = scene.vm(**{keys.ADDRESS: "127.99.99.99"})  # while the guest tools report the right one
    with pytest.raises(GuestUnreachable) as caught:
        scene.names(ref)
    assert scene.guest.address not in str(caught.value)


@pytest.mark.parametrize("own", ["host", "multicast", "loopback"])
def test_an_address_that_is_set_is_judged_too(scene: Scene, sessions: SessionPool, own: str) -> None:
    address = {"host": scene.pool.hosts[1].address, "multicast": "224.0.0.1", "loopback": "127.0.0.1"}[own]
    strict = scene.settings._replace(address=scene.settings.address._replace(allow_loopback=False))
    with pytest.raises(AddressRefused) as caught:
        Access(strict, sessions).open(scene.record(scene.vm(**{keys.ADDRESS: address})))
    text = str(caught.value)
    assert keys.ADDRESS in text and address in text and "remove the key" in text and "'web'" in text


def getent(scene: Scene, monkeypatch: pytest.MonkeyPatch, *answers: str) -> Callable[[], int]:
    """Let the resolver give these addresses, another one for each question; returns how often it was asked."""
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


def test_a_name_is_looked_up_once_and_its_address_dialled(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked again, it could stand for something else than was judged."""
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


def test_a_name_without_an_address(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    getent(scene, monkeypatch)
    with pytest.raises(NameUnresolved, match="docker.example"):
        scene.names(scene.vm(**{keys.ADDRESS: "docker.example"}))


def test_several_addresses_are_tried_side_by_side(scene: Scene) -> None:
    scene.authorize()
    with socket.socket() as silent:  # one that takes no connections: its queue is full
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


def test_what_worked_is_remembered(scene: Scene) -> None:
    scene.authorize()
    engine, remembered = scene.access.open(scene.record(scene.ref), Remembered("127.1.1.1", ""))
    hang_up(engine)
    assert remembered.address == scene.guest.address
    assert remembered.socket == ""  # nothing has been asked of the engine yet


@pytest.mark.parametrize("state, host, error", [
    ("Halted", 0, VMNotRunning), ("Suspended", 0, VMNotRunning), ("Running", 1, VMElsewhere), ("Running", 0, None)])
def test_where_it_must_run(scene: Scene, state: str, host: int, error: Any) -> None:
    vm = scene.record(scene.ref)._replace(power_state=state, resident_on=scene.pool.hosts[host].ref)
    if error is None:
        require_running_here(vm, scene.pool.hosts[0].ref)
    else:
        with pytest.raises(error):
            require_running_here(vm, scene.pool.hosts[0].ref)


# --- the pool's key


def test_one_key_pair_for_all_however_many_ask_at_once(scene: Scene) -> None:
    found: List[str] = []
    threads = [threading.Thread(target=lambda: found.append(scene.access.pool_key.private().get_base64()))
               for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1
    assert scene.access.pool_key.private().get_bits() >= 3072


def test_the_key_that_the_pool_has_is_used(scene: Scene, sessions: SessionPool) -> None:
    def store(session: Any) -> None:
        pool_ref, pair = session.xenapi.pool.get_all()[0], keypair.new_key_pair(2048)
        public.append(pair.public)
        for key, value in ((keys.PRIVATE_SECRET, pair.private), (keys.PUBLIC_SECRET, pair.public)):
            ref = session.xenapi.secret.create({"value": value, "other_config": {}})
            session.xenapi.pool.add_to_other_config(pool_ref, key, session.xenapi.secret.get_uuid(ref))

    public: List[str] = []
    sessions.run(store)
    assert scene.access.pool_key.private().get_base64() == public[0].split()[1]


def test_an_unusable_key_is_told(scene: Scene, sessions: SessionPool) -> None:
    def store(session: Any) -> None:
        ref = session.xenapi.secret.create({"value": "not a key", "other_config": {}})
        session.xenapi.pool.add_to_other_config(
            session.xenapi.pool.get_all()[0], keys.PRIVATE_SECRET, session.xenapi.secret.get_uuid(ref))

    sessions.run(store)
    with pytest.raises(KeyPairError) as caught:
        scene.names()
    assert "not a key" not in str(caught.value)


def test_the_private_key_is_nowhere_but_in_its_secret(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        scene.authorize()
        scene.names()
    private = next(secret["value"] for secret in scene.pool.records("secret").values() if "PRIVATE" in secret["value"])
    body = private.split("\n")[5]
    assert len(body) > 40
    assert body not in caplog.text
    for cls in ("pool", "VM", "host", "task"):
        assert body not in json.dumps(scene.pool.records(cls), default=str)


def test_the_settings_say_where_xapi_is(scene: Scene) -> None:
    made = session_pool(scene.settings)
    try:
        assert made.run(lambda session: session.xenapi.host.get_all())
    finally:
        made.close()
