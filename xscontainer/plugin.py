"""One plugin call: read it, check it, send it to the host that must serve it, answer as XAPI expects.

The session that XAPI passes along only tells who calls (it is the caller's on the coordinator and anonymous
elsewhere); our own login does the work.
"""

import logging
import re
import time
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

from xscontainer import calls, eligibility, policy
from xscontainer.actions import containers, creating, diagnosing, drives, hostkeys, onboarding, registration, rotation
from xscontainer.actions.context import Context
from xscontainer.calls import checked, failure, shown, success
from xscontainer.errors import (
    ArgumentError,
    NotPermitted,
    ObjectGone,
    StorageElsewhere,
    VMElsewhere,
    VMNotRegistered,
    VMNotRunning,
    XapiError,
    XapiUnavailable,
    XSContainerError,
)
from xscontainer.settings import Settings
from xscontainer.vmrecord import NULL_REF, VMRecord
from xscontainer.xapi import storage
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session

# Where a verb is served.
ANYWHERE = "anywhere"  # it needs nothing but XAPI
RESIDENT = "resident"  # on the host where the VM runs: only that one is sure to reach it
AT_VM = "at_vm"  # there if the VM runs, registered or not; else here
STORAGE = "storage"  # there if the VM runs, else on a host that the disk or storage repository is attached to

# How often a call may be handed from host to host: to the VM's host, and after it once if it moves.
MOST_HOPS = 2
HOPS = "xscontainer-hops"

# s that a container may take to end; engine.api's STOP_SECONDS, which would load docker here.
STOPPING = 60.0

# s that a guest may take to be prepared, beyond what its caller has it wait for.
PREPARING = 300.0

# s that a disk may take to be made and filled, or read.
FILLING = 180.0

# s that a new VM may take: the copy of an image and the guest's own installation.
CREATING = 700.0

# Of a failure's description, in the log: it ends with what to do.
LONGEST_LOGGED = 2000

log = logging.getLogger(__name__)


class Verb(NamedTuple):
    action: Callable[..., str]  # action(context, **arguments)
    required: Tuple[str, ...]
    place: str = ANYWHERE
    optional: Tuple[str, ...] = ()
    patience: float = 0.0  # s that the engine may take beyond what it may for others


VERBS: Dict[str, Verb] = {
    "start": Verb(containers.start, ("vmuuid", "container"), RESIDENT),
    "stop": Verb(containers.stop, ("vmuuid", "container"), RESIDENT, patience=STOPPING),
    "restart": Verb(containers.restart, ("vmuuid", "container"), RESIDENT, patience=STOPPING),
    "pause": Verb(containers.pause, ("vmuuid", "container"), RESIDENT),
    "unpause": Verb(containers.unpause, ("vmuuid", "container"), RESIDENT),
    "get_inspect": Verb(containers.get_inspect, ("vmuuid", "object"), RESIDENT),
    "get_top": Verb(containers.get_top, ("vmuuid", "object"), RESIDENT),
    "register": Verb(registration.register, ("vmuuid",)),
    "deregister": Verb(registration.deregister, ("vmuuid",)),
    "diagnose": Verb(diagnosing.diagnose, ("vmuuid",), AT_VM),
    "get_config_drive_default": Verb(drives.get_config_drive_default, ("templateuuid",)),
    "create_config_drive": Verb(drives.create_config_drive, ("vmuuid", "sruuid", "configuration"), STORAGE,
                                ("datasource",), patience=FILLING),
    "get_config_drive_configuration": Verb(drives.get_config_drive_configuration, ("vdiuuid",), STORAGE,
                                           patience=FILLING),
    "create": Verb(creating.create, ("templateuuid", "name", "sruuid", "networkuuid"), STORAGE,
                   ("configuration", "imageuuid", "username", "memory", "vcpus", "datasource", "wait"),
                   patience=CREATING),
    "prepare": Verb(onboarding.prepare, ("vmuuid",), AT_VM,
                    ("passwordsecret", "fingerprint", "wait", "generatecerts", "sruuid", *onboarding.WISHES),
                    patience=PREPARING),
    "hostkey_show": Verb(hostkeys.hostkey_show, ("vmuuid",), AT_VM, ("address", "port", "mode")),
    "hostkey_accept": Verb(hostkeys.hostkey_accept, ("vmuuid", "fingerprint"), AT_VM),
    "key_rotate": Verb(rotation.key_rotate, (), ANYWHERE, ("finish", "force")),
    "key_install": Verb(rotation.key_install, ("vmuuid",), AT_VM, ("remove",)),
}


class Call(NamedTuple):
    function: str
    verb: Verb
    arguments: Dict[str, str]  # checked, and only those the verb knows
    hops: int  # hosts that handed it on so far
    session: str = ""  # the caller's on the coordinator, else an anonymous one


class UnknownFunction(Exception):
    """args[0]: its name."""


# --- reading ------------------------------------------------------------------------------------


def read_call(argument: bytes, verbs: "Mapping[str, Verb]") -> Call:
    """:raises ArgumentError: it is no call, or an argument is missing or malformed. :raises UnknownFunction:"""
    function, session, given = calls.decode(argument)
    if function not in verbs:
        raise UnknownFunction(function[:calls.LONGEST_SHOWN])
    verb = verbs[function]
    arguments = {}
    for name in verb.required + verb.optional:
        if name in given:
            arguments[name] = checked(name, given[name])
        elif name in verb.required:
            raise ArgumentError(f"The function '{function}' needs the argument '{name}'.")
    hops = given.get(HOPS, "0")
    if not re.match(r"[0-9]\Z", hops):
        raise ArgumentError(f"The argument '{HOPS}' is for calls from host to host; {shown(hops)} is no digit.")
    return Call(function, verb, arguments, int(hops), session)


def describe(function: str, error: Exception) -> "List[str]":
    """The ErrorDescription for any error."""
    if isinstance(error, UnknownFunction):
        return ["UNKNOWN_XENAPI_PLUGIN_FUNCTION", function or str(error)]
    if type(error) is XapiError and error.details:
        return error.details
    if isinstance(error, ObjectGone) and error.details[:1] == ["UUID_INVALID"] and len(error.details) > 2:
        return [error.code, f"There is no {error.details[1]} with the uuid {error.details[2]}."]
    if isinstance(error, XSContainerError):
        return error.description()
    return ["XENAPI_PLUGIN_FAILURE", function or "unknown", type(error).__name__, str(error) or repr(error)]


# --- serving ------------------------------------------------------------------------------------


def handle(argument: bytes, context: Context, verbs: "Mapping[str, Verb]" = VERBS) -> bytes:
    """Serve one call. Never raises: whatever goes wrong is in the reply, a methodResponse."""
    return _guarded(argument, verbs, lambda call: serve(call, context))


def main_in_process(argument: bytes, settings: Settings) -> bytes:
    """The same without a daemon, with a login and a connection for this call alone.

    :raises ImportError: a dependency is missing.
    """
    from xscontainer.context import local_context  # here: it loads paramiko and docker, and forwards need neither

    def work(call: Call) -> bytes:
        with local_context(settings) as context:
            return serve(call, context)

    return _guarded(argument, VERBS, work)


def _guarded(argument: bytes, verbs: "Mapping[str, Verb]", work: "Callable[[Call], bytes]") -> bytes:
    started = time.monotonic()
    function, subject = "", ""
    try:
        call = read_call(argument, verbs)
        function = call.function
        subject = " ".join(call.arguments[name] for name in call.verb.required if name != "configuration")
        reply = work(call)
    except Exception as error:
        description = describe(function, error)
        if isinstance(error, (XSContainerError, UnknownFunction)):
            log.warning("plugin: %s %s failed: %s", function or "a call", subject,
                        shown(" ".join(description), LONGEST_LOGGED))
        else:
            log.exception("plugin: %s %s failed, which should not happen", function or "a call", subject)
        return failure(description)
    log.info("plugin: %s %s took %.0f ms", function, subject, (time.monotonic() - started) * 1000)
    return reply


def serve(call: Call, context: Context) -> bytes:
    """Do it here, or have it done by the host that must.

    :raises XSContainerError:
    """
    if policy.needed(call.function, call.arguments):
        caller = _caller(call, context)
        refusal = policy.refusal(call.function, call.arguments, caller)
        if refusal:
            raise NotPermitted(refusal, "" if caller.known else policy.UNKNOWN_HINT)
    host = serving_host(call, context)
    if host is not None and call.hops:
        # The host before us thinks that we must serve it, so what we know is behind, or what it knew.
        host = serving_host(call, context, fresh=True)
    if host is None:
        try:
            return success(call.verb.action(context, **call.arguments))
        except (VMElsewhere, StorageElsewhere):
            # It left between our look and the action, which has done nothing yet, or undone it.
            host = serving_host(call, context, fresh=True)
            if host is None:
                raise
    return _forward(call, context, host)


def _caller(call: Call, context: Context) -> policy.Caller:
    here = context.this_host_ref()

    def ask(session: Session) -> policy.Caller:
        xapi = session.xenapi
        if xapi.pool.get_master(xapi.pool.get_all()[0]) != here:
            # Wherever it is: whoever calls through a VM of theirs may shut it down or move it meanwhile.
            busy = any("call_plugin" in vm["current_operations"].values()
                       for vm in xapi.VM.get_all_records_where('field "is_a_template" = "false"').values())
            return policy.Caller(False, False, frozenset(), busy)
        return policy.Caller(True, xapi.session.get_is_local_superuser(call.session),
                             frozenset(xapi.session.get_rbac_permissions(call.session)), False)

    try:
        return context.sessions.run(ask)
    except ObjectGone:  # its session is over: whoever it was does not wait for an answer
        return policy.Caller(True, False, frozenset(), False)


def serving_host(call: Call, context: Context, fresh: bool = False) -> "Optional[str]":
    """The ref of the other host that must serve the call; None: we do.

    :param fresh: ask XAPI, do not go by what events told.
    """
    place, arguments = call.verb.place, call.arguments
    if place == RESIDENT:
        return _resident_host(context, arguments["vmuuid"], fresh)
    if place in (AT_VM, STORAGE):
        here = context.this_host_ref()
        host = context.sessions.run(lambda session: _storage_host(session, arguments, here))
        return host if host != here else None
    return None


def _resident_host(context: Context, vm_uuid: str, fresh: bool) -> "Optional[str]":
    here = context.this_host_ref()
    vm = None if fresh else context.vm(vm_uuid)
    if vm is None or _hindrance(vm):
        # What events told may be behind: bad news is worth asking again.
        vm = context.sessions.run(lambda session: xapi_vm.record(session, vm_uuid))
    hindrance = _hindrance(vm)
    if hindrance:
        raise hindrance
    return None if vm.resident_on == here else vm.resident_on


def _hindrance(vm: VMRecord) -> "Optional[XSContainerError]":
    if not vm.is_guest:
        return ArgumentError(f"{vm.label} is a template, a snapshot or a control domain, not a VM.")
    if vm.power_state != "Running":
        return VMNotRunning(f"The VM {vm.label} is not running: its power state is {vm.power_state}.")
    if vm.resident_on == NULL_REF:
        return VMNotRunning(f"The VM {vm.label} is not running yet.", "Repeat the call in a moment.")
    if not eligibility.enabled(vm):
        return VMNotRegistered(f"Container management is off for the VM {vm.label}.")
    return None


def _storage_host(session: Session, arguments: "Mapping[str, str]", here: str) -> str:
    """The VM's host if it runs; else one that the disk's storage, or the storage named, is attached to."""
    xapi = session.xenapi
    if "vmuuid" in arguments:
        vm = xapi_vm.record(session, arguments["vmuuid"])
        if vm.resident_on != NULL_REF:
            return vm.resident_on
    if "vdiuuid" in arguments:
        return storage.disk_host(session, xapi.VDI.get_by_uuid(arguments["vdiuuid"]), here)
    if "sruuid" in arguments:
        # A VM's always to the same one: there, calls that change one VM wait for each other.
        preferred = "" if "vmuuid" in arguments else here
        return storage.nearest_host(session, xapi.SR.get_by_uuid(arguments["sruuid"]), preferred)
    return here


# --- another host -------------------------------------------------------------------------------


def longest_action(verb: Verb, settings: Settings) -> float:
    """Seconds after which even an action that has to connect first is over, here or on another host."""
    ssh = settings.ssh
    connecting = ssh.connect_timeout + ssh.banner_timeout + ssh.auth_timeout
    # Twice the request: an action may look at the container before it changes it.
    return settings.xapi.timeout + connecting + 2 * settings.engine.request_timeout + verb.patience


def _forward(call: Call, context: Context, host: str) -> bytes:
    """The other host's reply, unchanged.

    :raises XapiError: its failure, with its ``details``.
    :raises VMElsewhere: the call has been handed on too often already.
    """
    if call.hops >= MOST_HOPS:
        raise VMElsewhere(f"The function '{call.function}' was handed from host to host {call.hops} times "
                          "without finding the one that must serve it: the VM is on the move.")
    try:
        return success(_call_plugin(call, context, host))
    except XapiError as error:
        if isinstance(error, ObjectGone) and error.details[1:2] == ["host"]:
            raise VMElsewhere("The host that the VM was on has left the pool.") from error
        if error.details:
            # Of no class but this: describe() has words of its own for others.
            raise XapiError(error.message, details=error.details) from error
        if isinstance(error, XapiUnavailable):
            raise XapiUnavailable(f"The call '{call.function}' went to another host, and no answer came back. "
                                  f"{error.message} What it asked for may have happened.") from error
        raise


def _call_plugin(call: Call, context: Context, host: str) -> str:
    settings = context.settings
    arguments = dict(call.arguments)
    arguments[HOPS] = str(call.hops + 1)

    def work(session: Session) -> str:
        # Beyond what the verb itself takes: what its caller has it wait for.
        with session.patient(longest_action(call.verb, settings) + float(call.arguments.get("wait") or 0)):
            plugin = settings.daemon.plugin_name
            return str(session.xenapi.host.call_plugin(host, plugin, call.function, arguments))

    # xapi looks at the session first: if that is gone, nothing was called and it may be tried again.
    return context.forwarding.run(work)
