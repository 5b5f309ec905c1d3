"""The verb that prepares a VM: install the key, pin the host key, register the VM, wait for its first list."""

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any, Callable, ContextManager, Dict, Iterator, NamedTuple, Optional, Tuple

from xscontainer import keys
from xscontainer.core import wire as calls
from xscontainer.core.arguments import FINGERPRINT, SR_UUID, VM_UUID, WAIT, any_text, one_of, secret_uuid
from xscontainer.core.fingerprint import compare_hint
from xscontainer.core.target import SSH, TLS, Reach, check
from xscontainer.core.verb import CHANGE, LONG, VM_ADMIN, VM_HOST, Argument, Verb
from xscontainer.core.vm_record import VMRecord
from xscontainer.errors import (
    ArgumentError,
    CalledOff,
    EngineRefused,
    EngineTimeout,
    HostKeyUnconfirmed,
    KeyInstallFailed,
    KeyNotAccepted,
    VMNotRunning,
)
from xscontainer.verbs import DONE, awaiting, registration
from xscontainer.verbs.context import Context
from xscontainer.verbs.hostkeys import compare, met, pin_of, running_here
from xscontainer.xapi import secret, task
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session

if TYPE_CHECKING:
    from xscontainer.engine.ssh.login import Guest
    from xscontainer.verbs.handover import Offer

PUBLISHED_WITHIN = 20.0  # s in which the monitor must publish the first list
WATCHED_WITHIN = 3.0  # s in which the VM must have a monitor; without one the list may be of any age
POLL_SECONDS = 0.05  # between two checks for the list
MOST_WAIT = 1800  # s
USUAL_WAIT = 600.0  # s that somebody has to run the script on the CD

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
    """The way to the VM.

    :ivar changes: the keys of other_config that make it reachable.
    :ivar fingerprint: of the guest's host key.
    :ivar key_installed: the pool's key was not there before.
    """

    changes: Dict[str, str]
    fingerprint: str
    key_installed: bool


def prepare(context: Context, vmuuid: str, passwordsecret: str = "", fingerprint: str = "", wait: str = "",
            **wishes: str) -> str:
    """Prepare a VM; see :func:`prepared`.

    The password comes in a XAPI secret, which is destroyed before the guest is asked anything, but not before it is
    clear that the VM is here: otherwise the call is handed on, and the VM's host needs the secret.

    :param wishes: the other arguments of the row PREPARE.
    """
    generatecerts, sruuid = wishes.pop("generatecerts", ""), wishes.pop("sruuid", "")
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
    from xscontainer.verbs import handover

    if wishes.get("mode", TLS) != TLS or any(wishes.get(name) for name in _TLS_SECRETS):
        raise ArgumentError("Certificates are made only for engines over TLS, and only if none are given.",
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
    """Make the VM's engine reachable, check that it is, register the VM and wait for its first list.

    Settings that are right already stay untouched, and settings that do not work are not written.

    :param wishes: by WISHES; "" or absent: no change.
    :param fingerprint: of the host key that a person confirmed; "": nobody did.
    :param log_in: how to log in where the pool's key is not accepted yet; None: not at all.
    :param wait: seconds that an engine over TLS may take to answer while somebody sets it up.
    :param offering: hands certificates to the guest meanwhile; None: the guest has certificates.
    :raises CalledOff: a client cancelled the task; then nothing is written.
    """
    vm = context.sessions.run(lambda session: xapi_vm.adopt(session, vm))
    changes = _changes(vm, wishes)
    check(changes, _CALLED, context.settings)
    with_changes = vm._replace(other_config={**vm.other_config, **changes})
    with contextlib.ExitStack() as inside:
        guest, known = None, False
        decided: Dict[str, str] = {}
        if Reach.of(with_changes.other_config, context.settings).mode != TLS:
            # Before the task begins: if the login fails, the client asks for a password and calls again.
            guest, known, decided = inside.enter_context(_entered(context, with_changes, fingerprint, log_in))
        with context.forwarding.lease() as session, task.running(
                session, f"Preparing {vm.name} for container management", "", {task.VM: vm.uuid}) as progress:
            found = Found(changes, "", False)
            if guest:
                if not known:
                    progress(0.2, "installing the pool's key")
                found = _let_in(context, guest, with_changes, {**changes, **decided}, known)
                inside.close()
            result = _registered(context, with_changes, found, wait, offering, progress)
            progress(0.9, "waiting for the first list")
            return dict(result, published=_published(context, session, vm, progress))


def _registered(context: Context, vm: VMRecord, found: Found, wait: float, offering: "Optional[Offering]",
                progress: task.Progress) -> "Dict[str, Any]":
    """Reach the engine, write what that needs, and register the VM."""
    with contextlib.ExitStack() as stack:
        offer = None
        if offering is not None:
            progress(0.3, "making certificates")
            offer = stack.enter_context(offering(vm))
            found = found._replace(changes={**found.changes, **offer.other_config})
        step = "waiting for the engine" if wait else "asking the engine"
        if offer is not None:
            step = f"{calls.SCRIPT_STEP}; its certificate is issued for {', '.join(offer.names)}"
        progress(0.6, step)
        result = _verified(context, vm, found, wait, offer.fingerprint if offer else "", progress, step)
        progress.check()
        progress(0.8, "registering")
        context.sessions.run(lambda session: _write(session, vm, found.changes))
        registration.register(context, vm.uuid)
    return dict(result, left=offer.left if offer else [])


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
             log_in: Optional[LogIn]) -> "Iterator[Tuple[Guest, bool, Dict[str, str]]]":
    """Log in to the guest after its host key and identity are checked.

    Gives the guest, whether the pool's key was accepted, and the keys to write for the host key's confirmation.
    """
    reach = Reach.of(vm.other_config, context.settings)
    pinned = pin_of(vm)[0]
    with met(context, vm, confirmed=bool(fingerprint)) as guest:
        if fingerprint:
            compare(guest.host_key, fingerprint, guest.where)
        known = guest.by_key(reach.user, context.access.pool_key.private())
        if not known:
            context.access.refusals.count(vm.uuid, 1)
            _log_in_otherwise(context, guest, reach.user, log_in, bool(pinned or fingerprint),
                              lambda: context.access.refusals.count(vm.uuid, 1))
        judge = context.access.identity_check(vm, reach, confirmed=bool(fingerprint))
        judge.over_ssh(guest.shell, guest.address, guest.host_key)
        yield guest, known, {keys.ACCEPTED: guest.host_key.fingerprint} if judge.claimants and fingerprint else {}


def _let_in(context: Context, guest: "Guest", vm: VMRecord, changes: "Dict[str, str]", known: bool) -> Found:
    """Install the pool's key, unless the guest accepts it already (``known``)."""
    from xscontainer.engine.ssh import hostkeys, install_key

    key = context.access.pool_key.private()
    installed = not known and install_key.install(guest.shell, key, context.access.pool_key.previous())
    return Found({**changes, keys.USERNAME: Reach.of(vm.other_config, context.settings).user,
                  keys.HOST_KEY: guest.host_key.base64, keys.POOL_KEY: hostkeys.of_key(key).fingerprint},
                 guest.host_key.fingerprint, installed)


def _log_in_otherwise(context: Context, guest: "Guest", user: str, log_in: Optional[LogIn], trusted: bool,
                      refused: "Callable[[], None]") -> None:
    previous = context.access.pool_key.previous()
    if previous is not None:
        if guest.by_key(user, previous):
            return
        refused()
    if log_in is None:
        raise KeyNotAccepted(f"The user {user} at {guest.where} cannot log in with the pool's key yet.",
                             "Give the user's password, or add the pool's public key to the user's authorized_keys.")
    if not trusted:
        raise HostKeyUnconfirmed(f"The SSH server at {guest.where} shows the host key {guest.host_key}, which is not "
                                 "confirmed yet, so it gets no password.",
                                 f"{compare_hint(guest.host_key.kind)}, and pass its fingerprint with the call.")
    log_in(guest, user)


def _verified(context: Context, vm: VMRecord, found: Found, wait: float, certificate: str, progress: task.Progress,
              step: str) -> "Dict[str, Any]":
    """Connect as the monitor will do, and ask the engine. For the parameters see :func:`awaiting.opened`."""
    from xscontainer.access.opener import hang_up
    from xscontainer.core.engine_facts import EngineVersion
    from xscontainer.engine.probe import missing_parts

    vm = vm._replace(other_config={**vm.other_config, **found.changes})
    reach = Reach.of(vm.other_config, context.settings)
    try:
        engine = awaiting.opened(context, vm, found.changes, wait if reach.mode == TLS else 0.0, certificate, progress,
                                 step)
    except KeyNotAccepted as error:
        raise KeyInstallFailed(
            f"The pool's key is in authorized_keys of the user {reach.user}, but the sshd of the VM {vm.label} does "
            "not accept it.",
            "Check AuthorizedKeysFile and AllowUsers in its sshd_config"
            f"{error.limits.replace(', or', ', and whether')}. "
            "Check that the home directory is not writable for others. See the log of sshd.") from error
    version = ""
    try:
        with contextlib.suppress(EngineRefused, EngineTimeout):
            version = EngineVersion.from_api(engine.version()).version
        result = {"mode": reach.mode, "user": reach.user, "address": engine.connection.address,
                "fingerprint": found.fingerprint, "engine": version, "containers": engine.count(),
                "key_installed": found.key_installed}
        missing = missing_parts(engine)
        if missing is not None:
            result["missing"] = {"code": missing.code, "message": missing.message, "next": missing.hint}
        return result
    finally:
        hang_up(engine)


def _write(session: Session, vm: VMRecord, changes: "Dict[str, str]") -> None:
    """Write the keys that make the VM reachable, where they differ, and destroy certificates that they replace."""
    now = xapi_vm.adopt(session, xapi_vm.record(session, vm.uuid))
    xapi_vm.put(session, now, changes)
    had = now.other_config
    replaced = [had[key] for key in keys.TLS_SECRETS if had.get(key) and had[key] != changes.get(key, had[key])]
    secret.forget_certificates(session, replaced, vm.uuid)


def _published(context: Context, session: Session, vm: VMRecord, progress: task.Progress) -> bool:
    """Wait until the monitor of this host publishes the VM's list; returns whether it did."""
    started = time.monotonic()
    with contextlib.suppress(CalledOff):  # everything else is done
        while time.monotonic() < started + PUBLISHED_WITHIN:
            if keys.PS in session.xenapi.VM.get_other_config(vm.ref):
                if context.watched(vm.uuid):
                    return True
                if time.monotonic() > started + WATCHED_WITHIN:
                    return False
            progress.check()
            time.sleep(POLL_SECONDS)
    return False


PREPARING = 300.0  # s that a guest may take to be prepared, beyond what ``wait`` allows

PREPARE = Verb(
    "prepare", prepare, "Make a VM's engine reachable, register the VM and wait for its first list.",
    (VM_UUID, Argument("passwordsecret", secret_uuid, False), FINGERPRINT.optional(),
     WAIT._replace(form=f"seconds, at most {MOST_WAIT}"),
     Argument("generatecerts", one_of("yes"), False, form="`yes`"), SR_UUID.optional(),
     *(Argument(name, secret_uuid if name in _TLS_SECRETS else any_text, False) for name in WISHES)),
    VM_ADMIN, CHANGE, "prepare", VM_HOST, LONG, PREPARING, "JSON, [below](#prepare)")
VERBS = (PREPARE,)
