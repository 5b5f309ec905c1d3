"""The pool is followed by XAPI's events, without polling, through restarts of XAPI."""

import select
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest

from tests.cli.place import container, docker_ps
from tests.waiting import until
from xscontainer import keys
from xscontainer.cli.listing.live import EventLost, Follower, PoolState, Seen
from xscontainer.clients import inventory
from xscontainer.errors import XapiError
from xscontainer.simulator.xapi import Pool
from xscontainer.xapi.inventory import read
from xscontainer.xapi.session import Session


def snapshot(name: str, **fields: Any) -> Dict[str, Any]:
    return dict({"uuid": f"uuid-{name}", "name_label": name, "power_state": "Running", "resident_on": "host",
                 "other_config": {keys.MONITOR: "True"}}, **fields)


def event(kind: str, ref: str, operation: str = "mod", **fields: Any) -> Dict[str, Any]:
    return {"class": kind, "ref": ref, "operation": operation, "snapshot": fields.get("snapshot")}


def answer(*events: Dict[str, Any], count: int = 0) -> Dict[str, Any]:
    return {"events": list(events), "token": "t", "valid_ref_counts": {"vm": count} if count else {}}


@pytest.fixture
def state() -> PoolState:
    made = PoolState(False)
    made.restart(answer(
        event("pool", "pool", snapshot={"uuid": "p", "name_label": "pool", "master": "host"}),
        event("host", "host", snapshot={"uuid": "h", "name_label": "host1", "address": "10.0.0.1"}),
        event("vm", "a", "add", snapshot=snapshot("a")),
        event("vm", "t", "add", snapshot=snapshot("t", is_a_template=True)),
        event("vm", "off", "add", snapshot=snapshot("off", resident_on="OpaqueRef:NULL", power_state="Halted"))))
    return made


def names(state: PoolState) -> List[str]:
    return [vm.name for _, vm in inventory.every_vm_of(state.pool())]


def test_the_first_answer_names_everything(state: PoolState) -> None:
    found = state.pool()
    assert (found.name, found.hosts[0].name, found.hosts[0].is_coordinator) == ("pool", "host1", True)
    assert [vm.name for vm in found.hosts[0].vms] == ["a"] and [vm.name for vm in found.vms] == ["off"]


def test_a_change_that_is_not_shown_is_no_change(state: PoolState) -> None:
    """XAPI tells of every field of a VM, and of its memory target twice a second."""
    assert not state.take(answer(event("vm", "a", snapshot=snapshot("a", allowed_operations=["start"], domid=7))))
    assert not state.take(answer(event("vm", "a", snapshot=snapshot("a", other_config={keys.MONITOR: "True",
                                                                                       "theirs": "x"}))))
    assert not state.take(answer(event("vm", "t", snapshot=snapshot("t", is_a_template=True, name_label="u"))))
    assert not state.take(answer(event("host", "host", snapshot={
        "uuid": "h", "name_label": "host1", "address": "10.0.0.1", "memory": 1})))


def test_a_new_name_host_or_list_is_a_change(state: PoolState) -> None:
    assert state.take(answer(event("vm", "a", snapshot=snapshot("b"))))
    assert names(state) == ["b", "off"]
    assert state.take(answer(event("vm", "a", snapshot=snapshot("b", resident_on="OpaqueRef:NULL"))))
    assert state.pool().hosts[0].vms == ()
    assert state.take(answer(event("host", "host", snapshot={
        "uuid": "h", "name_label": "renamed", "address": "10.0.0.1"})))
    assert state.pool().hosts[0].name == "renamed"


def test_a_vm_that_is_gone_or_became_a_template_is_not_shown(state: PoolState) -> None:
    assert state.take(answer(event("vm", "a", "del")))
    assert state.take(answer(event("vm", "off", snapshot=snapshot("off", is_a_template=True))))
    assert names(state) == []
    assert not state.take(answer(event("vm", "a", "del")))


@pytest.mark.parametrize("bad", [{}, {"uuid": 5}, {"uuid": "u", "other_config": {keys.PS: 5}}])
def test_a_malformed_record_hides_its_own_vm_alone(state: PoolState, bad: Dict[str, Any]) -> None:
    assert state.take(answer(event("vm", "a", snapshot=bad)))
    assert names(state) == ["off"]


def test_a_missed_deletion_is_noticed_when_the_count_is_wrong_twice(state: PoolState) -> None:
    assert not state.take(answer(count=2))
    with pytest.raises(EventLost):
        state.take(answer(count=2))
    state.restart(answer(event("vm", "a", "add", snapshot=snapshot("a")), count=1))
    assert not state.take(answer(count=1))


def test_a_list_that_is_removed_without_a_reason_may_be_replaced(state: PoolState) -> None:
    def changed(**config: str) -> None:
        state.take(answer(event("vm", "a", snapshot=snapshot("a", other_config={keys.MONITOR: "True", **config}))))

    changed(**{keys.PS: "<docker_ps/>"})
    assert state.gaps == set()
    changed()
    assert state.gaps == {"a"}
    changed(**{keys.PS: "<docker_ps/>"})
    assert state.gaps == set()
    changed(**{keys.STATUS: "{}"})
    assert state.gaps == set()


def test_every_vm_is_shown_if_asked_for() -> None:
    state = PoolState(True)
    state.restart(answer(event("vm", "x", "add", snapshot=snapshot("x", other_config={}))))
    assert names(state) == ["x"]


# --- with XAPI


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    with Pool(str(tmp_path / "p"), hosts=2, tcp=False) as made:
        made.create_vm("web", host=made.hosts[0], other_config={
            keys.MONITOR: "True", keys.PS: docker_ps(container("nginx"))})
        yield made


@pytest.fixture
def follower(pool: Pool) -> Iterator[Follower]:
    with Follower(login(pool), False) as made:
        yield made


def login(pool: Pool) -> Callable[[], Session]:
    return lambda: Session.login(pool.hosts[0].socket_path, "watcher", 10.0, 1.0)


def next_seen(follower: Follower, matches: Callable[[Seen], bool]) -> Seen:
    """Return the first matching state; every wait is for the descriptor, as in the command."""
    seen = follower.seen()
    while not matches(seen):
        assert select.select([follower], [], [], 10)[0], "no new state in 10 s"
        seen = follower.seen()
    return seen


def containers(found: inventory.Pool) -> List[str]:
    return [each.name for _, vm in inventory.every_vm_of(found) for each in vm.containers]


def test_the_first_state_is_what_a_reading_returns(pool: Pool, follower: Follower) -> None:
    session = login(pool)()
    assert follower.seen() == Seen(read(session), "")
    session.logout()


def test_a_change_wakes_the_reader_and_nothing_polls(pool: Pool, follower: Follower) -> None:
    follower.seen()
    pool.stats.reset()
    assert not select.select([follower], [], [], 0.3)[0]
    assert pool.stats.by_method("watcher") == {}
    (ref,) = [ref for ref, vm in pool.records("VM").items() if vm["name_label"] == "web"]
    pool.set_key(ref, keys.PS, docker_ps(container("nginx"), container("php")))
    next_seen(follower, lambda seen: containers(seen.pool) == ["nginx", "php"])
    assert set(pool.stats.by_method("watcher")) <= {"event.from"}


def test_a_list_that_is_being_replaced_is_not_missing_meanwhile(pool: Pool, follower: Follower) -> None:
    (ref,) = [ref for ref, vm in pool.records("VM").items() if vm["name_label"] == "web"]
    seen: List[List[str]] = []
    for number in range(20):
        pool.remove_key(ref, keys.PS)
        time.sleep(0.01)  # the time between the two calls of XAPI
        pool.set_key(ref, keys.PS, docker_ps(container("nginx"), container(f"c{number}")))

        def shows(now: Seen, name: str = f"c{number}") -> bool:
            seen.append(containers(now.pool))
            return name in seen[-1]

        next_seen(follower, shows)
    assert [] not in seen


def test_a_list_that_stays_away_is_missing_soon(pool: Pool, follower: Follower) -> None:
    (ref,) = [ref for ref, vm in pool.records("VM").items() if vm["name_label"] == "web"]
    pool.remove_key(ref, keys.PS)
    next_seen(follower, lambda seen: containers(seen.pool) == [])


def test_a_restarted_xapi_is_followed_again(pool: Pool, follower: Follower) -> None:
    pool.hosts[0].crash()
    lost = next_seen(follower, lambda seen: bool(seen.trouble))
    assert containers(lost.pool) == ["nginx"] and "did not answer" in lost.trouble
    pool.hosts[0].restart()
    pool.create_vm("new", host=pool.hosts[1], other_config={
        keys.MONITOR: "True", keys.PS: docker_ps(container("redis"))})
    again = next_seen(follower, lambda seen: not seen.trouble and "redis" in containers(seen.pool))
    assert sorted(containers(again.pool)) == ["nginx", "redis"]


def test_a_lost_login_is_replaced(pool: Pool, follower: Follower) -> None:
    pool.hosts[0].restart()  # all sessions end
    pool.create_vm("new", host=pool.hosts[1], other_config={
        keys.MONITOR: "True", keys.PS: docker_ps(container("redis"))})
    next_seen(follower, lambda seen: not seen.trouble and "redis" in containers(seen.pool))


def test_the_session_is_logged_out_at_the_end(pool: Pool) -> None:
    before = len(pool.records("session"))
    with Follower(login(pool), False):
        assert len(pool.records("session")) == before + 1
    until(lambda: len(pool.records("session")) == before)


def test_an_absent_xapi_is_an_error_at_the_beginning(pool: Pool) -> None:
    pool.hosts[0].crash()
    with pytest.raises(XapiError):
        Follower(login(pool), False).__enter__()
