"""The keys that a VM's publication writes into XAPI."""

import threading
import time
from typing import Any, Callable, Dict, List, Optional

import pytest

from tests.pool_fixtures import ORIGINATOR
from tests.waiting import until
from xscontainer import keys
from xscontainer.core.vm_record import VMRecord
from xscontainer.errors import ObjectGone, XapiError, XapiUnavailable
from xscontainer.publish import FORGIVEN_AFTER, SETTLED_AFTER, Publication, wipe
from xscontainer.simulator.xapi import Pool
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
    """A VM, its publication, and an event stream that the test reads with ``hear``."""

    def __init__(self, pool: Pool, sessions: SessionPool, record: Record, **other_config: str) -> None:
        self.pool = pool
        self.clock = Clock()
        self.ref = pool.create_vm("web", other_config={**ON, **other_config})
        self.record = record
        self.uuid = record(self.ref).uuid
        self.publication = Publication(record(self.ref), sessions, self.clock)
        pool.stats.reset()

    def hear(self) -> bool:
        return self.publication.observe(self.record(self.ref))

    def writes(self) -> int:
        """Return the number of write calls since the last call of this method."""
        count = sum(self.pool.stats.calls(method, ORIGINATOR) for method in WRITES)
        self.pool.stats.reset()
        return count

    def shown(self) -> Dict[str, str]:
        return {key: value for key, value in self.pool.other_config(self.ref).items() if key in keys.PUBLISHED}

    def settle(self) -> Any:
        """Observe and settle, as the registry does after an event."""
        return self.publication.settle() if self.hear() else None

    def settle_all(self) -> int:
        """Settle until nothing is due, moving the clock as requested; return the number of writes."""
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


def test_the_documents_and_their_owner_are_written(scene: Scene) -> None:
    assert scene.publication.show(DOCUMENTS)
    assert scene.shown() == DOCUMENTS
    assert scene.pool.other_config(scene.ref)[keys.OWNER] == scene.uuid
    assert scene.writes() == 4


def test_only_changes_are_written(scene: Scene) -> None:
    scene.publication.show(DOCUMENTS)
    scene.writes()
    assert not scene.publication.show(dict(DOCUMENTS))
    assert scene.writes() == 0
    assert scene.publication.show({**DOCUMENTS, keys.PS: "<docker_ps><item/></docker_ps>"})
    assert scene.writes() == 2
    assert scene.settle_all() == 0


def test_values_that_xapi_already_holds_are_not_written(pool: Pool, sessions: SessionPool, record: Record) -> None:
    """A restart of the service changes nothing."""
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


def test_keys_of_other_clients_are_kept(scene: Scene) -> None:
    """Another client writes 500 keys while the list keeps changing."""
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


# --- changes by other clients


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
    scene.publication.observe(before)  # read before our write, delivered after it
    again = scene.publication.settle()
    assert again is not None and 0 < again <= SETTLED_AFTER and scene.writes() == 0
    assert scene.settle() is None and scene.writes() == 0


def test_the_event_that_shows_our_last_write_leaves_nothing_to_settle(scene: Scene) -> None:
    before = scene.record(scene.ref)
    scene.publication.show(DOCUMENTS)
    assert scene.publication.observe(before)
    assert not scene.hear()
    scene.pool.remove_key(scene.ref, keys.PS)
    assert scene.hear()


def test_a_write_that_xapi_has_lost_is_repeated(scene: Scene) -> None:
    scene.publication.show(DOCUMENTS)
    assert scene.settle() is None
    # XAPI was killed and started again: the new stream shows the older state.
    for key in (*DOCUMENTS, keys.OWNER):
        scene.pool.remove_key(scene.ref, key)
    assert scene.settle_all() > 0
    assert scene.shown() == DOCUMENTS and scene.pool.other_config(scene.ref)[keys.OWNER] == scene.uuid


def test_a_list_that_keeps_changing_does_not_delay_the_repair_of_other_keys(scene: Scene) -> None:
    scene.publication.show(DOCUMENTS)
    scene.clock.now += 60
    scene.pool.remove_key(scene.ref, keys.INFO)
    for number in range(5):
        scene.publication.show({**DOCUMENTS, keys.PS: f"<docker_ps>{number}</docker_ps>"})
        scene.clock.now += 0.5
        scene.settle()
    assert scene.shown()[keys.INFO] == DOCUMENTS[keys.INFO]


def test_a_client_that_keeps_overwriting_a_key_causes_few_repairs(scene: Scene) -> None:
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
    # After a quiet time a change is repaired immediately again.
    scene.clock.now += 3 * FORGIVEN_AFTER
    scene.settle_all()
    scene.clock.now += 3 * FORGIVEN_AFTER
    scene.pool.set_key(scene.ref, keys.PS, "<mine/>")
    scene.settle()
    assert scene.shown() == DOCUMENTS


def test_a_key_that_was_never_shown_is_not_repaired(pool: Pool, sessions: SessionPool, record: Record) -> None:
    scene = Scene(pool, sessions, record, docker_ps="<of before/>")
    assert scene.settle() is None and scene.writes() == 0


# --- failures of XAPI


def test_a_failed_write_is_repeated(scene: Scene) -> None:
    scene.pool.faults("VM.add_to_other_config", "error-500", times=1)
    with pytest.raises(XapiUnavailable):
        scene.publication.show(DOCUMENTS)
    assert scene.settle() is not None
    assert scene.shown() == DOCUMENTS
    assert scene.settle_all() == 0


@pytest.mark.parametrize("fault", ["drop", "drop-after", "error-500"])
@pytest.mark.parametrize("method", WRITES)
def test_a_write_is_completed_after_its_answer_was_lost(scene: Scene, fault: str, method: str) -> None:
    scene.publication.show(DOCUMENTS)
    for number in range(3):
        documents = {**DOCUMENTS, keys.PS: f"<docker_ps>{number}</docker_ps>"}
        scene.pool.faults(method, fault, times=1)
        try:
            scene.publication.show(documents)
        except XapiUnavailable:
            scene.settle_all()
        assert scene.shown() == documents


def test_a_restart_of_xapi_between_two_writes_is_no_error(scene: Scene) -> None:
    scene.publication.show(DOCUMENTS)
    scene.pool.coordinator.restart()
    scene.publication.show({**DOCUMENTS, keys.PS: "<docker_ps>2</docker_ps>"})
    assert scene.shown()[keys.PS] == "<docker_ps>2</docker_ps>"


def test_no_other_thread_waits_while_xapi_hangs(pool: Pool, make_sessions: Callable[..., SessionPool],
                                                record: Record) -> None:
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
    # Closed during the first write: the later writes are not sent.
    assert scene.shown() == {}


def test_a_destroyed_vm_is_no_error(scene: Scene) -> None:
    scene.pool.db.destroy(scene.pool.db.find("VM", scene.ref))
    scene.publication.show(DOCUMENTS)
    with pytest.raises(ObjectGone):
        scene.publication._sessions.run(lambda session: session.xenapi.VM.get_record(scene.ref))


def test_a_list_is_written_to_the_new_ref_after_a_pool_join(scene: Scene) -> None:
    scene.publication.show(DOCUMENTS)
    scene.pool.rejoin()
    changed = {**DOCUMENTS, keys.PS: "<docker_ps>2</docker_ps>"}
    scene.publication.show(changed)  # to a ref that no longer exists
    scene.ref = scene.pool.uuid_to_ref(scene.uuid)
    scene.settle_all()
    assert scene.shown() == changed


# --- close and wipe


def test_a_closed_publication_writes_nothing(scene: Scene) -> None:
    scene.publication.show(DOCUMENTS)
    scene.publication.close()
    scene.writes()
    assert not scene.publication.show({keys.PS: "<docker_ps>2</docker_ps>"})
    scene.pool.remove_key(scene.ref, keys.PS)
    scene.clock.now += 60
    assert scene.settle() is None
    assert scene.writes() == 0


def test_wipe_removes_keys_that_no_event_has_shown_yet(scene: Scene) -> None:
    vm = scene.record(scene.ref)
    scene.publication.show(DOCUMENTS)
    scene.publication.wipe(vm)
    assert scene.shown() == {}
    assert scene.pool.other_config(scene.ref)["xscontainer-monitor"] == "True"
    assert not scene.publication.show(DOCUMENTS)


def test_wipe_removes_a_key_that_may_have_been_written(
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


def test_a_wipe_waits_for_a_running_write(scene: Scene) -> None:
    vm = scene.record(scene.ref)
    scene.pool.faults("VM.add_to_other_config", "delay", times=1, seconds=0.3)
    thread = threading.Thread(target=scene.publication.show, args=(DOCUMENTS,))
    thread.start()
    until(lambda: not scene.publication._keys[keys.OWNER].sure)
    scene.publication.wipe(vm)
    thread.join()
    assert scene.shown() == {}


def test_a_wipe_stops_waiting_for_a_write_after_a_time(pool: Pool, make_sessions: Callable[..., SessionPool],
                                                       record: Record) -> None:
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


def test_wipe_works_for_a_vm_without_a_monitor(pool: Pool, sessions: SessionPool, record: Record) -> None:
    scene = Scene(pool, sessions, record, docker_ps="<docker_ps/>", **{keys.HOST_KEY: "AAAA"})
    wipe(sessions, record(scene.ref))
    assert scene.shown() == {} and keys.HOST_KEY in pool.other_config(scene.ref)
    assert scene.writes() == 1
    wipe(sessions, record(scene.ref))
    assert scene.writes() == 0
    gone = record(scene.ref)._replace(ref="OpaqueRef:gone", other_config={keys.PS: "x"})
    wipe(sessions, gone)


# --- a VM moves from one host to another


@pytest.mark.parametrize("old_is", ["quiet", "writing", "late"])
def test_the_list_of_the_new_host_is_kept(
        pool: Pool, make_sessions: Callable[..., SessionPool], record: Record, old_is: str) -> None:
    """The old host writes and wipes nothing after the move.

    The new host repairs a write of the old one that was already running.
    """
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


# --- inherited keys of a clone


def clone_of(pool: Pool, **other_config: str) -> str:
    """Create a VM that has inherited the keys of another one; return its ref."""
    carried = {**ON, keys.OWNER: "00000000-0000-0000-0000-000000000001", keys.PS: "<docker_ps>of another</docker_ps>",
               keys.HOST_KEY: "AAAA", keys.USERNAME: "core", **other_config}
    return pool.create_vm("clone", other_config=carried)


def test_inherited_keys_are_removed_and_settings_are_kept(pool: Pool, sessions: SessionPool, record: Record) -> None:
    ref = clone_of(pool)
    carried = record(ref)
    adopted = sessions.run(lambda session: xapi_vm.adopt(session, carried))
    left = {key: value for key, value in pool.other_config(ref).items() if key != "mac_seed"}
    assert left == {**ON, keys.OWNER: carried.uuid, keys.USERNAME: "core"}
    assert adopted == record(ref) and adopted.is_owner


def test_keys_of_the_vm_itself_are_kept(pool: Pool, sessions: SessionPool, record: Record) -> None:
    ref = clone_of(pool)
    late = record(ref)
    sessions.run(lambda session: xapi_vm.adopt(session, late))
    pool.set_key(ref, keys.HOST_KEY, "its own")
    # A second call with an older record removes nothing.
    adopted = sessions.run(lambda session: xapi_vm.adopt(session, late))
    assert adopted.other_config[keys.HOST_KEY] == "its own" == pool.other_config(ref)[keys.HOST_KEY]
    pool.stats.reset()
    sessions.run(lambda session: xapi_vm.adopt(session, adopted))
    assert pool.stats.calls() == 0


def test_keys_without_an_owner_are_kept(pool: Pool, sessions: SessionPool, record: Record) -> None:
    ref = pool.create_vm("old", other_config={**ON, keys.PS: "<docker_ps/>", keys.HOST_KEY: "AAAA"})
    assert sessions.run(lambda session: xapi_vm.adopt(session, record(ref))).other_config[keys.HOST_KEY] == "AAAA"


def test_a_clone_does_not_keep_the_address_of_its_original(pool: Pool, sessions: SessionPool, record: Record) -> None:
    """Otherwise the clone would list and control the containers of its original."""
    original = pool.create_vm("original", other_config={keys.ADDRESS: "192.0.2.7"})
    owner = {keys.OWNER: record(original).uuid}

    def adopted(address: str) -> "Optional[str]":
        ref = clone_of(pool, **{keys.ADDRESS: address}, **owner)
        left = sessions.run(lambda session: xapi_vm.adopt(session, record(ref))).other_config
        assert left == record(ref).other_config
        return left.get(keys.ADDRESS)

    assert adopted("192.0.2.7") is None
    assert adopted("192.0.2.8") == "192.0.2.8"
    # The clone has replaced its original.
    sessions.run(lambda session: session.xenapi.VM.hard_shutdown(original))
    assert adopted("192.0.2.7") == "192.0.2.7"
    sessions.run(lambda session: session.xenapi.VM.destroy(original))
    assert adopted("192.0.2.7") == "192.0.2.7"


def test_an_addition_that_fails_after_the_removal_is_repaired_at_once(scene: Scene) -> None:
    scene.publication.show(DOCUMENTS)
    scene.pool.faults("VM.add_to_other_config", "fail", times=1, description=["INTERNAL_ERROR", "out of luck"])
    assert scene.publication.show({**DOCUMENTS, keys.PS: "<docker_ps>1</docker_ps>"})
    assert scene.shown()[keys.PS] == "<docker_ps>1</docker_ps>"


def test_a_list_that_is_too_long_for_xapi_keeps_the_former_list(scene: Scene) -> None:
    scene.publication.show(DOCUMENTS)
    with pytest.raises(XapiError):
        scene.publication.show({**DOCUMENTS, keys.PS: "x" * 400000})
    assert scene.shown() == DOCUMENTS


def test_a_first_list_is_written_without_waking_the_clients(pool: Pool, sessions: SessionPool, record: Record) -> None:
    """The first write of a key removes nothing that a client could miss."""
    waits: List[str] = []
    ref = pool.create_vm("web", other_config=ON)
    publication = Publication(record(ref), sessions, before=lambda: waits.append("before"))
    publication.show(DOCUMENTS)
    assert not waits
    publication.show({**DOCUMENTS, keys.PS: "<docker_ps>1</docker_ps>"})
    assert waits == ["before"]
