"""Tests of the tracker without a stream: XAPI's events are folded, late and incomplete."""

import tracemalloc
from typing import Any, Dict, List, Optional

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xscontainer.core.vm_record import NULL_REF, VMRecord, digest
from xscontainer.xapi.watch import Batch, ResyncNeeded, Tracker

HERE = "OpaqueRef:here"


def vm_snapshot(uuid: str, **fields: Any) -> Dict[str, Any]:
    snapshot: Dict[str, Any] = {
        "uuid": uuid, "name_label": uuid, "power_state": "Running", "resident_on": HERE, "domid": "7",
        "guest_metrics": NULL_REF, "other_config": {}, "is_a_template": False, "is_a_snapshot": False,
        "is_control_domain": False, "memory_target": "1234"}
    snapshot.update(fields)
    return snapshot


def event(name: str, operation: str, ref: str, snapshot: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
    made: Dict[str, Any] = {"id": "1", "timestamp": "0.0", "class": name, "operation": operation, "ref": ref}
    if snapshot is not None:
        made["snapshot"] = snapshot
    return made


def vm(ref: str, operation: str = "mod", **fields: Any) -> Dict[str, Any]:
    return event("vm", operation, ref, vm_snapshot(fields.pop("uuid", f"uuid-{ref}"), **fields))


def metrics(ref: str, operation: str = "mod", **networks: str) -> Dict[str, Any]:
    named = {key.replace("_", "/"): value for key, value in networks.items()}
    return event("vm_guest_metrics", operation, ref, {"networks": named})


def result(*events: Dict[str, Any], count: Optional[int] = None) -> Dict[str, Any]:
    return {"events": list(events), "token": "1,1", "valid_ref_counts": {} if count is None else {"vm": count}}


def told(batch: Batch) -> Dict[str, Optional[VMRecord]]:
    return {change.uuid: change.record for change in batch.changes}


def test_the_first_answer_is_a_full_batch() -> None:
    batch = Tracker().restart(result(vm("a", "add"), vm("b", "add"), count=2))
    assert batch.full and set(told(batch)) == {"uuid-a", "uuid-b"}


def test_a_vm_of_another_host_takes_little_memory() -> None:
    """Every host hears of every VM of the pool, with its whole list."""
    def listed(number: int) -> Dict[str, Any]:
        return vm(f"r{number}", "add", uuid=f"u{number}", other_config={
            "xscontainer-monitor": "True", "docker_ps": f"{number}" * 20000, "docker_info": f"{number}" * 2000})

    tracker = Tracker()
    tracker.restart(result(listed(0)))
    tracemalloc.start()
    try:
        tracker.restart(result(*map(listed, range(100))))
        assert tracemalloc.get_traced_memory()[0] / 100 < 4000
    finally:
        tracemalloc.stop()


def test_a_list_that_changes_is_a_change() -> None:
    tracker = Tracker()
    tracker.restart(result(vm("a", "add", other_config={"docker_ps": "x" * 1000})))
    assert tracker.feed(result(vm("a", other_config={"docker_ps": "x" * 1000}))).changes == []
    assert set(told(tracker.feed(result(vm("a", other_config={"docker_ps": "x" * 999 + "y"}))))) == {"uuid-a"}
    (found,) = told(tracker.feed(result(vm("a", other_config={"docker_ps": "z" * 1000})))).values()
    assert found and found.published == {"docker_ps": digest("z" * 1000)}


def test_changed_host_addresses_are_in_the_batch() -> None:
    tracker = Tracker()
    batch = tracker.restart(result(event("host", "add", "h", {"address": "10.0.0.1"}),
                                   event("pif", "add", "p", {"IP": "10.0.0.1", "IPv6": ["2001:DB8::1/64", ""]})))
    assert batch.host_addresses == frozenset(("10.0.0.1", "2001:db8::1"))
    # A host's record changes with each VM that it starts.
    assert tracker.feed(result(event("host", "mod", "h", {"address": "10.0.0.1"}))).host_addresses is None
    assert tracker.feed(result(event("pif", "mod", "p", {"IP": "10.0.0.2", "IPv6": []}))).host_addresses == frozenset((
        "10.0.0.1", "10.0.0.2"))
    assert tracker.feed(result(event("host", "del", "h"))).host_addresses == frozenset(("10.0.0.2",))


def test_changes_of_unused_fields_are_ignored() -> None:
    tracker = Tracker()
    tracker.restart(result(vm("a", "add", other_config={"folder": "/"})))
    assert tracker.feed(result(vm("a", memory_target="99", other_config={"folder": "/"}))).changes == []
    # Their size counts in steps of 4 KB, since it is room that our documents do not have.
    assert tracker.feed(result(vm("a", other_config={"folder": "/x"}))).changes == []
    assert tracker.feed(result(vm("a", other_config={"folder": "/x" * 4096}))).changes
    assert set(told(tracker.feed(result(vm("a", other_config={"xscontainer-monitor": "True"}))))) == {"uuid-a"}


@pytest.mark.parametrize("order", [0, 1])
def test_addresses_come_from_guest_metrics(order: int) -> None:
    tracker = Tracker()
    events = [vm("a", "add", guest_metrics="m"), metrics("m", "add", **{"0_ip": "10.0.0.5"})]
    batch = tracker.restart(result(*(events if order else events[::-1])))
    record = told(batch)["uuid-a"]
    assert record is not None and record.networks == {"0/ip": "10.0.0.5"}
    assert len(batch.changes) == 1


def test_an_address_appears_changes_and_vanishes() -> None:
    tracker = Tracker()
    tracker.restart(result(vm("a", "add", guest_metrics="m"), metrics("m", "add")))
    seen = []
    for networks in ({"0_ip": "10.0.0.5"}, {"0_ip": "10.0.0.6"}, {}):
        record = told(tracker.feed(result(metrics("m", **networks))))["uuid-a"]
        assert record is not None
        seen.append(record.networks)
    assert seen == [{"0/ip": "10.0.0.5"}, {"0/ip": "10.0.0.6"}, {}]


def test_repeated_guest_metrics_are_no_change() -> None:
    tracker = Tracker()
    tracker.restart(result(vm("a", "add", guest_metrics="m"), metrics("m", "add", **{"0_ip": "10.0.0.5"})))
    assert tracker.feed(result(metrics("m", **{"0_ip": "10.0.0.5"}))).changes == []


def test_a_reboot_brings_new_metrics() -> None:
    tracker = Tracker()
    tracker.restart(result(vm("a", "add", guest_metrics="m1"), metrics("m1", "add", **{"0_ip": "10.0.0.5"})))
    batch = tracker.feed(result(vm("a", guest_metrics=NULL_REF, domid="8"), event("vm_guest_metrics", "del", "m1")))
    record = told(batch)["uuid-a"]
    assert record is not None and record.networks == {} and record.domid == 8
    # The event of the new object may come before that of its VM.
    assert tracker.feed(result(metrics("m2", "add", **{"0_ip": "10.0.0.9"}))).changes == []
    record = told(tracker.feed(result(vm("a", guest_metrics="m2", domid="8"))))["uuid-a"]
    assert record is not None and record.networks == {"0/ip": "10.0.0.9"}
    # The old one says nothing about this VM any more.
    assert tracker.feed(result(metrics("m1", **{"0_ip": "10.0.0.66"}))).changes == []


def test_a_snapshot_that_shares_the_metrics_does_not_take_them_away() -> None:
    tracker = Tracker()
    tracker.restart(result(vm("a", "add", guest_metrics="m"), metrics("m", "add"),
                           vm("snap", "add", guest_metrics="m", is_a_snapshot=True)))
    assert "uuid-a" in told(tracker.feed(result(metrics("m", **{"0_ip": "10.0.0.5"}))))


@pytest.mark.parametrize("kind", ["is_a_template", "is_a_snapshot", "is_control_domain"])
def test_templates_and_snapshots_are_not_guests(kind: str) -> None:
    record = told(Tracker().restart(result(vm("a", "add", **{kind: True}))))["uuid-a"]
    assert record is not None and not record.is_guest


def test_a_vm_that_is_destroyed() -> None:
    tracker = Tracker()
    tracker.restart(result(vm("a", "add"), vm("b", "add"), count=2))
    batch = tracker.feed(result(event("vm", "del", "a"), count=1))
    assert told(batch) == {"uuid-a": None}
    assert tracker.feed(result(event("vm", "del", "never-heard-of"), count=1)).changes == []


def test_a_vm_that_changed_and_was_destroyed_is_gone() -> None:
    tracker = Tracker()
    tracker.restart(result(vm("a", "add")))
    assert told(tracker.feed(result(vm("a", domid="9"), event("vm", "del", "a")))) == {"uuid-a": None}


def test_a_uuid_with_a_new_ref_is_removed_before_it_is_added() -> None:
    tracker = Tracker()
    tracker.restart(result(vm("a", "add", uuid="u")))
    batch = tracker.feed(result(event("vm", "del", "a"), vm("b", "add", uuid="u")))
    assert [change.record is None for change in batch.changes] == [True, False]


def test_a_missed_deletion_is_noticed_by_the_count() -> None:
    tracker = Tracker()
    tracker.restart(result(vm("a", "add"), vm("b", "add"), count=2))
    tracker.feed(result(count=1))  # the deletion may be on its way to us
    with pytest.raises(ResyncNeeded):
        tracker.feed(result(count=1))
    batch = tracker.restart(result(vm("a", "add"), count=1))
    assert told(batch)["uuid-b"] is None


def test_a_single_wrong_count_is_tolerated() -> None:
    tracker = Tracker()
    tracker.restart(result(vm("a", "add"), count=1))
    for _ in range(3):
        tracker.feed(result(count=2))
        tracker.feed(result(count=1))


def test_changes_with_a_wrong_count_are_delivered_after_the_restart() -> None:
    tracker = Tracker()
    tracker.restart(result(vm("a", "add"), vm("b", "add"), vm("c", "add"), count=3))
    tracker.feed(result(count=2))
    with pytest.raises(ResyncNeeded):
        tracker.feed(result(event("vm", "del", "a"), count=1))
    assert told(tracker.restart(result(vm("c", "add"), count=1))) == {
        "uuid-a": None, "uuid-b": None, "uuid-c": VMRecord.from_snapshot("c", vm_snapshot("uuid-c"))}


def test_a_malformed_answer_loses_no_vm() -> None:
    tracker = Tracker()
    tracker.restart(result(vm("a", "add")))
    with pytest.raises(KeyError):
        tracker.restart({"token": "1,1"})
    assert told(tracker.restart(result())) == {"uuid-a": None}


def test_a_pool_join_replaces_every_ref() -> None:
    tracker = Tracker()
    tracker.restart(result(vm("a", "add", uuid="u"), count=1))
    batch = tracker.restart(result(vm("b", "add", uuid="u"), count=1))
    record = told(batch)["u"]
    assert record is not None and record.ref == "b"


def test_a_changed_pool_is_in_the_batch() -> None:
    tracker = Tracker()
    pool = event("pool", "add", "p", {"master": "h1", "other_config": {"xscontainer-x": "1", "other": "2"}})
    first = tracker.restart(result(pool))
    assert first.pool is not None and first.pool.other_config == {"xscontainer-x": "1"}
    assert tracker.feed(result(pool)).pool is None
    changed = tracker.feed(result(event("pool", "mod", "p", {"master": "h2", "other_config": {}}))).pool
    assert changed is not None and changed.coordinator == "h2"
    assert tracker.restart(result(pool)).pool is not None


class Truth:
    """A pool as XAPI knows it, which tells what changed since it was last asked."""

    def __init__(self) -> None:
        self.vms: Dict[str, Dict[str, Any]] = {}
        self.metrics: Dict[str, Dict[str, str]] = {}
        self._changed: Dict[str, str] = {}  # "class ref" -> operation
        self._count = 0

    def new_ref(self) -> str:
        self._count += 1
        return str(self._count)

    def create(self) -> None:
        ref = self.new_ref()
        self.vms[ref] = vm_snapshot(f"u{ref}")
        self._note("vm", ref, "add")

    def pick(self, number: int) -> Optional[str]:
        return sorted(self.vms)[number % len(self.vms)] if self.vms else None

    def reboot(self, ref: str) -> None:
        self._drop_metrics(ref)
        new = self.new_ref()
        self.metrics[new] = {}
        self._note("vm_guest_metrics", new, "add")
        self.vms[ref].update(guest_metrics=new, domid=new)
        self._note("vm", ref, "mod")

    def address(self, ref: str, number: int) -> None:
        of = self.vms[ref]["guest_metrics"]
        if of in self.metrics:
            self.metrics[of] = {"0/ip": f"10.0.0.{number}"} if number else {}
            self._note("vm_guest_metrics", of, "mod")

    def destroy(self, ref: str, silently: bool) -> None:
        self._drop_metrics(ref)
        del self.vms[ref]
        self._note("vm", ref, "del")
        if silently:
            self._changed.pop(f"vm {ref}", None)

    def _drop_metrics(self, ref: str) -> None:
        of = self.vms[ref]["guest_metrics"]
        if self.metrics.pop(of, None) is not None:
            self._note("vm_guest_metrics", of, "del")

    def _note(self, name: str, ref: str, operation: str) -> None:
        before = self._changed.pop(f"{name} {ref}", None)
        if operation == "del" and before == "add":
            return  # never told of
        self._changed[f"{name} {ref}"] = "add" if before == "add" else operation

    def ask(self, everything: bool) -> Dict[str, Any]:
        if everything:
            changed = {f"vm {ref}": "add" for ref in self.vms}
            changed.update({f"vm_guest_metrics {ref}": "add" for ref in self.metrics})
        else:
            changed = self._changed
        self._changed = {}
        events = []
        for key, operation in changed.items():
            name, _, ref = key.partition(" ")
            known = self.vms.get(ref) if name == "vm" else {"networks": self.metrics.get(ref)}
            events.append(event(name, operation, ref, dict(known or {}) if operation != "del" else None))
        return result(*events, count=len(self.vms))

    def view(self) -> Dict[str, Any]:
        return {snapshot["uuid"]: (ref, int(snapshot["domid"]), self.metrics.get(snapshot["guest_metrics"], {}))
                for ref, snapshot in self.vms.items()}


class Listener:
    def __init__(self) -> None:
        self.known: Dict[str, VMRecord] = {}

    def hear(self, batch: Batch) -> None:
        for change in batch.changes:
            if change.record is None:
                self.known.pop(change.uuid)  # no VM is reported gone that was not known
            else:
                self.known[change.uuid] = change.record

    def view(self) -> Dict[str, Any]:
        return {uuid: (record.ref, record.domid, record.networks) for uuid, record in self.known.items()}


STEPS = st.lists(st.tuples(
    st.sampled_from(["create", "create", "reboot", "address", "address", "destroy", "lose", "ask", "ask", "restart"]),
    st.integers(0, 9)), max_size=60)


@given(STEPS)
def test_a_listener_knows_exactly_the_vms_that_xapi_knows(steps: List[Any]) -> None:
    """However changes fall into polls, and whatever deletion is lost."""
    truth, tracker, listener = Truth(), Tracker(), Listener()
    lost = False

    def ask() -> None:
        nonlocal lost
        try:
            listener.hear(tracker.feed(truth.ask(False)))
        except ResyncNeeded:
            assert lost
            listener.hear(tracker.restart(truth.ask(True)))
            lost = False
        if not lost:
            assert listener.view() == truth.view()

    listener.hear(tracker.restart(truth.ask(True)))
    for step, number in steps:
        ref = truth.pick(number)
        if step == "create":
            truth.create()
        elif step == "ask":
            ask()
        elif step == "restart":
            listener.hear(tracker.restart(truth.ask(True)))
            lost = False
            assert listener.view() == truth.view()
        elif ref is not None and step == "reboot":
            truth.reboot(ref)
        elif ref is not None and step == "address":
            truth.address(ref, number)
        elif ref is not None:
            known = ref in {record.ref for record in listener.known.values()}
            truth.destroy(ref, silently=step == "lose")
            lost = lost or (step == "lose" and known)
    for _ in range(3):  # at the latest now the count has been wrong twice
        ask()
    assert listener.view() == truth.view()


# --- records that make no sense

_ODD = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([]), st.just({}),
                 st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2))
_FIELDS = sorted(vm_snapshot("x")) + ["networks", "master", "address", "IP", "IPv6"]


@st.composite
def _damaged(draw: Any) -> Any:
    """An event of any class that the stream has, with fields that are missing or of the wrong type."""
    name = draw(st.sampled_from(["vm", "vm_guest_metrics", "pool", "host", "pif", "message"]))
    operation = draw(st.sampled_from(["add", "mod", "del"]))
    made = event(name, operation, draw(st.sampled_from(["odd", "b"])), vm_snapshot("uuid-odd"))
    for _ in range(draw(st.integers(1, 4))):
        fields = made["snapshot"] if isinstance(made.get("snapshot"), dict) and draw(st.booleans()) else made
        key = draw(st.sampled_from(_FIELDS if fields is not made else ["class", "operation", "ref", "snapshot"]))
        if draw(st.booleans()):
            fields.pop(key, None)
        else:
            fields[key] = draw(_ODD)
    return draw(st.sampled_from([made, made, made, made, None, [], "x"]))


@example([dict(vm("odd", "add"), ref=None)], False)
@given(st.lists(_damaged(), min_size=1, max_size=4), st.booleans())
def test_a_malformed_record_does_not_hide_others(odd: List[Any], restarts: bool) -> None:
    tracker = Tracker()
    tracker.restart(result(vm("a", "add")))
    take = tracker.restart if restarts else tracker.feed
    news = told(take(result(*odd, vm("a", name_label="new"), vm("c", "add"), metrics("m", "add"), *odd)))
    assert news["uuid-a"] and news["uuid-a"].name == "new"
    assert news["uuid-c"]
    assert "uuid-a" not in [uuid for uuid, record in news.items() if record is None]
    after = told(tracker.feed(result(vm("a", name_label="newer"))))
    assert after["uuid-a"] and after["uuid-a"].name == "newer"


def test_a_vm_with_a_malformed_record_keeps_its_last_state() -> None:
    tracker = Tracker()
    tracker.restart(result(vm("a", "add"), vm("b", "add"), count=2))
    assert told(tracker.feed(result(vm("a", domid="x"), count=2))) == {}
    assert told(tracker.feed(result(vm("b", name_label=None), count=2))) == {}, "and it is counted"
    assert told(tracker.restart(result(vm("a", domid="x"), vm("b", "add"), count=2))).keys() == {"uuid-b"}
    assert told(tracker.feed(result(vm("a", "del"), count=1))) == {"uuid-a": None}


def test_a_malformed_record_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    tracker = Tracker()
    for _ in range(3):
        tracker.feed(result(vm("a", domid="x\n\x1b[31m")))
    assert len(caplog.records) == 1 and caplog.messages[0].isprintable()
