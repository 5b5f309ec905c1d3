"""Tests of the parts of a VM's record that are kept."""

from typing import Any, Dict

import pytest

from xscontainer import keys
from xscontainer.core.vm_record import NULL_REF, VMRecord
from xscontainer.errors import XapiError

SNAPSHOT: Dict[str, Any] = {
    "uuid": "u", "name_label": "web", "power_state": "Running", "resident_on": "OpaqueRef:h", "domid": "17",
    "guest_metrics": "OpaqueRef:m", "is_a_template": False, "is_a_snapshot": False, "is_control_domain": False,
    "other_config": {"folder": "/x", "docker_ps": "<docker_ps/>", "xscontainer-username": "core", "docker_other": "1"},
    "memory_target": "1"}


def record(**changes: Any) -> VMRecord:
    return VMRecord.from_snapshot("OpaqueRef:v", dict(SNAPSHOT, **changes))


def test_only_our_keys_are_kept() -> None:
    vm = record()
    assert vm.other_config == {"docker_ps": "<docker_ps/>", "xscontainer-username": "core"}
    assert vm.published == {"docker_ps": "<docker_ps/>"}
    assert (vm.domid, vm.networks, vm.is_guest) == (17, {}, True)


@pytest.mark.parametrize("kind", ["is_a_template", "is_a_snapshot", "is_control_domain"])
def test_templates_snapshots_and_control_domains_are_not_guests(kind: str) -> None:
    assert not record(**{kind: True}).is_guest


def test_a_minimal_record_is_read() -> None:
    vm = VMRecord.from_snapshot("OpaqueRef:v", {"uuid": "u"})
    assert (vm.resident_on, vm.domid, vm.published) == (NULL_REF, -1, {})


@pytest.mark.parametrize("owner, expected", [(None, True), ("u", True), ("of another", False), ("", False)])
def test_an_owner_key_of_another_vm_marks_inherited_keys(owner: Any, expected: bool) -> None:
    assert record(other_config={} if owner is None else {keys.OWNER: owner}).is_owner is expected


def test_a_label_is_one_line_for_any_name() -> None:
    label = record(name_label="we\nb\x1b[31m\x00").label
    assert label.isprintable() and "(u)" in label


@pytest.mark.parametrize("broken", [{}, {"uuid": None}, {"uuid": "u", "domid": "x"}, {"uuid": "u", "other_config": 5},
                                    {"uuid": "u", "other_config": {"docker_ps": 5}}, None, "x"])
def test_a_malformed_record_is_an_xapi_error_and_is_skipped(broken: Any) -> None:
    with pytest.raises(XapiError, match="malformed"):
        VMRecord.from_snapshot("OpaqueRef:broken", broken)
    found = list(VMRecord.all_of({"OpaqueRef:broken": broken, "OpaqueRef:v": SNAPSHOT}))
    assert [vm.ref for vm in found] == ["OpaqueRef:v"]
