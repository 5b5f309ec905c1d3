"""The pool's SSH key pair is replaced, in every VM, with a time in which both pairs work."""

import contextlib
import json
import random
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, List, NamedTuple, Optional

from xscontainer import eligibility, keys
from xscontainer.actions import DONE
from xscontainer.actions.context import Context
from xscontainer.actions.hostkeys import running_here
from xscontainer.errors import ArgumentError, KeyRotationUnfinished, ObjectGone, XapiError, XSContainerError
from xscontainer.reach import SSH
from xscontainer.vmrecord import VMRecord
from xscontainer.xapi import pool, rotation, task
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session

if TYPE_CHECKING:
    # Importing these loads paramiko.
    import paramiko

    from xscontainer.access import Access

# VMs that get the key at once: each takes a worker of the daemon of its host.
AT_ONCE = 4
MOST_NAMED = 20  # VMs in a text
# s in which all VMs are to be begun with; with the last ones' own time it stays below forward.REPLY_TIMEOUT.
SECONDS = 600.0
_GIVEN_UP = "It knows an earlier key only, and is to be prepared anew."
_LEFT_BEHIND = "It does not run: its guest goes on accepting the previous key until somebody removes it there."
_NOT_TRIED = "It was not tried yet, others took too long: call key-rotate again."
_NOT_ASKED = "It was not asked, others took too long: its guest goes on accepting the previous key."
_NO_TEMPLATES = 'field "is_a_template" = "false"'


class _Keys(NamedTuple):
    """The pair, or the two, as XAPI has them now.

    :ivar access: knows these and no others. What the event stream tells the usual one may be from before.
    :ivar current: fingerprint; so is ``previous``, "" unless the pair is being replaced.
    """

    access: "Access"
    current: str
    previous: str


def key_rotate(context: Context, finish: str = "", force: str = "") -> str:
    """Begin or go on (``finish`` empty), tell how far it is ("status"), or give the previous key up ("yes").

    The result is JSON: both fingerprints, and of every VM that knows a key of the pool's whether it has the current
    one: null where nobody knows.

    :raises KeyRotationUnfinished: VMs would be lost, or might be if XAPI was killed; with ``force`` they are.
    """
    if force and finish != "yes":
        raise ArgumentError("The argument 'force' goes with 'finish' = 'yes'.")
    if finish == "status":
        return DONE + json.dumps(_status(context, _keys(context)))
    label = "Giving up the previous SSH key of the pool" if finish else "Changing the SSH key of the pool"
    with context.forwarding.lease() as session, task.running(session, label) as progress:
        told = _finish(context, bool(force), progress) if finish else _rotate(context, progress)
    return DONE + json.dumps(told)


def _rotate(context: Context, progress: task.Progress) -> "Dict[str, Any]":
    from xscontainer.engine import keypair
    from xscontainer.xapi.secret import KeyPair

    _keys(context)  # there is one, and it is of use
    ref = context.access.facts.pool.ref
    context.sessions.run(lambda session: rotation.begin(
        session, ref, lambda: KeyPair(*keypair.new_key_pair()),
        lambda private: keypair.public_line(keypair.load_private_key(private))))
    found = _keys(context)
    progress(0.1, "installing the new key")
    waiting = [vm for vm in _vms(context) if not _has(vm, found) and vm.power_state == "Running"]
    return _status(context, found, _everywhere(context, waiting, {}, _NOT_TRIED, progress))


def _finish(context: Context, force: bool, progress: task.Progress) -> "Dict[str, Any]":
    found = _keys(context)
    vms = _vms(context)
    lost = [vm for vm in vms if found.previous and not _has(vm, found)]
    if not force:
        _require_ended(context, lost)
    problems: Dict[str, str] = {}
    if found.previous:
        progress(0.1, "removing the previous key")
        having = [vm for vm in vms if vm not in lost and vm.power_state == "Running"]
        # Where that fails, or the VM is off, a line stays behind, whose private half we do not have any more.
        problems = {vm.uuid: _GIVEN_UP if vm in lost else _LEFT_BEHIND for vm in vms if vm not in having}
        problems.update(_everywhere(context, having, {"remove": "yes"}, _NOT_ASKED, progress))
    ref = context.access.facts.pool.ref
    context.sessions.run(lambda session: _give_up(session, lost, found.previous))
    context.sessions.run(lambda session: rotation.end(session, ref))
    return _status(context, _keys(context), problems)


def _require_ended(context: Context, lost: "List[VMRecord]") -> None:
    """:raises KeyRotationUnfinished: VMs know the previous key only, or will if XAPI is killed now."""
    if lost:
        names = ", ".join(vm.label for vm in lost[:MOST_NAMED]) + (" ..." if len(lost) > MOST_NAMED else "")
        raise KeyRotationUnfinished(f"{len(lost)} VMs do not have the pool's new key yet: {names}.")
    ref, grace = context.access.facts.pool.ref, context.settings.ssh.key_grace
    left = context.sessions.run(lambda session: rotation.too_new(session, ref, grace, time.time()))
    if left:
        wait = f"{left / 60:.0f} minutes" if left >= 90 else f"{max(left, 1.0):.0f} s"
        raise KeyRotationUnfinished(
            "The pool's new key is too new: a XAPI that is killed forgets up to 5 minutes, and what it would forget "
            "now is the only key that guests accept.", f"Call 'xscontainer key-rotate --finish' again in {wait}.")


def _give_up(session: Session, lost: "List[VMRecord]", previous: str) -> None:
    """Leave word of the key that they know, by which they are told from those that nobody ever asked."""
    for vm in lost:
        if keys.POOL_KEY not in vm.other_config:
            with contextlib.suppress(ObjectGone):
                xapi_vm.put(session, vm, {keys.POOL_KEY: previous})


def key_install(context: Context, vmuuid: str, remove: str = "") -> str:
    """On the VM's host: give its guest the pool's key if it only knows the previous one, or take that one out."""
    from xscontainer.access import hang_up
    from xscontainer.engine import install_key

    vm = running_here(context, vmuuid)
    found = _keys(context)
    pool_key = found.access.pool_key
    previous = pool_key.previous()
    engine, _ = found.access.open(vm)
    try:
        transport = engine.connection.transport  # type: ignore[attr-defined]
        if found.previous and not _has(running_here(context, vmuuid), found):
            # Connecting has tried it already, and only logged why it failed.
            install_key.install(transport, pool_key.private())
        elif remove and previous is not None:
            install_key.remove(transport, previous)
    finally:
        hang_up(engine)
    return DONE


def _keys(context: Context) -> _Keys:
    from xscontainer.access import Access
    from xscontainer.engine import hostkeys

    access = Access(context.settings, context.sessions)
    access.update(context.access.facts._replace(pool=context.sessions.run(pool.record)))
    previous: "Optional[paramiko.PKey]" = access.pool_key.previous()
    return _Keys(access, hostkeys.of_key(access.pool_key.private()).fingerprint,
                 hostkeys.of_key(previous).fingerprint if previous is not None else "")


def _vms(context: Context) -> "List[VMRecord]":
    """All that are reached with the pool's key, or were."""
    def read(session: Session) -> "List[VMRecord]":
        records = session.xenapi.VM.get_all_records_where(_NO_TEMPLATES).items()
        return [VMRecord.from_snapshot(ref, snapshot) for ref, snapshot in records]

    return sorted((vm for vm in context.sessions.run(read) if vm.is_guest and _concerned(vm)), key=lambda vm: vm.uuid)


def _concerned(vm: VMRecord) -> bool:
    known = eligibility.enabled(vm) or (vm.is_owner and keys.HOST_KEY in vm.other_config)
    return known and (vm.other_config.get(keys.MODE) or SSH) == SSH


def _has(vm: VMRecord, found: _Keys) -> bool:
    return vm.other_config.get(keys.POOL_KEY) == found.current


def _everywhere(context: Context, vms: "List[VMRecord]", arguments: "Dict[str, str]", late: str,
                progress: task.Progress) -> "Dict[str, str]":
    """key_install for each, on its host."""
    # In no order: those that hang are not always the first.
    return everywhere(lambda vm: _one(context, vm, arguments), random.sample(vms, len(vms)), SECONDS, late,
                      lambda fraction: progress(0.1 + 0.8 * fraction))


def everywhere(call: "Callable[[VMRecord], None]", vms: "List[VMRecord]", seconds: float, late: str,
               progress: "Callable[[float], None]") -> "Dict[str, str]":
    """``call`` for each, some at once; VM uuid -> why it failed, ``late`` if it was not begun within ``seconds``."""
    from concurrent.futures import ThreadPoolExecutor

    deadline = time.monotonic() + seconds
    problems = {}

    def one(vm: VMRecord) -> str:
        if time.monotonic() > deadline:
            return late
        try:
            call(vm)
        except XapiError as error:
            return " ".join(error.details) or str(error)
        except XSContainerError as error:
            return f"{error.code} {error}"
        return ""

    with ThreadPoolExecutor(AT_ONCE) as workers:
        for number, (vm, problem) in enumerate(zip(vms, workers.map(one, vms))):
            if problem:
                problems[vm.uuid] = problem
            progress((number + 1) / len(vms))
    return problems


def _one(context: Context, vm: VMRecord, arguments: "Dict[str, str]") -> None:
    settings = context.settings

    def call(session: Session) -> None:
        ssh = settings.ssh
        longest = settings.xapi.timeout + 3 * (ssh.connect_timeout + ssh.banner_timeout + ssh.auth_timeout)
        with session.patient(longest):
            session.xenapi.host.call_plugin(vm.resident_on, settings.daemon.plugin_name, "key_install",
                                            dict(arguments, vmuuid=vm.uuid))

    context.forwarding.run(call)


def _status(context: Context, found: _Keys, problems: "Dict[str, str]" = {}) -> "Dict[str, Any]":  # noqa: B006
    told = []
    for vm in _vms(context):
        mark = vm.other_config.get(keys.POOL_KEY)
        has_key = None if mark is None and not found.previous else mark == found.current
        given_up = _GIVEN_UP if has_key is False and not found.previous else ""
        told.append({"uuid": vm.uuid, "name": vm.name, "power_state": vm.power_state, "has_key": has_key,
                     "problem": problems.get(vm.uuid, given_up)})
    return {"rotating": bool(found.previous), "fingerprint": found.current, "previous_fingerprint": found.previous,
            "vms": told}
