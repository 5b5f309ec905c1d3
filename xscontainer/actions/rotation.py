"""The pool's SSH key pair is replaced, in every VM, with a time in which both pairs work."""

import json
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional

from xscontainer import eligibility, keys
from xscontainer.actions import DONE
from xscontainer.actions.context import Context
from xscontainer.actions.hostkeys import running_here
from xscontainer.errors import KeyRotationUnfinished, XapiError, XSContainerError
from xscontainer.reach import SSH
from xscontainer.vmrecord import VMRecord
from xscontainer.xapi import pool, rotation, task
from xscontainer.xapi.session import Session

if TYPE_CHECKING:
    # Importing these loads paramiko.
    import paramiko

    from xscontainer.access import Access

# VMs that get the key at once: each takes a worker of the daemon of its host.
AT_ONCE = 4
MOST_NAMED = 20  # VMs in a text
_GIVEN_UP = "It knows the previous key only, and is to be prepared anew."
_LEFT_BEHIND = "It does not run: its guest goes on accepting the previous key until somebody removes it there."
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

    The result is JSON: both fingerprints, and of every VM that knows a key of the pool's whether it has the new one.

    :raises KeyRotationUnfinished: VMs would be lost; with ``force`` they are.
    """
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
    problems = _everywhere(context, waiting, {}, progress)
    return _status(context, found, problems)


def _finish(context: Context, force: bool, progress: task.Progress) -> "Dict[str, Any]":
    found = _keys(context)
    vms = _vms(context)
    lost = [vm for vm in vms if found.previous and not _has(vm, found)]
    if lost and not force:
        names = ", ".join(vm.label for vm in lost[:MOST_NAMED]) + (" ..." if len(lost) > MOST_NAMED else "")
        raise KeyRotationUnfinished(f"{len(lost)} VMs do not have the pool's new key yet: {names}.")
    problems: Dict[str, str] = {}
    if found.previous:
        progress(0.1, "removing the previous key")
        having = [vm for vm in vms if vm not in lost and vm.power_state == "Running"]
        # Where that fails, or the VM is off, a line stays behind, whose private half we do not have any more.
        problems = {vm.uuid: _GIVEN_UP if vm in lost else _LEFT_BEHIND for vm in vms if vm not in having}
        problems.update(_everywhere(context, having, {"remove": "yes"}, progress))
    ref = context.access.facts.pool.ref
    context.sessions.run(lambda session: rotation.end(session, ref))
    return _status(context, _keys(context), problems)


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


def _everywhere(context: Context, vms: "List[VMRecord]", arguments: "Dict[str, str]",
                progress: task.Progress) -> "Dict[str, str]":
    """key_install for each, on its host; VM uuid -> why it failed."""
    from concurrent.futures import ThreadPoolExecutor

    problems = {}
    with ThreadPoolExecutor(AT_ONCE) as workers:
        results = [workers.submit(_one, context, vm, arguments) for vm in vms]
        for number, (vm, result) in enumerate(zip(vms, results)):
            try:
                result.result()
            except XapiError as error:
                problems[vm.uuid] = " ".join(error.details) or str(error)
            except XSContainerError as error:
                problems[vm.uuid] = f"{error.code} {error}"
            progress(0.1 + 0.8 * (number + 1) / len(vms))
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
    return {
        "rotating": bool(found.previous), "fingerprint": found.current,
        "previous_fingerprint": found.previous,
        "vms": [{"uuid": vm.uuid, "name": vm.name, "power_state": vm.power_state,
                 "has_key": not found.previous or _has(vm, found), "problem": problems.get(vm.uuid, "")}
                for vm in _vms(context)]}
