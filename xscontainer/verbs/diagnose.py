"""Find out why a VM's containers are not shown: one cause, one next step."""

import json
import time
from typing import TYPE_CHECKING, Optional, Sequence, Tuple

from xscontainer import keys
from xscontainer.core import eligibility
from xscontainer.core.arguments import VM_UUID
from xscontainer.core.diagnosis import OVER_TLS, Trace
from xscontainer.core.identity import MOST_NAMED, OtherVM, Peer, claimants_of
from xscontainer.core.target import TLS, Reach
from xscontainer.core.verb import EVERYONE, PROBING, SEE, VM_HOST, Verb
from xscontainer.core.vm_record import VMRecord
from xscontainer.errors import (
    ArgumentError,
    ConnectError,
    EngineError,
    EngineWithoutEvents,
    EngineWithoutFacts,
    HostKeyChanged,
    NotPublished,
    VMElsewhere,
    VMNotRegistered,
    VMNotRunning,
    XapiError,
    XSContainerError,
)
from xscontainer.sanitize import clean_text
from xscontainer.verbs import DONE
from xscontainer.verbs.context import Context
from xscontainer.xapi import vm as xapi_vm

if TYPE_CHECKING:
    # Importing these loads paramiko.
    from xscontainer.access.guest_identity import IdentityCheck
    from xscontainer.engine.connection import Connection

MOST_STATUS = 4096  # characters
SECONDS = 13.0  # for everything that depends on the guest; the documentation promises 15
UNHURRIED = 3.0  # s after which a guest is so slow that the remaining time is reserved for its engine
GRACE = 2.0  # s in which a monitor publishes the list of a VM that was just registered

MOST_COMPARED = 4  # addresses of the VM that are compared with those of other VMs


def diagnose(context: Context, vmuuid: str) -> str:
    """Return ``True`` and a diagnosis as JSON (docs/api.md). A problem of the VM is a result, not a failure.

    Connects once, beside the standing connection. Changes nothing: no key is pinned or made.

    :raises XapiError: XAPI does not answer, or does not know the VM.
    """
    from xscontainer.engine import probe  # loads paramiko and docker

    trace = Trace(time.monotonic, SECONDS)
    vm = _record(context, vmuuid)
    trace.facts.update(vm=vm.uuid, name=vm.name[:255], registered=eligibility.enabled(vm),
                       published=keys.PS in vm.other_config)
    try:
        with context.access.budgets.of(vm.uuid).charged():
            found = trace.ended(None, f"All works: {_walk(context, vm, trace)}.")
    except (VMElsewhere, XapiError):
        raise
    except XSContainerError as error:
        found = trace.ended(error, step=probe.failed_step(error, trace))
    return DONE + found.to_json()


def _record(context: Context, vm_uuid: str) -> VMRecord:
    """Read the VM from XAPI, because events may be late; without the keys that a clone carried in, as monitors do."""
    return context.sessions.run(lambda session: xapi_vm.own_part(session, xapi_vm.record(session, vm_uuid)))


def _walk(context: Context, vm: VMRecord, trace: Trace) -> str:
    """Take each step in turn; returns a sentence about the engine.

    :raises XSContainerError: the cause of the problem.
    """
    from xscontainer.access.opener import labels, require_running_here
    from xscontainer.engine import probe

    access, settings = context.access, context.settings
    if not vm.is_guest:
        raise ArgumentError(f"{vm.label} is a template, a snapshot or a control domain.",
                            "Only a VM can have its containers managed.")
    trace.done("vm", vm.label)
    if vm.power_state != "Running":
        raise VMNotRunning.of(vm.label, vm.power_state)
    require_running_here(vm, context.this_host_ref())
    trace.done("power", "running on this host")
    reach = Reach.of(vm.other_config, settings)
    trace.facts.update(mode=reach.mode, port=reach.port, user=reach.user)
    trace.done("settings", f"{reach.mode}, port {reach.port}" + (f", user {reach.user}" if reach.user else "")
               + (f", weak algorithms allowed: {', '.join(reach.weak)}" if reach.weak else ""))
    where = access.addresses(vm, reach, seconds=probe.CONNECT_SECONDS)
    trace.facts["address"] = where[0]
    trace.done("address", ", ".join(where) + _also_reported(context, vm, where[:MOST_COMPARED]))
    judge = access.identity_check(vm, reach)
    judge.deadline = trace.deadline - probe.ANSWER_SECONDS
    judge.asks_until = trace.deadline - SECONDS + UNHURRIED
    try:
        connection = _connected(context, vm, reach, where, judge, trace)
    except ConnectError as error:
        if error.login_refused:
            access.refusals.count(vm.uuid, int(trace.facts.get("refused_logins", 1)))
        elif error.may_be_ban:
            access.refusals.unreachable(vm.uuid, error)
        raise
    access.refusals.forget(vm.uuid)
    context.retry_now(vm.uuid)
    if judge.claimants:
        trace.done(probe.IDENTITY, "this VM, although its address or host key is also that of "
                   + labels(judge.claimants))
    try:
        sentence, missing = probe.ask(connection, settings.engine, trace)
    finally:
        connection.close()
    vm = _shown(context, vm, trace)
    missing = missing or _said_to_miss(vm)
    if missing is not None:
        raise missing
    trace.done("optional", "events and facts")
    return sentence


def _connected(context: Context, vm: VMRecord, reach: Reach, where: "Tuple[str, ...]", judge: "IdentityCheck",
               trace: Trace) -> "Connection":
    from xscontainer.access import credentials
    from xscontainer.access.opener import explain, ssh_target
    from xscontainer.engine import probe

    access, settings = context.access, context.settings
    if reach.mode == TLS:
        from xscontainer.engine.tls import connection as tls

        trace.ladder = OVER_TLS
        found = credentials.of_tls(access.sessions, vm, reach)
        return probe.over_tls(tls.Target(where, reach.port, reach.name, vm.uuid, judge.over_tls), found,
                              settings.guest, settings.engine, trace)
    private_key, previous = access.pool_key.private(make=False), access.pool_key.previous()
    trace.done("key", "the pool's key pair is there")
    target = ssh_target(vm, reach, where)._replace(judge=judge.over_ssh, budget=access.budgets.of(vm.uuid))
    users = probe.other_users(target.user, settings.ssh.user,
                              _most_users(access.refusals.recent(vm.uuid, access.refusals.limits.banning),
                                          previous is not None))
    try:
        return probe.over_ssh(target, private_key, settings.guest, settings.engine, trace, previous, users)
    except HostKeyChanged as error:
        explain(access.other_vms, error, vm)
        raise


def _also_reported(context: Context, vm: VMRecord, where: "Sequence[str]") -> str:
    """Name the other running VMs that report one of the addresses, as the end of a sentence."""
    others = [f"; {address} is also reported by the VM {other.label}" for address in where
              for other in claimants_of(OtherVM.of(vm), Peer(address, ""), context.access.other_vms.holders(address))]
    return "".join(others[:MOST_NAMED])


def _most_users(recent: int, two_keys: bool) -> int:
    """Return for how many other users a login may be tried without looking like an attack.

    :param recent: how many logins the guest refused lately.
    :param two_keys: the pool has two key pairs at the moment.
    """
    from xscontainer.access.refusals import LIMITS

    return max(0, LIMITS.most - recent - (2 if two_keys else 1))


def _said_to_miss(vm: VMRecord) -> "Optional[EngineError]":
    """The error that the VM's monitor published for what its engine lacks: a monitor has more time to find out."""
    try:
        status = json.loads(vm.other_config.get(keys.STATUS, "{}")[:MOST_STATUS])
        code, message = clean_text(status["code"], 64), clean_text(status["message"], MOST_STATUS)
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    for kind in (EngineWithoutEvents, EngineWithoutFacts):
        if code == kind.code:
            return kind(message.replace(kind.default_hint, "").strip())
    return None


def _shown(context: Context, vm: VMRecord, trace: Trace) -> VMRecord:
    """The engine is reachable; check that its list is published. Returns the VM as XAPI knows it now.

    :raises VMNotRegistered: container management is off for the VM.
    :raises NotPublished: it is on, but no monitor publishes the list.
    """
    if not eligibility.enabled(vm):
        raise VMNotRegistered(f"The engine can be reached, but container management is off for the VM {vm.label}.")
    trace.done("registered")
    deadline = min(time.monotonic() + GRACE, trace.deadline + 1.0)
    while not (vm.published and context.watched(vm.uuid)):
        if time.monotonic() > deadline:
            trace.facts["published"] = False
            if context.watched(vm.uuid):
                raise NotPublished(f"The engine can be reached, but the list of the VM {vm.label} is not published.")
            host = context.sessions.run(lambda session: session.xenapi.host.get_name_label(context.this_host_ref()))
            raise NotPublished(f"The engine can be reached, but the list of the VM {vm.label} is not updated: "
                               f"xscontainer-monitor does not run on {host}, the VM's host, or does not know the VM "
                               "yet.")
        time.sleep(0.1)
        vm = _record(context, vm.uuid)
    trace.facts["published"] = keys.PS in vm.other_config
    trace.done("published", "the list" if keys.PS in vm.other_config
               else "the monitor could not reach the engine the last time; it tries again within about a minute")
    return vm


DIAGNOSE = Verb("diagnose", diagnose, "Find out why a VM's containers are not listed.", (VM_UUID,), EVERYONE,
                SEE, "diagnose", VM_HOST, PROBING, result="JSON, [below](#diagnose)")
VERBS = (DIAGNOSE,)
