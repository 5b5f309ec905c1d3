"""Preparing a VM: from one that only its owner can log in to, to one whose containers are managed."""

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any, Callable, ContextManager, Dict, NamedTuple, Optional

from xscontainer import calls, keys
from xscontainer.actions import DONE, awaiting, registration
from xscontainer.actions.context import Context
from xscontainer.actions.hostkeys import compare, greet, pin_of, running_here
from xscontainer.errors import (
    ArgumentError,
    CalledOff,
    HostKeyUnconfirmed,
    KeyInstallFailed,
    KeyNotAccepted,
    VMNotRunning,
)
from xscontainer.reach import SSH, TLS, Reach
from xscontainer.vmrecord import VMRecord
from xscontainer.xapi import secret, task
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session

if TYPE_CHECKING:
    from xscontainer.actions.handover import Offer
    from xscontainer.engine.login import Guest

# s in which the monitor has to publish the first list.
PUBLISHED_WITHIN = 20.0
LOOK = 0.05  # s between two looks for it
MOST_WAIT = 1800  # s
USUAL_WAIT = 600.0  # s for somebody to run the script on the CD

_TLS_SECRETS = {"cacertsecret": keys.TLS_CA_CERT, "clientcertsecret": keys.TLS_CLIENT_CERT,
                "clientkeysecret": keys.TLS_CLIENT_KEY}
_WISHES = {"username": keys.USERNAME, "mode": keys.MODE, "address": keys.ADDRESS, "enginesocket": keys.ENGINE_SOCKET,
           "engine": keys.ENGINE, **_TLS_SECRETS}
WISHES = (*_WISHES, "port")

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
    label = {task.VM: vm.uuid}
    with context.forwarding.lease() as session, task.running(
            session, f"Preparing {vm.name} for container management", "", label) as progress:
        progress(0.05, "looking for the VM's address")
        changes = _changes(vm, wishes)
        with_changes = vm._replace(other_config={**vm.other_config, **changes})
        if Reach.of(with_changes.other_config, context.settings).mode == TLS:
            found = Found(changes, "", False)
        else:
            found = _entered(context, with_changes, changes, fingerprint, log_in, progress)
        with contextlib.ExitStack() as stack:
            offer = None
            if offering is not None:
                progress(0.3, "making certificates")
                offer = stack.enter_context(offering(with_changes))
                found = found._replace(changes={**found.changes, **offer.other_config})
            step = "waiting for the engine" if wait else "asking the engine"
            if offer is not None:
                step = f"{calls.SCRIPT_STEP}; its certificate is made out to {', '.join(offer.names)}"
            progress(0.6, step)
            told = _verified(context, with_changes, found, wait, offer.fingerprint if offer else "", progress, step)
            progress.check()
            progress(0.8, "registering")
            context.sessions.run(lambda session: _write(session, vm, found.changes))
            registration.register(context, vm.uuid)
        progress(0.9, "waiting for the first list")
        return dict(told, published=_published(session, vm, progress), left=offer.left if offer else [])


def _changes(vm: VMRecord, wishes: "Dict[str, str]") -> "Dict[str, str]":
    changes = {key: wishes[name] for name, key in _WISHES.items() if wishes.get(name)}
    mode = changes.get(keys.MODE) or vm.other_config.get(keys.MODE) or SSH
    if mode == SSH and not vm.other_config.get(keys.MODE):
        changes.pop(keys.MODE, None)
    if wishes.get("port"):
        changes[keys.TLS_PORT if mode == TLS else keys.SSH_PORT] = wishes["port"]
    return changes


def _entered(context: Context, vm: VMRecord, changes: "Dict[str, str]", fingerprint: str, log_in: Optional[LogIn],
             progress: task.Progress) -> Found:
    """The pool's key is accepted, and the guest's host key is known."""
    from xscontainer.engine.hostkeys import check, of_key

    reach = Reach.of(vm.other_config, context.settings)
    pinned, _ = pin_of(vm)
    with greet(context, vm, pinned, {}) as guest:
        check(guest.host_key, pinned, guest.where)
        if fingerprint:
            compare(guest.host_key, fingerprint, guest.where)
        progress(0.2, "logging in")
        key = context.access.pool_key.private()
        installed = False
        if not guest.by_key(reach.user, key):
            _log_in_otherwise(context, guest, reach.user, log_in, trusted=bool(pinned or fingerprint))
            progress(0.4, "installing the pool's key")
            from xscontainer.engine import install_key
            installed = install_key.install(guest.transport, key)
        changes = dict(changes, **{keys.USERNAME: reach.user, keys.HOST_KEY: guest.host_key.base64,
                                   keys.POOL_KEY: of_key(key).fingerprint})
        return Found(changes, guest.host_key.fingerprint, installed)


def _log_in_otherwise(context: Context, guest: "Guest", user: str, log_in: Optional[LogIn], trusted: bool) -> None:
    previous = context.access.pool_key.previous()
    if previous is not None and guest.by_key(user, previous):
        return
    if log_in is None:
        raise KeyNotAccepted(f"The user {user} at {guest.where} may not log in with the pool's key yet.",
                             "Give the user's password, or add the pool's public key to the user's authorized_keys.")
    if not trusted:
        raise HostKeyUnconfirmed(f"The SSH server at {guest.where} shows the host key {guest.host_key}, which nobody "
                                 "confirmed, so it gets no password.")
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


def _published(session: Session, vm: VMRecord, progress: task.Progress) -> bool:
    """Whether the monitor of this host shows a list, now or soon."""
    deadline = time.monotonic() + PUBLISHED_WITHIN
    with contextlib.suppress(CalledOff):  # all is done, but for this
        while time.monotonic() < deadline:
            if keys.PS in session.xenapi.VM.get_other_config(vm.ref):
                return True
            progress.check()
            time.sleep(LOOK)
    return False
