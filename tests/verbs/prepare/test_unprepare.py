"""The plugin function that undoes prepare, with real sshds: the guest and the pool are as before."""

import json
import os
import subprocess
from typing import Any, Dict

import pytest

from tests.need import need_program
from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one world serves the whole module
from tests.verbs.prepare.guests import INSIDE, PASSWORD, UID, USER
from tests.verbs.prepare.test_install_key import OLD, line
from tests.verbs.prepare.world import VM, Fresh
from tests.waiting import until
from xscontainer import keys
from xscontainer.engine.ssh.keypair import load_private_key, public_line

pytestmark = pytest.mark.real

SETTINGS = (keys.USERNAME, keys.SSH_PORT, keys.ENGINE_SOCKET)


def settings_of(config: Dict[str, str]) -> Dict[str, str]:
    return {key: value for key, value in config.items() if key in SETTINGS}


def ours(config: Dict[str, str]) -> Dict[str, str]:
    return {key: value for key, value in config.items()
            if key.startswith("xscontainer-") and key not in SETTINGS or key in keys.PUBLISHED}


def prepared(world: Fresh, before: bytes = b"", **options: Any) -> VM:
    vm = world.add(**options)
    if before:
        vm.guest.write_keys(before)
    world.prepare(vm, 0, PASSWORD, fingerprint=vm.fingerprint)
    return vm


def pool_line(world: Fresh) -> bytes:
    (pool,) = world.pool.records("pool").values()
    private = next(record["value"] for record in world.pool.records("secret").values()
                   if record["uuid"] == pool["other_config"][keys.PRIVATE_SECRET])
    return line(load_private_key(private))


@pytest.mark.parametrize("before", [OLD, OLD + b"\n", b"# mine\r\n\n\xff\xfe odd\n  " + OLD + b"\n\n"])
def test_authorized_keys_is_byte_for_byte_what_it_was_before_prepare(world: Fresh, before: bytes) -> None:
    vm = prepared(world, before)
    assert vm.guest.keys() != before
    mode = os.stat(vm.guest.keys_path).st_mode
    assert world.told("unprepare", vmuuid=vm.uuid) == {"key": "removed", "left": []}
    assert vm.guest.keys() == before and os.stat(vm.guest.keys_path).st_mode == mode
    assert os.listdir(vm.guest.home + "/.ssh") == ["authorized_keys"]
    until(lambda: not ours(vm.config), lambda: str(vm.config), 5.0)
    assert settings_of(vm.config) == {keys.USERNAME: USER, keys.SSH_PORT: str(vm.guest.port),
                                      keys.ENGINE_SOCKET: INSIDE + "/docker.sock"}


@pytest.mark.parametrize("host", [0, 1], ids=["coordinator", "its host"])
def test_a_second_time_changes_nothing_and_prepare_works_again(world: Fresh, host: int) -> None:
    vm = prepared(world, OLD)
    world.told("unprepare", host, vmuuid=vm.uuid)
    config = vm.config
    assert world.told("unprepare", host, vmuuid=vm.uuid) == {"key": "absent", "left": []}
    assert vm.config == config and vm.guest.keys() == OLD
    assert world.prepare(vm, host, PASSWORD, fingerprint=vm.fingerprint)["key_installed"] is True


def test_a_repeated_call_completes_one_that_ended_half_way(world: Fresh) -> None:
    """The key is out of the guest, and the pool still has its pins."""
    vm = prepared(world, OLD)
    vm.guest.write_keys(OLD)
    told = world.told("unprepare", vmuuid=vm.uuid)
    assert told["key"] == "absent" and "was not read" in told["left"][0]
    assert not ours(vm.config)


def test_each_line_with_the_pools_key_is_removed_also_one_that_a_user_wrote(world: Fresh) -> None:
    vm = prepared(world, OLD + b"\n")
    key = pool_line(world).split()[2]
    mine = b'no-pty,from="127.0.0.0/8" ssh-rsa ' + key + b" by puppet\r\n"
    vm.guest.write_keys(mine + vm.guest.keys() + b"# not ssh-rsa " + key + b"\n")
    assert world.told("unprepare", vmuuid=vm.uuid)["key"] == "removed"
    assert vm.guest.keys() == OLD + b"\n# not ssh-rsa " + key + b"\n"


def test_the_second_file_of_keys_is_cleaned_too(world: Fresh) -> None:
    vm = prepared(world, OLD, options={"AuthorizedKeysFile": ".ssh/authorized_keys .ssh/authorized_keys2"})
    second = vm.guest.keys_path + "2"
    with open(second, "wb") as file:
        file.write(b"# second\n" + pool_line(world) + b"end")
    os.chown(second, UID, UID)
    assert world.told("unprepare", vmuuid=vm.uuid)["key"] == "removed"
    with open(second, "rb") as file:
        assert file.read() == b"# second\nend"
    assert vm.guest.keys() == OLD


def test_a_link_to_the_file_stays_a_link(world: Fresh) -> None:
    vm = world.add()
    vm.guest.write_keys(OLD)
    os.rename(vm.guest.keys_path, vm.guest.home + "/keys")
    os.symlink("../keys", vm.guest.keys_path)
    world.prepare(vm, 0, PASSWORD, fingerprint=vm.fingerprint)
    assert world.told("unprepare", vmuuid=vm.uuid)["key"] == "removed"
    assert os.readlink(vm.guest.keys_path) == "../keys" and vm.guest.keys() == OLD


def refused(world: Fresh, vm: VM, code: str, *words: str) -> str:
    """The call fails; the pool still knows the guest's host key, and management is off if the guest was changed."""
    text = world.failure(world.call, 0, "unprepare", vmuuid=vm.uuid)
    assert text[0] == code and f"xscontainer unprepare --forget {vm.uuid}" in text[1], text
    assert [word for word in words if word not in text[1]] == [], text
    assert vm.config[keys.HOST_KEY] == vm.guest.host_key_base64
    return text[1]


def test_a_key_that_sshd_finds_elsewhere_is_reported_with_the_key(world: Fresh) -> None:
    vm = prepared(world, OLD, options={"AuthorizedKeysFile": f".ssh/authorized_keys {INSIDE}/more"})
    with open(vm.guest.directory + "/more", "wb") as file:
        file.write(pool_line(world))
    refused(world, vm, "KEY_NOT_REMOVED", "still accepts", "AuthorizedKeysFile", pool_line(world).split()[2].decode(),
            "management of the VM is off", f"removed from {INSIDE}/user/.ssh/authorized_keys")
    assert vm.guest.keys() == OLD
    refused(world, vm, "KEY_NOT_REMOVED", "is in no authorized_keys")
    os.unlink(vm.guest.directory + "/more")
    assert world.told("unprepare", vmuuid=vm.uuid)["key"] == "absent"
    assert not ours(vm.config)


def test_a_home_that_cannot_be_written_leaves_all_as_it_was(world: Fresh) -> None:
    vm = prepared(world, OLD)
    before = vm.guest.keys()
    os.chown(os.path.dirname(vm.guest.keys_path), 0, 0)
    os.chmod(os.path.dirname(vm.guest.keys_path), 0o755)
    refused(world, vm, "KEY_NOT_REMOVED", "could not be removed from authorized_keys", "management of the VM is off")
    assert vm.guest.keys() == before and vm.config[keys.MONITOR] == "False"
    os.chown(os.path.dirname(vm.guest.keys_path), UID, UID)
    assert world.told("unprepare", vmuuid=vm.uuid)["key"] == "removed"
    assert vm.guest.keys() == OLD


def test_an_immutable_file_is_reported(world: Fresh) -> None:
    vm = prepared(world, OLD)
    chattr = need_program("chattr", "e2fsprogs")
    if subprocess.call([chattr, "+i", vm.guest.keys_path], stderr=subprocess.DEVNULL):
        pytest.skip("this file system has no immutable files")
    try:
        refused(world, vm, "KEY_NOT_REMOVED", "authorized_keys")
    finally:
        subprocess.check_call([chattr, "-i", vm.guest.keys_path])
    assert world.told("unprepare", vmuuid=vm.uuid)["key"] == "removed"


def test_a_forced_command_is_reported(world: Fresh) -> None:
    vm = prepared(world, OLD)
    vm.guest.write_keys(b'command="echo closed" ' + public_line(load_private_key(_private(world))).encode() + b"\n")
    refused(world, vm, "SCRIPT_NOT_RUN", "closed", "by hand")


def _private(world: Fresh) -> str:
    (pool,) = world.pool.records("pool").values()
    return next(str(record["value"]) for record in world.pool.records("secret").values()
                if record["uuid"] == pool["other_config"][keys.PRIVATE_SECRET])


def test_another_machine_with_the_pools_key_is_left_alone(world: Fresh) -> None:
    vm, other = prepared(world, OLD), prepared(world, OLD)
    world.pool.set_key(vm.ref, keys.ADDRESS, other.guest.address)
    world.pool.set_key(vm.ref, keys.SSH_PORT, str(other.guest.port))
    before = other.guest.keys()
    code, _ = world.failure(world.call, 0, "unprepare", vmuuid=vm.uuid)
    assert code == "HOST_KEY_CHANGED"
    assert other.guest.keys() == before and keys.HOST_KEY in vm.config


def test_a_guest_that_is_off_is_forgotten_on_request(world: Fresh) -> None:
    vm = prepared(world, OLD)
    before = vm.guest.keys()
    vm.guest.stop()
    refused(world, vm, "GUEST_REFUSED")
    told = world.told("unprepare", vmuuid=vm.uuid, forget="yes")
    assert told["key"] == "kept" and USER in told["left"][0]
    assert pool_line(world).split()[2].decode() in told["left"][0]
    assert not ours(vm.config) and vm.guest.keys() == before
    halted = world.pool.create_vm("off", power_state="Halted", other_config={keys.MONITOR: "True"})
    uuid = str(world.pool.vm(halted)["uuid"])
    assert world.failure(world.call, 0, "unprepare", vmuuid=uuid)[0] == "VM_NOT_RUNNING"
    assert world.told("unprepare", vmuuid=uuid, forget="yes")["key"] == "kept"
    assert keys.MONITOR not in world.pool.other_config(halted)


def test_certificates_that_no_other_vm_uses_are_removed(world: Fresh) -> None:
    from xscontainer.xapi import secret

    with world.session() as session:
        vm = world.pool.create_vm("tls", power_state="Halted", other_config={keys.MODE: "tls", keys.MONITOR: "True"})
        uuid = str(world.pool.vm(vm)["uuid"])
        made = {key: secret.keep_certificate(session, key, uuid) for key in keys.TLS_SECRETS}
        foreign, _ = secret.create(session, "another's")
        made[keys.TLS_CA_CERT] = foreign
        for key, value in made.items():
            session.xenapi.VM.add_to_other_config(vm, key, value)
    told = world.told("unprepare", vmuuid=uuid, forget="yes")
    assert told["key"] == "kept" and "enable-tls.sh --remove" in told["left"][0]
    assert not ours(world.pool.other_config(vm))
    left = {record["uuid"] for record in world.pool.records("secret").values()}
    assert foreign in left and not left & {made[key] for key in (keys.TLS_CLIENT_CERT, keys.TLS_CLIENT_KEY)}


def test_a_wrong_value_is_refused(world: Fresh) -> None:
    vm = world.add()
    for arguments in ({"vmuuid": "x"}, {"vmuuid": vm.uuid, "forget": "no"}, {}):
        assert world.failure(world.call, 0, "unprepare", **arguments)[0] == "ARGUMENT_INVALID"
    assert json.loads(world.call(0, "unprepare", vmuuid=vm.uuid)[4:])["key"] == "absent"
