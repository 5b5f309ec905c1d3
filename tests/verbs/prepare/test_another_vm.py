"""Preparing, and deciding about, a VM whose address leads to another VM's guest."""

import json
from typing import Any, Dict, Iterator

import pytest

from tests.verbs.prepare.guests import INSIDE, PASSWORD, USER
from tests.verbs.prepare.test_command import run
from tests.verbs.prepare.world import VM, Fresh
from xscontainer import keys

pytestmark = pytest.mark.real


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fresh]:
    with Fresh(str(tmp_path_factory.mktemp("w")), hosts=1) as made:
        yield made


def twin(world: Fresh, of: VM, name: str = "other", **config: str) -> VM:
    """A VM whose guest tools report the address of another one."""
    ref = world.pool.create_vm(name, host=world.pool.hosts[0], networks={"0/ip": of.guest.address}, other_config={
        keys.SSH_PORT: str(of.guest.port), keys.ENGINE_SOCKET: INSIDE + "/docker.sock", **config})
    return VM(world, ref, of.guest, of.engine)


def test_a_vm_at_the_address_of_another_is_not_prepared(world: Fresh) -> None:
    original = world.add("original", host=0)
    other = twin(world, original)
    code, text = world.failure(world.prepare, other, 0, PASSWORD, fingerprint=other.fingerprint)
    assert code == "ANOTHER_VM" and f"'original' ({original.uuid})" in text and "'other'" in text
    assert keys.HOST_KEY not in other.config and keys.MONITOR not in other.config
    with pytest.raises(FileNotFoundError):
        original.guest.keys()  # no key was installed
    # The honest one is, whatever the other reports.
    assert world.prepare(original, 0, PASSWORD, fingerprint=original.fingerprint)["published"]


def test_a_confirmed_host_key_decides_if_the_guest_says_nothing(world: Fresh) -> None:
    original = world.add("original", host=0)
    original.guest.hypervisor.says(None)
    other = twin(world, original, **{keys.MONITOR: "True", keys.USERNAME: USER})
    assert world.prepare(original, 0, PASSWORD, fingerprint=original.fingerprint)["published"]
    assert original.config[keys.ACCEPTED] == original.fingerprint
    assert world.failure(world.prepare, other, 0, fingerprint=other.fingerprint)[0] == "ANOTHER_VM"
    assert keys.PS not in other.config and keys.PS in original.config


def test_two_clones_are_not_prepared_without_a_confirmation(world: Fresh) -> None:
    original = world.add("original", host=0)
    original.guest.hypervisor.says(None)
    twin(world, original)
    assert world.failure(world.prepare, original, 0)[0] == "KEY_NOT_ACCEPTED"  # the pool has a key from now on
    pool_key = pool_public_key(world)
    original.guest.write_keys((pool_key + "\n").encode())
    code, text = world.failure(world.prepare, original, 0)
    assert code == "ADDRESS_CONFLICT" and "'other'" in text and keys.HOST_KEY not in original.config


def test_the_commands_name_who_else_has_the_host_key(world: Fresh) -> None:
    original = world.add("original", host=0)
    world.prepare(original, 0, PASSWORD, fingerprint=original.fingerprint)
    other = twin(world, original)
    code, out, _ = run(world, "hostkey-show", other.uuid)
    assert code == 0 and f"original ({original.uuid}) has the same host key" in out
    code, out, _ = run(world, "hostkey-accept", other.uuid, "--yes")
    assert code == 0 and f"The running VM 'original' ({original.uuid}) has the same host key." in out
    assert other.config[keys.ACCEPTED] == other.fingerprint
    assert json.loads(world.call(0, "diagnose", vmuuid=other.uuid)[4:])["code"] != "ANOTHER_VM"


def test_a_decision_about_a_vm_is_not_one_about_its_clone(world: Fresh) -> None:
    original = world.add("original", host=0)
    world.prepare(original, 0, PASSWORD, fingerprint=original.fingerprint)
    world.call(0, "hostkey_accept", vmuuid=original.uuid, fingerprint=original.fingerprint)
    config: Dict[str, Any] = original.config
    assert config[keys.ACCEPTED] == original.fingerprint
    clone = twin(world, original, "clone", **{key: value for key, value in config.items() if key not in (
        keys.SSH_PORT, keys.ENGINE_SOCKET)})
    world.wait(lambda: keys.STATUS in clone.config, "a status")
    assert json.loads(clone.config[keys.STATUS])["code"] == "ANOTHER_VM"
    assert keys.ACCEPTED not in clone.config and keys.HOST_KEY not in clone.config


def pool_public_key(world: Fresh) -> str:
    (pool,) = world.pool.records("pool").values()
    uuid = pool["other_config"][keys.PUBLIC_SECRET]
    return str(world.pool.record("secret", world.pool.uuid_to_ref(uuid, "secret"))["value"]).strip()
