"""What is written of a VM into XAPI, and what is not."""

import threading
import time
from typing import Any, Callable, Dict, List, Optional

import pytest

from tests.waiting import until
from tests.watch.conftest import ORIGINATOR
from xscontainer import keys
from xscontainer.errors import ObjectGone, XapiError, XapiUnavailable
from xscontainer.publish import FORGIVEN_AFTER, SETTLED_AFTER, Publication, wipe
from xscontainer.simulator.xapi import Pool
from xscontainer.vmrecord import VMRecord
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import SessionPool

ON = {"xscontainer-monitor": "True"}
DOCUMENTS = {keys.PS: "<docker_ps/>", keys.INFO: "<docker_info/>", keys.VERSION: "<docker_version/>"}
WRITES = ("VM.add_to_other_config", "VM.remove_from_other_config")

Record = Callable[[str], VMRecord]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Scene:
    """A VM, its publication, and an event stream that is heard when a test says so."""

    def __init__(self, pool: Pool, sessions: SessionPool, record: Record, **other_config: str) -> None:
        self.pool = pool
        self.clock = Clock()
        self.ref = pool.create_vm("web", other_config={**ON, **other_config})
        self.record = record
        self.uuid = record(self.ref).uuid
        self.publication = Publication(record(self.ref), sessions, self.clock)
        pool.stats.reset()

    def hear(self) -> None:
        self.publication.observe(self.record(self.ref))

    def writes(self) -> int:
        """How many write calls there were since the last time."""
        count = sum(self.pool.stats.calls(method, ORIGINATOR) for method in WRITES)
        self.pool.stats.reset()
        return count

    def shown(self) -> Dict[str, str]:
        return {key: value for key, value in self.pool.other_config(self.ref).items() if key in keys.PUBLISHED}

    def settle(self) -> Any:
        """As the registry does after an event."""
        self.hear()
        return self.publication.settle()

    def settle_all(self) -> int:
        """Until nothing more is due, time passing as asked; returns the number of writes."""
        count = 0
        again = self.settle()
        while again is not None:
            self.clock.now += again
            again = self.settle()
            count += self.writes()
        return count


@pytest.fixture
def scene(pool: Pool, sessions: SessionPool, record: Record) -> Scene:
    return Scene(pool, sessions, record)


def test_all_of_it_and_whose_it_is(scene: Scene) -> None:
    assert scene.publication.show(DOCUMENTS)
    assert scene.shown() == DOCUMENTS
    assert scene.pool.other_config(scene.ref)[keys.OWNER] == scene.uuid
    assert scene.writes() == 4


def test_only_on_change(scene: Scene) -> None:
    scene.publication.show(DOCUMENTS)
    scene.writes()
    assert not scene.publication.show(dict(DOCUMENTS))
    assert scene.writes() == 0
    assert scene.publication.show({**DOCUMENTS, keys.PS: "<docker_ps><item/></docker_ps>"})
    assert scene.writes() == 2
    assert scene.settle_all() == 0


def test_what_xapi_holds_already_is_not_written(pool: Pool, sessions: SessionPool, record: Record) -> None:
    """After a restart of the service nothing has changed."""
    before = Scene(pool, sessions, record)
    before.publication.show(DOCUMENTS)
    again = Publication(record(before.ref), sessions)
    pool.stats.reset()
    assert not again.show(DOCUMENTS)
    assert before.writes() == 0


def test_a_failure_replaces_the_list_and_is_replaced(scene: Scene) -> None:
    scene.publication.show(DOCUMENTS)
    scene.publication.show({keys.STATUS: "{}"})
    assert scene.shown() == {keys.STATUS: "{}"}
    scene.publication.show(DOCUMENTS)
    assert scene.shown() == DOCUMENTS


def test_foreign_keys_survive(scene: Scene) -> None:
    """500 keys of another client, none lost, while the list changes all the time."""
    failed: List[XapiError] = []

    def write() -> None:
        try:
            with scene.publication._sessions.lease() as session:
                for number in range(500):
                    xapi_vm.put_key(session, scene.ref, "theirs", str(number), present=number > 0)
                    session.xenapi.VM.add_to_other_config(scene.ref, f"their-{number}", str(number))
        except XapiError as exc:
            failed.append(exc)

    thread = threading.Thread(target=write)
    thread.start()
    number = 0
    while thread.is_alive():
        number += 1
        scene.publication.show({keys.PS: f"<docker_ps>{number}</docker_ps>"})
    thread.join()
    assert not failed and number > 10
    config = scene.pool.other_config(scene.ref)
    assert sum(key.startswith("their-") for key in config) == 500 and config["theirs"] == "499"
    assert scene.shown() == {keys.PS: f"<docker_ps>{number}</docker_ps>"}


# --- what somebody else does to it


def test_a_foreign_change_is_repaired_at_once(scene: Scene) -> None:
    scene.publication.show(DOCUMENTS)
    scene.clock.now += 60
    assert scene.settle() is None
    scene.pool.set_key(scene.ref, keys.PS, "<mine/>")
    scene.pool.remove_key(scene.ref, keys.INFO)
    scene.settle()
    assert scene.shown() == DOCUMENTS


def test_an_event_from_before_our_write_is_no_foreign_change(scene: Scene) -> None:
    scene.publication.show(DOCUMENTS)
    before = scene.record(scene.ref)
    scene.publication.show({**DOCUMENTS, keys.PS: "<docker_ps>2</docker_ps>"})
    scene.writes()
    scene.publication.observe(before)  # polled before, delivered after
    again = scene.publication.settle()
    assert again is not None and 0 < again <= SETTLED_AFTER and scene.writes() == 0
    assert scene.settle() is None and scene.writes() == 0


def test_an_xapi_that_forgot_our_write(scene: Scene) -> None:
    scene.publication.show(DOCUMENTS)
    assert scene.settle() is None
    # Killed and started again: the stream begins anew, and shows what was there before.
    for key in (*DOCUMENTS, keys.OWNER):
        scene.pool.remove_key(scene.ref, key)
    assert scene.settle_all() > 0
    assert scene.shown() == DOCUMENTS and scene.pool.other_config(scene.ref)[keys.OWNER] == scene.uuid


def test_a_busy_list_does_not_keep_the_others_from_repair(scene: Scene) -> None:
    scene.publication.show(DOCUMENTS)
    scene.clock.now += 60
    scene.pool.remove_key(scene.ref, keys.INFO)
    for number in range(5):
        scene.publication.show({**DOCUMENTS, keys.PS: f"<docker_ps>{number}</docker_ps>"})
        scene.clock.now += 0.5
        scene.settle()
    assert scene.shown()[keys.INFO] == DOCUMENTS[keys.INFO]


def test_somebody_who_insists_makes_no_storm(scene: Scene) -> None:
    scene.publication.show(DOCUMENTS)
    scene.clock.now += 60
    scene.writes()
    repairs, until_time = 0, scene.clock.now + 3600
    while scene.clock.now < until_time:
        scene.pool.set_key(scene.ref, keys.PS, "<mine/>")
        again = scene.settle()
        repairs += scene.writes() > 0
        scene.clock.now += 0.5 if again is None else min(again, 0.5)
    assert 1 <= repairs <= 20
    # And is forgiven after a quiet time.
    scene.clock.now += 3 * FORGIVEN_AFTER
    scene.settle_all()
    scene.clock.now += 3 * FORGIVEN_AFTER
    scene.pool.set_key(scene.ref, keys.PS, "<mine/>")
    scene.settle()
    assert scene.shown() == DOCUMENTS


def test_nothing_is_due_of_what_was_never_shown(pool: Pool, sessions: SessionPool, record: Record) -> None:
    scene = Scene(pool, sessions, record, docker_ps="<of before/>")
    assert scene.settle() is None and scene.writes() == 0


# --- XAPI in trouble


def test_a_write_that_failed_is_made_good(scene: Scene) -> None:
    scene.pool.faults("VM.add_to_other_config", "error-500", times=1)
    with pytest.raises(XapiUnavailable):
        scene.publication.show(DOCUMENTS)
    assert scene.settle() is not None
    assert scene.shown() == DOCUMENTS
    assert scene.settle_all() == 0


@pytest.mark.parametrize("fault", ["drop", "drop-after", "error-500"])
@pytest.mark.parametrize("method", WRITES)
def test_an_answer_lost_at_any_moment(scene: Scene, fault: str, method: str) -> None:
    scene.publication.show(DOCUMENTS)
    for number in range(3):
        documents = {**DOCUMENTS, keys.PS: f"<docker_ps>{number}</docker_ps>"}
        scene.pool.faults(method, fault, times=1)
        try:
            scene.publication.show(documents)
        except XapiUnavailable:
            scene.settle_all()
        assert scene.shown() == documents


def test_a_restart_of_xapi_between_two_writes(scene: Scene) -> None:
    scene.publication.show(DOCUMENTS)
    scene.pool.coordinator.restart()
    scene.publication.show({**DOCUMENTS, keys.PS: "<docker_ps>2</docker_ps>"})
    assert scene.shown()[keys.PS] == "<docker_ps>2</docker_ps>"


def test_nobody_waits_while_xapi_hangs(pool: Pool, make_sessions: Callable[..., SessionPool], record: Record) -> None:
    scene = Scene(pool, make_sessions(timeout=2.0), record)
    vm = record(scene.ref)
    pool.faults("VM.add_to_other_config", "delay", times=1, seconds=1.0)
    thread = threading.Thread(target=scene.publication.show, args=(DOCUMENTS,))
    thread.start()
    try:
        until(lambda: not scene.publication._keys[keys.OWNER].sure)
        begun = time.monotonic()
        scene.publication.observe(vm)
        assert scene.publication.settle() is not None
        scene.publication.close()
        assert time.monotonic() - begun < 0.8
    finally:
        thread.join()
    # Closed in the middle: at most the call that was under way was heard.
    assert scene.shown() == {}


def test_a_vm_that_is_gone_is_no_trouble(scene: Scene) -> None:
    scene.pool.db.destroy(scene.pool.db.find("VM", scene.ref))
    scene.publication.show(DOCUMENTS)
    with pytest.raises(ObjectGone):
        scene.publication._sessions.run(lambda session: session.xenapi.VM.get_record(scene.ref))


def test_new_refs_after_a_pool_join(scene: Scene) -> None:
    scene.publication.show(DOCUMENTS)
    scene.pool.rejoin()
    changed = {**DOCUMENTS, keys.PS: "<docker_ps>2</docker_ps>"}
    scene.publication.show(changed)  # to a ref that is no more
    scene.ref = scene.pool.uuid_to_ref(scene.uuid)
    scene.settle_all()
    assert scene.shown() == changed


# --- the end


def test_closed_is_closed(scene: Scene) -> None:
    scene.publication.show(DOCUMENTS)
    scene.publication.close()
    scene.writes()
    assert not scene.publication.show({keys.PS: "<docker_ps>2</docker_ps>"})
    scene.pool.remove_key(scene.ref, keys.PS)
    scene.clock.now += 60
    assert scene.settle() is None
    assert scene.writes() == 0


def test_wipe_removes_what_no_event_showed_yet(scene: Scene) -> None:
    vm = scene.record(scene.ref)
    scene.publication.show(DOCUMENTS)
    scene.publication.wipe(vm)
    assert scene.shown() == {}
    assert scene.pool.other_config(scene.ref)["xscontainer-monitor"] == "True"
    assert not scene.publication.show(DOCUMENTS)


def test_wipe_removes_what_may_have_been_written(
        pool: Pool, make_sessions: Callable[..., SessionPool], record: Record) -> None:
    scene = Scene(pool, make_sessions(timeout=0.3), record)
    vm = scene.record(scene.ref)
    scene.publication.show({keys.INFO: "<docker_info/>"})
    pool.faults("VM.add_to_other_config", "delay", times=1, seconds=0.5)
    with pytest.raises(XapiUnavailable):
        scene.publication.show(DOCUMENTS)
    until(lambda: keys.PS in scene.shown())
    scene.publication.wipe(vm)
    assert scene.shown() == {}


def test_a_wipe_waits_for_the_write_that_is_under_way(scene: Scene) -> None:
    vm = scene.record(scene.ref)
    scene.pool.faults("VM.add_to_other_config", "delay", times=1, seconds=0.3)
    thread = threading.Thread(target=scene.publication.show, args=(DOCUMENTS,))
    thread.start()
    until(lambda: not scene.publication._keys[keys.OWNER].sure)
    scene.publication.wipe(vm)
    thread.join()
    assert scene.shown() == {}


def test_a_wipe_does_not_wait_for_ever(pool: Pool, make_sessions: Callable[..., SessionPool], record: Record) -> None:
    scene = Scene(pool, make_sessions(timeout=5.0), record)
    pool.faults("VM.add_to_other_config", "delay", times=1, seconds=1.5)
    thread = threading.Thread(target=scene.publication.show, args=(DOCUMENTS,))
    thread.start()
    try:
        until(lambda: not scene.publication._keys[keys.OWNER].sure)
        with pytest.raises(XapiUnavailable):
            scene.publication.wipe(record(scene.ref))
    finally:
        thread.join()
    scene.publication.wipe(record(scene.ref))
    assert scene.shown() == {}


def test_wipe_of_a_vm_that_nobody_monitors(pool: Pool, sessions: SessionPool, record: Record) -> None:
    scene = Scene(pool, sessions, record, docker_ps="<docker_ps/>", **{keys.HOST_KEY: "AAAA"})
    wipe(sessions, record(scene.ref))
    assert scene.shown() == {} and keys.HOST_KEY in pool.other_config(scene.ref)
    assert scene.writes() == 1
    wipe(sessions, record(scene.ref))
    assert scene.writes() == 0
    gone = record(scene.ref)._replace(ref="OpaqueRef:gone", other_config={keys.PS: "x"})
    wipe(sessions, gone)


# --- a hand-over from one host to another


@pytest.mark.parametrize("old_is", ["quiet", "writing", "late"])
def test_the_new_hosts_list_stands(
        pool: Pool, make_sessions: Callable[..., SessionPool], record: Record, old_is: str) -> None:
    """Whatever the old host still does: it writes nothing it begins after the hand-over, wipes nothing,
    and what was on its way is set right by the new one."""
    scene = Scene(pool, make_sessions(pool.hosts[1]), record)
    scene.publication.show(DOCUMENTS)
    scene.hear()
    thread = None
    if old_is != "quiet":
        pool.faults("VM.remove_from_other_config" if old_is == "writing" else "VM.add_to_other_config", "delay",
                    times=1, seconds=1.0)
        old = {**DOCUMENTS, keys.PS: "<docker_ps>old</docker_ps>"}
        thread = threading.Thread(target=scene.publication.show, args=(old,))
        thread.start()
        until(lambda: not scene.publication._keys[keys.PS].sure)
    begun = time.monotonic()
    scene.publication.close()  # the VM is resident on the other host now
    assert time.monotonic() - begun < 0.7
    new, clock = Publication(record(scene.ref), make_sessions(pool.hosts[0]), scene.clock), scene.clock
    wanted = {**DOCUMENTS, keys.PS: "<docker_ps>new</docker_ps>"}
    new.show(wanted)
    if thread is not None:
        thread.join()
    assert not scene.publication.show(DOCUMENTS)
    for _ in range(5):
        new.observe(record(scene.ref))
        new.settle()
        clock.now += 2.0
    assert scene.shown() == wanted


# --- what a clone carries in


def clone_of(pool: Pool, **other_config: str) -> str:
    """A VM with the keys of another."""
    carried = {**ON, keys.OWNER: "00000000-0000-0000-0000-000000000001", keys.PS: "<docker_ps>of another</docker_ps>",
               keys.HOST_KEY: "AAAA", keys.USERNAME: "core", **other_config}
    return pool.create_vm("clone", other_config=carried)


def test_what_was_carried_in_goes_and_settings_stay(pool: Pool, sessions: SessionPool, record: Record) -> None:
    ref = clone_of(pool)
    carried = record(ref)
    adopted = sessions.run(lambda session: xapi_vm.adopt(session, carried))
    left = {key: value for key, value in pool.other_config(ref).items() if key != "mac_seed"}
    assert left == {**ON, keys.OWNER: carried.uuid, keys.USERNAME: "core"}
    assert adopted == record(ref) and adopted.is_owner


def test_what_is_the_vms_own_stays(pool: Pool, sessions: SessionPool, record: Record) -> None:
    ref = clone_of(pool)
    late = record(ref)
    sessions.run(lambda session: xapi_vm.adopt(session, late))
    pool.set_key(ref, keys.HOST_KEY, "its own")
    # Asked again with what an event showed before: nothing is lost.
    adopted = sessions.run(lambda session: xapi_vm.adopt(session, late))
    assert adopted.other_config[keys.HOST_KEY] == "its own" == pool.other_config(ref)[keys.HOST_KEY]
    pool.stats.reset()
    sessions.run(lambda session: xapi_vm.adopt(session, adopted))
    assert pool.stats.calls() == 0


def test_a_vm_that_the_original_registered_is_believed(pool: Pool, sessions: SessionPool, record: Record) -> None:
    ref = pool.create_vm("old", other_config={**ON, keys.PS: "<docker_ps/>", keys.HOST_KEY: "AAAA"})
    assert sessions.run(lambda session: xapi_vm.adopt(session, record(ref))).other_config[keys.HOST_KEY] == "AAAA"


def test_the_address_of_the_original_is_not_the_clones(pool: Pool, sessions: SessionPool, record: Record) -> None:
    """Else the clone would show, and steer, the containers of the VM that it was made from."""
    original = pool.create_vm("original", other_config={keys.ADDRESS: "192.0.2.7"})
    owner = {keys.OWNER: record(original).uuid}

    def adopted(address: str) -> "Optional[str]":
        ref = clone_of(pool, **{keys.ADDRESS: address}, **owner)
        left = sessions.run(lambda session: xapi_vm.adopt(session, record(ref))).other_config
        assert left == record(ref).other_config
        return left.get(keys.ADDRESS)

    assert adopted("192.0.2.7") is None
    assert adopted("192.0.2.8") == "192.0.2.8"
    # One that has taken the original's place.
    sessions.run(lambda session: session.xenapi.VM.hard_shutdown(original))
    assert adopted("192.0.2.7") == "192.0.2.7"
    sessions.run(lambda session: session.xenapi.VM.destroy(original))
    assert adopted("192.0.2.7") == "192.0.2.7"
