"""The verbs for one container: start, stop, restart, pause, unpause, inspect, top."""

from xscontainer import xmlform
from xscontainer.actions import DONE
from xscontainer.actions.context import Context


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
