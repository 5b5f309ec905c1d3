"""The steps that ``xscontainer prepare`` and xscontainer-prepare-vm have in common: questions, plugin call, report."""

import argparse
import json
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from xscontainer import keys
from xscontainer.cli import plugin_call, ps, tls_options
from xscontainer.cli.ui import progress, prompts
from xscontainer.cli.ui.columns import neutral
from xscontainer.cli.ui.output import say
from xscontainer.core.target import TLS, check
from xscontainer.errors import VMElsewhere, XapiError
from xscontainer.settings import Settings
from xscontainer.xapi import secret
from xscontainer.xapi.session import Session

# Argument of the plugin function -> key in other_config -> option of this command.
_KEYS = {"username": keys.USERNAME, "address": keys.ADDRESS, "port": keys.SSH_PORT, "enginesocket": keys.ENGINE_SOCKET}
_OPTIONS = {keys.USERNAME: "-u", keys.ADDRESS: "--address", keys.SSH_PORT: "--port",
            keys.ENGINE_SOCKET: "--engine-socket"}

TRIES = 3  # for a password that is typed
NOT_LISTED = 3  # exit code
ENDING = 60.0  # s that the plugin function may take to end after it is cancelled: a guest may keep the CD busy


class Request(NamedTuple):
    """A VM to prepare.

    :ivar vm: its uuid.
    :ivar arguments: arguments of the plugin function; an absent one leaves the VM's setting unchanged.
    :ivar fingerprint: of the VM's SSH host key; None: ask the user.
    :ivar yes: trust the presented host key without a question.
    :ivar descriptor: file descriptor to read the password from; None: the terminal.
    :ivar agent: log in with the user's SSH agent instead of a password.
    """

    vm: str
    arguments: Dict[str, str]
    fingerprint: Optional[str] = None
    yes: bool = False
    descriptor: Optional[int] = None
    agent: bool = False


def given(options: argparse.Namespace) -> "Dict[str, str]":
    """Return the arguments of the plugin function that the options name."""
    every = {"username": options.user, "mode": options.mode, "address": options.address, "port": options.port,
             "engine": options.engine, "enginesocket": options.engine_socket}
    return {name: value for name, value in every.items() if value}


def check_arguments(arguments: "Dict[str, str]", settings: Settings) -> None:
    """Check the arguments, so that an error names the option.

    :raises ArgumentError: when one is wrong.
    """
    check({key: arguments.get(name, "") for name, key in _KEYS.items()}, _OPTIONS, settings)


def prepare(session: Session, settings: Settings, request: Request) -> int:
    """Prepare the VM, print what was done and return the exit code.

    :raises XSContainerError: when it fails; the code says why.
    """
    check_arguments(request.arguments, settings)
    answer = _ask_for_host_key_and_prepare(session, settings, request)
    done = ("The pool's key was installed." if answer["key_installed"] else
            "The engine has its new certificate." if "generatecerts" in request.arguments else
            "Nothing had to be installed.")
    containers = "1 container" if answer["containers"] == 1 else f"{int(answer['containers'])} containers"
    print(f"{done} The engine answers: version {neutral(str(answer['engine']))}, {containers}.")
    for sentence in remarks(answer):
        say(f"xscontainer: {sentence}")
    if not answer["published"]:
        return NOT_LISTED
    ps.show_vm(session, request.vm)
    return 0


def remarks(answer: "Dict[str, Any]") -> "List[str]":
    """Return a sentence for each thing that a person should know, from the answer of the plugin function."""
    found = [str(sentence) for sentence in answer.get("left", ())]
    missing = answer.get("missing")
    if missing:
        found.append(f"{missing['code']}: {missing['message']} {missing['next']}")
    if not answer["published"]:
        found.append("No list is published yet. Check that xscontainer-monitor runs on the VM's host: xscontainer "
                     "diagnose.")
    return found


def _ask_for_host_key_and_prepare(session: Session, settings: Settings, request: Request) -> "Dict[str, Any]":
    arguments = dict(request.arguments, vmuuid=request.vm)
    if is_over_ssh(session, request):
        shown = shown_host_key(session, settings, request)
        if not is_pinned(shown, request):
            arguments["fingerprint"] = confirmed(shown, request)
    if request.agent:
        return by_agent(settings, request, arguments.get("fingerprint", ""))
    try:
        return call(session, settings, arguments)
    except XapiError as error:
        if error.details[:1] != ["KEY_NOT_ACCEPTED"]:
            raise
    return _prepare_by_password(session, settings, request, arguments)


def _prepare_by_password(session: Session, settings: Settings, request: Request,
                         arguments: "Dict[str, str]") -> "Dict[str, Any]":
    tries = 1 if request.descriptor is not None else TRIES
    while True:
        user = user_of(session, settings, request)
        password = prompts.password(user, request.descriptor)
        uuid = secret.keep_password(session, password, request.vm)
        try:
            return call(session, settings, dict(arguments, passwordsecret=uuid))
        except XapiError as error:
            tries -= 1
            if error.details[:1] != ["PASSWORD_NOT_ACCEPTED"] or not tries:
                raise
            say(f"xscontainer: {error}")
        finally:
            secret.forget_password(session, uuid)


def call(session: Session, settings: Settings, arguments: "Dict[str, str]",
         report: progress.Report = progress.on_stderr,
         pause: "Callable[[float], object]" = time.sleep) -> "Dict[str, Any]":
    """Call the plugin function and return its answer; the last two parameters are those of progress.call.

    :raises XapiError: when it fails.
    """
    from xscontainer.verbs.prepare import PREPARE  # here for start-up time, see cli/__init__.py

    if "generatecerts" in arguments:
        config = session.xenapi.VM.get_other_config(session.xenapi.VM.get_by_uuid(arguments["vmuuid"]))
        port = arguments.get("port") or config.get(keys.TLS_PORT) or str(settings.engine.tls_port)
        report = tls_options.Steps(port, report)
    answer = progress.call(session, settings, PREPARE, arguments, report, ENDING, pause)
    with plugin_call.reading():
        decoded: Dict[str, Any] = json.loads(answer)
        return decoded


def is_over_ssh(session: Session, request: Request) -> bool:
    """Return whether the VM is reached over SSH, and so has a host key to confirm."""
    return (request.arguments.get("mode") or _config(session, request).get(keys.MODE)) != TLS


def shown_host_key(session: Session, settings: Settings, request: Request) -> "Dict[str, Any]":
    """Return the answer of hostkey_show for the VM."""
    from xscontainer.verbs import hostkeys  # here for start-up time, see cli/__init__.py

    where = {name: request.arguments[name] for name in ("address", "port", "mode") if name in request.arguments}
    found: Dict[str, Any] = json.loads(plugin_call.call(session, settings, hostkeys.SHOW, vmuuid=request.vm, **where))
    return found


def is_pinned(shown: "Dict[str, Any]", request: Request) -> bool:
    """Return whether a readable host key is pinned, which the plugin compares, and nobody names another one."""
    return bool(shown["pinned_fingerprint"]) and request.fingerprint is None


def confirmed(shown: "Dict[str, Any]", request: Request) -> str:
    """Return the fingerprint that a person confirmed; errors are those of prompts.confirmed."""
    if shown["pinned"] and not shown["pinned_fingerprint"]:
        print("The pinned host key of the VM is not readable.")
    return prompts.confirmed(shown, request.fingerprint, request.yes)


def user_of(session: Session, settings: Settings, request: Request) -> str:
    """Return the user in the VM to log in as."""
    return request.arguments.get("username") or _config(session, request).get(keys.USERNAME) or settings.ssh.user


def _config(session: Session, request: Request) -> "Dict[str, str]":
    return dict(session.xenapi.VM.get_other_config(session.xenapi.VM.get_by_uuid(request.vm)))


def _host_name(session: Session, vm_uuid: str) -> str:
    host = session.xenapi.host.get_record(session.xenapi.VM.get_resident_on(session.xenapi.VM.get_by_uuid(vm_uuid)))
    return f"the host {host['name_label']} ({host['address']})"


def by_agent(settings: Settings, request: Request, fingerprint: str) -> "Dict[str, Any]":
    """Prepare the VM from this process: only it can reach the user's agent."""
    # Imported here for start-up time: paramiko takes 147 ms and docker 242 ms, which only --agent needs.
    from xscontainer.plugin.context import local_context
    from xscontainer.verbs import hostkeys
    from xscontainer.verbs import prepare as verb

    with local_context(settings) as context:
        try:
            vm = hostkeys.running_here(context, request.vm)
        except VMElsewhere as error:
            name = context.sessions.run(lambda session: _host_name(session, request.vm))
            raise VMElsewhere(error.message, f"Run this on {name}, with your agent forwarded.") from error
        return verb.prepared(context, vm, request.arguments, fingerprint,
                             lambda guest, user: guest.by_agent(user))
