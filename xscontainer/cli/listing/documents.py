"""Containers as JSON, one line each, for programs. Scripts read the keys: they are part of the interface. Pure."""

import json
from typing import Any, Dict, Iterator, Optional

from xscontainer.cli.listing.selection import Shown
from xscontainer.clients import xmlform
from xscontainer.clients.inventory import VM, Host, Pool, every_vm_of


def shown_json(shown: Shown) -> "Dict[str, Any]":
    """Return a container with its VM and host."""
    return dict(xmlform.as_json(shown.container), **place_json(shown.host, shown.vm))


def place_json(host: "Optional[Host]", vm: VM) -> "Dict[str, Any]":
    return {"vm": {"uuid": vm.uuid, "name": vm.name, "power_state": vm.power_state},
            "host": {"uuid": host.uuid, "name": host.name} if host else None}


def lines(pool: Pool) -> "Iterator[str]":
    """Yield one line of JSON for each container."""
    for host, vm in every_vm_of(pool):
        for container in vm.containers:
            yield line(shown_json(Shown(host, vm, container)))


def line(fields: "Dict[str, Any]") -> str:
    """Return a JSON object on one line of ASCII, with its newline."""
    return json.dumps(fields, separators=(",", ":")) + "\n"
