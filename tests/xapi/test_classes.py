"""Tests of the XAPI classes in use: VM keys, secrets, tasks, messages, the pool."""

import json
import threading
from typing import Any, Callable, Dict, List

import pytest

from xscontainer import keys
from xscontainer.errors import ConnectError, KeyPairError, ObjectGone, XapiError
from xscontainer.simulator.xapi import Pool
from xscontainer.xapi import message, secret, task
from xscontainer.xapi import pool as xapi_pool
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session

Login = Callable[..., Session]
PAIR = secret.KeyPair("-----PRIVATE-----", "ssh-rsa AAAA")


# --- VM


def config(pool: Pool, ref: str) -> Dict[str, str]:
    """A VM's other_config without what XAPI itself puts there."""
    return {key: value for key, value in pool.other_config(ref).items() if key != "mac_seed"}


def test_record_reads_the_vm_with_its_addresses(pool: Pool, session: Session) -> None:
    ref = pool.create_vm("web", networks={"0/ip": "10.0.0.5"},
                         other_config={"docker_ps": "<docker_ps/>", "folder": "/"})
    vm = xapi_vm.record(session, pool.vm(ref)["uuid"])
    assert (vm.ref, vm.name, vm.networks) == (ref, "web", {"0/ip": "10.0.0.5"})
    assert vm.other_config == {"docker_ps": "<docker_ps/>"}
    assert vm.resident_on in {host.ref for host in pool.hosts} and vm.domid > 0


def test_record_of_a_halted_vm_has_no_addresses(pool: Pool, session: Session) -> None:
    vm = xapi_vm.record(session, pool.vm(pool.create_vm("web", power_state="Halted"))["uuid"])
    assert (vm.power_state, vm.networks) == ("Halted", {})


def test_a_missing_vm_raises_object_gone(pool: Pool, session: Session) -> None:
    with pytest.raises(ObjectGone):
        xapi_vm.record(session, "00000000-0000-0000-0000-000000000000")
    assert xapi_vm.networks(session, "OpaqueRef:gone") == {}


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("believed", [False, True])
def test_put_key_sets_a_key_even_if_present_is_wrong(pool: Pool, session: Session, there: bool, believed: bool) -> None:
    ref = pool.create_vm("web", other_config={"k": "old", "other": "1"} if there else {"other": "1"})
    xapi_vm.put_key(session, ref, "k", "new", believed)
    assert config(pool, ref) == {"k": "new", "other": "1"}


def test_setting_a_key_survives_a_lost_answer(pool: Pool, session: Session) -> None:
    ref = pool.create_vm("web")
    session.xenapi.host.get_all()
    pool.faults("VM.add_to_other_config", "drop-after", times=1)
    xapi_vm.put_key(session, ref, "k", "new", present=False)
    assert pool.other_config(ref)["k"] == "new"


def test_put_key_gives_up_against_a_client_that_keeps_adding_the_key(pool: Pool, session: Session) -> None:
    """Another client adds the key between each of our removals and additions."""
    ref = pool.create_vm("web", other_config={"k": "theirs"})

    class Rival(Session):
        def call(self, method: str, params: Any) -> Any:
            answer = super().call(method, params)
            if method == "VM.remove_from_other_config":
                pool.set_key(ref, "k", "theirs")
            return answer

        def together(self, *calls: Any) -> Any:
            found: List[Any] = []
            for method, parameters in calls:
                try:
                    found.append(self.call(method, (self.ref,) + parameters))
                except XapiError as error:
                    found.append(error)
            return found

    rival = Rival.login(pool.coordinator.socket_path, "rival", 5.0, 5.0)
    try:
        with pytest.raises(XapiError) as caught:
            xapi_vm.put_key(rival, ref, "k", "ours", present=True)
    finally:
        rival.logout()
    assert caught.value.details[0] == "MAP_DUPLICATE_KEY"
    assert pool.other_config(ref)["k"] == "theirs"


def test_remove_key_accepts_an_absent_key(pool: Pool, session: Session) -> None:
    ref = pool.create_vm("web", other_config={"k": "v", "other": "1"})
    for _ in range(2):
        xapi_vm.remove_key(session, ref, "k")
    assert config(pool, ref) == {"other": "1"}


def test_concurrent_writers_lose_no_key(pool: Pool, login: Login) -> None:
    """500 keys of another client, written while ours change."""
    ref = pool.create_vm("web")
    theirs = login()
    failed: List[BaseException] = []

    def write() -> None:
        try:
            for number in range(500):
                theirs.xenapi.VM.add_to_other_config(ref, f"their-{number}", str(number))
        except XapiError as exc:
            failed.append(exc)

    thread = threading.Thread(target=write)
    thread.start()
    ours, present = login(), False
    while thread.is_alive():
        xapi_vm.put_key(ours, ref, "docker_ps", "<docker_ps/>", present)
        present = True
    thread.join()
    assert not failed
    written = pool.other_config(ref)
    assert {key: value for key, value in written.items() if key.startswith("their-")} == {
        f"their-{number}": str(number) for number in range(500)}
    assert written["docker_ps"] == "<docker_ps/>"


# --- secrets


def stored_pair(pool: Pool, session: Session) -> Dict[str, str]:
    config = pool.other_config(session.xenapi.pool.get_all()[0], "pool")
    return {key: session.xenapi.secret.get_value(session.xenapi.secret.get_by_uuid(config[key]))
            for key in (keys.PRIVATE_SECRET, keys.PUBLIC_SECRET)}


def pair_of(session: Session, generate: Callable[[], secret.KeyPair]) -> secret.KeyPair:
    ref = session.xenapi.pool.get_all()[0]
    return secret.key_pair(session, ref, session.xenapi.pool.get_other_config(ref), generate)


def never() -> secret.KeyPair:
    raise AssertionError("there is a key pair")


def test_a_key_pair_is_made_once(pool: Pool, session: Session) -> None:
    assert pair_of(session, lambda: PAIR) == PAIR
    assert stored_pair(pool, session) == {keys.PRIVATE_SECRET: PAIR.private, keys.PUBLIC_SECRET: PAIR.public}
    assert pair_of(session, never) == PAIR


def test_the_private_key_is_only_in_its_secret(pool: Pool, session: Session) -> None:
    pair_of(session, lambda: PAIR)
    for cls in ("pool", "VM", "host"):
        assert "PRIVATE-" not in json.dumps(pool.records(cls))
    assert "PRIVATE-" not in repr(PAIR) and "PRIVATE-" not in str([PAIR])


def test_two_hosts_that_store_a_key_pair_at_once_agree_on_one(pool: Pool, login: Login) -> None:
    first, second = login(pool.hosts[0]), login(pool.hosts[1])
    ref = first.xenapi.pool.get_all()[0]
    nothing_yet: Dict[str, str] = {}
    others = len(pool.records("secret"))
    secret.key_pair(first, ref, nothing_yet, lambda: PAIR)
    theirs = secret.key_pair(second, ref, nothing_yet, lambda: secret.KeyPair("second", "second"))
    assert theirs.private == PAIR.private
    assert stored_pair(pool, first)[keys.PUBLIC_SECRET] == PAIR.public
    assert len(pool.records("secret")) == others + 2  # the loser's are gone


@pytest.mark.parametrize("fault", ["drop", "drop-after", "error-500"])
@pytest.mark.parametrize("method", ["pool.add_to_other_config", "secret.create", "secret.get_uuid"])
def test_an_error_while_storing_never_leaves_an_unknown_key(
        pool: Pool, login: Login, fault: str, method: str) -> None:
    session = login()
    session.xenapi.host.get_all()
    pool.faults(method, fault, times=1)
    try:
        used = pair_of(session, lambda: PAIR)
    except XapiError:
        used = pair_of(login(), lambda: PAIR)
    assert used.private == PAIR.private
    assert stored_pair(pool, login())[keys.PRIVATE_SECRET] == PAIR.private
    assert pair_of(login(), never).private == PAIR.private


def test_a_missing_public_key_is_tolerated(pool: Pool, session: Session) -> None:
    pair_of(session, lambda: PAIR)
    ref = session.xenapi.pool.get_all()[0]
    pool.set_key(ref, keys.PUBLIC_SECRET, "00000000-0000-0000-0000-000000000000", "pool")
    assert pair_of(session, never) == secret.KeyPair(PAIR.private, "")


def test_a_missing_private_key_is_never_replaced(pool: Pool, session: Session) -> None:
    ref = session.xenapi.pool.get_all()[0]
    pool.set_key(ref, keys.PRIVATE_SECRET, "00000000-0000-0000-0000-000000000000", "pool")
    with pytest.raises(KeyPairError):
        pair_of(session, never)


# --- tasks and messages


def status(pool: Pool) -> List[str]:
    return [str(record["status"]) for record in pool.records("task").values() if record["name_label"] == "Ours"]


def test_a_task_succeeds_with_its_block(pool: Pool, session: Session) -> None:
    with task.running(session, "Ours", "words") as progress:
        progress(0.5)
        assert status(pool) == ["pending"]
        progress(7.0)
    assert status(pool) == ["success"]


def destroy_ours(pool: Pool, session: Session) -> None:
    (ref,) = [ref for ref, record in pool.records("task").items() if record["name_label"] == "Ours"]
    session.xenapi.task.set_status(ref, "failure")  # XAPI keeps those that are under way
    session.xenapi.task.destroy(ref)


def test_a_destroyed_task_does_not_end_its_action(pool: Pool, session: Session) -> None:
    done = []
    with task.running(session, "Ours") as progress:
        progress(0.1, "first")
        destroy_ours(pool, session)
        progress(0.6, "then")
        done.append("the rest")
    assert done == ["the rest"]
    with pytest.raises(ConnectError), task.running(session, "Ours"):
        destroy_ours(pool, session)
        raise ConnectError("the action's own")


def test_a_task_fails_with_its_block(pool: Pool, session: Session) -> None:
    with pytest.raises(ConnectError), task.running(session, "Ours"):
        raise ConnectError("No way.")
    (record,) = [record for record in pool.records("task").values() if record["name_label"] == "Ours"]
    assert (record["status"], record["error_info"]) == ("failure", ["CONNECT_ERROR", "No way."])


def test_a_message_is_posted_about_a_vm(pool: Pool, session: Session) -> None:
    uuid = pool.vm(pool.create_vm("web"))["uuid"]
    ref = message.create(session, "HOST_KEY_CHANGED", uuid, "größe")
    found = session.xenapi.message.get_record(ref)
    assert (found["name"], found["obj_uuid"], found["body"], int(found["priority"])) == (
        "HOST_KEY_CHANGED", uuid, "größe", 3)


# --- pool


def test_the_pools_record_is_read(pool: Pool, session: Session) -> None:
    found = xapi_pool.record(session)
    assert found.coordinator == pool.coordinator.ref and not found.prefers_internal_network
    pool.set_key(found.ref, keys.INTERNAL_NETWORK, " Yes", "pool")
    pool.set_key(found.ref, "other", "1", "pool")
    changed = xapi_pool.record(session)
    assert changed.prefers_internal_network and "other" not in changed.other_config


@pytest.mark.parametrize("value, expected", [
    ("1", True), ("yes", True), ("true", True), ("on", True), ("True", True), ("ON", True),
    ("0", False), ("no", False), ("false", False), ("off", False), ("", False), ("2", False), ("enabled", False)])
def test_the_spellings_of_the_pools_switch(value: str, expected: bool) -> None:
    assert xapi_pool.PoolRecord("r", "h", {keys.INTERNAL_NETWORK: value}).prefers_internal_network is expected
    assert not xapi_pool.PoolRecord("r", "h", {}).prefers_internal_network


def test_the_inventory_file_says_which_host_this_is(pool: Pool, session: Session, tmp_path: Any) -> None:
    for host in pool.hosts:
        assert xapi_pool.this_host(session, host.inventory_path) == (host.ref, host.uuid)
    nobody = tmp_path / "inventory"
    nobody.write_text("PRODUCT_BRAND='XCP-ng'\n")
    with pytest.raises(ValueError):
        xapi_pool.this_host(session, str(nobody))
    with pytest.raises(OSError):
        xapi_pool.this_host(session, str(tmp_path / "none"))


def test_host_addresses_are_those_of_all_hosts_and_pifs(pool: Pool, session: Session) -> None:
    pif = next(iter(pool.records("PIF")), None)
    if pif is not None:
        pool.set_field("PIF", pif, "IP", "192.0.2.7")
        pool.set_field("PIF", pif, "IPv6", ["2001:DB8:0::7/64", "", "nonsense"])
    found = xapi_pool.host_addresses(session)
    assert {host.address for host in pool.hosts} <= found
    assert "" not in found and "nonsense" not in found
    assert pif is None or {"192.0.2.7", "2001:db8::7"} <= found
