"""The pool's key pair is replaced: in running VMs, in one that was off meanwhile, and by a process that dies."""

import contextlib
import json
import os
import random
import re
import threading
import time
from typing import Any, Dict, Iterator, List, Tuple

import pytest

from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one world serves the whole module
from tests.verbs.prepare.guests import PASSWORD, UID, USER
from tests.verbs.prepare.test_command import run, with_password
from tests.verbs.prepare.world import VM, Fresh
from xscontainer import keys
from xscontainer.access.credentials import PoolKey
from xscontainer.access.opener import session_pool
from xscontainer.access.pool_state import CurrentPool
from xscontainer.core.vm_record import VMRecord
from xscontainer.engine.ssh import hostkeys, keypair
from xscontainer.errors import CalledOff, KeyRotationBusy, KeyRotationUnfinished, XapiError, XapiSessionLost
from xscontainer.settings import Settings
from xscontainer.simulator.xapi import Pool
from xscontainer.verbs.key_rotation import AT_ONCE as AT_ONCE_CALLS
from xscontainer.verbs.key_rotation import everywhere
from xscontainer.xapi import key_rotation as rotation
from xscontainer.xapi import lease, secret
from xscontainer.xapi.session import Session, SessionPool

pytestmark = pytest.mark.real


def lines(vm: VM) -> List[str]:
    """Fingerprints of the keys that the guest lets in."""
    found = []
    for line in vm.guest.keys().decode().splitlines():
        found.append(hostkeys.parse_pin(" ".join(line.split()[1:])).fingerprint)
    return found


def prepared(world: Fresh, name: str) -> VM:
    vm = world.add(name, 1)
    assert world.prepare(vm, 0, PASSWORD, fingerprint=vm.fingerprint)["published"]
    return vm


def pool_config(pool: Pool) -> Dict[str, str]:
    (record,) = pool.records("pool").values()
    return dict(record["other_config"])


def power(world: Fresh, vm: VM, on: bool) -> None:
    with world.session() as session:
        if on:
            session.xenapi.VM.start(vm.ref, False, False)
            world.pool.set_networks(vm.ref, {"0/ip": vm.guest.address})
        else:
            session.xenapi.VM.hard_shutdown(vm.ref)


AT_ONCE: Dict[str, Dict[str, object]] = {"ssh": {"key_grace": 0}}


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fresh]:
    with Fresh(str(tmp_path_factory.mktemp("w")) + "/w", settings=AT_ONCE) as made:
        yield made


def status(world: Fresh) -> Dict[str, Any]:
    """VM's name -> whether it has the key."""
    return {vm["name"]: vm["has_key"] for vm in world.told("key_rotate", finish="status")["vms"]}


def test_a_pool_changes_its_key(world: Fresh) -> None:
    on, off, tls = prepared(world, "on"), prepared(world, "off"), world.add("tls", config={
        keys.MONITOR: "True", keys.MODE: "tls"})
    power(world, off, False)
    (old,) = lines(on)
    old_secrets = [pool_config(world.pool)[key] for key in (keys.PRIVATE_SECRET, keys.PUBLIC_SECRET)]
    assert world.told("key_rotate", finish="status") == {
        "rotating": False, "fingerprint": old, "previous_fingerprint": "", "vms": world_vms(on, off, True)}

    told = world.told("key_rotate", 0)
    new = told["fingerprint"]
    assert new != old and told["previous_fingerprint"] == old and told["rotating"] is True
    assert told["vms"] == world_vms(on, off, False)
    assert lines(on) == [old, new] and lines(off) == [old]
    assert on.config[keys.POOL_KEY] == new and off.config[keys.POOL_KEY] == old
    assert tls.uuid not in json.dumps(told)

    # Both keys work: in a process that knows the new one, and in one that has just started.
    world.daemon(1).restart()
    assert world.call(0, "pause", vmuuid=on.uuid, container="c0") == "True"
    assert world.prepare(world.add("later"), 0, PASSWORD, fingerprint=world.added[-1].fingerprint)["key_installed"]
    assert lines(world.added[-1]) == [new]

    # The other one may not be given up while a VM knows nothing else.
    refused, text = world.failure(world.call, 0, "key_rotate", finish="yes")
    assert refused == "KEY_ROTATION_UNFINISHED" and off.uuid in text and on.uuid not in text
    assert world.told("key_rotate", finish="status")["rotating"] is True

    power(world, off, True)
    world.wait(lambda: keys.PS in off.config and off.config.get(keys.POOL_KEY) == new, "the new key in the VM")
    assert lines(off) == [old, new]
    code, out, err = run(world, "key-rotate", "--status")
    assert code == 0 and out.count("has the key") == 3, err

    code, out, err = run(world, "key-rotate", "--finish", host=1)
    assert code == 0 and new in out and "previous" not in out, err
    assert lines(on) == lines(off) == [new]
    config = pool_config(world.pool)
    assert keys.PREVIOUS_PRIVATE_SECRET not in config and keys.PREVIOUS_PUBLIC_SECRET not in config
    assert not set(old_secrets) & {record["uuid"] for record in world.pool.records("secret").values()}
    public = world.pool.record("secret", world.pool.uuid_to_ref(config[keys.PUBLIC_SECRET], "secret"))["value"]
    assert hostkeys.parse_pin(public).fingerprint == new
    world.daemon(1).restart()
    for vm in (on, off):
        assert json.loads(world.call(0, "diagnose", vmuuid=vm.uuid)[4:])["code"] == "OK"


def world_vms(on: VM, off: VM, off_has: bool) -> List[Dict[str, Any]]:
    told = [{"uuid": on.uuid, "name": "on", "power_state": "Running", "has_key": True, "problem": ""},
            {"uuid": off.uuid, "name": "off", "power_state": "Halted", "has_key": off_has, "problem": ""}]
    return sorted(told, key=lambda vm: str(vm["uuid"]))


def test_a_guest_that_takes_no_new_key_is_named_and_stays_reachable(world: Fresh) -> None:
    vm = prepared(world, "stubborn")
    (old,) = lines(vm)

    os.chown(vm.guest.home + "/.ssh", 0, 0)
    os.chmod(vm.guest.home + "/.ssh", 0o755)
    os.chmod(vm.guest.keys_path, 0o644)
    code, out, err = run(world, "key-rotate")
    assert code == 3 and "waits for it" in out and "KEY_INSTALL_FAILED" in out, err
    assert lines(vm) == [old]
    world.daemon(1).restart()
    assert world.call(0, "pause", vmuuid=vm.uuid, container="c0") == "True"
    assert run(world, "key-rotate", "--finish")[0] == 1
    os.chown(vm.guest.home + "/.ssh", UID, UID)
    assert run(world, "key-rotate")[0] == 0
    assert run(world, "key-rotate", "--finish")[0] == 0
    assert old not in lines(vm)


def test_a_guest_that_is_off_at_the_end_is_named(world: Fresh) -> None:
    """The guest has the new key, and the previous one cannot be removed."""
    vm = prepared(world, "asleep")
    world.told("key_rotate")
    power(world, vm, False)
    (told,) = world.told("key_rotate", finish="yes")["vms"]
    assert told["has_key"] is True and "previous key" in told["problem"]
    assert len(lines(vm)) == 2
    power(world, vm, True)
    assert world.prepare(vm)["published"]


def test_a_vm_that_is_given_up(world: Fresh) -> None:
    vm = prepared(world, "lost")
    power(world, vm, False)
    run(world, "key-rotate")
    assert run(world, "key-rotate", "--finish")[0] == 1
    code, out, err = run(world, "key-rotate", "--finish", "--force")
    assert code == 3 and "prepare it again" in out and "has the key" not in out, err
    code, out, err = run(world, "key-rotate", "--status")
    assert code == 3 and "prepare it again" in out, err
    power(world, vm, True)
    assert world.failure(world.prepare, vm)[0] == "KEY_NOT_ACCEPTED"
    assert status(world) == {"lost": False}
    assert world.prepare(vm, 0, PASSWORD)["key_installed"] is True
    assert run(world, "key-rotate", "--status")[0] == 0


def test_the_status_distinguishes_vms_with_a_key_from_vms_never_asked(world: Fresh) -> None:
    """A VM that was switched on by hand, as clients do, has left no word of the key that it knows."""
    vm, by_hand = prepared(world, "prepared"), world.add("by hand")
    with world.session() as session:
        session.xenapi.VM.add_to_other_config(by_hand.ref, keys.MONITOR, "True")
    assert status(world) == {"prepared": True, "by hand": None}
    code, out, err = run(world, "key-rotate", "--status")
    assert code == 0 and "not known" in out, err
    # One that no key opens is given up by name, too.
    assert run(world, "key-rotate")[0] == 3
    assert status(world) == {"prepared": True, "by hand": False}
    assert run(world, "key-rotate", "--finish", "--force")[0] == 3
    assert status(world) == {"prepared": True, "by hand": False}
    # Somebody puts the key in by hand; the monitor gets in some time later, and says so.
    by_hand.guest.write_keys(vm.guest.keys())
    with world.session() as session:
        session.xenapi.VM.add_to_other_config(by_hand.ref, keys.USERNAME, USER)
    world.wait(lambda: status(world)["by hand"] is True, "the VM to be known to have the key")


def test_options_that_an_admin_wrote_before_the_key_are_kept(world: Fresh) -> None:
    vm = prepared(world, "careful")
    limits = b'from="127.0.0.0/8,10.0.0.0/8",restrict,port-forwarding ssh-rsa '
    vm.guest.write_keys(vm.guest.keys().replace(b"restrict,port-forwarding ssh-rsa ", limits)
                        .replace(b" xscontainer", b" the pool's, see wiki\r"))
    world.told("key_rotate")
    found = vm.guest.keys().splitlines()
    assert len(found) == 2 and all(line.startswith(limits) and line.endswith(b" the pool's, see wiki\r")
                                   for line in vm.guest.keys().split(b"\n")[:2])
    world.told("key_rotate", finish="yes", force="yes")
    (line,) = vm.guest.keys().split(b"\n")[:-1]
    assert line.startswith(limits) and line.endswith(b" the pool's, see wiki\r")
    assert world.told("diagnose", vmuuid=vm.uuid)["code"] == "OK"


def test_a_vm_that_is_reached_over_tls_has_no_key(world: Fresh) -> None:
    vm = prepared(world, "tls")
    with world.session() as session:
        session.xenapi.VM.add_to_other_config(vm.ref, keys.MODE, "tls")
    code, text = world.failure(world.call, 1, "key_install", vmuuid=vm.uuid)[:2]
    assert code == "ARGUMENT_INVALID" and "over TLS" in text and "'tls'" in text
    with world.session() as session:
        session.xenapi.VM.remove_from_other_config(vm.ref, keys.MODE)


def test_force_requires_finish(world: Fresh) -> None:
    vm = prepared(world, "web")
    before = pool_config(world.pool), vm.config, vm.guest.keys()
    for finish in ({}, {"finish": "status"}):
        assert world.failure(world.call, 0, "key_rotate", force="yes", **finish)[0] == "ARGUMENT_INVALID"
    for words in ([], ["--status"]):
        code, _, err = run(world, "key-rotate", "--force", *words)
        assert code == 2 and "--finish" in err
    assert (pool_config(world.pool), vm.config, vm.guest.keys()) == before


# --- a XAPI that is killed ---------------------------------------------------


def test_no_key_is_given_up_while_xapi_may_forget_its_successor(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A killed XAPI forgets what was written in the minutes before, here a second."""
    with Fresh(str(tmp_path_factory.mktemp("w")) + "/w", settings={"ssh": {"key_grace": 3}}) as world:
        on, off = prepared(world, "on"), prepared(world, "off")
        power(world, off, False)
        (old,) = lines(on)
        new = world.told("key_rotate")["fingerprint"]
        begun = time.monotonic()
        power(world, off, True)
        world.wait(lambda: off.config.get(keys.POOL_KEY) == new, "the new key in the VM")
        code, _, err = run(world, "key-rotate", "--finish")
        assert code == 1 and "KEY_ROTATION_UNFINISHED" in err and re.search(r"again in [123] s\.", err), err
        assert lines(on) == lines(off) == [old, new]
        time.sleep(max(0.0, begun + 3.0 - time.monotonic()))
        power(world, off, False)
        assert run(world, "key-rotate", "--finish")[0] == 0
        assert lines(on) == [new]
        # The worst that can be: all since the beginning.
        world.pool.coordinator.restart(lose_writes_since=begun)
        with contextlib.suppress(XapiSessionLost), world.session() as session:
            session.xenapi.pool.get_all()  # it was logged in before
        assert world.pool.vm(off.ref)["power_state"] == "Halted"
        power(world, off, True)
        world.daemon(1).restart()
        for uuid in (on.uuid, off.uuid):
            assert json.loads(world.call(0, "diagnose", vmuuid=uuid)[4:])["code"] == "OK"
        world.call(0, "key_rotate")
        time.sleep(3.0)
        assert run(world, "key-rotate", "--finish")[0] == 0
        assert lines(on) == lines(off) and old not in lines(on)


def test_a_forced_finish_does_not_wait(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Fresh(str(tmp_path_factory.mktemp("w")) + "/w", hosts=1, daemons=False) as world:
        world.call(0, "key_rotate")
        assert world.failure(world.call, 0, "key_rotate", finish="yes")[0] == "KEY_ROTATION_UNFINISHED"
        assert world.told("key_rotate", finish="yes", force="yes")["rotating"] is False


def test_a_wrong_clock_does_not_block_the_finish_for_ever(pool: Pool) -> None:
    old_pair(pool)
    life(pool, begin)
    session = mortal(pool)
    try:
        (ref,) = session.xenapi.pool.get_all()
        now = time.time()
        assert 590 < rotation.too_new(session, ref, 600.0, now) <= 600
        assert rotation.too_new(session, ref, 600.0, now + 601) == 0.0
        assert rotation.too_new(session, ref, 600.0, now - 601) == 0.0
        assert 590 < rotation.too_new(session, ref, 600.0, now - 10) <= 600
    finally:
        session.logout()


# --- few sessions, few workers -----------------------------------------------


@pytest.mark.parametrize("daemons", [False, True], ids=["no daemon", "daemon"])
def test_a_rotation_does_not_wait_for_itself(tmp_path_factory: pytest.TempPathFactory, daemons: bool) -> None:
    """With as few sessions and workers as may be set; more guests than are served at once."""
    few = {"xapi": {"sessions": 1, "timeout": 5}, "daemon": {"workers": 2}}
    with Fresh(str(tmp_path_factory.mktemp("w")) + "/w", hosts=1, daemons=daemons, settings=few) as world:
        vms = [world.add(f"vm-{number}", 0) for number in range(5)]
        for vm in vms[:1]:
            code, _, err = with_password(world, "prepare", vm.uuid, "-u", USER, "--yes")
            assert code == (0 if daemons else 3), err
        (line,) = [vms[0].guest.keys()]
        with world.session() as session:
            for vm in vms[1:]:
                vm.guest.write_keys(line)
                session.xenapi.VM.add_to_other_config(vm.ref, keys.USERNAME, USER)
                session.xenapi.VM.add_to_other_config(vm.ref, keys.MONITOR, "True")
        told = world.told("key_rotate")
        assert [vm["problem"] for vm in told["vms"]] == [""] * 5 and all(vm["has_key"] for vm in told["vms"]), told


# --- guests that hang --------------------------------------------------------


def test_vms_not_reached_in_time_are_named() -> None:
    """With others that hang before them."""
    vms = [VMRecord.from_snapshot(f"ref-{number}", {"uuid": f"uuid-{number}"}) for number in range(12)]
    asked: List[str] = []

    def hang(vm: VMRecord) -> None:
        asked.append(vm.uuid)
        time.sleep(0.3)

    begun = time.monotonic()
    problems = everywhere(hang, vms, 0.5, "not tried", lambda fraction: None)
    assert time.monotonic() - begun < 2.0
    assert 4 <= len(asked) <= 8 and set(problems) == {vm.uuid for vm in vms} - set(asked)
    assert set(problems.values()) == {"not tried"}


def test_a_cancelled_rotation_begins_no_further_call() -> None:
    vms = [VMRecord.from_snapshot(f"ref-{number}", {"uuid": f"uuid-{number}"}) for number in range(12)]
    asked: List[str] = []

    def call(vm: VMRecord) -> None:
        asked.append(vm.uuid)
        time.sleep(0.05)

    def called_off(fraction: float) -> None:
        raise CalledOff("It was called off.")

    with pytest.raises(CalledOff):
        everywhere(call, vms, 60.0, "not tried", called_off)
    assert 1 <= len(asked) <= 2 * AT_ONCE_CALLS


def test_a_rotation_that_is_cancelled_can_be_continued(world: Fresh) -> None:
    vm = prepared(world, "one")
    (old,) = lines(vm)
    failed: List[List[str]] = []
    world.pool.faults("VM.get_all_records_where", "delay", seconds=3.0)
    thread = threading.Thread(target=lambda: failed.append(world.failure(world.call, 0, "key_rotate")))
    thread.start()

    def task() -> List[str]:
        return [ref for ref, record in world.pool.records("task").items()
                if record["name_label"] == "Changing the SSH key of the pool" and record["status"] == "pending"]

    world.wait(lambda: bool(task()), "the rotation has begun")
    with world.session() as session:
        session.xenapi.task.cancel(task()[0])
    thread.join(60.0)
    world.pool.faults.clear()
    assert failed and failed[0][0] == "CALLED_OFF" and "key-rotate" in failed[0][1]
    told = world.told("key_rotate", 0)
    assert told["rotating"] is True and told["vms"][0]["has_key"] is True
    assert lines(vm) == [old, told["fingerprint"]]


# --- a process that dies -----------------------------------------------------


class Died(Exception):
    pass


class Mortal(Session):
    """A session whose process dies at its ``last`` writing call: before it, or right after."""

    last, after, writes = 0, False, 0

    def call(self, method: str, params: "Tuple[Any, ...]") -> Any:
        if not method.startswith(("secret.create", "secret.destroy", "pool.add", "pool.remove")):
            return super().call(method, params)
        self.writes += 1
        if self.writes == self.last and not self.after:
            raise Died()
        result = super().call(method, params)
        if self.writes == self.last:
            raise Died()
        return result


@pytest.fixture
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with Pool(str(tmp_path_factory.mktemp("x")), hosts=1, tcp=False) as made:
        yield made


PAIRS = [secret.KeyPair(*keypair.new_key_pair(1024)) for _ in range(2)]


def public_of(private: str) -> str:
    return keypair.public_line(keypair.load_private_key(private))


def begin(session: Session) -> None:
    rotation.begin(session, session.xenapi.pool.get_all()[0], lambda: PAIRS[1], public_of)


def end(session: Session) -> None:
    rotation.end(session, session.xenapi.pool.get_all()[0])


def usable(pool: Pool) -> List[str]:
    """Return the keys with which a new process logs in: the pool's key and the previous one."""
    conf = Settings()
    conf = conf._replace(xapi=conf.xapi._replace(socket=pool.coordinator.socket_path))
    sessions = session_pool(conf)
    try:
        key = PoolKey(sessions, CurrentPool(sessions, pool.coordinator.inventory_path))
        found = [key.private(), key.previous()]
        return [keypair.public_line(one) for one in found if one is not None]
    finally:
        sessions.close()


def mortal(pool: Pool, last: int = 0, after: bool = False) -> Mortal:
    session = Mortal.login(pool.coordinator.socket_path, "mortal", 10.0, 10.0)
    assert isinstance(session, Mortal)
    session.last, session.after = last, after
    return session


def life(pool: Pool, work: Any, last: int = 0, after: bool = False) -> int:
    """Work until the end or until death; how many writes it made."""
    session = mortal(pool, last, after)
    try:
        work(session)
    except Died:
        pass
    finally:
        session.logout()
    return session.writes


def old_pair(pool: Pool) -> None:
    life(pool, lambda session: secret.key_pair(session, session.xenapi.pool.get_all()[0], {}, lambda: PAIRS[0]))
    assert usable(pool) == [PAIRS[0].public]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("last", range(1, 10))
def test_a_death_at_the_beginning_loses_no_vm(pool: Pool, last: int, after: bool) -> None:
    """All guests know the old key only."""
    old_pair(pool)
    made = life(pool, begin, last, after)
    assert PAIRS[0].public in usable(pool) and set(usable(pool)) <= {pair.public for pair in PAIRS}
    # The next one brings it to its end, with the same two keys.
    life(pool, begin)
    assert usable(pool) == [PAIRS[1].public, PAIRS[0].public]
    life(pool, begin)
    assert usable(pool) == [PAIRS[1].public, PAIRS[0].public]
    config = pool_config(pool)
    public = pool.record("secret", pool.uuid_to_ref(config[keys.PUBLIC_SECRET], "secret"))["value"]
    assert public == PAIRS[1].public
    life(pool, end)
    assert usable(pool) == [PAIRS[1].public]
    assert PAIRS[0].private not in repr(pool.records("secret"))
    assert made <= last


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("last", range(1, 5))
def test_a_death_at_the_end_loses_no_vm(pool: Pool, last: int, after: bool) -> None:
    """All guests know the new key."""
    old_pair(pool)
    life(pool, begin)
    made = life(pool, end, last, after)
    assert made == last and usable(pool)[0] == PAIRS[1].public
    life(pool, end)
    assert usable(pool) == [PAIRS[1].public]
    config = pool_config(pool)
    assert keys.PREVIOUS_PRIVATE_SECRET not in config and keys.PREVIOUS_PUBLIC_SECRET not in config
    assert PAIRS[0].private not in repr(pool.records("secret"))


def test_the_only_key_is_never_given_up(pool: Pool) -> None:
    old_pair(pool)
    life(pool, begin, 3)
    session = mortal(pool)
    try:
        with pytest.raises(KeyRotationUnfinished):
            end(session)
    finally:
        session.logout()
    assert usable(pool) == [PAIRS[0].public]


def test_two_hosts_at_once_agree(pool: Pool) -> None:
    """One that looked before the other wrote."""
    old_pair(pool)
    life(pool, begin, 6)  # it dies in the moment without a current key
    life(pool, lambda session: rotation.begin(
        session, session.xenapi.pool.get_all()[0], lambda: (life(pool, begin), PAIRS[0])[1], public_of))
    assert usable(pool) == [PAIRS[1].public, PAIRS[0].public]


# --- two clients at once


class Dying(Mortal):
    """A dead process makes no further call."""

    dead = False

    def call(self, method: str, params: "Tuple[Any, ...]") -> Any:
        if self.dead:
            raise Died()
        try:
            return super().call(method, params)
        except Died:
            Dying.dead = True
            raise


def alone(pool: Pool, work: Any, last: int = 0, after: bool = False) -> bool:
    """Work as key_rotate does, until the end or until death; whether it came to its end."""
    Dying.dead = False
    made: List[Dying] = []

    def login() -> Dying:
        session = Dying.login(pool.coordinator.socket_path, "dying", 10.0, 10.0)
        assert isinstance(session, Dying)
        session.last, session.after = last, after
        made.append(session)
        return session

    sessions = SessionPool(login, 1, 10.0)
    (ref,) = pool.records("pool")
    try:
        with lease.held(sessions, ref, keys.ROTATOR, lambda: KeyRotationBusy("Busy."), lambda: KeyRotationBusy("Lost.")
                        ) as held:
            sessions.run(lambda session: work(session, ref, held.check))
        return True
    except Died:
        return False
    finally:
        Dying.dead = False
        for session in made:
            session.last = 0
        sessions.close()


def left_over(pool: Pool) -> List[str]:
    """Secrets of new pairs that the pool does not name."""
    named = set(pool_config(pool).values())
    return [record["uuid"] for record in pool.records("secret").values()
            if rotation.SINCE in record["other_config"] and record["uuid"] not in named]


def time_passes(pool: Pool) -> None:
    """The leases of a dead process have ended."""
    (ref,) = pool.records("pool")
    for key in pool_config(pool):
        if key.startswith(keys.ROTATOR):
            pool.set_key(ref, key, "1", cls="pool")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("last", range(1, 15))
def test_a_death_at_any_write_leaves_the_next_one_all_it_takes(pool: Pool, last: int, after: bool) -> None:
    def begin_alone(session: Session, ref: str, check: Any) -> None:
        rotation.begin(session, ref, lambda: PAIRS[1], public_of, check)

    old_pair(pool)
    died = not alone(pool, begin_alone, last, after)
    time_passes(pool)
    assert PAIRS[0].public in usable(pool)
    assert alone(pool, begin_alone)
    assert usable(pool) == [PAIRS[1].public, PAIRS[0].public] and left_over(pool) == []
    alone(pool, rotation.end, last, after)
    time_passes(pool)
    assert alone(pool, rotation.end)
    assert usable(pool) == [PAIRS[1].public] and left_over(pool) == []
    assert not [key for key in pool_config(pool) if key.startswith(keys.ROTATOR)]
    assert PAIRS[0].private not in repr(pool.records("secret"))
    assert died or last > 8


def test_two_clients_at_once_leave_every_guest_with_the_current_key(world: Fresh) -> None:
    vms = [prepared(world, name) for name in ("one", "two")]
    outcomes: List[str] = []

    def client(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(8):
            arguments = chance.choice([{}, {"finish": "yes"}])
            try:
                world.call(chance.randint(0, 1), "key_rotate", **arguments)
                outcomes.append("done")
            except XapiError as error:
                outcomes.append(error.details[0])

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(outcomes) <= {"done", "KEY_ROTATION_BUSY", "KEY_ROTATION_UNFINISHED"} and "done" in outcomes
    world.told("key_rotate")
    told = world.told("key_rotate", finish="yes")
    assert told["rotating"] is False
    for vm in vms:
        assert lines(vm) == [told["fingerprint"]]
    assert left_over(world.pool) == []
    assert not [key for key in pool_config(world.pool) if key.startswith(keys.ROTATOR)]
