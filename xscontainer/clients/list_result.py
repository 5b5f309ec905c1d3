"""Write the result of the function list: all that is known of a VM's containers, as JSON within a bound."""

import json
from typing import Any, Dict, Sequence

from xscontainer.clients import inventory, xmlform
from xscontainer.core.container import Container, ContainerList, least_wanted_last

LIMIT = 2 << 20  # bytes, as of the other results


def list_result(vm: inventory.VM, found: ContainerList, limit: int = LIMIT) -> str:
    """Return the text after "True", in ASCII.

    Beyond the limit all containers lose their networks and mounts, then containers are left out: stopped ones first.

    :param vm: whose containers they are; its own are not looked at.
    """
    fields = inventory.vm_json(vm._replace(containers=()))
    document: Dict[str, Any] = {
        "vm": {name: fields[name] for name in ("uuid", "name", "power_state", "monitored")},
        "engine": fields["engine"],
        "problem": fields["problem"],
    }
    head = json.dumps(document, separators=(",", ":"))[:-1] + ',"containers":['
    missing = found.left_out + found.unusable
    room = limit - len(head) - len('],"left_out":0000000000}')
    order = sorted(range(len(found.containers)), key=lambda number: least_wanted_last(found.containers[number]))
    rows = _rows(found.containers, order, room, details=True)
    if len(rows) < len(order):
        rows = _rows(found.containers, order, room, details=False)
    body = ",".join(rows[position] for position in sorted(rows))
    return f'{head}{body}],"left_out":{missing + len(order) - len(rows)}}}'


def _rows(containers: "Sequence[Container]", order: "Sequence[int]", room: int, details: bool) -> "Dict[int, str]":
    """Return the rows of the most wanted containers by position, as many as there is room for."""
    rows: Dict[int, str] = {}
    for position in order:
        container = containers[position]
        if not details:
            container = container._replace(networks=None, mounts=None)
        row = json.dumps(xmlform.as_json(container), separators=(",", ":"))
        room -= len(row) + 1
        if room < 0:
            break
        rows[position] = row
    return rows
