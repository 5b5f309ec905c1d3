"""Preparing a VM: from one that only its owner can log in to, to one whose containers are managed."""

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any, Callable, ContextManager, Dict, Iterator, NamedTuple, Optional, Tuple

from xscontainer import calls, keys
from xscontainer.actions import DONE, awaiting, registration
from xscontainer.actions.context import Context
from xscontainer.actions.hostkeys import compare, greet, pin_of, running_here
from xscontainer.errors import (
    ArgumentError,
    CalledOff,
    HostKeyUnconfirmed,
    HostKeyUnreadable,
    KeyInstallFailed,
    KeyNotAccepted,
    VMNotRunning,
)
from xscontainer.fingerprint import compare_hint
from xscontainer.reach import SSH, TLS, Reach, check
from xscontainer.vmrecord import VMRecord
from xscontainer.xapi import secret, task
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session

if TYPE_CHECKING:
    from xscontainer.actions.handover import Offer
    from xscontainer.engine.login import Guest

# s in which the monitor has to publish the first list.
PUBLISHED_WITHIN = 20.0
WATCHED_WITHIN = 3.0  # s in which there must be a monitor; what is published without one is of any age
LOOK = 0.05  # s between two looks for it
MOST_WAIT = 1800  # s
USUAL_WAIT = 600.0  # s for somebody to run the script on the CD

_TLS_SECRETS = {"cacertsecret": keys.TLS_CA_CERT, "clientcertsecret": keys.TLS_CLIENT_CERT,
                "clientkeysecret": keys.TLS_CLIENT_KEY}
_WISHES = {"username": keys.USERNAME, "mode": keys.MODE, "address": keys.ADDRESS, "enginesocket": keys.ENGINE_SOCKET,
           "engine": keys.ENGINE, **_TLS_SECRETS}
WISHES = (*_WISHES, "port")
_CALLED = {key: f"The argument '{name}'" for name, key in (
    *_WISHES.items(), ("port", keys.SSH_PORT), ("port", keys.TLS_PORT))}

LogIn = Callable[["Guest", str], None]  # (guest, user)
Offering = Callable[[VMRecord], "ContextManager[Offer]"]


class Found(NamedTuple):
    """:ivar changes: of the VM's other_config, that make it reachable. :ivar key_installed: it was not there before."""

    changes: Dict[str, str]
    fingerprint: str
    key_installed: bool


def prepare(context: Context, vmuuid: str, passwordsecret: str = "", fingerprint: str = "", wait: str = "",
            generatecerts: str = "", sruuid: str = "", **wishes: str) -> str:
    """See :func:`prepared`; with the password in a XAPI secret, which is destroyed before anybody is asked anything.

    Not before it is clear that the VM is here: the host that it is on needs the secret, too.
    """
    if int(wait or 0) > MOST_WAIT:
        raise ArgumentError(f"The argument 'wait' must be seconds, 0 to {MOST_WAIT}.")
    if generatecerts:
        return DONE + json.dumps(_with_new_certificates(context, vmuuid, wishes, wait, sruuid))
    vm = running_here(context, vmuuid)
    log_in: Optional[LogIn] = None
    if passwordsecret:
        password = context.sessions.run(lambda session: secret.take_password(session, passwordsecret, vmuuid))

        def log_in(guest: "Guest", user: str) -> None:
            guest.by_password(user, password)

    return DONE + json.dumps(prepared(context, vm, wishes, fingerprint, log_in, float(wait or 0)))


def _with_new_certificates(context: Context, vm_uuid: str, wishes: "Dict[str, str]", wait: str,
                           sr_uuid: str) -> "Dict[str, Any]":
    from xscontainer.actions import handover

    if wishes.get("mode", TLS) != TLS or any(wishes.get(name) for name in _TLS_SECRETS):
        raise ArgumentError("Certificates are made for engines over TLS, where none are given.",
                            "Leave out 'generatecerts', or the other arguments.")
    try:
        vm = running_here(context, vm_uuid)
    except VMNotRunning:
        context.sessions.run(lambda session: handover.give_drive(session, vm_uuid))
        raise
    return prepared(context, vm, dict(wishes, mode=TLS), "", None, float(wait) if wait else USUAL_WAIT,
                    lambda vm: handover.offered(context, vm, sr_uuid))


def prepared(context: Context, vm: VMRecord, wishes: "Dict[str, str]", fingerprint: str, log_in: Optional[LogIn],
             wait: float = 0.0, offering: "Optional[Offering]" = None) -> "Dict[str, Any]":
    """Make the VM's engine reachable, see that it is, register the VM and wait for its first list.

    What is so already stays untouched; what does not work is not written.

    :param wishes: by WISHES; "" or absent: as it is.
    :param fingerprint: of the host key that a person confirmed; "" if nobody did.
    :param log_in: how to log in where the pool's key is not accepted yet; None: not at all.
    :param wait: seconds that an engine may take to answer over TLS: somebody is setting it up.
    :param offering: has certificates handed to the guest meanwhile; None: it has some.
    :raises CalledOff: a client cancelled the task; nothing is written then.
    """
    vm = context.sessions.run(lambda session: xapi_vm.adopt(session, vm))
    changes = _changes(vm, wishes)
    check(changes, _CALLED, context.settings)
    with_changes = vm._replace(other_config={**vm.other_config, **changes})
    with contextlib.ExitStack() as inside:
        guest, known = None, False
        if Reach.of(with_changes.other_config, context.settings).mode != TLS:
            # Whoever is not let in is asked for a password and comes again: nothing has failed by then.
            guest, known = inside.enter_context(_entered(context, with_changes, fingerprint, log_in))
        with context.forwarding.lease() as session, task.running(
                session, f"Preparing {vm.name} for container management", "", {task.VM: vm.uuid}) as progress:
            found = Found(changes, "", False)
            if guest:
                if not known:
                    progress(0.2, "installing the pool's key")
                found = _let_in(context, guest, with_changes, changes, known)
                inside.close()
            told = _registered(context, with_changes, found, wait, offering, progress)
            progress(0.9, "waiting for the first list")
            return dict(told, published=_published(context, session, vm, progress))


def _registered(context: Context, vm: VMRecord, found: Found, wait: float, offering: "Optional[Offering]",
                progress: task.Progress) -> "Dict[str, Any]":
    """The engine is reached, all that it takes is written, and the VM is registered."""
    with contextlib.ExitStack() as stack:
        offer = None
        if offering is not None:
            progress(0.3, "making certificates")
            offer = stack.enter_context(offering(vm))
            found = found._replace(changes={**found.changes, **offer.other_config})
        step = "waiting for the engine" if wait else "asking the engine"
        if offer is not None:
            step = f"{calls.SCRIPT_STEP}; its certificate is made out to {', '.join(offer.names)}"
        progress(0.6, step)
        told = _verified(context, vm, found, wait, offer.fingerprint if offer else "", progress, step)
        progress.check()
        progress(0.8, "registering")
        context.sessions.run(lambda session: _write(session, vm, found.changes))
        registration.register(context, vm.uuid)
    return dict(told, left=offer.left if offer else [])


def _changes(vm: VMRecord, wishes: "Dict[str, str]") -> "Dict[str, str]":
    changes = {key: wishes[name] for name, key in _WISHES.items() if wishes.get(name)}
    mode = changes.get(keys.MODE) or vm.other_config.get(keys.MODE) or SSH
    if mode == SSH and not vm.other_config.get(keys.MODE):
        changes.pop(keys.MODE, None)
    if wishes.get("port"):
        changes[keys.TLS_PORT if mode == TLS else keys.SSH_PORT] = wishes["port"]
    return changes


@contextlib.contextmanager
def _entered(context: Context, vm: VMRecord, fingerprint: str,
             log_in: Optional[LogIn]) -> "Iterator[Tuple[Guest, bool]]":
    """The guest, whose host key is known, with us logged in to it; and whether the pool's key did that."""
    from xscontainer.engine import hostkeys

    user = Reach.of(vm.other_config, context.settings).user
    pinned, readable = pin_of(vm)
    if not readable and not fingerprint:
        raise HostKeyUnreadable(f"What is pinned for the VM {vm.label} is no host key.",
                                "Accept the one that the guest shows ('xscontainer hostkey-accept').")
    with greet(context, vm, pinned, {}) as guest:
        hostkeys.check(guest.host_key, pinned, guest.where)
        if fingerprint:
            compare(guest.host_key, fingerprint, guest.where)
        known = guest.by_key(user, context.access.pool_key.private())
        if not known:
            _log_in_otherwise(context, guest, user, log_in, trusted=bool(pinned or fingerprint))
        yield guest, known


def _let_in(context: Context, guest: "Guest", vm: VMRecord, changes: "Dict[str, str]", known: bool) -> Found:
    """The pool's key is accepted from now on, if it is not ``known`` to be already."""
    from xscontainer.engine import hostkeys, install_key

    key = context.access.pool_key.private()
    installed = not known and install_key.install(guest.transport, key)
    return Found({**changes, keys.USERNAME: Reach.of(vm.other_config, context.settings).user,
                  keys.HOST_KEY: guest.host_key.base64, keys.POOL_KEY: hostkeys.of_key(key).fingerprint},
                 guest.host_key.fingerprint, installed)


def _log_in_otherwise(context: Context, guest: "Guest", user: str, log_in: Optional[LogIn], trusted: bool) -> None:
    previous = context.access.pool_key.previous()
    if previous is not None and guest.by_key(user, previous):
        return
    if log_in is None:
        raise KeyNotAccepted(f"The user {user} at {guest.where} may not log in with the pool's key yet.",
                             "Give the user's password, or add the pool's public key to the user's authorized_keys.")
    if not trusted:
        raise HostKeyUnconfirmed(f"The SSH server at {guest.where} shows the host key {guest.host_key}, which nobody "
                                 "confirmed, so it gets no password.",
                                 f"{compare_hint(guest.host_key.kind)}, and give its fingerprint along.")
    log_in(guest, user)


def _verified(context: Context, vm: VMRecord, found: Found, wait: float, certificate: str, progress: task.Progress,
              step: str) -> "Dict[str, Any]":
    """Over a connection as the monitor will make it. For the parameters see :func:`awaiting.opened`."""
    from xscontainer.access import hang_up
    from xscontainer.model import EngineVersion

    vm = vm._replace(other_config={**vm.other_config, **found.changes})
    reach = Reach.of(vm.other_config, context.settings)
    try:
        engine = awaiting.opened(context, vm, found.changes, wait if reach.mode == TLS else 0.0, certificate, progress,
                                 step)
    except KeyNotAccepted as error:
        raise KeyInstallFailed(
            f"The pool's key is in authorized_keys of the user {reach.user}, and yet the VM's sshd does not accept it.",
            "Check AuthorizedKeysFile and AllowUsers in its sshd_config, and that the home directory is not "
            "writable for others; its log says more.") from error
    try:
        version = EngineVersion.from_api(engine.version())
        return {"mode": reach.mode, "user": reach.user, "address": engine.connection.address,
                "fingerprint": found.fingerprint, "engine": version.version, "containers": len(engine.containers()),
                "key_installed": found.key_installed}
    finally:
        hang_up(engine)


def _write(session: Session, vm: VMRecord, changes: "Dict[str, str]") -> None:
    """All that makes the VM reachable, only where it differs; and nothing is left of the certificates it had."""
    now = xapi_vm.adopt(session, xapi_vm.record(session, vm.uuid))
    xapi_vm.put(session, now, changes)
    had = now.other_config
    replaced = [had[key] for key in keys.TLS_SECRETS if had.get(key) and had[key] != changes.get(key, had[key])]
    secret.forget_certificates(session, replaced, vm.uuid)


def _published(context: Context, session: Session, vm: VMRecord, progress: task.Progress) -> bool:
    """Whether the monitor of this host shows a list, now or soon."""
    began = time.monotonic()
    with contextlib.suppress(CalledOff):  # all is done, but for this
        while time.monotonic() < began + PUBLISHED_WITHIN:
            if keys.PS in session.xenapi.VM.get_other_config(vm.ref):
                if context.watched(vm.uuid):
                    return True
                if time.monotonic() > began + WATCHED_WITHIN:
                    return False
            progress.check()
            time.sleep(LOOK)
    return False
