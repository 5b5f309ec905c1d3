"""Tests of the event stream against a pool: after any trouble of xapi the listener knows the pool's VMs."""

import threading
import time
from typing import Any, Callable, Dict, Iterator, List

import pytest

from tests.waiting import until
from xscontainer.core.vm_record import VMRecord
from xscontainer.simulator.xapi import Pool
from xscontainer.xapi.session import Session
from xscontainer.xapi.watch import Batch, Watch

ORIGINATOR = "watch"


class Watcher:
    """A Watch in its thread, and what it told."""

    def __init__(self, host: Any, poll: float = 30.0, margin: float = 5.0) -> None:
        self.known: Dict[str, VMRecord] = {}
        self.batches: List[Batch] = []
        self.lost: List[Exception] = []
        self.prepared = 0
        self.refuse = False
        self.watch = Watch(lambda: Session.login(host.socket_path, ORIGINATOR, poll + margin, 5.0), poll,
                           self._prepare, self._deliver, self.lost.append)
        self.thread = threading.Thread(target=self.watch.run)
        self.thread.start()

    def _prepare(self, session: Session) -> None:
        self.prepared += 1
        if self.refuse:
            raise IndexError("not prepared")
        session.xenapi.pool.get_all()

    def _deliver(self, batch: Batch) -> None:
        for change in batch.changes:
            if change.record is None:
                self.known.pop(change.uuid)
            else:
                self.known[change.uuid] = change.record
        self.batches.append(batch)

    def fulls(self) -> int:
        return sum(batch.full for batch in self.batches)

    def guests(self) -> Dict[str, VMRecord]:
        return {vm.name: vm for vm in list(self.known.values()) if vm.is_guest}

    def stop(self) -> float:
        self.watch.stop()
        took = until(lambda: not self.thread.is_alive())
        self.thread.join()
        return took


@pytest.fixture
def watching(pool: Pool) -> Iterator[Callable[..., Watcher]]:
    made: List[Watcher] = []

    def make(host: Any = None, **settings: float) -> Watcher:
        made.append(Watcher(host or pool.coordinator, **settings))
        watcher = made[-1]
        until(lambda: watcher.fulls() == 1)
        return watcher

    yield make
    for watcher in made:
        watcher.stop()


Watching = Callable[..., Watcher]


def test_a_watch_delivers_all_vms_and_then_changes(pool: Pool, watching: Watching) -> None:
    ref = pool.create_vm("web", networks={"0/ip": "10.0.0.5"})
    watcher = watching()
    assert watcher.guests()["web"].networks == {"0/ip": "10.0.0.5"}
    pool.set_networks(ref, {"0/ip": "10.0.0.6"})
    until(lambda: watcher.guests()["web"].networks == {"0/ip": "10.0.0.6"})
    pool.set_networks(ref, {})
    until(lambda: watcher.guests()["web"].networks == {})
    pool.set_key(ref, "xscontainer-monitor", "True")
    until(lambda: watcher.guests()["web"].other_config == {"xscontainer-monitor": "True"})
    pool.create_vm("late")
    until(lambda: "late" in watcher.guests())
    assert watcher.fulls() == 1 and not watcher.lost


def test_a_change_is_delivered_at_once(pool: Pool, watching: Watching) -> None:
    ref = pool.create_vm("web")
    watcher = watching()
    took = []
    for number in range(20):
        pool.set_key(ref, "xscontainer-username", str(number))
        took.append(until(lambda n=str(number): watcher.guests()["web"].other_config.get(  # type: ignore[misc]
            "xscontainer-username") == n))
    assert sorted(took)[10] < 1.0  # a poll lasts 30 s


def test_an_idle_pool_costs_one_poll_at_a_time(pool: Pool, watching: Watching) -> None:
    watcher = watching(poll=0.2)
    pool.stats.reset()
    until(lambda: pool.stats.calls("event.from") >= 4)
    assert set(pool.stats.by_method(ORIGINATOR)) == {"event.from"}
    assert len(watcher.batches) == 1


@pytest.mark.parametrize("member", [False, True])
def test_a_change_during_a_restart_of_xapi_is_delivered(pool: Pool, watching: Watching, member: bool) -> None:
    ref = pool.create_vm("web")
    watcher = watching(pool.hosts[1] if member else None)
    pool.coordinator.restart()
    pool.set_key(ref, "xscontainer-username", "new")
    took = until(lambda: watcher.guests()["web"].other_config.get("xscontainer-username") == "new")
    assert took < 2.0
    assert watcher.fulls() == 2 and watcher.prepared == 2 and watcher.lost


def test_the_stream_continues_after_an_outage_of_xapi(pool: Pool, watching: Watching) -> None:
    watcher = watching()
    pool.coordinator.crash()
    until(lambda: len(watcher.lost) >= 3)
    pool.create_vm("late")
    pool.coordinator.start()
    assert until(lambda: "late" in watcher.guests()) < 2.0


def test_the_stream_recovers_from_writes_that_xapi_lost(pool: Pool, watching: Watching) -> None:
    """The old token is ahead of XAPI's new counter: only a new subscription is safe."""
    ref = pool.create_vm("web")
    watcher = watching()
    pool.coordinator.crash()
    moment = time.monotonic()
    for number in range(20):
        pool.set_key(ref, "xscontainer-username", str(number))
    pool.coordinator.restart(lose_writes_since=moment)
    pool.set_key(ref, "xscontainer-username", "after")
    until(lambda: watcher.guests()["web"].other_config.get("xscontainer-username") == "after")


def test_an_expired_session_is_replaced(pool: Pool, watching: Watching) -> None:
    watcher = watching()
    pool.sessions.end_of_host(None)
    until(lambda: watcher.fulls() == 2)
    assert watcher.known


def test_a_change_of_coordinator_is_delivered(pool: Pool, watching: Watching) -> None:
    watcher = watching(pool.hosts[1])
    pool.change_coordinator(pool.hosts[1])
    until(lambda: any(batch.pool and batch.pool.coordinator == pool.hosts[1].ref for batch in watcher.batches))


def test_a_pool_join_renews_every_ref(pool: Pool, watching: Watching) -> None:
    pool.create_vm("web")
    watcher = watching()
    before = watcher.guests()["web"]
    pool.rejoin()
    until(lambda: watcher.guests()["web"].ref != before.ref)
    after = watcher.guests()["web"]
    assert after.uuid == before.uuid and after.ref == pool.uuid_to_ref(after.uuid)


def test_a_vm_destroyed_during_an_outage_is_reported_gone(pool: Pool, watching: Watching) -> None:
    ref = pool.create_vm("web")
    watcher = watching()
    pool.coordinator.crash()
    pool.db.destroy(pool.db.find("VM", ref))
    pool.coordinator.start()
    until(lambda: watcher.fulls() == 2)
    assert "web" not in watcher.guests()


def test_a_lost_deletion_is_noticed(pool: Pool, watching: Watching) -> None:
    ref = pool.create_vm("web")
    watcher = watching(poll=0.1)
    with pool.db.lock:
        pool.db.destroy(pool.db.find("VM", ref))
        pool.db.deleted.clear()
    until(lambda: "web" not in watcher.guests())
    assert "counts" in str(watcher.lost[0])


def test_templates_snapshots_and_control_domains_are_not_guests(pool: Pool, watching: Watching) -> None:
    pool.create_vm("web")
    pool.create_vm("template", template=True, power_state="Halted")
    pool.create_vm("snapshot", is_a_snapshot=True, power_state="Halted")
    assert set(watching().guests()) == {"web"}


def test_resync_delivers_all_vms_again(pool: Pool, watching: Watching) -> None:
    pool.create_vm("web")
    watcher = watching(poll=0.1)
    watcher.watch.resync()
    until(lambda: watcher.fulls() == 2)
    assert watcher.prepared == 2 and not watcher.lost
    assert len(watcher.batches[-1].changes) == len(watcher.known)


def test_a_hanging_coordinator_is_left_and_found_again(pool: Pool, watching: Watching) -> None:
    watcher = watching(pool.hosts[1], poll=0.1, margin=0.3)
    pool.set_coordinator_down(True)
    until(lambda: len(watcher.lost) >= 2)
    pool.create_vm("late")
    pool.set_coordinator_down(False)
    until(lambda: "late" in watcher.guests())


@pytest.mark.parametrize("fault", ["error-500", "drop"])
def test_a_failed_poll_starts_a_new_subscription(pool: Pool, watching: Watching, fault: str) -> None:
    watcher = watching(poll=0.1)
    pool.faults("event.from", fault, times=2)
    until(lambda: watcher.fulls() == 2)


def test_no_error_ends_the_stream(pool: Pool, watching: Watching) -> None:
    watcher = watching()
    watcher.refuse = True
    pool.sessions.end_of_host(None)
    until(lambda: any(isinstance(error, IndexError) for error in watcher.lost))
    watcher.refuse = False
    until(lambda: watcher.fulls() == 2)


def test_stop_ends_a_waiting_poll(pool: Pool, watching: Watching) -> None:
    watcher = watching(poll=60.0)
    until(lambda: pool.db.watchers)
    assert watcher.stop() < 5.0
    assert pool.sessions.count(ORIGINATOR) == 0


def test_stop_at_any_moment(pool: Pool) -> None:
    for _ in range(30):
        watcher = Watcher(pool.coordinator, poll=60.0)
        assert watcher.stop() < 5.0
    until(lambda: pool.sessions.count(ORIGINATOR) == 0)


def test_stop_while_xapi_is_away(pool: Pool, watching: Watching) -> None:
    watcher = watching()
    pool.coordinator.crash()
    until(lambda: watcher.lost)
    assert watcher.stop() < 5.0
