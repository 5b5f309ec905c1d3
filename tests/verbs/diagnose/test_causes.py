"""Each broken set-up has its own cause, told in time; and docs/troubleshooting.md says so."""

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.engine.peers import Server
from tests.need import need, need_program
from tests.verbs.diagnose.causes import CAUSES, Cause, engines, over_tls, saying
from tests.verbs.diagnose.conftest import Scene
from xscontainer import keys
from xscontainer.engine.ssh import keypair
from xscontainer.engine.ssh.hostkeys import parse_pin
from xscontainer.xapi.session import Session

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.code + cause.arrange.__name__)
def test_diagnose_finds_the_cause(make_scene: Callable[..., Scene], cause: Cause) -> None:
    with contextlib.ExitStack() as stack:
        found = cause.arrange(make_scene, stack).diagnose()
    assert found.code == cause.code, found
    assert found.steps[-1].step == cause.step
    assert cause.words in found.message
    assert "\x1b" not in found.message


def test_all_is_well(scene: Scene) -> None:
    scene.engine.run("one")
    accepted = scene.guest.accepted
    found = scene.diagnose()
    assert found.code == "OK", found
    assert scene.guest.accepted == accepted + 1, "one connection"
    assert [step.step for step in found.steps] == [
        "vm", "power", "settings", "address", "key", "tcp", "ssh", "hostkey", "login", "socket", "engine",
        "containers", "registered", "published", "optional"]
    assert found.facts["engine"]["kind"] == "docker" and found.facts["containers"] == 1
    assert found.facts["fingerprint"] == parse_pin(scene.guest.host_key_base64).fingerprint
    assert found.facts["address"] == scene.guest.address
    assert "1 container, reached as" in found.message


def test_all_is_well_over_tls(scene: Scene) -> None:
    with contextlib.ExitStack() as stack:
        found = over_tls(scene, stack).diagnose()
    assert found.code == "OK", found
    assert [step.step for step in found.steps] == [
        "vm", "power", "settings", "address", "certificates", "tcp", "tls", "login", "engine", "containers",
        "registered", "published", "optional"]


def test_a_guest_with_the_previous_key_is_prepared(scene: Scene) -> None:
    """While the pool's key is being replaced; the monitor gives it the new one."""
    (pool_ref,) = scene.pool.records("pool")
    config = scene.pool.other_config(pool_ref, "pool")
    new = keypair.new_key_pair(2048)
    session = Session.login(scene.pool.coordinator.socket_path, "test", 10.0, 10.0)
    try:
        uuid = session.xenapi.secret.get_uuid(session.xenapi.secret.create({"value": new.private, "other_config": {}}))
    finally:
        session.logout()
    scene.pool.set_key(pool_ref, keys.PREVIOUS_PRIVATE_SECRET, config[keys.PRIVATE_SECRET], cls="pool")
    scene.pool.set_key(pool_ref, keys.PRIVATE_SECRET, uuid, cls="pool")
    found = scene.diagnose()
    assert found.code == "OK", found
    assert any(step.step == "login" and "previous key" in step.detail for step in found.steps)


def test_a_changed_host_key_is_told_with_both_fingerprints(scene: Scene) -> None:
    pinned = parse_pin(scene.guest.host_key_base64)
    scene.put(HOST_KEY=scene.guest.host_key_base64)
    shown = parse_pin(scene.guest.rotate_host_key())
    found = scene.diagnose()
    assert (found.facts["pinned_fingerprint"], found.facts["fingerprint"]) == (pinned.fingerprint, shown.fingerprint)
    assert pinned.fingerprint in found.message and shown.fingerprint in found.message


def test_the_pin_of_another_vm_is_not_this_ones(scene: Scene) -> None:
    """A clone carries the pin in. A monitor removes it; a diagnosis ignores it."""
    scene.put(HOST_KEY=scene.guest.host_key_base64, OWNER="11111111-2222-4333-8444-555555555555")
    scene.guest.rotate_host_key()
    found = scene.diagnose()
    assert found.code == "NOT_PUBLISHED", found  # the list is not this one's either


def test_a_clone_is_not_taken_for_its_original(scene: Scene) -> None:
    """The clone carries the address, the pin and the list of its original, none of which is its own."""
    scene.put(ADDRESS=scene.guest.address, OWNER=scene.pool.vm(scene.ref)["uuid"], HOST_KEY=scene.guest.host_key_base64)
    assert scene.diagnose().code == "OK"
    scene.ref = scene.pool.create_vm("clone", scene.pool.coordinator, networks={},
                                     other_config=scene.pool.other_config(scene.ref))
    found = scene.diagnose()
    assert found.code == "ADDRESS_UNKNOWN", found
    assert found.facts["published"] is False
    scene.pool.set_networks(scene.ref, {"0/ip": scene.guest.address})
    found = scene.diagnose()
    assert found.code == "ANOTHER_VM" and "'web'" in found.message
    scene.guest.hypervisor.says(scene.pool.vm(scene.ref)["uuid"])
    assert scene.diagnose().code == "NOT_PUBLISHED"  # the list that it carries is another VM's


def test_another_vm_with_the_address_is_named_for_every_cause(scene: Scene) -> None:
    scene.guest.revoke_all()
    other = scene.pool.create_vm("other", scene.pool.coordinator, networks={"1/ip": scene.guest.address})
    found = scene.diagnose()
    assert found.code == "KEY_NOT_ACCEPTED"
    (told,) = [step.detail for step in found.steps if step.step == "address"]
    assert f"also reported by the VM 'other' ({scene.pool.vm(other)['uuid']})" in told


def test_no_key_pair_is_made(scene: Scene) -> None:
    (pool_ref,) = scene.pool.records("pool")
    for key in (keys.PRIVATE_SECRET, keys.PUBLIC_SECRET):
        scene.pool.remove_key(pool_ref, key, cls="pool")
    before = scene.pool.other_config(pool_ref, "pool"), scene.pool.records("secret")
    found = scene.diagnose()
    assert (found.code, found.steps[-1].step) == ("KEY_PAIR_INVALID", "key")
    assert "xscontainer prepare" in found.next
    assert (scene.pool.other_config(pool_ref, "pool"), scene.pool.records("secret")) == before


def test_a_refused_login_shows_the_key_to_add(scene: Scene) -> None:
    scene.guest.revoke_all()
    found = scene.diagnose()
    assert found.facts["public_key"] == " ".join(scene.pair.public.split()[:2])
    scene.guest.authorize(found.facts["public_key"])
    assert scene.diagnose().code == "OK"


def test_root_is_told_what_root_needs(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(options={"PermitRootLogin": "no"})
    need(scene.guest.user == "root", "root, to be refused")
    found = scene.diagnose()
    assert found.code == "KEY_NOT_ACCEPTED" and "PermitRootLogin" in found.next


def test_a_wrong_user_is_told_the_right_one(scene: Scene) -> None:
    scene.tune("ssh", user=scene.guest.user)
    scene.put(USERNAME="nobody-here")
    found = scene.diagnose()
    assert found.facts["other_user"] == scene.guest.user and scene.guest.user in found.next
    scene.put(USERNAME=found.facts["other_user"])
    assert scene.diagnose().code == "OK"


@pytest.mark.parametrize("docker, podman, command", [
    (0o660, False, "sudo usermod -aG docker visitor"),
    (0o660, True, "sudo usermod -aG docker visitor"),
    (0, True, "systemctl --user enable --now podman.socket"),
])
def test_a_closed_socket_shows_how_to_open_it(scene: Scene, docker: int, podman: bool,
                                                                 command: str) -> None:
    with contextlib.ExitStack() as stack:
        found = engines(scene, stack, docker, podman).diagnose()
    assert command in found.next, found


@pytest.mark.parametrize("state, word", [("Halted", "Start"), ("Suspended", "Resume"), ("Paused", "Unpause")])
def test_each_power_state_has_its_own_way_back(scene: Scene, state: str, word: str) -> None:
    scene.pool.set_field("VM", scene.ref, "power_state", state)
    found = scene.diagnose()
    assert found.code == "VM_NOT_RUNNING" and word in found.next


def test_another_machine_at_the_first_address_is_passed_over(scene: Scene) -> None:
    """The diagnosis is about the way to the VM, or about the address whose error says most."""
    scene.put(HOST_KEY=scene.guest.host_key_base64)
    with Server(saying(b"220 ftp.example\r\n", wait=False), at=("127.0.2.1", scene.guest.port)):
        scene.pool.set_networks(scene.ref, {"0/ip": "127.0.2.1", "1/ip": scene.guest.address})
        found = scene.diagnose()
        assert found.code == "OK", found
        assert found.facts["address"] == scene.guest.address
        scene.guest.rotate_host_key()
        changed = scene.diagnose()
        assert changed.code == "HOST_KEY_CHANGED" and "127.0.2.1" in changed.message
        assert changed.facts["address"] == scene.guest.address
        scene.pool.set_networks(scene.ref, {"0/ip": scene.guest.address, "1/ip": "127.0.2.1"})
        other_way = scene.diagnose()
        assert [step.step for step in other_way.steps] == [step.step for step in changed.steps]
        assert other_way.facts["address"] == scene.guest.address


def test_no_route(tmp_path: Any) -> None:
    """In a network of its own that leads nowhere; the cause is the same whatever asks."""
    alone = [need_program("unshare", "util-linux"), "--net", "--map-root-user"]
    need(subprocess.call(alone + ["true"], stderr=subprocess.DEVNULL) == 0, "namespaces of networks and users")
    code = ("from xscontainer.engine.dial import dial\n"
            "try: dial(('192.0.2.1', '2001:db8::1'), 22, 5.0, 5.0)\n"
            "except Exception as error: print(error.code, error)")
    done = subprocess.run(alone + [sys.executable, "-W", "ignore", "-c", code],
                          stdout=subprocess.PIPE, cwd=str(ROOT), timeout=60)
    assert done.stdout.decode().startswith("GUEST_NO_ROUTE There is no route to TCP port 22"), done.stdout


def test_an_earlier_failure_of_the_list_is_not_a_cause(scene: Scene) -> None:
    scene.put(PS=None, STATUS='{"code": "GUEST_REFUSED", "message": "Nothing listens."}')
    found = scene.diagnose()
    assert found.code == "OK" and "tries again" in found.steps[-2].detail


def test_the_documentation_names_every_cause() -> None:
    """Every row of its table is set up above."""
    assert table() in (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"), table()


def table() -> str:
    """Return the table of the documentation: a link to each code, and what is broken."""
    rows = [f"| [`{cause.code}`](#{cause.code.lower()}) | {cause.what} |" for cause in CAUSES + MORE if cause.what]
    return "\n".join(["| code | what is broken |", "|---|---|"] + rows) + "\n"


def _elsewhere(*_: Any) -> Scene:
    raise AssertionError("this one has a test of its own")


MORE = [Cause("GUEST_NO_ROUTE", "The network reports that there is no route to the VM, or a firewall rejects the "
                                "connection.", "tcp", "", _elsewhere)]
