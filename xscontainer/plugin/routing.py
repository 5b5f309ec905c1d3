"""The host that must serve a call, and the call to that host's plugin.

Input: a call from plugin/dispatch.py. Output: the ref of another host, or that host's answer.
"""

import math
from typing import Dict, Mapping, NamedTuple, Optional

from xscontainer.core import current_call, eligibility, wire
from xscontainer.core.verb import ANY_HOST, ENGINE_HOST, Verb
from xscontainer.core.vm_record import NULL_REF, VMRecord
from xscontainer.errors import (
    ArgumentError,
    ObjectGone,
    VMElsewhere,
    VMNotRegistered,
    VMNotRunning,
    XapiError,
    XapiUnavailable,
    XSContainerError,
)
from xscontainer.sanitize import clean_text
from xscontainer.settings import Settings
from xscontainer.verbs.context import Context
from xscontainer.xapi import storage
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session

# How often a call may be handed from host to host: to the VM's host, and after the VM once if it moves.
MOST_HOPS = 2

# s that a host keeps for itself when it hands a call on: to say which host did not answer.
KEPT = 2.0

LONGEST_HOST_NAME = 80  # characters in an error text


class Call(NamedTuple):
    """One call of a verb.

    :ivar arguments: checked, and only those that the verb knows.
    :ivar hops: how many hosts have handed it on so far.
    :ivar id: uuid; the same on every host, and in the tasks that are made for the call.
    :ivar seconds: until it must be answered; math.inf for verbs that take minutes and have deadlines of their own.
    :ivar session: the caller's on the coordinator, else an anonymous one.
    """

    verb: Verb
    arguments: Dict[str, str]
    hops: int
    id: str
    seconds: float
    session: str = ""


def other_host(call: Call, context: Context, fresh: bool = False) -> "Optional[str]":
    """The ref of the other host that must serve the call; None: this one must.

    :param fresh: ask XAPI instead of relying on its events.
    :raises VMNotRunning, VMNotRegistered, ArgumentError: no host can serve it.
    """
    if call.verb.place == ANY_HOST:
        return None
    here = context.this_host_ref()
    if call.verb.place == ENGINE_HOST:
        # The host that handed the call on thinks that we must serve it. If we do not, one of the two is behind.
        host = _engine_host(context, call.arguments["vmuuid"], here, fresh, bool(call.hops))
    else:
        host = context.sessions.run(lambda session: _storage_host(session, call.arguments, here))
    return host if host != here else None


def _engine_host(context: Context, vm_uuid: str, here: str, fresh: bool, handed_on: bool) -> str:
    if not fresh:
        vm = context.vm(vm_uuid)
        if not _hindrance(vm) and (eligibility.running_here(vm, here) or not handed_on):
            return vm.resident_on
    # Events may be late: XAPI is asked before a call is refused or handed on a second time.
    vm = context.sessions.run(lambda session: xapi_vm.record(session, vm_uuid))
    hindrance = _hindrance(vm)
    if hindrance:
        raise hindrance
    return vm.resident_on


def _hindrance(vm: VMRecord) -> "Optional[XSContainerError]":
    if not vm.is_guest:
        return ArgumentError(f"{vm.label} is a template, a snapshot or a control domain, not a VM.")
    if vm.power_state != "Running":
        return VMNotRunning.of(vm.label, vm.power_state)
    if vm.resident_on == NULL_REF:
        return VMNotRunning(f"The VM {vm.label} is not running yet.", "Repeat the call in a moment.")
    if not eligibility.enabled(vm):
        return VMNotRegistered(f"Container management is off for the VM {vm.label}.")
    return None


def _storage_host(session: Session, arguments: "Mapping[str, str]", here: str) -> str:
    """The VM's host if it runs; else a host that the disk's storage, or the named storage, is attached to."""
    xapi = session.xenapi
    if "vmuuid" in arguments:
        vm = xapi_vm.record(session, arguments["vmuuid"])
        if vm.resident_on != NULL_REF:
            return vm.resident_on
    if "vdiuuid" in arguments:
        return storage.disk_host(session, xapi.VDI.get_by_uuid(arguments["vdiuuid"]), here)
    if "sruuid" in arguments:
        # For one VM always the same host: there, calls that change the VM wait for each other.
        preferred = "" if "vmuuid" in arguments else here
        return storage.nearest_host(session, xapi.SR.get_by_uuid(arguments["sruuid"]), preferred)
    return here


# --- another host -------------------------------------------------------------------------------


def longest_action(verb: Verb, settings: Settings) -> float:
    """Seconds after which even an action that has to connect first is over, here or on another host."""
    # Twice the request: an action may look at the container before it changes it.
    return settings.xapi.timeout + settings.guest.longest_connect + 2 * settings.engine.request_timeout + verb.patience


def hand_on(call: Call, context: Context, host: str) -> str:
    """The other host's answer, unchanged.

    :raises XapiError: its failure, with its ``details``.
    :raises VMElsewhere: the call has been handed on too often already.
    """
    if call.hops >= MOST_HOPS:
        raise VMElsewhere(f"The function '{call.verb.name}' was handed from host to host {call.hops} times "
                          "without finding the one that must serve it: the VM is on the move.")
    try:
        # xapi looks at the session first: if that is gone, nothing was called and it may be tried again.
        with current_call.reserving(KEPT):
            return context.forwarding.run(lambda session: _call_plugin(session, call, context.settings, host))
    except XapiError as error:
        if isinstance(error, ObjectGone) and error.details[1:2] == ["host"]:
            raise VMElsewhere("The host that the VM was on has left the pool.") from error
        if error.details:
            # As its base class: dispatch.describe() would reword an ObjectGone.
            raise XapiError(error.message, details=error.details) from error
        if isinstance(error, XapiUnavailable):
            raise _unanswered(call, context, host, error) from error
        raise


def _call_plugin(session: Session, call: Call, settings: Settings, host: str) -> str:
    arguments = {**call.arguments, wire.HOPS: str(call.hops + 1), wire.CALL: call.id}
    # ``wait``: what the caller has the verb wait for, beyond its own time.
    longest = longest_action(call.verb, settings) + float(call.arguments.get("wait") or 0)
    if call.seconds < math.inf:
        # A little less than we wait: the other host knows better than we do what took so long.
        arguments[wire.SECONDS] = f"{max(0.1, current_call.remaining(longest) - 1.0):.1f}"
    with session.patient(longest):
        return str(session.xenapi.host.call_plugin(host, settings.daemon.plugin_name, call.verb.name, arguments))


def _unanswered(call: Call, context: Context, host: str, error: XapiUnavailable) -> XapiUnavailable:
    """An error that names what did not answer: the other host, or XAPI on the way to it."""
    what = f"the call '{call.verb.name}'"
    with current_call.serving(call.id, KEPT):
        try:
            name = context.sessions.run(lambda session: str(session.xenapi.host.get_name_label(host)))
        except XSContainerError as own:
            return XapiUnavailable(f"This host could not hand {what} on to another host, because XAPI does not answer "
                                   f"here: {own.message} The requested action may have happened.")
    return XapiUnavailable(
        f"The host '{clean_text(name, LONGEST_HOST_NAME)}' did not answer {what}: {error.message} "
        "The requested action may have happened.",
        "Check the toolstack (xapi) and xscontainer-monitor on that host.")
