"""Who may call which function. Pure.

With VM.call_host_plugin a vm-operator may call any function of any plugin, on the host of a VM of theirs and with any
argument. On the coordinator the plugin gets the caller's session; on another host it gets an anonymous one of root,
whoever called, and all that can be seen there is that some VM is being called so.
"""

from typing import Collection, FrozenSet, NamedTuple

# What XAPI itself asks for, of someone who does by hand what a function does.
_OF_VM_ADMINS = "vm.add_to_other_config"
_OF_POOL_OPERATORS = "secret.create"
NEEDS = {
    "prepare": _OF_VM_ADMINS,
    "hostkey_accept": _OF_VM_ADMINS,
    "create_config_drive": _OF_VM_ADMINS,
    # Who may read a disk may read what is in the configuration on it: passwords, for instance.
    "get_config_drive_configuration": _OF_VM_ADMINS,
    "create": _OF_VM_ADMINS,
    "key_install": _OF_POOL_OPERATORS,
    "key_rotate": _OF_POOL_OPERATORS,
}
# The same for arguments of functions that are for all without them: dom0 connects where these say, and tells what
# answers there. VM.other_config says it otherwise.
_WITH = {("hostkey_show", "address"): _OF_VM_ADMINS, ("hostkey_show", "port"): _OF_VM_ADMINS}
_ROLES = {_OF_VM_ADMINS: "vm-admin", _OF_POOL_OPERATORS: "pool-operator"}

# For those who are refused for what others do.
UNKNOWN_HINT = "Repeat the call in a moment, or call the plugin of the pool coordinator, which is told who calls."


class Caller(NamedTuple):
    """:ivar known: the session is the caller's own.

    :ivar permissions: what it may do, in XAPI's words; a superuser may do all.
    :ivar operator_at_work: VM.call_host_plugin is under way for some VM of the pool.
    """

    known: bool
    superuser: bool
    permissions: FrozenSet[str]
    operator_at_work: bool


def needed(function: str, arguments: "Collection[str]") -> str:
    """The permission that it takes to call the function with arguments of these names; "" if it is for all."""
    asked = [_WITH[function, name] for name in arguments if (function, name) in _WITH]
    return NEEDS.get(function) or (asked + [""])[0]


def refusal(function: str, arguments: "Collection[str]", caller: Caller) -> str:
    """Why the function, with these arguments, is not for this caller, as a sentence; "" if it is."""
    permission = needed(function, arguments)
    if not permission:
        return ""
    given = [] if function in NEEDS else [name for name in arguments if (function, name) in _WITH]
    what = " with ".join([f"'{function}'", *given[:1]])
    if caller.known:
        if caller.superuser or permission in caller.permissions:
            return ""
        return f"The function {what} takes the role {_ROLES[permission]} or a higher one."
    if caller.operator_at_work:
        return (f"The function {what} takes the role {_ROLES[permission]} or a higher one, and this host cannot tell "
                "who calls while VM.call_host_plugin is under way for a VM of the pool.")
    return ""
