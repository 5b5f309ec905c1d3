"""The verb that undoes prepare: take the pool's key out of the guest, and remove what the pool keeps about the VM."""

import contextlib
import json
import logging
from typing import TYPE_CHECKING, List, NamedTuple, Optional

from xscontainer import keys
from xscontainer.core.arguments import VM_UUID, one_of
from xscontainer.core.target import SSH, TLS, Reach
from xscontainer.core.verb import CHANGE, PROBING, VM_ADMIN, VM_HOST, Argument, Verb
from xscontainer.core.vm_record import VMRecord
from xscontainer.errors import ConnectError, KeyNotRemoved, KeyPairError, VMElsewhere, XSContainerError
from xscontainer.verbs import DONE, registration
from xscontainer.verbs.context import Context
from xscontainer.verbs.hostkeys import met, running_here
from xscontainer.xapi import secret
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session

if TYPE_CHECKING:
    import paramiko

    from xscontainer.engine.ssh.login import Guest

REMOVED, ABSENT, KEPT = "removed", "absent", "kept"

log = logging.getLogger(__name__)


class _Taken(NamedTuple):
    """The pool's key in the guest, after the attempt to remove it.

    :ivar key: REMOVED; ABSENT: the guest does not accept the key; KEPT: the guest was not asked.
    :ivar left: a sentence for each thing that is left to a person.
    """

    key: str
    left: List[str]


def unprepare(context: Context, vmuuid: str, forget: str = "") -> str:
    """Undo prepare. Each step may be repeated, and the pool knows the VM's host key until the guest is done.

    The settings of the way to the VM stay, such as user and address: an administrator may have made them.

    :param forget: "yes": leave the guest alone, which may be off or gone for good.
    :raises KeyNotRemoved: the guest still accepts the pool's key.
    """
    if forget:
        vm = context.sessions.run(lambda session: xapi_vm.record(session, vmuuid))
        taken = _Taken(KEPT, list(filter(None, [_by_hand(context, vm)])) if _over_ssh(vm) else [])
    else:
        try:
            vm = running_here(context, vmuuid)
            taken = _take_key(context, vm) if _over_ssh(vm) else _Taken(ABSENT, [])
        except VMElsewhere:
            raise
        except XSContainerError as error:
            error.hint = (f"{error.hint} To remove only what the pool keeps about the VM: xscontainer unprepare "
                          f"--forget {vmuuid}").strip()
            raise
    registration.deregister(context, vmuuid)
    context.sessions.run(lambda session: _forget(session, vmuuid))
    context.access.refusals.forget(vmuuid)
    log.info("VM %s: it is no longer prepared; the pool's key in the guest: %s", vm.label, taken.key)
    left = taken.left + ([_TLS_LEFT] if vm.other_config.get(keys.MODE) == TLS else [])
    return DONE + json.dumps({"key": taken.key, "left": left})


def _over_ssh(vm: VMRecord) -> bool:
    """Return whether the guest may have the pool's key: also a VM over TLS that was prepared over SSH before."""
    config = vm.other_config
    return config.get(keys.MODE) != TLS or bool(config.get(keys.HOST_KEY) or config.get(keys.POOL_KEY))


def _take_key(context: Context, vm: VMRecord) -> _Taken:
    """Log in with the pool's key and remove the key from the guest, as the last act of the connection.

    The monitor is stopped in between: afterwards its logins would be refused.
    """
    from xscontainer.engine import failures
    from xscontainer.engine.ssh import install_key

    vm = vm._replace(other_config={**vm.other_config, keys.MODE: SSH})
    reach = Reach.of(vm.other_config, context.settings)
    pool_key = context.access.pool_key
    ours = [key for key in (pool_key.private(make=False), pool_key.previous()) if key is not None]
    with met(context, vm) as guest:
        used = _logged_in(context, vm, guest, reach.user, ours)
        if used is None:
            return _Taken(ABSENT, [_NOT_READ] if keys.HOST_KEY in vm.other_config and vm.is_owner else [])
        judge = context.access.identity_check(vm, reach)
        judge.over_ssh(guest.shell, guest.address, guest.host_key)
        registration.deregister(context, vm.uuid)
        try:
            files = install_key.remove(guest.shell, *ours)
        except XSContainerError as error:
            error.hint = f"{error.hint} Container management of the VM is off by now.".strip()
            raise
        where = guest.where
    if files and not _still_accepted(context, vm, reach.user, used):
        return _Taken(REMOVED, [])
    found = (f"The pool's key was removed from {' and '.join(map(failures.words, files))}" if files else
             f"The pool's key is in no authorized_keys of the user {reach.user}")
    raise KeyNotRemoved(f"{found} in the VM {vm.label}, but its sshd at {where} still accepts the key.",
                        "See AuthorizedKeysFile and AuthorizedKeysCommand in its sshd_config. Remove this key there: "
                        f"{_public(context)} Container management of the VM is off by now.")


def _logged_in(context: Context, vm: VMRecord, guest: "Guest", user: str,
               ours: "List[paramiko.PKey]") -> "Optional[paramiko.PKey]":
    """Log in with the first of our keys that the guest accepts, and return that key; None if it accepts none."""
    for key in ours:
        if guest.by_key(user, key):
            return key
        context.access.refusals.count(vm.uuid, 1)
    return None


def _still_accepted(context: Context, vm: VMRecord, user: str, key: "paramiko.PKey") -> bool:
    """Ask the guest again. A guest that does not answer this time counts as one that has removed the key."""
    try:
        with met(context, vm) as guest:
            if guest.by_key(user, key):
                return True
    except ConnectError as error:
        log.info("VM %s: whether it still accepts the pool's key is not known: %s", vm.label, error)
        return False
    context.access.refusals.count(vm.uuid, 1)
    return False


def _forget(session: Session, vm_uuid: str) -> None:
    """Remove the VM's keys that name or mark what prepare made, and the secrets that nobody else uses."""
    vm = xapi_vm.record(session, vm_uuid)
    config = vm.other_config
    named = [config[key] for key in keys.TLS_SECRETS if config.get(key)]
    gone = [*keys.TLS_SECRETS, keys.TLS_WARNED, keys.POOL_KEY, keys.ACCEPTED, keys.HOST_KEY, keys.MONITOR]
    if config.get(keys.MODE) == TLS:
        gone.insert(0, keys.MODE)  # without certificates it says nothing
    if not config.get(keys.ADDRESS):
        gone.append(keys.OWNER)  # a clone finds by it that the address is another VM's
    for key in gone:
        if key in config:
            xapi_vm.remove_key(session, vm.ref, key)
    secret.forget_certificates(session, named, vm_uuid)


def _by_hand(context: Context, vm: VMRecord) -> str:
    user = vm.other_config.get(keys.USERNAME) or context.settings.ssh.user
    with contextlib.suppress(KeyPairError):
        return (f"The guest of the VM {vm.label} may still accept the pool's key. Remove this key from "
                f"~/.ssh/authorized_keys of the user {user} there: {_public(context)}")
    return ""


def _public(context: Context) -> str:
    from xscontainer.engine.ssh.keypair import public_line

    return public_line(context.access.pool_key.private(make=False))


_NOT_READ = ("The guest does not accept the pool's key, so its authorized_keys was not read. Remove the key from that "
             "file if it is there.")
_TLS_LEFT = ("The engine in the VM still accepts TLS connections. If the script enable-tls.sh set that up, "
             "'sh enable-tls.sh --remove' in the VM undoes it.")
REMOVING = 90.0  # s that a guest may take, beyond the time of every call: two connections, two files

UNPREPARE = Verb(
    "unprepare", unprepare, "Take the pool's key out of a guest and remove what the pool keeps about the VM.",
    (VM_UUID, Argument("forget", one_of("yes"), False, form="`yes`")), VM_ADMIN, CHANGE, "unprepare", VM_HOST, PROBING,
    REMOVING, "JSON `key` (`removed`, `absent`: the guest does not accept it, `kept`: it was not asked), `left` "
              "(sentences: what is left to a person)")
VERBS = (UNPREPARE,)
