"""The plugin function that makes a VM managed, from a client's call to the published list."""

import json
import os
import time
from typing import Any

import pytest

from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one world serves the whole module
from tests.verbs.prepare.guests import INSIDE, PASSWORD, USER
from tests.verbs.prepare.world import VM, Fresh
from xscontainer import keys
from xscontainer.xapi import secret

pytestmark = pytest.mark.real

OURS = (keys.MONITOR, keys.OWNER, keys.USERNAME, keys.HOST_KEY)


@pytest.fixture
def vm(world: Fresh) -> VM:
    return world.add()


def secrets(world: Fresh) -> Any:
    return [record["value"] for record in world.pool.records("secret").values()]


@pytest.mark.parametrize("host", [0, 1], ids=["coordinator", "its host"])
def test_from_a_password_to_a_list(world: Fresh, vm: VM, host: int) -> None:
    begun = time.monotonic()
    told = world.prepare(vm, host, PASSWORD, fingerprint=vm.fingerprint)
    assert time.monotonic() - begun < 5.0
    assert told == {
        "mode": "ssh", "user": USER, "address": vm.guest.address, "fingerprint": vm.fingerprint,
        "engine": told["engine"],
        "containers": 1, "key_installed": True, "published": True, "left": []}
    assert f"<Version>{told['engine']}<" in vm.config[keys.VERSION]
    assert "<names>c0</names>" in vm.config[keys.PS]
    assert {key: vm.config[key] for key in OURS} == {
        keys.MONITOR: "True", keys.OWNER: vm.uuid, keys.USERNAME: USER, keys.HOST_KEY: vm.guest.host_key_base64}
    assert vm.guest.keys().startswith(b"restrict,port-forwarding ssh-rsa ")
    assert PASSWORD not in secrets(world)
    assert world.call(host, "pause", vmuuid=vm.uuid, container="c0") == "True"


def test_a_second_time_changes_nothing(world: Fresh, vm: VM) -> None:
    world.prepare(vm, 0, PASSWORD, fingerprint=vm.fingerprint)
    before, file = vm.config, os.stat(vm.guest.keys_path)
    world.pool.stats.reset()
    told = world.prepare(vm)
    assert told["key_installed"] is False and told["published"] is True
    assert vm.config == before and os.stat(vm.guest.keys_path) == file
    called = world.pool.stats.by_method()
    assert "task.create" in called and not {"VM.add_to_other_config", "VM.remove_from_other_config"} & set(called)


def test_the_task_says_how_far_it_is(world: Fresh, vm: VM) -> None:
    world.prepare(vm, 0, PASSWORD, fingerprint=vm.fingerprint)
    (task,) = [record for record in world.pool.records("task").values()
               if record["other_config"].get("xscontainer-vm") == vm.uuid]
    assert (task["status"], task["progress"]) == ("success", 1.0) and "web" in task["name_label"]
    world.failure(world.prepare, world.add(), 0, PASSWORD, fingerprint=world.added[-1].fingerprint,
                  enginesocket=INSIDE + "/nosuch.sock")
    failed = [record for record in world.pool.records("task").values() if record["status"] == "failure"]
    assert failed[-1]["error_info"][0] == "ENGINE_SOCKET_ABSENT"


def test_a_password_goes_only_to_a_guest_with_a_confirmed_host_key(world: Fresh, vm: VM) -> None:
    code, text = world.failure(world.prepare, vm, 0, PASSWORD)
    assert code == "HOST_KEY_UNCONFIRMED" and vm.fingerprint in text
    other = "SHA256:" + "x" * 43
    code, text = world.failure(world.prepare, vm, 0, PASSWORD, fingerprint=other)
    assert code == "HOST_KEY_CHANGED" and vm.fingerprint in text and other in text
    assert "Accepted" not in vm.guest.log_tail() and "Failed password" not in vm.guest.log_tail(20000)
    assert PASSWORD not in secrets(world) and keys.HOST_KEY not in vm.config
    world.call(0, "hostkey_accept", vmuuid=vm.uuid, fingerprint=vm.fingerprint)
    assert world.prepare(vm, 0, PASSWORD)["key_installed"] is True


def test_a_guest_with_another_key_than_the_pinned_one(world: Fresh) -> None:
    stranger = world.add()
    with world.session() as session:
        session.xenapi.VM.add_to_other_config(stranger.ref, keys.HOST_KEY, "ssh-ed25519 " + world.add(
            ).guest.host_key_base64)
    code, text = world.failure(world.prepare, stranger, 0, PASSWORD, fingerprint=stranger.fingerprint)
    assert code == "HOST_KEY_CHANGED" and "hostkey-accept" in text


REFUSED = [
    ("wrong", {}, "PASSWORD_NOT_ACCEPTED"),
    (PASSWORD, {"username": "nobody-here"}, "PASSWORD_NOT_ACCEPTED"),
    ("", {}, "KEY_NOT_ACCEPTED"),
    (PASSWORD, {"port": "70000"}, "ARGUMENT_INVALID"),
    (PASSWORD, {"username": "a b"}, "ARGUMENT_INVALID"),
    (PASSWORD, {"mode": "telnet"}, "MODE_UNSUPPORTED"),
    (PASSWORD, {"address": "224.0.0.1"}, "ADDRESS_REFUSED"),
    (PASSWORD, {"fingerprint": "MD5:x"}, "ARGUMENT_INVALID"),
    ("x" * 2000, {}, "ARGUMENT_INVALID"),
]


@pytest.mark.parametrize("name, value", [
    ("port", "99999"), ("address", "10.0.0.300"), ("username", "a b"), ("enginesocket", "relative"), ("engine", "lxc")])
def test_an_argument_is_not_blamed_on_other_config(world: Fresh, vm: VM, name: str, value: str) -> None:
    code, text = world.failure(world.call, 0, "prepare", **{"vmuuid": vm.uuid, name: value})
    assert code == "ARGUMENT_INVALID" and text.startswith(f"The argument '{name}' is '{value}'"), text
    if name in ("port", "address"):
        code, text = world.failure(world.call, 0, "hostkey_show", **{"vmuuid": vm.uuid, name: value})
        assert code == "ARGUMENT_INVALID" and text.startswith(f"The argument '{name}' is '{value}'"), text


@pytest.mark.parametrize("password, more, code", REFUSED, ids=range(len(REFUSED)))
def test_a_failed_prepare_writes_nothing(world: Fresh, vm: VM, password: str, more: Any, code: str) -> None:
    before = vm.config
    assert world.failure(world.prepare, vm, 0, password, **{"fingerprint": vm.fingerprint, **more})[0] == code
    assert vm.config == before and not os.path.exists(vm.guest.keys_path)


def test_an_sshd_that_forbids_a_way_in_is_an_error_that_names_it(world: Fresh) -> None:
    for options, code, word in (({"PasswordAuthentication": "no"}, "PASSWORD_LOGIN_OFF", "publickey"),
                                ({"AuthenticationMethods": "publickey,password"}, "LOGIN_NEEDS_MORE", ""),
                                ({"PubkeyAuthentication": "no"}, "PUBLIC_KEY_OFF", "password"),
                                ({"AuthorizedKeysFile": "elsewhere"}, "KEY_INSTALL_FAILED", "AuthorizedKeysFile")):
        one = world.add(options=options)
        got, text = world.failure(world.prepare, one, 0, PASSWORD, fingerprint=one.fingerprint)
        assert got in (code, "PASSWORD_LOGIN_OFF") and word in text, (options, got, text)
        assert keys.MONITOR not in one.config


@pytest.mark.parametrize("program", ["streamlocal", "dial-stdio", "socat"])
def test_a_restricted_key_is_enough(world: Fresh, program: str) -> None:
    """A channel of sshd's own, or a program instead: `restrict` forbids neither, with port-forwarding."""
    options = {} if program == "streamlocal" else {"AllowStreamLocalForwarding": "no"}
    vm = world.add(options=options, tools=["socat"] if program == "socat" else None)
    assert world.prepare(vm, 0, PASSWORD, fingerprint=vm.fingerprint)["published"] is True
    assert vm.guest.keys().startswith(b"restrict,port-forwarding ")
    assert program in world.told("diagnose", vmuuid=vm.uuid)["way"]


def test_an_engine_that_is_not_for_the_user(world: Fresh, vm: VM) -> None:
    os.chown(vm.guest.engine_socket, 0, 0)
    os.chmod(vm.guest.engine_socket, 0o660)
    code, text = world.failure(world.prepare, vm, 0, PASSWORD, fingerprint=vm.fingerprint)
    assert code == "ENGINE_FORBIDDEN" and f"sudo usermod -aG docker {USER}" in text
    assert keys.MONITOR not in vm.config
    os.chmod(vm.guest.engine_socket, 0o666)
    assert world.prepare(vm)["key_installed"] is False


def test_no_engine(world: Fresh, vm: VM) -> None:
    code, _ = world.failure(world.prepare, vm, 0, PASSWORD, fingerprint=vm.fingerprint,
                            enginesocket=INSIDE + "/nosuch.sock")
    assert code.startswith("ENGINE_") and keys.MONITOR not in vm.config


def test_a_vm_that_is_off(world: Fresh, vm: VM) -> None:
    off = world.pool.create_vm("off", power_state="Halted")
    uuid = str(world.pool.vm(off)["uuid"])
    assert world.failure(world.call, 0, "prepare", vmuuid=uuid)[0] == "VM_NOT_RUNNING"
    assert world.failure(world.call, 0, "hostkey_show", vmuuid=uuid)[0] == "VM_NOT_RUNNING"
    template = world.pool.create_vm("template", power_state="Halted", template=True)
    uuid = str(world.pool.vm(template)["uuid"])
    assert world.failure(world.call, 0, "prepare", vmuuid=uuid)[0] == "ARGUMENT_INVALID"


def test_secrets_of_others_are_not_read(world: Fresh, vm: VM) -> None:
    """A caller of the plugin may not be allowed to read secrets, and their content would reach a guest."""
    with world.session() as session:
        mine = secret.keep_password(session, PASSWORD, world.add().uuid)
        pools = [record["uuid"] for record in world.pool.records("secret").values() if "PRIVATE KEY" in record["value"]]
    assert pools
    for uuid in [mine] + pools:
        code, text = world.failure(world.call, 0, "prepare", vmuuid=vm.uuid, username=USER, passwordsecret=uuid,
                                   fingerprint=vm.fingerprint)
        assert code == "ARGUMENT_INVALID" and "password" in text
        assert uuid in [record["uuid"] for record in world.pool.records("secret").values()]
    assert "Failed password" not in vm.guest.log_tail(20000)


def test_host_keys_are_shown_and_accepted(world: Fresh, vm: VM) -> None:
    told = world.told("hostkey_show", vmuuid=vm.uuid)
    assert told == {
        "type": "ssh-ed25519", "fingerprint": vm.fingerprint, "base64": vm.guest.host_key_base64,
        "address": f"{vm.guest.address} port {vm.guest.port}", "pinned": False, "pinned_fingerprint": "",
        "matches": False}
    assert keys.HOST_KEY not in vm.config
    world.prepare(vm, 0, PASSWORD, fingerprint=vm.fingerprint)
    assert world.told("hostkey_show", 1, vmuuid=vm.uuid)["matches"] is True
    old = vm.fingerprint
    vm.guest.rotate_host_key()
    told = world.told("hostkey_show", vmuuid=vm.uuid)
    assert (told["matches"], told["pinned_fingerprint"], told["fingerprint"]) == (False, old, vm.fingerprint)
    assert world.failure(world.call, 1, "hostkey_accept", vmuuid=vm.uuid, fingerprint=old)[0] == "HOST_KEY_CHANGED"
    assert world.failure(world.prepare, vm)[0] == "HOST_KEY_CHANGED"
    assert world.call(1, "hostkey_accept", vmuuid=vm.uuid, fingerprint=vm.fingerprint + "=") == "True"
    assert vm.config[keys.HOST_KEY] == vm.guest.host_key_base64
    assert world.prepare(vm)["containers"] == 1


def test_a_clone_is_prepared_for_itself(world: Fresh, vm: VM) -> None:
    """The clone carries the list, the pin and the owner of its original."""
    world.prepare(vm, 0, PASSWORD, fingerprint=vm.fingerprint)
    carried = {key: value for key, value in vm.config.items() if key not in (keys.SSH_PORT, keys.ENGINE_SOCKET)}
    clone = world.add(config=dict(carried, **{keys.MONITOR: "False"}))
    assert world.told("hostkey_show", vmuuid=clone.uuid)["pinned"] is False
    told = world.prepare(clone, 0, PASSWORD, fingerprint=clone.fingerprint)
    assert told["published"] is True and told["key_installed"] is True
    assert clone.config[keys.HOST_KEY] == clone.guest.host_key_base64 and clone.config[keys.OWNER] == clone.uuid


def test_an_address_is_kept_only_if_it_serves(world: Fresh, vm: VM) -> None:
    world.pool.set_networks(vm.ref, {})
    told = world.prepare(vm, 0, PASSWORD, fingerprint=vm.fingerprint, address=vm.guest.address,
                         port=str(vm.guest.port))
    assert told["address"] == vm.config[keys.ADDRESS] == vm.guest.address
    assert json.loads(world.call(0, "diagnose", vmuuid=vm.uuid)[4:])["code"] == "OK"
