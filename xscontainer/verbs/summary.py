"""The verbs for whole VMs: all containers of one VM, and how many containers are in which state."""

import json
import time
from typing import Any, Dict, Optional

from xscontainer.clients import inventory
from xscontainer.clients.list_result import list_result
from xscontainer.clients.shown import Resources, Shown
from xscontainer.core import memory_budget as memory
from xscontainer.core import tally
from xscontainer.core.arguments import VM_UUID
from xscontainer.core.container import ContainerList
from xscontainer.core.uptime import StartTimes
from xscontainer.core.verb import ENGINE_HOST, EVERYONE, NO_COMMAND, SEE, VM_HOST, Verb
from xscontainer.core.vm_record import NULL_REF
from xscontainer.errors import ArgumentError, ConnectError, EngineError, KeyPairError, VMError
from xscontainer.verbs import DONE
from xscontainer.verbs.context import Context

MOST_VMS = 2000  # in one summary; the others count in the sums
_REPLY_COPIES = 6  # of a list while the reply is made, in bytes for each byte


def list_containers(context: Context, vmuuid: str) -> str:
    """Return all containers of a VM as JSON, as the engine lists them now.

    The engine is asked once for each version of its list. If it cannot be reached, ``problem`` says why.
    """
    shown = context.shown(vmuuid)
    kept = context.answers.get(vmuuid, shown.version) if shown.version is not None else None
    if kept is not None:
        memory.keep(vmuuid, _REPLY_COPIES * len(kept))
        return DONE + kept
    about = inventory.about(shown.vm)
    if shown.tally is None:
        about = about._replace(problem=None)  # it is the reason why no list is shown
    try:
        answer = _answer(context, shown, about)
    except (ConnectError, EngineError, VMError, KeyPairError) as error:
        if error.moved:
            raise
        problem = inventory.Problem(error.code, str(error))
        return DONE + list_result(about._replace(problem=problem), ContainerList(()))
    memory.keep(vmuuid, _REPLY_COPIES * len(answer))
    if shown.version is not None:
        context.answers.keep(vmuuid, shown.version, answer)
    return DONE + answer


def _answer(context: Context, shown: Shown, about: inventory.VM) -> str:
    """Ask the engine for its list, with networks and mounts, and write it down.

    :raises XSContainerError: it does not give it.
    """
    times = StartTimes(shown.vm.started)
    with context.engine(shown.vm.uuid) as engine:
        asked = time.time()

        def write(found: ContainerList) -> str:
            return list_result(about, times.settle(found, asked, time.time()))

        return engine.listed(context.settings.publish.max_containers, write, details=True)


def get_summary(context: Context, vmuuid: str = "") -> str:
    """Return the numbers of containers by state and by health, and the VMs' problems. No engine is asked.

    :param vmuuid: "": all VMs that are monitored on this host.
    """
    if vmuuid:
        found = [context.shown(vmuuid)]
        if not found[0].vm.is_guest:
            raise ArgumentError(f"{found[0].vm.label} is a template, a snapshot or a control domain, not a VM.")
    else:
        found = context.shown_here()
    found.sort(key=lambda shown: (shown.vm.name, shown.vm.uuid))
    host = _host(context) if any(shown.vm.resident_on != NULL_REF for shown in found) else None
    rows = [_row(shown, host if shown.vm.resident_on != NULL_REF else None) for shown in found]
    every = tally.total(shown.tally or tally.NONE for shown in found)
    document = {
        "vms": rows[:MOST_VMS],
        "counts": every.counts,
        "health": every.health,
        "containers": every.containers,
        "problems": sum(row["problem"] is not None for row in rows),
        "left_out": max(0, len(rows) - MOST_VMS),
    }
    return DONE + json.dumps(document, separators=(",", ":"))


def _row(shown: Shown, host: "Optional[Dict[str, str]]") -> "Dict[str, Any]":
    about = inventory.about(shown.vm)
    numbers = shown.tally or tally.NONE
    return {
        "uuid": about.uuid,
        "name": about.name,
        "power_state": about.power_state,
        "host": host,
        "monitored": about.monitored,
        "engine": inventory.engine_json(about),
        "problem": inventory.problem_json(about.problem),
        "counts": numbers.counts,
        "health": numbers.health,
        "containers": numbers.containers,
        "resources": _resources_json(shown.resources),
    }


def _resources_json(found: "Optional[Resources]") -> "Optional[Dict[str, Any]]":
    if found is None:
        return None
    return {"time": round(found.at, 3), "containers": found.total.containers,
            "cores": None if found.total.cores is None else round(found.total.cores, 4), "memory": found.total.memory}


def _host(context: Context) -> "Dict[str, str]":
    ref = context.this_host_ref()
    uuid, name = context.sessions.run(lambda session: (
        str(session.xenapi.host.get_uuid(ref)), str(session.xenapi.host.get_name_label(ref))))
    return {"uuid": uuid, "name": name}


_ONE_VM = VM_UUID._replace(required=False, form="absent: all VMs that are monitored on the called host")

VERBS = (
    Verb("list", list_containers, "Return all containers of a VM, as its engine lists them now.", (VM_UUID,), EVERYONE,
         SEE, NO_COMMAND + "'xscontainer ps' reads what is published", ENGINE_HOST, result="JSON, [below](#list)"),
    Verb("get_summary", get_summary, "Return how many containers are in which state, and what is wrong.", (_ONE_VM,),
         EVERYONE, SEE, NO_COMMAND + "'xscontainer ps' reads what is published", VM_HOST,
         result="JSON, [below](#get_summary)"),
)
