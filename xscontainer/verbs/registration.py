"""The verbs that switch container management on and off for a VM."""

from xscontainer import keys
from xscontainer.core.arguments import VM_UUID
from xscontainer.core.verb import EVERYONE, OPERATE, Verb
from xscontainer.errors import ArgumentError
from xscontainer.verbs import DONE
from xscontainer.verbs.context import Context
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
    # From here on the keys belong to this VM, so those that a clone carried in are removed first.
    vm = xapi_vm.adopt(session, vm)
    # The switch comes last: a monitor that sees it on finds the rest in place.
    xapi_vm.put(session, vm, {keys.OWNER: vm.uuid, keys.MONITOR: "True"})


def deregister(context: Context, vmuuid: str) -> str:
    """Switch container management off for a VM and remove what was published, from a template or snapshot as well."""
    context.sessions.run(lambda session: _switch_off(session, vmuuid))
    return DONE


def _switch_off(session: Session, vm_uuid: str) -> None:
    vm = xapi_vm.record(session, vm_uuid)
    # The switch first: a monitor that publishes between the two steps sees it, and removes its keys again.
    xapi_vm.put(session, vm, {keys.MONITOR: "False"})
    for key in vm.published:
        xapi_vm.remove_key(session, vm.ref, key)


REGISTER = Verb("register", register, "Switch container management on for a VM.", (VM_UUID,), EVERYONE, OPERATE,
                "register")
DEREGISTER = Verb("deregister", deregister, "Switch container management off for a VM and remove its lists.",
                  (VM_UUID,), EVERYONE, OPERATE, "deregister")
VERBS = (REGISTER, DEREGISTER)
