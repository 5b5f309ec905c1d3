"""What the plugin's functions do, one function a verb: typed arguments in, the result's text out.

Results are read by clients that were written against the original: every one starts with exactly
``True``, and XenCenter shows what follows. A verb fails by raising an error of xscontainer.errors.
"""

from typing import TYPE_CHECKING, Callable, ContextManager, TypeVar

from xscontainer import keys, xmlform
from xscontainer.errors import ArgumentError, XapiSessionLost
from xscontainer.settings import Settings
from xscontainer.vmrecord import VMRecord
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session

if TYPE_CHECKING:
    from typing import Protocol  # novm

    # Importing it loads paramiko and docker.
    from xscontainer.engine.api import Engine
else:
    Protocol = object

DONE = "True"

Result = TypeVar("Result")


class Context(Protocol):
    """What a verb may use. The daemon has one for all calls; without it each call has its own.

    A matter of shape, not of descent: what implements it lives in layers below this one. All methods
    may be called by several threads at once, and all may raise XapiUnavailable.
    """

    settings: Settings

    def this_host_ref(self) -> str:
        """The host we run on; a new ref after a pool join."""
        ...

    def session(self) -> "ContextManager[Session]":
        """Lease a session of our own login, for short calls: monitors wait for it, too."""
        ...

    def forwarding_session(self) -> "ContextManager[Session]":
        """Lease one for a call that may last as long as an action does.

        Apart from ``session()``, so that slow actions never keep the monitors waiting. Whoever sets
        another timeout sets it back.
        """
        ...

    def vm(self, vm_uuid: str) -> VMRecord:
        """The VM as last heard of; may lag behind XAPI by an event.

        :raises ObjectGone: there is none of that uuid.
        """
        ...

    def engine(self, vm_uuid: str) -> "ContextManager[Engine]":
        """The engine of a VM that runs here: over its standing connection, or over one made for this call.

        :raises VMElsewhere: it runs on another host (by now).
        :raises ConnectError, VMError, KeyPairError, EngineError: there is no way to it.
        """
        ...

    def registered(self, vm_uuid: str) -> None:
        """Hint that the VM was switched on, which events would tell a little later."""
        ...

    def deregistered(self, vm_uuid: str) -> None:
        """Hint that the VM was switched off."""
        ...


def run(lease: "Callable[[], ContextManager[Session]]", work: "Callable[[Session], Result]", most: int) -> Result:
    """``work(session)``, from its start again if the session turns out to be gone.

    After a restart of xapi all the sessions kept open are; each attempt uses up one of them.

    :param lease: ``session`` or ``forwarding_session`` of a context. :param most: how many it keeps open.
    """
    for _ in range(most):
        try:
            with lease() as session:
                return work(session)
        except XapiSessionLost:
            pass
    with lease() as session:
        return work(session)


def ask_xapi(context: Context, work: "Callable[[Session], Result]") -> Result:
    """``run`` on one of the sessions for short calls."""
    return run(context.session, work, context.settings.xapi.sessions)


def start(context: Context, vmuuid: str, container: str) -> str:
    """Start a container; one that runs already is a success. So for the four below."""
    with context.engine(vmuuid) as engine:
        engine.start(container)
    return DONE


def stop(context: Context, vmuuid: str, container: str) -> str:
    with context.engine(vmuuid) as engine:
        engine.stop(container)
    return DONE


def restart(context: Context, vmuuid: str, container: str) -> str:
    with context.engine(vmuuid) as engine:
        engine.restart(container)
    return DONE


def pause(context: Context, vmuuid: str, container: str) -> str:
    with context.engine(vmuuid) as engine:
        engine.pause(container)
    return DONE


def unpause(context: Context, vmuuid: str, container: str) -> str:
    with context.engine(vmuuid) as engine:
        engine.unpause(container)
    return DONE


def get_inspect(context: Context, vmuuid: str, object: str) -> str:
    """All the engine knows of a container, as ``True<?xml...><docker_inspect>``."""
    with context.engine(vmuuid) as engine:
        found = engine.inspect(object)
    return xmlform.inspect_result(found)


def get_top(context: Context, vmuuid: str, object: str) -> str:
    """The processes in a container, as ``True<?xml...><docker_top>``."""
    with context.engine(vmuuid) as engine:
        titles, processes = engine.top(object)
    return xmlform.top_result(titles, processes)


def register(context: Context, vmuuid: str) -> str:
    """Switch container management on for a VM, running or not.

    :raises ArgumentError: it is a template, a snapshot or a control domain.
    """
    ask_xapi(context, lambda session: _switch_on(session, vmuuid))
    context.registered(vmuuid)
    return DONE


def _switch_on(session: Session, vm_uuid: str) -> None:
    vm = xapi_vm.record(session, vm_uuid)
    if not vm.is_guest:
        raise ArgumentError(f"{vm.label} is a template, a snapshot or a control domain.",
                            "Only a VM can have its containers managed.")
    if not vm.is_owner:
        # A clone brings the list and the host key of the VM it was made from. From here on the
        # keys are this VM's own, so the other's must not pass for them.
        for key in (*keys.PUBLISHED, keys.HOST_KEY):
            if key in vm.other_config:
                xapi_vm.remove_key(session, vm.ref, key)
    # The switch comes last: whoever sees it on finds the rest in place.
    for key, value in ((keys.OWNER, vm.uuid), (keys.MONITOR, "True")):
        if vm.other_config.get(key) != value:
            xapi_vm.put_key(session, vm.ref, key, value, present=key in vm.other_config)


def deregister(context: Context, vmuuid: str) -> str:
    """Switch it off and remove what was published, from a template or snapshot as well."""
    ask_xapi(context, lambda session: _switch_off(session, vmuuid))
    context.deregistered(vmuuid)
    return DONE


def _switch_off(session: Session, vm_uuid: str) -> None:
    vm = xapi_vm.record(session, vm_uuid)
    # The switch first: a monitor that publishes between the two sees it, and wipes after itself.
    if vm.other_config.get(keys.MONITOR) != "False":
        xapi_vm.put_key(session, vm.ref, keys.MONITOR, "False", present=keys.MONITOR in vm.other_config)
    for key in vm.published:
        xapi_vm.remove_key(session, vm.ref, key)
