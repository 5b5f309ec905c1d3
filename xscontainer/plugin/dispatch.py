"""One plugin call in the daemon, or in the plugin's own process: read, check, admit, serve, answer.

Input: XAPI's methodCall as bytes, from service/server.py or plugin/forward.py. Output: the methodResponse as bytes.
In between lie the rows of verbs/ (arguments, permission), plugin/admission.py (backpressure) and plugin/routing.py
(which host serves the call). :func:`serve` is the part that does not depend on how a call is written: another door
to the verbs makes its own :class:`Call` and calls it.

The session that XAPI passes along only tells who calls: it is the caller's on the coordinator and anonymous
elsewhere. Our own login does the work.
"""

import logging
import math
import re
import time
import uuid
from typing import TYPE_CHECKING, List, Mapping

from xscontainer.core import arguments, current_call, policy, wire
from xscontainer.core import memory_budget as memory
from xscontainer.core.arguments import shown
from xscontainer.core.verb import EVERYONE, LONG, READING, Verb
from xscontainer.errors import (
    ArgumentError,
    NotPermitted,
    ObjectGone,
    XapiError,
    XSContainerError,
    shortage,
)
from xscontainer.plugin import routing
from xscontainer.plugin.routing import Call
from xscontainer.verbs.context import Context
from xscontainer.verbs.table import VERBS
from xscontainer.xapi.session import Session

if TYPE_CHECKING:
    # Importing this loads paramiko and docker, which the caller of handle() has done.
    from xscontainer.plugin.context import LocalContext

# s after which a call that a person waits for is answered, whatever happens, on whatever host. ``patience`` adds to it.
ANSWERED_WITHIN = 28.0

# The text of an error in xscontainer itself; the log has its traceback.
UNEXPECTED = ("xscontainer failed because of an error of its own. The requested action may have happened. "
              "See the log of xscontainer-monitor on this host: journalctl -u xscontainer-monitor")

# Characters of a failure's description in the log: it ends with what to do.
LONGEST_LOGGED = 2000

_FRACTION = re.compile(r"[0-9]{1,4}(\.[0-9]{1,3})?\Z")

log = logging.getLogger(__name__)


class UnknownFunction(Exception):
    """args[0]: its name."""


def handle(argument: bytes, context: "LocalContext", verbs: "Mapping[str, Verb]" = VERBS) -> bytes:
    """Serve one call and return its methodResponse. Never raises: every error becomes a Failure."""
    started = time.monotonic()
    function, subject = "", ""
    try:
        call = read_call(argument, verbs)
        function = call.verb.name
        subject = " ".join(call.arguments[name] for name in call.verb.required if name != "configuration")
        with current_call.serving(call.id, call.seconds), \
                context.admission.admitted(function, call.arguments.get("vmuuid", ""), call.verb.lane):
            value = serve(call, context)
            with memory.workshop:  # the reply takes three copies of a value that may be large
                reply = wire.success(value)
    except Exception as caught:
        error = shortage(caught) or caught
        description = describe(function, error)
        what = " ".join(filter(None, (function or wire.function_of(argument) or "a call", subject)))
        if isinstance(error, (XSContainerError, UnknownFunction)):
            log.warning("plugin: %s failed: %s", what, shown(" ".join(description), LONGEST_LOGGED))
        else:
            log.exception("plugin: %s failed, which should not happen", what)
        return wire.failure(description)
    # Those who follow a log call again and again.
    level = logging.DEBUG if call.verb.lane == READING else logging.INFO
    log.log(level, "plugin: %s %s took %.0f ms", function, subject, (time.monotonic() - started) * 1000)
    return reply


# --- reading ------------------------------------------------------------------------------------


def read_call(argument: bytes, verbs: "Mapping[str, Verb]") -> Call:
    """The call that a methodCall makes.

    :raises ArgumentError: it is not a call, or an argument is missing or malformed.
    :raises UnknownFunction: no verb has that name.
    """
    function, session, given = wire.decode(argument)
    verb = verbs.get(function)
    if verb is None:
        raise UnknownFunction(function[:arguments.LONGEST_SHOWN])
    checked = verb.checked(given)
    hops = given.get(wire.HOPS, "0")
    if not re.match(r"[0-9]\Z", hops):
        raise ArgumentError(f"The argument '{wire.HOPS}' is for calls from host to host and must be a digit, "
                            f"not {shown(hops)}.")
    call_id = arguments.uuid(wire.CALL, given[wire.CALL]) if wire.CALL in given else str(uuid.uuid4())
    return Call(verb, checked, int(hops), call_id, _seconds(verb, given), session)


def _seconds(verb: Verb, given: "Mapping[str, str]") -> float:
    if verb.lane == LONG:
        return math.inf
    left = given.get(wire.SECONDS, "")
    if left and not _FRACTION.match(left):
        raise ArgumentError(f"The argument '{wire.SECONDS}' is for calls from host to host and must be seconds, "
                            f"not {shown(left)}.")
    most = ANSWERED_WITHIN + verb.patience
    return min(most, float(left)) if left else most


def describe(function: str, error: Exception) -> "List[str]":
    """The ErrorDescription for any error: a code, then sentences."""
    if isinstance(error, UnknownFunction):
        return ["UNKNOWN_XENAPI_PLUGIN_FUNCTION", function or str(error)]
    if type(error) is XapiError and error.details:
        return error.details
    if isinstance(error, ObjectGone) and error.details[:1] == ["UUID_INVALID"] and len(error.details) > 2:
        return [error.code, f"There is no {error.details[1]} with the uuid {error.details[2]}."]
    if isinstance(error, XSContainerError):
        return error.description()
    return ["XENAPI_PLUGIN_FAILURE", function or "unknown", XSContainerError.code, UNEXPECTED]


# --- serving ------------------------------------------------------------------------------------


def serve(call: Call, context: Context) -> str:
    """Serve the call here, or have the host that must serve it do so; returns the value.

    :raises XSContainerError: it is refused, or it failed.
    """
    if policy.needed(call.verb, call.arguments)[0] != EVERYONE:
        caller = _caller(call, context)
        refusal = policy.refusal(call.verb, call.arguments, caller)
        if refusal:
            raise NotPermitted(refusal, "" if caller.known else policy.UNKNOWN_HINT)
    host = routing.other_host(call, context)
    if host is None:
        try:
            return call.verb.action(context, **call.arguments)
        except XSContainerError as error:
            if not error.moved:
                raise
            # The VM or disk left after it was looked up. The action has done nothing yet, or undone it.
            host = routing.other_host(call, context, fresh=True)
            if host is None:
                raise
    return routing.hand_on(call, context, host)


def _caller(call: Call, context: Context) -> policy.Caller:
    here = context.this_host_ref()

    def ask(session: Session) -> policy.Caller:
        xapi = session.xenapi
        if xapi.pool.get_master(xapi.pool.get_all()[0]) != here:
            # For a VM on any host: callers may shut their VM down or move it meanwhile.
            busy = any("call_plugin" in vm["current_operations"].values()
                       for vm in xapi.VM.get_all_records_where('field "is_a_template" = "false"').values())
            return policy.Caller(False, False, frozenset(), busy)
        return policy.Caller(True, xapi.session.get_is_local_superuser(call.session),
                             frozenset(xapi.session.get_rbac_permissions(call.session)), False)

    try:
        return context.sessions.run(ask)
    except ObjectGone:  # the session is over: its owner does not wait for an answer
        return policy.Caller(True, False, frozenset(), False)
