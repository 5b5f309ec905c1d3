"""The documents that clients read from other_config and from plugin results.

XenCenter parses them with .NET's XmlDocument and ends on an ill-formed one; Xen
Orchestra uses fast-xml-parser, and a VM whose document it refuses disappears.
Hence, in every document made here:

* Characters that XML 1.0 forbids, and Unicode's non-characters, become U+FFFD:
  XAPI cuts a stored string at the first of them.
* Text is escaped once, and as little as possible: ``&``, ``<``, and ``>`` only
  in ``]]>``. fast-xml-parser refuses the 1001st of ``&lt; &gt; &quot; &apos;``
  in a document, so beyond a budget such characters turn into look-alikes.
* No CDATA, comments, processing instructions or namespaces; attributes only on
  SPECIAL_XS_ENCODED_ELEMENT.
* XenCenter looks up ``entry``, ``Process``, ``docker_info`` and
  ``docker_version`` in the whole document, so only what they name is called so.
"""

import json
import re
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Sequence, Set, Tuple, Union
from xml.etree import ElementTree

from xscontainer.harmless import NOT_TEXT, SPACE
from xscontainer.model import (
    Container,
    ContainerList,
    EngineInfo,
    EngineVersion,
    Port,
    containers_from_api,
    least_wanted_last,
)

ENTITY_BUDGET = 900
DECLARATION = '<?xml version="1.0" ?>'
# XAPI takes a JSON-RPC body of 307200 bytes; this much of it may be the value.
VALUE_LIMIT = 290000

_AWKWARD = re.compile(f"[&<\r{NOT_TEXT}]|\\]\\]>")
_LOOK_ALIKE = {"<": "\u2039", "]]>": "]]\u203a", '"': "\u201d"}


class _Writer:
    """Escapes the text of one document and counts the entities a client counts."""

    def __init__(self) -> None:
        self.budget = ENTITY_BUDGET

    def text(self, value: str) -> str:
        """``value`` as character data."""
        if _AWKWARD.search(value) is None:
            return value
        return _AWKWARD.sub(self._escape, value.replace("\r\n", "\n"))

    def attribute(self, value: str) -> str:
        """``value`` between double quotes; line ends and tabs become spaces, as a parser would make them."""
        value = re.sub("[\t\r\n]", " ", value.replace("\r\n", "\n"))
        return re.sub('"', self._escape, self.text(value))

    def _escape(self, match: "re.Match[str]") -> str:
        found = match.group()
        if found == "&":
            return "&amp;"
        if found == "\r":
            return "\n"
        if found not in _LOOK_ALIKE:
            return "\ufffd"
        if self.budget == 0:
            return _LOOK_ALIKE[found]
        self.budget -= 1
        return {"<": "&lt;", "]]>": "]]&gt;", '"': "&quot;"}[found]

    def element(self, name: str, value: str) -> str:
        """``<name>value</name>`` without the space around the value, which one client trims and the other keeps."""
        escaped = self.text(value.strip(SPACE))
        return f"<{name}>{escaped}</{name}>" if escaped else f"<{name}/>"


# --- docker_ps ---------------------------------------------------------------


class Document(NamedTuple):
    """``text`` for other_config; ``left_out`` containers are not in it, ``dropped`` fields are in no entry."""

    text: str
    left_out: int = 0
    dropped: Tuple[str, ...] = ()


# The order in an entry: what the clients know, then what is ours (they skip it).
_FIELDS = tuple("id names status container created image command ports state health actions reason".split())
# What to go without first when the document is too long. The clients need the other fields,
# and of these "image" is only shortened; "command" and "ports" stay as empty elements.
_DISPENSABLE = ("reason", "actions", "health", "state", "ports", "command", "image")
_INSTEAD = {"command": "<command/>", "ports": "<ports/>"}
_SHORT_IMAGE = 20
_HEAD, _TAIL = "<docker_ps>", "</docker_ps>"
_ITEM, _ITEM_END = "<item><entry>", "</entry></item>"


def docker_ps(containers: Sequence[Container], limit: int = VALUE_LIMIT, left_out: int = 0) -> Document:
    """The container list.

    :param limit: bytes the text may take as a JSON string in UTF-8 (``json.dumps(text, ensure_ascii=False)``).
        What is longer loses fields, the least useful first, then containers: stopped ones first, the newest
        running ones last. ``<left_out>`` and ``<dropped>`` after the items say so.
    :param left_out: containers that the caller left out already.
    """
    writer = _Writer()
    rows = [_row(writer, container) for container in containers]
    text = _assemble(rows, left_out, ())
    if _size(text) <= limit:
        return Document(text, left_out)
    return _shortened(containers, rows, limit, left_out)


def _row(writer: _Writer, container: Container) -> List[str]:
    """The elements of one entry, in the order of _FIELDS; "" where there is nothing to say."""
    element = writer.element
    actions, reason = container.actions, container.reason
    return [
        element("id", container.id),
        element("names", container.name),
        element("status", container.status),
        element("container", container.id[:10]),
        f"<created>{container.created}</created>",
        element("image", container.image),
        element("command", container.command),
        _ports(writer, container.ports),
        element("state", container.state),
        element("health", container.health) if container.health else "",
        f"<actions>{' '.join(actions)}</actions>" if actions else "",
        element("reason", reason) if reason else "",
    ]


def _ports(writer: _Writer, ports: Tuple[Port, ...]) -> str:
    """Engines list a port published everywhere for IPv4 and again for IPv6: once is enough to read it."""
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


def _size(text: str) -> int:
    """Bytes in a JSON-RPC body, without the quotes around it."""
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8")) - 2


def _shortened(containers: Sequence[Container], rows: List[List[str]], limit: int, left_out: int) -> Document:
    """Drop whole fields while that helps, then containers. Sizes add up, so each element is measured once."""
    sizes = [[_size(element) for element in row] for row in rows]
    room = limit - _size(_HEAD + _TAIL + _notice(len(rows) + left_out, _DISPENSABLE))
    total = sum(map(sum, sizes)) + len(rows) * len(_ITEM + _ITEM_END)
    dropped: List[str] = []
    for field in _DISPENSABLE:
        if total <= room:
            break
        before = total
        column = _FIELDS.index(field)
        for row, size in zip(rows, sizes):
            shorter = _short_image(row[column]) if field == "image" else _INSTEAD.get(field, "")
            length = _size(shorter)
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
    """The positions to keep, the most wanted first, as many as there is room for."""
    kept: Set[int] = set()
    for position in sorted(range(len(sizes)), key=lambda n: least_wanted_last(containers[n])):
        room -= sum(sizes[position]) + len(_ITEM + _ITEM_END)
        if room < 0:
            break
        kept.add(position)
    return kept


def _short_image(element: str) -> str:
    """The repository's last part and its tag; works on escaped text, so an entity is never cut."""
    text = element[len("<image>") : -len("</image>")] if element != "<image/>" else ""
    text = text.split("@", 1)[0].rsplit("/", 1)[-1]
    pieces = re.findall("&[a-z]+;|.", text, re.DOTALL)
    if len(pieces) > _SHORT_IMAGE:
        pieces = pieces[: _SHORT_IMAGE - 1] + ["…"]
    return f"<image>{''.join(pieces)}</image>" if pieces else "<image/>"


# --- docker_info, docker_version ---------------------------------------------


def docker_info(info: EngineInfo) -> str:
    """The engine's facts under Docker's own names. Compare ``info.stable_key()``, not this text, for a change."""
    return _flat("docker_info", info_fields(info))


def docker_version(version: EngineVersion) -> str:
    """The engine's versions under Docker's own names."""
    return _flat("docker_version", version_fields(version))


def info_fields(info: EngineInfo) -> Dict[str, str]:
    """Every name a client reads is there, empty when this engine has no such fact."""
    forwarding = info.ipv4_forwarding
    return {
        "ID": info.id,
        "Name": info.name,
        "ServerVersion": info.server_version,
        "OperatingSystem": info.operating_system,
        "OSType": info.os_type,
        "Os": info.os_type,
        "Architecture": info.architecture,
        "Arch": info.architecture,
        "KernelVersion": info.kernel_version,
        "NCPU": str(info.cpus),
        "MemTotal": str(info.memory),
        "Driver": info.driver,
        "ExecutionDriver": info.execution_driver,
        "LoggingDriver": info.logging_driver,
        "CgroupDriver": info.cgroup_driver,
        "IndexServerAddress": info.index_server,
        "IPv4Forwarding": "" if forwarding is None else str(forwarding).lower(),
        "DockerRootDir": info.root_directory,
        "Labels": ", ".join(info.labels),
        "Containers": str(info.containers),
        "Images": str(info.images),
    }


def version_fields(version: EngineVersion) -> Dict[str, str]:
    """Element names and texts of docker_version, in their order."""
    return {
        "Version": version.version,
        "ApiVersion": version.api_version,
        "MinAPIVersion": version.min_api_version,
        "GitCommit": version.git_commit,
        "GoVersion": version.go_version,
        "Os": version.os,
        "Arch": version.arch,
        "KernelVersion": version.kernel_version,
        "BuildTime": version.build_time,
        "Platform": version.platform,
    }


def _flat(root: str, fields: Mapping[str, str]) -> str:
    writer = _Writer()
    return f"<{root}>{''.join(writer.element(name, value) for name, value in fields.items())}</{root}>"


# --- plugin results ----------------------------------------------------------

RESULT_LIMIT = 2 << 20  # characters of one get_inspect
VALUE_CHARACTERS = 65536  # of one string in it
DEPTH_LIMIT = 48  # a client gives up at 100 levels
_ENCODED = "SPECIAL_XS_ENCODED_ELEMENT"
# Legal everywhere; a letter beyond ASCII is legal or not depending on the edition of XML.
_ELEMENT_NAME = re.compile(r"(?![Xx][Mm][Ll])[A-Za-z_][A-Za-z0-9_.-]{0,127}")
# Names with a meaning of their own to one client or the other (JavaScript's object members included).
_TAKEN = frozenset(("entry", "Process", "docker_info", "docker_version", _ENCODED, "__proto__", "hasOwnProperty"))


def inspect_result(obj: object) -> str:
    """The plugin's answer to get_inspect for decoded JSON: any depth in, at most DEPTH_LIMIT levels out.

    A key that is no element name becomes ``<SPECIAL_XS_ENCODED_ELEMENT name="key">``, list members become
    ``<item>``, null is empty. What exceeds RESULT_LIMIT is left out and counted in ``<left_out>`` at the end.
    """
    tree = _Tree()
    tree.children(obj, 1)
    if tree.left_out:
        tree.parts.append(f"<left_out>{tree.left_out}</left_out>")
    return f"True{DECLARATION}<docker_inspect>{''.join(tree.parts)}</docker_inspect>"


class _Tree:
    """Writes nested JSON as nested elements until the limit is reached."""

    def __init__(self) -> None:
        self.writer = _Writer()
        self.parts: List[str] = []
        self.room = RESULT_LIMIT
        self.left_out = 0

    def children(self, value: object, depth: int) -> None:
        if isinstance(value, (dict, list)) and depth >= DEPTH_LIMIT:
            self.left_out += 1
        elif isinstance(value, dict):
            for key, member in value.items():
                self.element(str(key), member, depth)
        elif isinstance(value, list):
            for member in value:
                self.element("item", member, depth)
        else:
            self.put(self.writer.text(_scalar(value)))

    def element(self, key: str, value: object, depth: int) -> None:
        if self.room <= 0:
            self.left_out += 1
            return
        if _ELEMENT_NAME.fullmatch(key) and key not in _TAKEN:
            name = start = key
        else:
            name, start = _ENCODED, f'{_ENCODED} name="{self.writer.attribute(key[:1024])}"'
        if value is None or value in ("", [], {}):
            self.put(f"<{start}/>")
            return
        self.put(f"<{start}>")
        self.children(value, depth + 1)
        self.put(f"</{name}>")

    def put(self, text: str) -> None:
        self.parts.append(text)
        self.room -= len(text)


def _scalar(value: object) -> str:
    """JSON's own words, without quotes around a string."""
    if isinstance(value, str):
        return value if len(value) <= VALUE_CHARACTERS else value[: VALUE_CHARACTERS - 1] + "…"
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and not -(1 << 64) < value < 1 << 64:
        return hex(value)[:VALUE_CHARACTERS]  # newer Pythons refuse to write long numbers in decimal
    return str(value)


ROW_LIMIT = 2000
COLUMN_LIMIT = 32
# What XenCenter needs in every row, and what stands there when the engine's ps did not give it.
_COLUMNS = {"PID": "0", "CMD": "?", "TIME": "00:00:00"}


def top_result(titles: object, processes: object) -> str:
    """The plugin's answer to get_top, for ``Titles`` and ``Processes`` of GET /containers/{id}/top."""
    names = _column_names(titles if isinstance(titles, (list, tuple)) else [])
    writer = _Writer()
    rows = []
    for process in processes[:ROW_LIMIT] if isinstance(processes, (list, tuple)) else []:
        if not isinstance(process, (list, tuple)):
            continue
        values = dict(_COLUMNS)
        for name, value in zip(names, process):
            text = value.strip(SPACE) if isinstance(value, str) else ""
            if name and (text or name not in values):
                values[name] = text[:1024].strip(SPACE)
        rows.append(f"<item><Process>{''.join(writer.element(*pair) for pair in values.items())}</Process></item>")
    return f"True{DECLARATION}" + (f"<docker_top>{''.join(rows)}</docker_top>" if rows else "<docker_top/>")


def _column_names(titles: Sequence[object]) -> List[str]:
    """One element name for each column, "" for one that has none: %CPU is CPU, COMMAND is CMD unless CMD is there."""
    names: List[str] = []
    for title in titles[:COLUMN_LIMIT]:
        name = re.sub("[^A-Za-z0-9_.-]", "", title[:64]) if isinstance(title, str) else ""
        if name == "COMMAND" and "CMD" not in titles:
            name = "CMD"
        usable = _ELEMENT_NAME.fullmatch(name) and name not in _TAKEN and name not in names
        names.append(name if usable else "")
    return names


# --- the twin in JSON --------------------------------------------------------


def as_json(value: Union[Container, EngineInfo, EngineVersion, Sequence[Container]]) -> Any:
    """The same facts as plain lists and dicts, for ``json.dumps``."""
    if isinstance(value, EngineInfo):
        return dict(value._asdict(), labels=list(value.labels))
    if isinstance(value, EngineVersion):
        return dict(value._asdict())
    if not isinstance(value, Container):
        return [as_json(container) for container in value]
    fields = dict(value._asdict(), status=value.status, actions=list(value.actions), reason=value.reason)
    fields["ports"] = [dict(port._asdict()) for port in value.ports]
    return fields


# --- reading back ------------------------------------------------------------


def read_docker_ps(text: str) -> ContainerList:
    """The containers of a published list, also of one that the original product wrote.

    Bounded and checked as an engine's own answer, since anybody may write to other_config.

    :raises ValueError: when it is no such document.
    """
    if "<!" in text:
        raise ValueError("the container list holds a declaration, which no published one does")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, UnicodeError) as error:
        raise ValueError(f"the container list is not well-formed XML: {error}") from error
    entries = [_entry_as_api(entry) for entry in root.findall("item/entry")]
    left_out = root.findtext("left_out", "0")
    found = containers_from_api(entries)
    return found._replace(left_out=found.left_out + (int(left_out) if re.fullmatch("[0-9]{1,9}", left_out) else 0))


def _entry_as_api(entry: ElementTree.Element) -> Dict[str, Any]:
    """What the engine would have said, so that one place decides what it means."""
    return {
        "Id": entry.findtext("id"),
        "Names": [entry.findtext("names")],
        "Image": entry.findtext("image"),
        "Command": entry.findtext("command"),
        "Created": entry.findtext("created"),
        "State": entry.findtext("state"),
        "Status": entry.findtext("status"),
        "Health": {"Status": entry.findtext("health", "")},
        "Ports": [{part.tag: part.text for part in item if part.text} for item in entry.findall("ports/item")],
    }
