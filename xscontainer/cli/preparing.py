"""``xscontainer prepare``: a VM that only its owner can log in to is made one whose containers are managed."""

import argparse
import json
import shutil
import sys
from typing import Any, Dict, NamedTuple, Optional

from xscontainer import keys
from xscontainer.cli import asking, calling, finding, handing, inventory, listing, progress
from xscontainer.cli.columns import neutral
from xscontainer.cli.telling import say
from xscontainer.errors import VMElsewhere, XapiError
from xscontainer.reach import DOCKER, PODMAN, SSH, TLS, check
from xscontainer.settings import Settings
from xscontainer.xapi import secret
from xscontainer.xapi.session import Session

# What the options become, and what they are called here.
_KEYS = {"username": keys.USERNAME, "address": keys.ADDRESS, "port": keys.SSH_PORT, "enginesocket": keys.ENGINE_SOCKET}
_OPTIONS = {keys.USERNAME: "-u", keys.ADDRESS: "--address", keys.SSH_PORT: "--port",
            keys.ENGINE_SOCKET: "--engine-socket"}

TRIES = 3  # for a password that is typed
NOT_LISTED = 3
ENDING = 60.0  # s in which the plugin function is over when it is called off: a guest may hold on to the CD


class Wanted(NamedTuple):
    """:ivar wishes: arguments of the plugin function, "" or absent: as it is.

    :ivar descriptor: where to read the password from; None: the terminal.
    """

    vm: str  # uuid
    wishes: Dict[str, str]
    fingerprint: Optional[str] = None
    yes: bool = False
    descriptor: Optional[int] = None
    agent: bool = False


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "prepare", help="make a VM's containers managed",
        description="Logs in to a running VM once, by password or SSH agent, lets the pool's SSH key in, sees that "
                    "the engine answers, and switches container management on. A second time it changes nothing.",
        epilog=f"Exit code: 0 listed, {NOT_LISTED} prepared but nothing is listed; otherwise as for every command.")
    parser.add_argument("vm", metavar="VM", help="name or uuid")
    parser.add_argument("-u", "--user", help="whom to log in as")
    parser.add_argument("--mode", choices=(SSH, TLS), help="how the engine is reached (default: as set, or ssh)")
    parser.add_argument("--address", help="IP address or name, instead of what the guest tools report")
    parser.add_argument("--port", help="TCP port of the VM's sshd, or of its engine with --mode tls")
    parser.add_argument("--engine", choices=(DOCKER, PODMAN), help="which one, if the VM has both")
    parser.add_argument("--engine-socket", metavar="PATH", help="of the engine in the VM, if it is not found by itself")
    asking.add_options(parser)
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--password-fd", metavar="N", type=int, help="read the password from this file descriptor")
    ways.add_argument("--agent", action="store_true",
                      help="log in with the keys of your SSH agent; on the host where the VM runs")
    handing.add_options(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    wishes = {"username": options.user, "mode": options.mode, "address": options.address, "port": options.port,
              "engine": options.engine, "enginesocket": options.engine_socket}
    handing.check(options)
    with calling.logged_in(settings) as session:
        vm = finding.vm(session, options.vm)
        with handing.wishes(session, options, vm) as more:
            return prepare(session, settings, Wanted(
                vm, {**{name: value for name, value in wishes.items() if value}, **more}, options.fingerprint,
                options.yes, options.password_fd, options.agent))


def prepare(session: Session, settings: Settings, wanted: Wanted) -> int:
    """The exit code; what happens is printed.

    :raises XSContainerError:
    """
    check({key: wanted.wishes.get(name, "") for name, key in _KEYS.items()}, _OPTIONS, settings)
    told = _told(session, settings, wanted)
    what = ("The pool's key was installed" if told["key_installed"] else
            "The engine has its new certificate" if "generatecerts" in wanted.wishes else "Nothing had to be installed")
    containers = "1 container" if told["containers"] == 1 else f"{int(told['containers'])} containers"
    print(f"{what}; the engine {neutral(str(told['engine']))} answers, with {containers}.")
    for sentence in told.get("left", ()):
        say(f"xscontainer: {sentence}")
    if not told["published"]:
        say("xscontainer: No list is published yet. Check that xscontainer-monitor runs on the VM's host.")
        return NOT_LISTED
    everything = listing.narrow(inventory.read(session, every_vm=True), None, wanted.vm)
    text = listing.as_table(everything, shutil.get_terminal_size().columns if sys.stdout.isatty() else None)
    encoding = sys.stdout.encoding or "ascii"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    return 0


def _told(session: Session, settings: Settings, wanted: Wanted) -> "Dict[str, Any]":
    arguments = dict(wanted.wishes, vmuuid=wanted.vm)
    if (wanted.wishes.get("mode") or _config(session, wanted).get(keys.MODE)) != TLS:
        fingerprint = _vouched(session, settings, wanted)
        if fingerprint:
            arguments["fingerprint"] = fingerprint
    if wanted.agent:
        return _by_agent(settings, wanted, arguments.get("fingerprint", ""))
    try:
        return _called(session, settings, arguments)
    except XapiError as error:
        if error.details[:1] != ["KEY_NOT_ACCEPTED"]:
            raise
    tries = 1 if wanted.descriptor is not None else TRIES
    while True:
        password = asking.password(wanted.wishes.get("username") or _user(session, settings, wanted), wanted.descriptor)
        uuid = secret.keep_password(session, password, wanted.vm)
        try:
            return _called(session, settings, dict(arguments, passwordsecret=uuid))
        except XapiError as error:
            tries -= 1
            if error.details[:1] != ["PASSWORD_NOT_ACCEPTED"] or not tries:
                raise
            say(f"xscontainer: {error}")
        finally:
            secret.forget_password(session, uuid)


def _called(session: Session, settings: Settings, arguments: "Dict[str, str]") -> "Dict[str, Any]":
    tell: progress.Tell = progress.on_stderr
    if "generatecerts" in arguments:
        config = session.xenapi.VM.get_other_config(session.xenapi.VM.get_by_uuid(arguments["vmuuid"]))
        tell = handing.Steps(arguments.get("port") or config.get(keys.TLS_PORT) or str(settings.engine.tls_port))
    answer = progress.call(session, settings, "prepare", arguments, tell, ENDING)
    try:
        told: Dict[str, Any] = json.loads(answer)
        return told
    except ValueError as error:
        raise XapiError(f"The plugin's answer cannot be read: {error}.",
                        "Check that every host of the pool has the same release of xscontainer.") from error


def _vouched(session: Session, settings: Settings, wanted: Wanted) -> str:
    """The fingerprint that a person confirmed; "" where the host key is pinned already."""
    where = {name: wanted.wishes[name] for name in ("address", "port", "mode") if name in wanted.wishes}
    shown = json.loads(calling.call(session, settings, "hostkey_show", vmuuid=wanted.vm, **where))
    if shown["pinned_fingerprint"] and wanted.fingerprint is None:
        return ""  # the plugin compares them
    if shown["pinned"] and not shown["pinned_fingerprint"]:
        print("What is pinned for the VM is no host key.")
    return asking.confirmed(shown, wanted.fingerprint, wanted.yes)


def _user(session: Session, settings: Settings, wanted: Wanted) -> str:
    return _config(session, wanted).get(keys.USERNAME) or settings.ssh.user


def _config(session: Session, wanted: Wanted) -> "Dict[str, str]":
    return dict(session.xenapi.VM.get_other_config(session.xenapi.VM.get_by_uuid(wanted.vm)))


def _host_name(session: Session, vm_uuid: str) -> str:
    host = session.xenapi.host.get_record(session.xenapi.VM.get_resident_on(session.xenapi.VM.get_by_uuid(vm_uuid)))
    return f"the host {host['name_label']} ({host['address']})"


def _by_agent(settings: Settings, wanted: Wanted, fingerprint: str) -> "Dict[str, Any]":
    """In this process, which alone has the agent."""
    from xscontainer.actions import hostkeys, onboarding
    from xscontainer.context import local_context

    with local_context(settings) as context:
        try:
            vm = hostkeys.running_here(context, wanted.vm)
        except VMElsewhere as error:
            name = context.sessions.run(lambda session: _host_name(session, wanted.vm))
            raise VMElsewhere(error.message, f"Run this on {name}, with your agent forwarded.") from error
        return onboarding.prepared(context, vm, wanted.wishes, fingerprint,
                                   lambda guest, user: guest.by_agent(user))
