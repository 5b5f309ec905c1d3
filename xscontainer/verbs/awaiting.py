"""Waiting for an engine that somebody is setting up at this moment."""

import time
from typing import TYPE_CHECKING, Mapping

from xscontainer.core import eligibility
from xscontainer.core.vm_record import NULL_REF, VMRecord
from xscontainer.errors import CalledOff, TLSCertificateInvalid, VMElsewhere, VMNotRunning, XSContainerError
from xscontainer.verbs.context import Context
from xscontainer.xapi import task
from xscontainer.xapi import vm as xapi_vm

if TYPE_CHECKING:
    from xscontainer.engine.api import Engine

RETRY_SECONDS = 2.0  # between two attempts
POLL_SECONDS = 1.0  # between two checks whether the call is cancelled


def opened(context: Context, vm: VMRecord, changes: "Mapping[str, str]", wait: float, certificate: str,
           progress: task.Progress, step: str) -> "Engine":
    """Connect to the engine, again and again until it answers.

    :param vm: with the changes of its other_config, which are not written yet.
    :param wait: seconds; 0: the engine must answer now.
    :param certificate: fingerprint of the certificate that the engine must show; "": any that is valid.
    :param step: the name of this step for the progress.
    :raises CalledOff: the task was cancelled, or the daemon stops.
    :raises XSContainerError: the last cause why the engine does not answer, or one that setting it up cannot mend.
    """
    deadline = time.monotonic() + wait
    shown = ""
    while True:
        try:
            return _tried(context, vm, certificate)
        except XSContainerError as error:
            if not error.during_setup or time.monotonic() >= deadline:
                raise
            cause = error.code
        if cause != shown:
            progress(0.6, f"{step} ({cause})")
            shown = cause
        _pause(context, progress, deadline)
        vm = _now(context, vm, changes)


def _tried(context: Context, vm: VMRecord, certificate: str) -> "Engine":
    from xscontainer.access.opener import hang_up

    if vm.power_state != "Running" or vm.resident_on == NULL_REF:
        raise VMNotRunning(f"The VM {vm.label} does not run any more.", "Start it and repeat the call.")
    if not eligibility.running_here(vm, context.this_host_ref()):
        raise VMElsewhere(f"The VM {vm.label} moved to another host during the call.")
    engine, _ = context.access.open(vm, insist=True)
    shown = engine.connection.certificate
    if certificate and shown != certificate:
        hang_up(engine)
        raise TLSCertificateInvalid(f"The engine at {engine.connection.describe()} shows another certificate than the "
                                    "one that was just made for it.", "Run the script on the CD in the VM.")
    return engine


def _pause(context: Context, progress: task.Progress, deadline: float) -> None:
    until = min(time.monotonic() + RETRY_SECONDS, deadline)
    while True:
        progress.check()
        left = until - time.monotonic()
        if left <= 0:
            return
        if context.stopping.wait(min(left, POLL_SECONDS)):
            raise CalledOff("The xscontainer daemon of the VM's host was stopped.", "Repeat the call.")


def _now(context: Context, vm: VMRecord, changes: "Mapping[str, str]") -> VMRecord:
    now = context.sessions.run(lambda session: xapi_vm.record(session, vm.uuid))
    return now._replace(other_config={**now.other_config, **changes})
