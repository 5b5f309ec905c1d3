"""The policy for every verb and every kind of caller."""

from typing import Any

import pytest

from xscontainer.core import policy
from xscontainer.core.policy import Caller
from xscontainer.core.verb import EVERYONE, POOL_OPERATOR, VM_ADMIN
from xscontainer.verbs.table import VERBS

OPERATORS = frozenset({"vm.start", "vm.call_host_plugin"})
VM_ADMINS = OPERATORS | {"vm.add_to_other_config"}
POOL_OPERATORS = VM_ADMINS | {"secret.create"}
RESTRICTED = sorted(name for name, verb in VERBS.items() if verb.permission != EVERYONE)


@pytest.mark.parametrize("function", sorted(VERBS))
def test_every_verb_has_a_policy_decision(function: str) -> None:
    assert VERBS[function].permission in (EVERYONE, VM_ADMIN, POOL_OPERATOR)


@pytest.mark.parametrize("function", RESTRICTED)
def test_a_restricted_verb_is_refused_without_the_role(function: str) -> None:
    verb = VERBS[function]
    assert "role" in policy.refusal(verb, (), Caller(True, False, OPERATORS, False))
    assert not policy.refusal(verb, (), Caller(True, False, POOL_OPERATORS, False))
    assert not policy.refusal(verb, (), Caller(True, True, frozenset(), False))
    # If the caller is unknown: only while it may be a vm-operator.
    assert not policy.refusal(verb, (), Caller(False, True, frozenset(), False))
    assert "role" in policy.refusal(verb, (), Caller(False, True, POOL_OPERATORS, True))


def test_a_vm_admin_changes_vms_and_not_the_pool() -> None:
    caller = Caller(True, False, VM_ADMINS, False)
    allowed = {name for name in RESTRICTED if not policy.refusal(VERBS[name], (), caller)}
    assert allowed == {"prepare", "unprepare", "hostkey_accept", "create", "create_config_drive",
                       "get_config_drive_configuration"}
    assert set(RESTRICTED) - allowed == {"key_rotate", "key_install"}


def test_everyone_may_call_the_other_verbs() -> None:
    free = set(VERBS) - set(RESTRICTED)
    assert {"start", "stop", "register", "get_top", "diagnose", "hostkey_show"} <= free
    assert not any(policy.refusal(VERBS[name], (), Caller(False, False, frozenset(), True)) for name in free)


@pytest.mark.parametrize("names", [("vmuuid", "address"), ("port", "vmuuid"), ("address", "port")])
def test_an_address_to_connect_to_requires_a_role(names: Any) -> None:
    show = VERBS["hostkey_show"]
    refused = policy.refusal(show, names, Caller(True, False, OPERATORS, False))
    assert "role" in refused and ("address" in refused or "port" in refused)
    assert policy.refusal(show, names, Caller(False, True, POOL_OPERATORS, True))
    assert not policy.refusal(show, names, Caller(True, False, VM_ADMINS, False))
    assert not policy.refusal(show, ("vmuuid",), Caller(True, False, OPERATORS, False))
