"""Log in to XAPI, and call functions of the host plugin as every client does."""

import argparse
import contextlib
import os
import random
import time
from typing import Any, Callable, Iterator, Mapping, Optional, Sequence, Tuple, TypeVar

from xscontainer.cli import server_options
from xscontainer.core import policy
from xscontainer.core.verb import EVERYONE, READING, Verb
from xscontainer.core.vm_record import NULL_REF
from xscontainer.errors import ArgumentError, Busy, NotPermitted, XapiError, XapiUnavailable, XSContainerError
from xscontainer.settings import Settings
from xscontainer.xapi import pool
from xscontainer.xapi.session import Session

# s that a call may take beyond the verb's own patience: the plugin answers within 30 s, and XAPI needs some time too.
PATIENCE = 60.0
# s during which a call is repeated if another one through the same VM is under way: XAPI refuses a second one.
TAKES_TURNS = 15.0
_TURN = 0.2
SHORT_WAIT = "5"  # s for which such a call waits for something new

BY_HOST, BY_VM = "host.call_plugin", "VM.call_host_plugin"

Result = TypeVar("Result")
Send = Callable[[str, Tuple[Any, ...]], Result]


@contextlib.contextmanager
def logged_in(options: argparse.Namespace, settings: Settings) -> "Iterator[Session]":
    """Yield a session on XAPI, and log out at the end.

    :param options: of the command line; they or the environment may name a server.
    :raises XapiError: when XAPI does not answer, or refuses. NotPermitted: when a server refuses the login.
    """
    session = login(options, settings)
    try:
        yield session
    finally:
        session.logout()


def login(options: argparse.Namespace, settings: Settings) -> Session:
    """Return a session on XAPI, which the caller has to log out; see :func:`logged_in`."""
    server = server_options.named(options, os.environ)
    if server is not None:
        from xscontainer.cli import server as elsewhere  # here for start-up time: it imports ssl

        return elsewhere.login(server, options, settings, os.environ)
    # Not by access.login: that module imports paramiko and docker, half a second of CPU.
    xapi = settings.xapi
    try:
        return Session.login(xapi.socket, xapi.originator, xapi.timeout, xapi.login_timeout)
    except XapiUnavailable as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        raise XapiUnavailable(f"XAPI does not run on this machine: {xapi.socket} does not exist.",
                              "Run the command on a host of the pool, or name a host: xscontainer --server HOST. On a "
                              "host, check the toolstack.") from error


def only_here(session: Session, what: str, instead: str) -> None:
    """Refuse what needs files or processes of a host.

    :param what: an option or command. :param instead: what to do, a sentence.
    :raises ArgumentError: when XAPI is on another machine.
    """
    if not session.endpoint.is_local:
        raise ArgumentError(f"{what} works only on a host of the pool, not with --server.", instead)


def this_host(session: Session, settings: Settings) -> str:
    """Return the ref of the host that this process runs on.

    :raises XapiError: when it cannot be found.
    """
    try:
        return pool.this_host(session, settings.daemon.inventory)[0]
    except (OSError, ValueError) as error:
        raise XapiError(f"The uuid of this host cannot be found: {error}.",
                        "Run the command in dom0, or name a host of the pool with --server.") from error


def answered(text: str) -> str:
    """Return the answer of a plugin function without the ``True`` before it."""
    return text[4:] if text.startswith("True") else text


def plugin_failure(details: "Sequence[str]") -> "Optional[XapiError]":
    """Return the failure of a plugin function, with its code and sentences as text; None for a failure of XAPI."""
    by_plugin = len(details) == 2 or details[:1] == [Busy.code]  # BUSY has a third word, a number for programs
    return XapiError(": ".join(details[:2]), details=list(details)) if by_plugin else None


@contextlib.contextmanager
def reading() -> "Iterator[None]":
    """Translate the errors of code that reads an answer of the plugin to XapiError."""
    try:
        yield
    except (ValueError, LookupError, TypeError) as error:
        raise XapiError(f"The plugin's answer cannot be read: {error}.",
                        "Check that every host of the pool has the same release of xscontainer.") from error


def call(session: Session, settings: Settings, verb: Verb, **arguments: str) -> str:
    """Call a verb through a host's plugin, which finds the host that serves it, and return its answer.

    :raises XapiError: when it fails; ``details`` has its code and sentences.
    :raises NotPermitted: when the user of a server may not call any function.
    """
    def send(method: str, params: "Tuple[Any, ...]") -> str:
        try:
            with session.patient(PATIENCE + verb.patience):
                return str(session.xenapi_request(method, params))
        except XapiError as error:
            raise (plugin_failure(error.details) or error) from error

    return answered(permitted(session, settings, verb, arguments, send))


def permitted(session: Session, settings: Settings, verb: Verb, arguments: "Mapping[str, str]",
              send: "Send[Result]") -> Result:
    """Call a plugin function in a way that the user may use, and return the result.

    On a host that is host.call_plugin. From another machine a user below pool-admin may call only
    VM.call_host_plugin (xapi 25.22 and later, vm-operator), for a function about a running VM.

    :param send: (method, parameters without the session) -> result.
    :raises NotPermitted: when there is no such way.
    """
    rest = (settings.daemon.plugin_name, verb.name)
    if session.endpoint.is_local:
        return send(BY_HOST, (this_host(session, settings), *rest, dict(arguments)))
    if BY_HOST not in session.endpoint.refused:
        try:
            return send(BY_HOST, (_host(session, verb, arguments), *rest, dict(arguments)))
        except XapiError as error:
            if not _denied(error, BY_HOST):
                raise
            session.endpoint.refused.add(BY_HOST)  # a command that follows something calls again and again
    if "vmuuid" not in arguments:
        raise NotPermitted(f"The function '{verb.name}' is not about one VM, so XAPI requires the role pool-admin.",
                           "Log in as a user with that role.")
    return _through_vm(session, verb, rest, arguments, send)


def _host(session: Session, verb: Verb, arguments: "Mapping[str, str]") -> str:
    """Return the ref of the host to call from another machine: the VM's host, else the coordinator."""
    # If not everybody may call the function: only on the coordinator the plugin learns who calls.
    if "vmuuid" in arguments and policy.needed(verb, arguments)[0] == EVERYONE:
        host = str(session.xenapi.VM.get_resident_on(session.xenapi.VM.get_by_uuid(arguments["vmuuid"])))
        if host != NULL_REF:
            return host
    (record,) = session.xenapi.pool.get_all_records().values()
    return str(record["master"])


def _through_vm(session: Session, verb: Verb, rest: "Tuple[str, str]", arguments: "Mapping[str, str]",
                send: "Send[Result]") -> Result:
    vm = session.xenapi.VM.get_by_uuid(arguments["vmuuid"])
    given = dict(arguments)
    waits = "wait" in given and verb.lane == READING
    if waits:  # until there is something new: other calls through the VM must get their turn
        given["wait"] = SHORT_WAIT
    deadline = time.monotonic() + TAKES_TURNS
    while True:
        try:
            answer = send(BY_VM, (vm, *rest, given))
            break
        except XapiError as error:
            if error.details[:1] != ["OTHER_OPERATION_IN_PROGRESS"] or time.monotonic() > deadline:
                raise _reworded(verb, error) from error
        time.sleep(_TURN)
    if waits:
        time.sleep(_TURN * random.uniform(1.0, 2.0))
    return answer


def _reworded(verb: Verb, error: XapiError) -> XSContainerError:
    """Return the error for a user who may call functions only through a VM."""
    code = (error.details or [""])[0]
    if code == "MESSAGE_METHOD_UNKNOWN" or _denied(error, "host.call_extension"):
        return NotPermitted(f"This XAPI is older than 25.22: only a pool-admin may call the function '{verb.name}'.",
                            "Log in as a user with the role pool-admin.")
    if _denied(error, BY_VM):
        return NotPermitted(f"The function '{verb.name}' requires the role vm-operator or a higher one.",
                            "Log in as a user with that role.")
    if code == "VM_BAD_POWER_STATE":
        return NotPermitted(f"The VM is not running, so XAPI requires the role pool-admin for the function "
                            f"'{verb.name}'.", "Start the VM, or log in as a user with that role.")
    if code == NotPermitted.code:  # the plugin on a member cannot tell who calls
        return NotPermitted(": ".join(error.details[1:2]), "Log in as a user with the role pool-admin.")
    return error


def _denied(error: XapiError, method: str) -> bool:
    return error.details[:1] == ["RBAC_PERMISSION_DENIED"] and error.details[1:2] == [method.lower()]
