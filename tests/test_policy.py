"""Who may call what, for every function and every kind of caller."""

from typing import Any

import pytest

from xscontainer import plugin, policy
from xscontainer.policy import Caller

NOBODY = frozenset({"vm.start", "vm.call_host_plugin"})
VM_ADMIN = NOBODY | {"vm.add_to_other_config"}
POOL_OPERATOR = VM_ADMIN | {"secret.create"}


@pytest.mark.parametrize("function", sorted(policy.NEEDS))
def test_what_takes_a_role_is_refused_without_it(function: str) -> None:
    assert function in plugin.VERBS
    assert "role" in policy.refusal(function, (), Caller(True, False, NOBODY, False))
    assert not policy.refusal(function, (), Caller(True, False, POOL_OPERATOR, False))
    assert not policy.refusal(function, (), Caller(True, True, frozenset(), False))
    # Where nobody knows who calls: only if it cannot be a vm-operator.
    assert not policy.refusal(function, (), Caller(False, True, frozenset(), False))
    assert "role" in policy.refusal(function, (), Caller(False, True, POOL_OPERATOR, True))


def test_a_vm_admin_changes_vms_and_not_the_pool() -> None:
    caller = Caller(True, False, VM_ADMIN, False)
    allowed = {function for function in policy.NEEDS if not policy.refusal(function, (), caller)}
    assert allowed == {"prepare", "hostkey_accept", "create", "create_config_drive", "get_config_drive_configuration"}


def test_the_rest_is_for_all() -> None:
    free = set(plugin.VERBS) - set(policy.NEEDS)
    assert {"start", "stop", "register", "get_top", "diagnose", "hostkey_show"} <= free
    assert not any(policy.refusal(function, (), Caller(False, False, frozenset(), True)) for function in free)


@pytest.mark.parametrize("names", [("vmuuid", "address"), ("port", "vmuuid"), ("address", "port")])
def test_where_dom0_connects_is_not_for_all(names: Any) -> None:
    refused = policy.refusal("hostkey_show", names, Caller(True, False, NOBODY, False))
    assert "role" in refused and ("address" in refused or "port" in refused)
    assert policy.refusal("hostkey_show", names, Caller(False, True, POOL_OPERATOR, True))
    assert not policy.refusal("hostkey_show", names, Caller(True, False, VM_ADMIN, False))
    assert not policy.refusal("hostkey_show", ("vmuuid",), Caller(True, False, NOBODY, False))
