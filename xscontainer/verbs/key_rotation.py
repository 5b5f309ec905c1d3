"""The verbs that replace the pool's SSH key pair in every VM. Until the replacement is finished both pairs work."""

import contextlib
import json
import random
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, ContextManager, Dict, List, NamedTuple, Optional, cast

from xscontainer import keys
from xscontainer.core import eligibility
from xscontainer.core.arguments import VM_UUID, one_of
from xscontainer.core.target import SSH, Reach
from xscontainer.core.verb import LONG, NO_COMMAND, POOL_OPERATOR, PROBING, ROOT, VM_HOST, Argument, Verb
from xscontainer.core.vm_record import VMRecord
from xscontainer.errors import (
    ArgumentError,
    Busy,
    KeyRotationBusy,
    KeyRotationUnfinished,
    ObjectGone,
    XapiError,
    XSContainerError,
)
from xscontainer.verbs import DONE
from xscontainer.verbs.cancellation import CancellableProgress
from xscontainer.verbs.context import Context
from xscontainer.verbs.hostkeys import running_here
from xscontainer.xapi import key_rotation as rotation
from xscontainer.xapi import lease, pool, task
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session

if TYPE_CHECKING:
    # Importing these loads paramiko.
    import paramiko

    from xscontainer.access.opener import Access
    from xscontainer.engine.ssh.connection import SSHConnection

AT_ONCE = 4  # VMs that get the key at the same time: each takes a worker of the daemon of its host
BUSY_TRIES, BUSY_PAUSE = 6, 5.0  # how often a busy host is asked, and seconds in between
MOST_NAMED = 20  # VMs in a text
# s in which the calls for all VMs must begin. Together with the last calls' own time this is below
# forward.REPLY_TIMEOUT.
SECONDS = 600.0
_GIVEN_UP = "It has only an earlier key: prepare it again."
_LEFT_BEHIND = "It does not run: its guest still accepts the previous key, until somebody removes it there."
_NOT_TRIED = "It was not tried, because other VMs took too long: call key-rotate again."
_NOT_ASKED = "It was not tried, because other VMs took too long: its guest still accepts the previous key."
_NO_TEMPLATES = 'field "is_a_template" = "false"'


class _Keys(NamedTuple):
    """The pool's key pairs as XAPI has them now.

    :ivar access: uses these pairs. The context's own access may lag behind, because it relies on events.
    :ivar current: fingerprint of the current pair.
    :ivar previous: fingerprint of the previous pair; "" unless the pair is being replaced.
    """

    access: "Access"
    current: str
    previous: str


def key_rotate(context: Context, finish: str = "", force: str = "") -> str:
    """Replace the pool's key pair: start or continue (``finish`` empty), report ("status"), or finish ("yes").

    The result is JSON: both fingerprints, and for every VM that has a key of the pool whether it has the current one
    (null: not known).

    :raises KeyRotationUnfinished: VMs would be lost, or could be if XAPI crashed; with ``force`` they are.
    """
    if force and finish != "yes":
        raise ArgumentError("The argument 'force' goes with 'finish' = 'yes'.")
    if finish == "status":
        return DONE + json.dumps(_status(context, _keys(context)))
    label = "Giving up the previous SSH key of the pool" if finish else "Changing the SSH key of the pool"
    _keys(context)  # fails now if the pair cannot be used
    with _alone(context) as alone, context.forwarding.lease() as session, task.running(session, label) as shown:
        progress = CancellableProgress(context, shown, "Call 'xscontainer key-rotate' again to go on.")
        progress.check()
        if finish:
            result = _finish(context, bool(force), alone, progress)
        else:
            result = _rotate(context, alone, progress)
    return DONE + json.dumps(result)


def _alone(context: Context) -> "ContextManager[lease.Lease]":
    """Take the lease that keeps everybody else in the pool from replacing the key at the same time."""
    return lease.held(
        context.sessions, context.access.pool.state.record.ref, keys.ROTATOR,
        busy=lambda: KeyRotationBusy("Another client is changing the pool's SSH key at this moment.",
                                     "Repeat the call when it has finished."),
        lost=lambda: KeyRotationBusy("XAPI did not answer for too long during this change of the pool's SSH key, and "
                                     "another client may have continued it.", "Call 'xscontainer key-rotate' again."))


def _rotate(context: Context, alone: lease.Lease, progress: CancellableProgress) -> "Dict[str, Any]":
    from xscontainer.engine.ssh import keypair
    from xscontainer.xapi.secret import KeyPair

    ref = context.access.pool.state.record.ref
    context.sessions.run(lambda session: rotation.begin(
        session, ref, lambda: KeyPair(*keypair.new_key_pair()),
        lambda private: keypair.public_line(keypair.load_private_key(private)), alone.check))
    found = _keys(context)
    progress(0.1, "installing the new key")
    waiting = [vm for vm in _vms(context) if not _has(vm, found) and vm.power_state == "Running"]
    return _status(context, found, _everywhere(context, waiting, {}, _NOT_TRIED, alone, progress))


def _finish(context: Context, force: bool, alone: lease.Lease, progress: CancellableProgress) -> "Dict[str, Any]":
    found = _keys(context)
    vms = _vms(context)
    lost = [vm for vm in vms if found.previous and not _has(vm, found)]
    if not force:
        _require_ended(context, lost)
    problems: Dict[str, str] = {}
    if found.previous:
        progress(0.1, "removing the previous key")
        having = [vm for vm in vms if vm not in lost and vm.power_state == "Running"]
        # If that fails, or the VM is off, the line of a key stays in the guest; its private half is destroyed.
        problems = {vm.uuid: _GIVEN_UP if vm in lost else _LEFT_BEHIND for vm in vms if vm not in having}
        problems.update(_everywhere(context, having, {"remove": "yes"}, _NOT_ASKED, alone, progress))
    ref = context.access.pool.state.record.ref
    progress.check()  # the last time: what follows cannot be taken back, and is over soon
    context.sessions.run(alone.check)
    context.sessions.run(lambda session: _give_up(session, lost, found.previous))
    context.sessions.run(lambda session: rotation.end(session, ref, alone.check))
    return _status(context, _keys(context), problems)


def _require_ended(context: Context, lost: "List[VMRecord]") -> None:
    """Check that the previous key can go.

    :raises KeyRotationUnfinished: VMs have only the previous key, or would if XAPI crashed now.
    """
    if lost:
        names = ", ".join(vm.label for vm in lost[:MOST_NAMED]) + (" ..." if len(lost) > MOST_NAMED else "")
        raise KeyRotationUnfinished(f"{len(lost)} VMs do not have the pool's new key yet: {names}.")
    ref, grace = context.access.pool.state.record.ref, context.settings.ssh.key_grace
    left = context.sessions.run(lambda session: rotation.too_new(session, ref, grace, time.time()))
    if left:
        wait = f"{left / 60:.0f} minutes" if left >= 90 else f"{max(left, 1.0):.0f} s"
        raise KeyRotationUnfinished(
            "The pool's new key is too new: after a crash XAPI may lose the last 5 minutes of changes, and with them "
            "the only key that guests accept.", f"Call 'xscontainer key-rotate --finish' again in {wait}.")


def _give_up(session: Session, lost: "List[VMRecord]", previous: str) -> None:
    """Note in each VM which key it has, to distinguish it from VMs that were never asked."""
    for vm in lost:
        if keys.POOL_KEY not in vm.other_config:
            with contextlib.suppress(ObjectGone):
                xapi_vm.put(session, vm, {keys.POOL_KEY: previous})


def key_install(context: Context, vmuuid: str, remove: str = "") -> str:
    """Install the pool's key in a guest that has only the previous one, or remove the previous one. On its host."""
    from xscontainer.access.opener import hang_up
    from xscontainer.engine.ssh import install_key

    vm = running_here(context, vmuuid)
    if Reach.of(vm.other_config, context.settings).mode != SSH:
        raise ArgumentError(f"The VM {vm.label} is reached over TLS and does not use the pool's SSH key.",
                            "Set xscontainer-mode in its other_config to ssh, or leave its key alone.")
    found = _keys(context)
    pool_key = found.access.pool_key
    previous = pool_key.previous()
    engine, _ = found.access.open(vm, insist=True)
    try:
        shell = cast("SSHConnection", engine.connection).shell
        if found.previous and not _has(running_here(context, vmuuid), found):
            # Connecting has tried that already, but has only logged why it failed.
            install_key.install(shell, pool_key.private(), previous)
        elif remove and previous is not None:
            install_key.remove(shell, previous)
    finally:
        hang_up(engine)
    return DONE


def _keys(context: Context) -> _Keys:
    from xscontainer.access.opener import Access
    from xscontainer.engine.ssh import hostkeys

    access = Access(context.settings, context.sessions, context.access.budgets, context.access.census)
    access.pool.change(context.sessions.run(pool.record))
    previous: "Optional[paramiko.PKey]" = access.pool_key.previous()
    return _Keys(access, hostkeys.of_key(access.pool_key.private()).fingerprint,
                 hostkeys.of_key(previous).fingerprint if previous is not None else "")


def _vms(context: Context) -> "List[VMRecord]":
    """All VMs that are reached with the pool's key, or were."""
    def read(session: Session) -> "List[VMRecord]":
        return list(VMRecord.all_of(session.xenapi.VM.get_all_records_where(_NO_TEMPLATES)))

    return sorted((vm for vm in context.sessions.run(read) if vm.is_guest and _concerned(vm)), key=lambda vm: vm.uuid)


def _concerned(vm: VMRecord) -> bool:
    known = eligibility.enabled(vm) or (vm.is_owner and keys.HOST_KEY in vm.other_config)
    return known and (vm.other_config.get(keys.MODE) or SSH) == SSH


def _has(vm: VMRecord, found: _Keys) -> bool:
    return vm.other_config.get(keys.POOL_KEY) == found.current


def _everywhere(context: Context, vms: "List[VMRecord]", arguments: "Dict[str, str]", late: str,
                alone: lease.Lease, progress: CancellableProgress) -> "Dict[str, str]":
    """Call key_install for each VM, on its host."""
    def one(vm: VMRecord) -> None:
        context.sessions.run(alone.check)
        _one(context, vm, arguments)

    # In random order: guests that hang are then not always the first.
    return everywhere(one, random.sample(vms, len(vms)), SECONDS, late,
                      lambda fraction: progress(0.1 + 0.8 * fraction))


def everywhere(call: "Callable[[VMRecord], None]", vms: "List[VMRecord]", seconds: float, late: str,
               progress: "Callable[[float], None]") -> "Dict[str, str]":
    """Make a call for each VM, some at once; returns why it failed, by the VM's uuid.

    :param seconds: a VM whose call has not begun by then gets ``late`` as its reason.
    :param progress: called with the fraction that is done. If it raises, no further call begins.
    """
    from concurrent.futures import ThreadPoolExecutor

    deadline = time.monotonic() + seconds
    problems = {}
    ended = threading.Event()

    def one(vm: VMRecord) -> str:
        if ended.is_set() or time.monotonic() > deadline:
            return late
        try:
            call(vm)
        except XapiError as error:
            return " ".join(error.details) or str(error)
        except XSContainerError as error:
            return f"{error.code} {error}"
        return ""

    with ThreadPoolExecutor(AT_ONCE) as workers:
        try:
            for number, (vm, problem) in enumerate(zip(vms, workers.map(one, vms))):
                if problem:
                    problems[vm.uuid] = problem
                progress((number + 1) / len(vms))
        finally:
            ended.set()  # after an error: calls that have not begun are dropped
    return problems


def _one(context: Context, vm: VMRecord, arguments: "Dict[str, str]") -> None:
    settings = context.settings

    def call(session: Session) -> None:
        longest = settings.xapi.timeout + 3 * settings.guest.longest_connect
        with session.patient(longest):
            session.xenapi.host.call_plugin(vm.resident_on, settings.daemon.plugin_name, INSTALL.name,
                                            dict(arguments, vmuuid=vm.uuid))

    when_not_busy(lambda: context.forwarding.run(call))


def when_not_busy(call: "Callable[[], object]", pause: "Callable[[float], object]" = time.sleep) -> None:
    """Call the plugin; repeat the call for a while if the other host is busy.

    :raises XapiError: any other failure, or BUSY in the end.
    """
    for tries_left in reversed(range(BUSY_TRIES)):
        try:
            call()
            return
        except XapiError as error:
            if error.details[:1] != [Busy.code] or not tries_left:
                raise
        pause(BUSY_PAUSE)


def _status(context: Context, found: _Keys, problems: "Dict[str, str]" = {}) -> "Dict[str, Any]":  # noqa: B006
    result = []
    for vm in _vms(context):
        mark = vm.other_config.get(keys.POOL_KEY)
        has_key = None if mark is None and not found.previous else mark == found.current
        given_up = _GIVEN_UP if has_key is False and not found.previous else ""
        result.append({"uuid": vm.uuid, "name": vm.name, "power_state": vm.power_state, "has_key": has_key,
                     "problem": problems.get(vm.uuid, given_up)})
    return {"rotating": bool(found.previous), "fingerprint": found.current, "previous_fingerprint": found.previous,
            "vms": result}


INSTALLING = 60.0  # s that a key may take to be put into a guest, beyond the time to connect

_YES = one_of("yes")
ROTATE = Verb(
    "key_rotate", key_rotate, "Replace the pool's SSH key pair in every VM, or say how far that is.",
    (Argument("finish", one_of("yes", "status"), False, form="`yes` or `status`"),
     Argument("force", _YES, False, form="`yes`")), POOL_OPERATOR, ROOT, "key-rotate",
    lane=LONG,
    result="JSON `rotating`, `fingerprint`, `previous_fingerprint`, `vms` (`uuid`, `name`, `power_state`, `has_key`, "
           "`problem`)")
INSTALL = Verb(
    "key_install", key_install, "Install the pool's SSH key in a guest, or remove the previous one.",
    (VM_UUID, Argument("remove", _YES, False, form="`yes`")), POOL_OPERATOR, ROOT,
    NO_COMMAND + "`key_rotate` calls it for each VM", VM_HOST, PROBING, INSTALLING)
VERBS = (ROTATE, INSTALL)
