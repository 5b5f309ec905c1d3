"""The verbs for one container: start, stop, restart, pause, unpause, inspect, top."""

import contextlib
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, Optional, Tuple

from xscontainer.clients import jsonform, xmlform
from xscontainer.core import current_call
from xscontainer.core import memory_budget as memory
from xscontainer.core.arguments import CONTAINER, VM_UUID, one_of, seconds_up_to
from xscontainer.core.arguments import container as name_check
from xscontainer.core.masking import mask
from xscontainer.core.verb import ENGINE_HOST, EVERYONE, OPERATE, PATIENT, READ, Argument, Verb
from xscontainer.errors import ContainerNotFound, ContainerStopping, EngineTimeout, XSContainerError
from xscontainer.sanitize import mapping
from xscontainer.verbs import DONE
from xscontainer.verbs.context import Context

if TYPE_CHECKING:
    # Importing this loads paramiko and docker.
    from xscontainer.engine.api import Engine

CHECKING = 6.0  # s of a call that are reserved for finding out why a container has not stopped
_MOST_GROWTH = 24  # the row of a process in XML takes up to so many times its bytes in JSON
_RUNNING = ("running", "paused", "restarting")
XML, JSON = "xml", "json"
SHOWN, MASKED = "shown", "masked"


def start(context: Context, vmuuid: str, container: str) -> str:
    """Start a container. If it runs already, that is a success."""
    with _acting(context, vmuuid, container, "start") as (engine, which):
        engine.start(which)
    return DONE


def stop(context: Context, vmuuid: str, container: str, time: str = "") -> str:
    """Stop a container. If it is stopped already, that is a success.

    :param time: seconds after which the engine kills the container; "": the container's own stop time.
    :raises ContainerStopping: the engine is well, but the container takes longer to stop than the caller can wait.
    """
    with _acting(context, vmuuid, container, "stop") as (engine, which), \
            _ending(context, engine, vmuuid, container, "stopped"):
        engine.stop(which, _whole(time))
    return DONE


def restart(context: Context, vmuuid: str, container: str, time: str = "") -> str:
    """Stop and start a container; parameters and errors as for stop()."""
    with _acting(context, vmuuid, container, "restart") as (engine, which), \
            _ending(context, engine, vmuuid, container, "restarted"):
        engine.restart(which, _whole(time))
    return DONE


@contextlib.contextmanager
def _acting(context: Context, vm_uuid: str, container: str, action: str) -> "Iterator[Tuple[Engine, str]]":
    """Yield the VM's engine and the container's whole id or name. Events that the block causes are marked."""
    with context.engine(vm_uuid) as engine:
        which = engine.resolved(container)
        with context.acting(vm_uuid, which, action):
            yield engine, which


def _whole(seconds: str) -> Optional[int]:
    return int(seconds) if seconds else None


@contextlib.contextmanager
def _ending(context: Context, engine: "Engine", vm_uuid: str, container: str, becomes: str) -> "Iterator[None]":
    """Distinguish a container that stops slowly from an engine that does not answer."""
    began = time.monotonic()
    try:
        with current_call.reserving(CHECKING):
            yield
    except EngineTimeout as error:
        seconds = time.monotonic() - began
        try:
            runs = _runs(engine, container)
        except XSContainerError:
            raise error from None
        if not runs and becomes == "stopped":
            return
        raise ContainerStopping(
            f"The container {container} in the VM {context.vm(vm_uuid).label} is still being {becomes} after "
            f"{seconds:.0f} s{_own_time(engine, container)}. The engine goes on with it.") from error


def _runs(engine: "Engine", container: str) -> bool:
    """Ask the engine whether the container runs.

    :raises XSContainerError: the engine does not answer.
    """
    from xscontainer.engine import container_lookup

    listed = engine.called(container)
    try:
        whole = container_lookup.resolve(container, listed)
    except ContainerNotFound:
        return False
    return any(entry.get("State") in _RUNNING for entry in listed if entry.get("Id") == whole)


def _own_time(engine: "Engine", container: str) -> str:
    """The container's own stop time as a part of a sentence; "" if it has none."""
    with contextlib.suppress(XSContainerError):
        seconds = engine.inspect(container, lambda found: mapping(found.get("Config")).get("StopTimeout"))
        if isinstance(seconds, int) and not isinstance(seconds, bool) and 0 < seconds < 10 ** 9:
            return f": its own stop time is {seconds} s"
    return ""


def pause(context: Context, vmuuid: str, container: str) -> str:
    with _acting(context, vmuuid, container, "pause") as (engine, which):
        engine.pause(which)
    return DONE


def unpause(context: Context, vmuuid: str, container: str) -> str:
    with _acting(context, vmuuid, container, "unpause") as (engine, which):
        engine.unpause(which)
    return DONE


def get_inspect(context: Context, vmuuid: str, object: str, format: str = XML, environment: str = SHOWN) -> str:
    """Return what the engine knows of a container, as ``True<?xml...><docker_inspect>`` or ``True{...``.

    :param format: XML or JSON.
    :param environment: SHOWN, or MASKED: without the values of environment variables and other secrets.
    """
    write = jsonform.inspect_result if format == JSON else xmlform.inspect_result

    def shape(found: "Dict[str, Any]") -> str:
        return write(mask(found) if environment == MASKED else found)

    with context.engine(vmuuid) as engine:
        result: str = engine.inspect(object, shape, _claimed(vmuuid))
        return result


def get_top(context: Context, vmuuid: str, object: str, format: str = XML) -> str:
    """Return the processes in a container, as ``True<?xml...><docker_top>`` or ``True{...``.

    :param format: XML or JSON.
    """
    write = jsonform.top_result if format == JSON else xmlform.top_result
    with context.engine(vmuuid) as engine:
        result: str = engine.top(object, lambda top: write(*top), _claimed(vmuuid))
        return result


def _claimed(vm_uuid: str) -> "Callable[[int], None]":
    """Return a function that charges the guest for the result of an engine's answer, until the reply was sent.

    The result is a text whose characters take up to 4 bytes each; the reply holds that text escaped.
    """
    return lambda size: memory.keep(vm_uuid, 6 * min(xmlform.RESULT_LIMIT, _MOST_GROWTH * size))


# s that a container may take to stop: Limits.stop_seconds of engine.calls, whose import would load docker.
STOPPING = 60.0

_OBJECT = Argument("object", name_check)
_FORMAT = Argument("format", one_of(XML, JSON), required=False, form="`xml` or `json`")
_ENVIRONMENT = Argument("environment", one_of(SHOWN, MASKED), required=False, form="`shown` or `masked`")
_ON_CONTAINER = (VM_UUID, CONTAINER)
_ENDING = (*_ON_CONTAINER, Argument("time", seconds_up_to(int(STOPPING)), False,
                                    form=f"seconds until the container is killed, at most {STOPPING:.0f}"))
_UNCHANGED = 'nothing; "already in that state" is a success'

START = Verb("start", start, "Start a container.", _ON_CONTAINER, EVERYONE, OPERATE, "start", ENGINE_HOST,
             result=_UNCHANGED)
STOP = Verb("stop", stop, "Stop a container.", _ENDING, EVERYONE, OPERATE, "stop", ENGINE_HOST, PATIENT, STOPPING,
            _UNCHANGED)
RESTART = Verb("restart", restart, "Stop and start a container.", _ENDING, EVERYONE, OPERATE, "restart", ENGINE_HOST,
               PATIENT, STOPPING)
PAUSE = Verb("pause", pause, "Freeze the processes of a container.", _ON_CONTAINER, EVERYONE, OPERATE, "pause",
             ENGINE_HOST, result=_UNCHANGED)
UNPAUSE = Verb("unpause", unpause, "Continue the processes of a paused container.", _ON_CONTAINER, EVERYONE, OPERATE,
               "unpause", ENGINE_HOST, result=_UNCHANGED)
GET_INSPECT = Verb(
    "get_inspect", get_inspect, "Return what the engine knows of a container.",
    (VM_UUID, _OBJECT, _FORMAT, _ENVIRONMENT), EVERYONE, READ, "inspect", ENGINE_HOST,
    result="XML `<docker_inspect>`, or JSON, [below](#get_inspect-and-get_top)")
GET_TOP = Verb(
    "get_top", get_top, "Return the processes in a container.", (VM_UUID, _OBJECT, _FORMAT), EVERYONE, READ, "top",
    ENGINE_HOST, result="XML `<docker_top>`, or JSON, [below](#get_inspect-and-get_top)")
VERBS = (START, STOP, RESTART, PAUSE, UNPAUSE, GET_INSPECT, GET_TOP)
