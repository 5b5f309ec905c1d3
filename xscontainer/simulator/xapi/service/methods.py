"""Every method that has a handler of its own. The others follow from the data model (objects/generic.py)."""

from typing import Any, Callable, Dict

from xscontainer.simulator.xapi.objects import (
    events,
    hosts,
    lifecycle,
    messages,
    networks,
    plugins,
    secrets,
    sessions,
    storage,
    tasks,
    templates,
    vbds,
    vdis,
    vm_copies,
    vms,
)

Handler = Callable[..., Any]
HANDLERS: Dict[str, Handler] = {}
for _module in (
    events, hosts, lifecycle, messages, networks, plugins, secrets, sessions, storage, tasks, templates, vbds, vdis,
    vm_copies, vms,
):
    HANDLERS.update(_module.HANDLERS)
