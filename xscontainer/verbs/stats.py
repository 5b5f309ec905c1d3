"""The verb for the resources that containers use."""

import time
from typing import TYPE_CHECKING

from xscontainer.clients.stats_result import Has, stats_result
from xscontainer.core import memory_budget as memory
from xscontainer.core.arguments import CONTAINER, VM_UUID
from xscontainer.core.verb import ENGINE_HOST, EVERYONE, READ, READING, Verb
from xscontainer.errors import ContainerConflict, XapiError
from xscontainer.verbs import DONE
from xscontainer.verbs.context import Context
from xscontainer.xapi import vm as xapi_vm

if TYPE_CHECKING:
    # Importing these loads paramiko and docker.
    from xscontainer.engine.api import Engine
    from xscontainer.engine.stats import StatsRead

_REPLY_COPIES = 6  # of the result while the reply is made, in bytes for each byte


def get_stats(context: Context, vmuuid: str, container: str = "") -> str:
    """Return the resources that the running containers of a VM use, as JSON; everybody who looks shares a reading.

    :param container: an id or a name; "": all containers.
    :raises ContainerConflict: the container does not run.
    :raises StatsUnavailable: the engine cannot measure its containers.
    """
    with context.engine(vmuuid) as engine:
        read = _of_one(engine, container) if container else engine.stats.read_running()
    at = time.time() - (time.monotonic() - read.at)
    result = stats_result(read.usages, at, read.left_out + len(read.failed), _has(context, vmuuid))
    memory.keep(vmuuid, _REPLY_COPIES * len(result))
    return DONE + result


def _of_one(engine: "Engine", container: str) -> "StatsRead":
    read = engine.stats.read([engine.whole_id(container)])
    if not read.usages:
        engine.runs(container)  # raises ContainerNotFound
        raise ContainerConflict("Reading the container's stats failed: it is not running.")
    return read


def _has(context: Context, vm_uuid: str) -> Has:
    """Ask XAPI what the VM has. The stats are worth showing without it, too."""
    try:
        return Has(*context.sessions.run(lambda session: xapi_vm.resources(session, context.vm(vm_uuid).ref)))
    except XapiError:
        return Has()


GET_STATS = Verb(
    "get_stats", get_stats, "Return the resources that the running containers of a VM use.",
    (VM_UUID, CONTAINER.optional()), EVERYONE, READ, "stats", ENGINE_HOST, READING,
    result="JSON, [below](#get_stats)")
VERBS = (GET_STATS,)
