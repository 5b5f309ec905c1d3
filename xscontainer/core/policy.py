"""The policy: which caller may call which verb. Pure: the rows of verbs/ say what each verb needs.

With VM.call_host_plugin a vm-operator may call any function of any plugin, on the host of one of their VMs and with
any argument. On the coordinator the plugin gets the caller's own session. On another host it gets an anonymous session
of root for every caller. All that can be seen there is that some VM is being called so.
"""

from typing import Collection, FrozenSet, NamedTuple, Tuple

from xscontainer.core.verb import EVERYONE, Permission, Verb

# For callers who are refused because of what others do.
UNKNOWN_HINT = ("Repeat the call in a moment, or call the plugin of the pool coordinator, where XAPI tells it who "
                "calls.")


class Caller(NamedTuple):
    """The caller, as far as the plugin knows it.

    :ivar known: the session is the caller's own.
    :ivar permissions: names of the caller's permissions in XAPI; a superuser has all.
    :ivar operator_at_work: VM.call_host_plugin is under way for some VM of the pool.
    """

    known: bool
    superuser: bool
    permissions: FrozenSet[str]
    operator_at_work: bool


def needed(verb: Verb, given: "Collection[str]") -> "Tuple[Permission, str]":
    """The permission for a call of the verb with arguments of these names, and what needs it, for a sentence."""
    if verb.permission != EVERYONE:
        return verb.permission, f"'{verb.name}'"
    for argument in verb.arguments:
        if argument.permission != EVERYONE and argument.name in given:
            return argument.permission, f"'{verb.name}' with {argument.name}"
    return EVERYONE, f"'{verb.name}'"


def refusal(verb: Verb, given: "Collection[str]", caller: Caller) -> str:
    """A sentence: why this caller may not call the verb with these arguments. "": the caller may."""
    permission, what = needed(verb, given)
    if permission == EVERYONE or caller.known and (caller.superuser or permission.name in caller.permissions):
        return ""
    sentence = f"The function {what} requires the role {permission.role} or a higher one"
    if caller.known:
        return sentence + "."
    if caller.operator_at_work:
        return (sentence + ". This host cannot tell who calls while VM.call_host_plugin is under way for a VM of the "
                "pool.")
    return ""
