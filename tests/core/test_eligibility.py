"""Tests of which host monitors or wipes a VM: one table, and rules that hold in every case."""

from typing import Any, Dict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xscontainer.core.eligibility import IGNORE, MONITOR, WIPE, WIPE_LATER, decide, enabled
from xscontainer.core.vm_record import NULL_REF, VMRecord

HERE, THERE = "OpaqueRef:here", "OpaqueRef:there"
ON = {"xscontainer-monitor": "True"}
OFF = {"xscontainer-monitor": "False"}
LIST = {"docker_ps": "<docker_ps/>"}
STALE = {"xscontainer-status": "{}"}


def vm(power_state: str = "Running", resident_on: str = HERE, other_config: Dict[str, str] = ON,
       is_guest: bool = True) -> VMRecord:
    return VMRecord("OpaqueRef:v", "u", "web", power_state, resident_on, 1, NULL_REF, dict(other_config), is_guest)


@pytest.mark.parametrize("what, record, coordinator, monitored, action", [
    ("runs here", vm(), False, False, MONITOR),
    ("runs here, monitored", vm(), True, True, MONITOR),
    ("runs elsewhere", vm(resident_on=THERE, other_config={**ON, **LIST}), True, False, IGNORE),
    ("left for elsewhere", vm(resident_on=THERE, other_config={**ON, **LIST}), True, True, IGNORE),
    ("running, but resident nowhere", vm(resident_on=NULL_REF, other_config={**ON, **LIST}), True, True, IGNORE),
    ("switched off", vm(other_config={**OFF, **LIST}), False, True, WIPE),
    ("switched off, list not shown yet", vm(other_config=OFF), False, True, WIPE),
    ("switched off long ago", vm(other_config=OFF), True, False, IGNORE),
    ("never switched on, with a list", vm(other_config=LIST), False, False, WIPE),
    ("switched off elsewhere", vm(resident_on=THERE, other_config={**OFF, **LIST}), True, False, IGNORE),
    ("halted, was ours", vm("Halted", NULL_REF, {**ON, **LIST}), False, True, WIPE),
    ("halted, was ours, list not shown yet", vm("Halted", NULL_REF), False, True, WIPE),
    ("halted, was another's", vm("Halted", NULL_REF, {**ON, **LIST}), False, False, WIPE_LATER),
    ("halted and clean, was another's", vm("Halted", NULL_REF), False, False, IGNORE),
    ("halted, with a list", vm("Halted", NULL_REF, {**ON, **LIST}), True, False, WIPE),
    ("halted, with a status", vm("Halted", NULL_REF, STALE), True, False, WIPE),
    ("halted and clean", vm("Halted", NULL_REF), True, False, IGNORE),
    ("halting, still resident", vm("Halted", HERE, {**ON, **LIST}), False, True, WIPE),
    ("suspended", vm("Suspended", NULL_REF, {**ON, **LIST}), False, True, WIPE),
    ("paused", vm("Paused", HERE, {**ON, **LIST}), False, True, WIPE),
    ("a template with a list", vm("Halted", NULL_REF, {**ON, **LIST}, is_guest=False), True, False, IGNORE),
])
def test_each_case_is_decided_as_in_the_table(what: str, record: VMRecord, coordinator: bool, monitored: bool,
                                              action: str) -> None:
    found = decide(record, HERE, coordinator, monitored)
    assert found.action == action, what
    assert found.reason


@pytest.mark.parametrize("value, expected", [
    ("True", True), ("true", True), ("yes", True), ("anything", True), ("1", True),
    ("False", False), ("false", True), (" False ", True), ("0", True), ("no", True), (" ", True), ("", False)])
def test_any_value_but_false_and_empty_switches_management_on(value: str, expected: bool) -> None:
    """Clients show any value but "False" and the empty string as on."""
    assert enabled(vm(other_config={"xscontainer-monitor": value})) is expected
    assert not enabled(vm(other_config={}))


RECORDS: Any = st.builds(
    vm, st.sampled_from(["Running", "Halted", "Suspended", "Paused"]), st.sampled_from([HERE, THERE, NULL_REF]),
    st.sampled_from([ON, OFF, {}, LIST, {**ON, **LIST}, {**OFF, **LIST}, {**ON, **STALE}]), st.booleans())


@given(RECORDS, st.booleans(), st.booleans(), st.booleans())
def test_no_two_hosts_act_on_one_running_vm(record: VMRecord, coordinator: bool, here: bool, there: bool) -> None:
    """Only the host that a running VM is resident on acts on it, no matter which host monitored it before."""
    ours = decide(record, HERE, coordinator, here).action
    theirs = decide(record, THERE, not coordinator, there).action
    assert not (ours == MONITOR and theirs != IGNORE)
    assert not (theirs == MONITOR and ours != IGNORE)
    if record.power_state == "Running" and record.resident_on != HERE:
        assert ours == IGNORE


@given(RECORDS, st.booleans())
def test_the_list_of_a_halted_vm_is_always_wiped(record: VMRecord, coordinator: bool) -> None:
    if record.is_guest and record.power_state != "Running" and record.published:
        ours = decide(record, HERE, coordinator, False).action
        theirs = decide(record, THERE, not coordinator, False).action
        assert {ours, theirs} == {WIPE, WIPE_LATER}


@given(RECORDS, st.booleans(), st.booleans())
def test_a_wiped_vm_is_not_wiped_again(record: VMRecord, coordinator: bool, monitored: bool) -> None:
    if decide(record, HERE, coordinator, monitored).action == WIPE:
        left = {key: value for key, value in record.other_config.items() if key not in record.published}
        assert decide(record._replace(other_config=left), HERE, coordinator, False).action == IGNORE
