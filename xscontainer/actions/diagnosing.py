"""Finding out why a VM's containers are not shown: one cause, one next step."""

import time

from xscontainer import eligibility, keys
from xscontainer.actions import DONE
from xscontainer.actions.context import Context
from xscontainer.diagnosis import OVER_TLS, Trace
from xscontainer.errors import (
    ArgumentError,
    NotPublished,
    VMElsewhere,
    VMNotRegistered,
    VMNotRunning,
    XapiError,
    XSContainerError,
)
from xscontainer.reach import TLS, Reach
from xscontainer.vmrecord import VMRecord
from xscontainer.xapi import vm as xapi_vm

SECONDS = 13.0  # for all that depends on the guest; callers are promised 15
GRACE = 2.0  # s in which a monitor publishes the list of a VM that was just registered

_WAYS_BACK = {"Suspended": "Resume the VM.", "Paused": "Unpause the VM."}


def diagnose(context: Context, vmuuid: str) -> str:
    """``True`` and a diagnosis as JSON (README, "Diagnose"). That something is wrong with the VM is a result.

    Connects once beside whatever stands; pins, makes and changes nothing.

    :raises XapiError: XAPI does not answer, or knows no such VM.
    """
    from xscontainer.engine import probe  # loads paramiko and docker

    trace = Trace(time.monotonic, SECONDS)
    vm = _record(context, vmuuid)
    trace.facts.update(vm=vm.uuid, name=vm.name[:255], registered=eligibility.enabled(vm),
                       published=keys.PS in vm.other_config)
    try:
        found = trace.ended(None, f"All works: {_walk(context, vm, trace)}.")
    except (VMElsewhere, XapiError):
        raise
    except XSContainerError as error:
        found = trace.ended(error, step=probe.failed_step(error, trace))
    return DONE + found.to_json()


def _record(context: Context, vm_uuid: str) -> VMRecord:
    """As a monitor would take it: a clone's without what is its original's. What events told may be behind."""
    return context.sessions.run(lambda session: xapi_vm.own_part(session, xapi_vm.record(session, vm_uuid)))


def _walk(context: Context, vm: VMRecord, trace: Trace) -> str:
    """Each step in turn; what was found, as a sentence. Raises the error that is the cause."""
    from xscontainer.access import credentials, require_running_here, ssh_target
    from xscontainer.engine import probe

    access, settings = context.access, context.settings
    if not vm.is_guest:
        raise ArgumentError(f"{vm.label} is a template, a snapshot or a control domain.",
                            "Only a VM can have its containers managed.")
    trace.done("vm", vm.label)
    if vm.power_state != "Running":
        raise VMNotRunning(f"The VM {vm.label} is {vm.power_state.lower()}.", _WAYS_BACK.get(vm.power_state, ""))
    require_running_here(vm, context.this_host_ref())
    trace.done("power", "running on this host")
    reach = Reach.of(vm.other_config, settings)
    trace.facts.update(mode=reach.mode, port=reach.port, user=reach.user)
    trace.done("settings", f"{reach.mode}, port {reach.port}" + (f", user {reach.user}" if reach.user else ""))
    where = access.addresses(vm, reach, seconds=probe.CONNECTING)
    trace.facts["address"] = where[0]
    trace.done("address", ", ".join(where))
    if reach.mode == TLS:
        from xscontainer.engine import tls

        trace.ladder = OVER_TLS
        found = credentials.of_tls(access.sessions, vm, reach)
        connection = probe.over_tls(tls.Target(where, reach.port, reach.name, vm.uuid), found, settings.ssh,
                                    settings.engine, trace)
    else:
        private_key = access.pool_key.private(make=False)
        trace.done("key", "the pool's key pair is there")
        connection = probe.over_ssh(ssh_target(vm, reach, where), private_key, settings.ssh, settings.engine, trace,
                                    access.pool_key.previous())
    try:
        sentence = probe.ask(connection, settings.engine, trace)
    finally:
        connection.close()
    _shown(context, vm, trace)
    return sentence


def _shown(context: Context, vm: VMRecord, trace: Trace) -> None:
    """All works: so do clients show it?

    :raises VMNotRegistered: nobody was told to. NotPublished: whoever was told to does not.
    """
    if not eligibility.enabled(vm):
        raise VMNotRegistered(f"All works, but container management is off for the VM {vm.label}.")
    trace.done("registered")
    ends = min(time.monotonic() + GRACE, trace.deadline + 1.0)
    while not (vm.published and context.watched(vm.uuid)):
        if time.monotonic() > ends:
            trace.facts["published"] = False
            if context.watched(vm.uuid):
                raise NotPublished(f"All works, but the list of the VM {vm.label} is not published.")
            host = context.sessions.run(lambda session: session.xenapi.host.get_name_label(context.this_host_ref()))
            raise NotPublished(f"All works, but nobody keeps the list of the VM {vm.label}: xscontainer-monitor does "
                               f"not run on {host}, the VM's host, or does not know the VM yet.")
        time.sleep(0.1)
        vm = _record(context, vm.uuid)
    trace.facts["published"] = keys.PS in vm.other_config
    trace.done("published", "the list" if keys.PS in vm.other_config
               else "the monitor could not reach the engine the last time; it tries again within a minute or so")
