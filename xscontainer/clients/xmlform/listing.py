"""Write docker_ps: the container list, as long as there is room for it."""

import re
from typing import Iterable, List, NamedTuple, Sequence, Set, Tuple

from xscontainer.clients.xmlform.writer import Writer
from xscontainer.core.container import SHORT_ID, Container, Port, least_wanted_last
from xscontainer.core.groups import KINDS, NO_GROUP, Group
from xscontainer.sanitize import request_bytes

# XAPI takes a request of 307200 bytes. A client that writes a VM's whole other_config sends it as XML-RPC, with our
# documents in it escaped: a quarter is left to that client.
VALUE_LIMIT = 307200 * 3 // 4


class Document(NamedTuple):
    """``text`` for other_config; ``left_out`` containers are not in it, ``dropped`` fields are in no entry."""

    text: str
    left_out: int = 0
    dropped: Tuple[str, ...] = ()


# The order in an entry: what the clients know, then what is ours (they skip it).
# "service" stands for the elements below the group, too: number, one_off and unit.
_FIELDS = tuple("id names status container created image command ports state health actions exit_code reason "
                "started_at group service".split())
# The fields that are dropped from a document that is too long, in this order. Clients need the other fields. "image"
# is only shortened; "command" and "ports" stay as empty elements.
_DISPENSABLE = ("service", "started_at", "group", "reason", "actions", "health", "state", "ports", "command", "image")
_INSTEAD = {"command": "<command/>", "ports": "<ports/>"}
_SHORT_IMAGE = 20
_HEAD, _TAIL = "<docker_ps>", "</docker_ps>"
_ITEM, _ITEM_END = "<item><entry>", "</entry></item>"
_ITEM_BYTES = request_bytes(_ITEM + _ITEM_END)
# The status with which Xen Orchestra 5 offers to start a container.
STARTABLE = "Exited (137)"


def docker_ps(containers: Sequence[Container], limit: int = VALUE_LIMIT, left_out: int = 0,
              ended_as_137: bool = False) -> Document:
    """Return the container list for other_config.

    :param limit: bytes that the text may take, as :func:`xscontainer.sanitize.request_bytes` counts them.
        A longer list loses fields, the least useful first, then containers: stopped ones first, the newest
        running ones last. ``<left_out>`` and ``<dropped>`` after the items name the loss.
    :param left_out: containers that the caller left out already.
    :param ended_as_137: give every ended container the status ``Exited (137)``, so that Xen Orchestra 5 offers to
        start it; the real exit code stands in ``<exit_code>`` and ``<reason>``.
    """
    writer = Writer()
    rows = [_row(writer, container, ended_as_137) for container in containers]
    text = _assemble(rows, left_out, ())
    if request_bytes(text) <= limit:
        return Document(text, left_out)
    return _shortened(containers, rows, limit, left_out)


def _row(writer: Writer, container: Container, ended_as_137: bool) -> List[str]:
    """Return the elements of one entry, in the order of _FIELDS; "" for an element without a value."""
    element = writer.element
    actions, reason, status, exit_code = container.actions, container.reason, container.status, ""
    if ended_as_137 and container.state == "exited" and status != STARTABLE:
        exit_code = f"<exit_code>{container.exit_code or 0}</exit_code>"
        status, reason = STARTABLE, container.exit_words
    return [
        element("id", container.id),
        element("names", container.name),
        element("status", status),
        element("container", container.id[:SHORT_ID]),
        f"<created>{container.created}</created>" if container.created else "",
        element("image", container.image),
        element("command", container.command),
        _ports(writer, container.ports),
        element("state", container.state),
        element("health", container.health) if container.health else "",
        f"<actions>{' '.join(actions)}</actions>" if actions else "",
        exit_code,
        element("reason", reason) if reason else "",
        f"<started_at>{container.started_at}</started_at>" if container.started_at else "",
        element(container.group.kind, container.group.name) if container.group.kind in KINDS else "",
        _place_in_group(writer, container.group),
    ]


def _place_in_group(writer: Writer, group: Group) -> str:
    """Return the elements that say which member of its group a container is; "" for a container without a group."""
    if group is NO_GROUP:
        return ""
    return "".join((
        writer.element("service", group.service) if group.service else "",
        f"<number>{group.number}</number>" if group.number is not None else "",
        "<one_off>true</one_off>" if group.one_off else "",
        writer.element("unit", group.unit) if group.unit else "",
    ))


def _ports(writer: Writer, ports: Tuple[Port, ...]) -> str:
    """Return the ports of a container. Engines list a port twice that is published for IPv4 and IPv6."""
    items = []
    for port in ports:
        if port.ip == "::" and port._replace(ip="0.0.0.0") in ports:
            continue
        address = writer.element("IP", port.ip) if port.ip else ""
        public = f"<PublicPort>{port.public}</PublicPort>" if port.public is not None else ""
        kind = writer.element("Type", port.type)
        items.append(f"<item>{address}{public}<PrivatePort>{port.private}</PrivatePort>{kind}</item>")
    return f"<ports>{''.join(items)}</ports>" if items else "<ports/>"


def _assemble(rows: Iterable[Sequence[str]], left_out: int, dropped: Sequence[str]) -> str:
    parts = []
    for row in rows:
        parts.append(_ITEM)
        parts.extend(row)
        parts.append(_ITEM_END)
    parts.append(_notice(left_out, dropped))
    body = "".join(parts)
    return f"{_HEAD}{body}{_TAIL}" if body else "<docker_ps/>"


def _notice(left_out: int, dropped: Sequence[str]) -> str:
    missing = f"<left_out>{left_out}</left_out>" if left_out else ""
    return f"{missing}<dropped>{' '.join(dropped)}</dropped>" if dropped else missing


def _shortened(containers: Sequence[Container], rows: List[List[str]], limit: int, left_out: int) -> Document:
    """Drop whole fields while that helps, then containers. Sizes add up, so each element is measured once."""
    sizes = [[request_bytes(element) for element in row] for row in rows]
    room = limit - request_bytes(_HEAD + _TAIL + _notice(len(rows) + left_out, _DISPENSABLE))
    total = sum(map(sum, sizes)) + len(rows) * _ITEM_BYTES
    dropped: List[str] = []
    for field in _DISPENSABLE:
        if total <= room:
            break
        before = total
        column = _FIELDS.index(field)
        for row, size in zip(rows, sizes):
            shorter = _short_image(row[column]) if field == "image" else _INSTEAD.get(field, "")
            length = request_bytes(shorter)
            if length < size[column]:
                total += length - size[column]
                row[column], size[column] = shorter, length
        if total < before:
            dropped.append(field)
    kept = set(range(len(rows)))
    if total > room:
        kept = _fitting(containers, sizes, room)
    left_out += len(rows) - len(kept)
    text = _assemble((row for position, row in enumerate(rows) if position in kept), left_out, dropped)
    return Document(text, left_out, tuple(dropped))


def _fitting(containers: Sequence[Container], sizes: List[List[int]], room: int) -> Set[int]:
    """Return the positions of the most wanted containers, as many as there is room for."""
    kept: Set[int] = set()
    for position in sorted(range(len(sizes)), key=lambda n: least_wanted_last(containers[n])):
        room -= sum(sizes[position]) + _ITEM_BYTES
        if room < 0:
            break
        kept.add(position)
    return kept


def _short_image(element: str) -> str:
    """Return the last part of the repository and its tag. Works on escaped text, and never cuts an entity."""
    text = element[len("<image>") : -len("</image>")] if element != "<image/>" else ""
    text = text.split("@", 1)[0].rsplit("/", 1)[-1]
    pieces = re.findall("&[a-z]+;|.", text, re.DOTALL)
    if len(pieces) > _SHORT_IMAGE:
        pieces = pieces[: _SHORT_IMAGE - 1] + ["…"]
    return f"<image>{''.join(pieces)}</image>" if pieces else "<image/>"
