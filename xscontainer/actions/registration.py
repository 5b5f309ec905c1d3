"""Switching container management on and off for a VM."""

from xscontainer import keys
from xscontainer.actions import DONE
from xscontainer.actions.context import Context
from xscontainer.errors import ArgumentError
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session


def register(context: Context, vmuuid: str) -> str:
    """Switch container management on for a VM, running or not.

    :raises ArgumentError: it is a template, a snapshot or a control domain.
    """
    context.sessions.run(lambda session: _switch_on(session, vmuuid))
    return DONE


def _switch_on(session: Session, vm_uuid: str) -> None:
    vm = xapi_vm.record(session, vm_uuid)
    if not vm.is_guest:
        raise ArgumentError(f"{vm.label} is a template, a snapshot or a control domain.",
                            "Only a VM can have its containers managed.")
    # From here on the keys are this VM's own, so what a clone carried in must not pass for them.
    vm = xapi_vm.adopt(session, vm)
    # The switch comes last: whoever sees it on finds the rest in place.
    xapi_vm.put(session, vm, {keys.OWNER: vm.uuid, keys.MONITOR: "True"})


def deregister(context: Context, vmuuid: str) -> str:
    """Switch it off and remove what was published, from a template or snapshot as well."""
    context.sessions.run(lambda session: _switch_off(session, vmuuid))
    return DONE


def _switch_off(session: Session, vm_uuid: str) -> None:
    vm = xapi_vm.record(session, vm_uuid)
    # The switch first: a monitor that publishes between the two sees it, and wipes after itself.
    xapi_vm.put(session, vm, {keys.MONITOR: "False"})
    for key in vm.published:
        xapi_vm.remove_key(session, vm.ref, key)
