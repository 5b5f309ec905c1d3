"""An engine that is there, or will be soon: somebody is setting it up, and looks now and then whether it answers."""

import time
from typing import TYPE_CHECKING, Mapping

from xscontainer.actions.context import Context
from xscontainer.errors import (
    AddressUnknown,
    CalledOff,
    EngineLost,
    EngineTimeout,
    EngineUnavailable,
    GuestSilent,
    GuestUnreachable,
    NameUnresolved,
    TLSCertificateInvalid,
    TLSClientRefused,
    TLSProtocol,
    TransportLost,
    VMElsewhere,
    VMNotRunning,
)
from xscontainer.vmrecord import NULL_REF, VMRecord
from xscontainer.xapi import task
from xscontainer.xapi import vm as xapi_vm

if TYPE_CHECKING:
    from xscontainer.engine.api import Engine

PAUSE = 2.0  # s between two tries
LOOK = 1.0  # s between two looks whether it is called off

# What an engine, or its machine, answers with before it is set up; while it starts anew a guest has no address.
_PASSING = (AddressUnknown, NameUnresolved, VMNotRunning, GuestUnreachable, GuestSilent, TLSProtocol,
            TLSCertificateInvalid, TLSClientRefused, TransportLost, EngineUnavailable, EngineLost, EngineTimeout)


def opened(context: Context, vm: VMRecord, changes: "Mapping[str, str]", wait: float, certificate: str,
           progress: task.Progress, step: str) -> "Engine":
    """The engine, as soon as it answers.

    :param vm: with the changes of its other_config, which are not written yet.
    :param wait: seconds; 0: it must answer now.
    :param certificate: fingerprint of the one that it must show; "" for any that serves.
    :param step: what is waited for, for whoever looks at the progress.
    :raises CalledOff:
    :raises XSContainerError: why it does not answer: the last cause, or one that does not pass.
    """
    deadline = time.monotonic() + wait
    told = ""
    while True:
        try:
            return _tried(context, vm, certificate)
        except _PASSING as error:
            if time.monotonic() >= deadline:
                raise
            cause = error.code
        if cause != told:
            progress(0.6, f"{step} ({cause})")
            told = cause
        _pause(context, progress, deadline)
        vm = _now(context, vm, changes)


def _tried(context: Context, vm: VMRecord, certificate: str) -> "Engine":
    from xscontainer.access import hang_up

    if vm.power_state != "Running" or vm.resident_on == NULL_REF:
        raise VMNotRunning(f"The VM {vm.label} is not running (any more).")
    if vm.resident_on != context.this_host_ref():
        raise VMElsewhere(f"The VM {vm.label} left this host meanwhile.")
    engine, _ = context.access.open(vm)
    shown = engine.connection.certificate
    if certificate and shown != certificate:
        hang_up(engine)
        raise TLSCertificateInvalid(f"The engine at {engine.connection.describe()} shows another certificate than the "
                                    "one that was made for it now.", "Run the script on the disc in the VM.")
    return engine


def _pause(context: Context, progress: task.Progress, deadline: float) -> None:
    until = min(time.monotonic() + PAUSE, deadline)
    while True:
        progress.check()
        left = until - time.monotonic()
        if left <= 0:
            return
        if context.stopping.wait(min(left, LOOK)):
            raise CalledOff("The xscontainer daemon of the VM's host was stopped.", "Repeat the call.")


def _now(context: Context, vm: VMRecord, changes: "Mapping[str, str]") -> VMRecord:
    now = context.sessions.run(lambda session: xapi_vm.record(session, vm.uuid))
    return now._replace(other_config={**now.other_config, **changes})
