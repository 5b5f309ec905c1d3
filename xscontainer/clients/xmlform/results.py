"""Write the results of get_inspect and get_top."""

import re
from typing import List, Sequence

from xscontainer.clients.xmlform.writer import DECLARATION, Writer
from xscontainer.sanitize import SPACE

RESULT_LIMIT = 2 << 20  # bytes of one get_inspect or get_top
VALUE_CHARACTERS = 65536  # of one string in it
DEPTH_LIMIT = 48  # a client gives up at 100 levels
_ENCODED = "SPECIAL_XS_ENCODED_ELEMENT"
# Legal everywhere; a letter beyond ASCII is legal or not depending on the edition of XML.
_ELEMENT_NAME = re.compile(r"(?![Xx][Mm][Ll])[A-Za-z_][A-Za-z0-9_.-]{0,127}")
# The properties that every object has in JavaScript: fast-xml-parser 5 refuses some of these names and alters others.
_JAVASCRIPT = ("__proto__ constructor prototype hasOwnProperty isPrototypeOf propertyIsEnumerable toLocaleString "
               "toString valueOf __defineGetter__ __defineSetter__ __lookupGetter__ __lookupSetter__")
# Names with a meaning of their own to one client or the other.
TAKEN = frozenset(("entry", "Process", "docker_info", "docker_version", _ENCODED) + tuple(_JAVASCRIPT.split()))


def inspect_result(obj: object) -> str:
    """Return the plugin's answer to get_inspect for decoded JSON of any depth, at most DEPTH_LIMIT levels deep.

    A key that is not an element name becomes ``<SPECIAL_XS_ENCODED_ELEMENT name="key">``, list members become
    ``<item>``, null is empty. Elements beyond RESULT_LIMIT are left out and counted in ``<left_out>`` at the end.
    """
    tree = _Tree()
    tree.children(obj, 1)
    if tree.left_out:
        tree.put(f"<left_out>{tree.left_out}</left_out>")
    return f"True{DECLARATION}<docker_inspect>{tree.written.decode('utf-8')}</docker_inspect>"


class _Tree:
    """Writes nested JSON as nested elements until the limit is reached."""

    def __init__(self) -> None:
        self.writer = Writer(budget=-1)
        self.written = bytearray()  # UTF-8: as many short texts take twenty times as much
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
        if _ELEMENT_NAME.fullmatch(key) and key not in TAKEN:
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
        raw = text.encode("utf-8")
        self.written += raw
        self.room -= len(raw)


def _scalar(value: object) -> str:
    """Return a JSON scalar as JSON writes it, without quotes around a string."""
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
# The columns that XenCenter needs in every row, with the values for a column that the engine's ps did not give.
_COLUMNS = {"PID": "0", "CMD": "?", "TIME": "00:00:00"}
# The names of these columns on other systems, the best first: BSD's and busybox's ps, and Windows, whose "CPU" is CPU
# time ("%CPU" is another column).
_SYNONYMS = {
    "PID": ("pid",),
    "CMD": ("cmd", "command", "args", "ucmd", "comm", "ucomm", "name"),
    "TIME": ("time", "cputime", "cpu"),
}


def top_result(titles: object, processes: object) -> str:
    """Return the plugin's answer to get_top, for ``Titles`` and ``Processes`` of GET /containers/{id}/top."""
    names = _column_names(titles if isinstance(titles, (list, tuple)) else [])
    writer = Writer()
    rows = []
    room = RESULT_LIMIT
    for process in processes[:ROW_LIMIT] if isinstance(processes, (list, tuple)) else []:
        if not isinstance(process, (list, tuple)) or room <= 0:
            continue
        values = dict(_COLUMNS)
        for name, value in zip(names, process):
            text = value.strip(SPACE) if isinstance(value, str) else ""
            if name and (text or name not in values):
                values[name] = text[:1024].strip(SPACE)
        rows.append(f"<item><Process>{''.join(writer.element(*pair) for pair in values.items())}</Process></item>")
        room -= len(rows[-1].encode("utf-8"))
    return f"True{DECLARATION}" + (f"<docker_top>{''.join(rows)}</docker_top>" if rows else "<docker_top/>")


def _column_names(titles: Sequence[object]) -> List[str]:
    """Return an element name for each column, "" if it has none: %CPU is CPU, COMMAND is CMD unless CMD is there."""
    given = [title[:64].strip(SPACE) if isinstance(title, str) else "" for title in titles[:COLUMN_LIMIT]]
    known = {_position(given, synonyms): name for name, synonyms in _SYNONYMS.items()}
    names: List[str] = []
    for position, title in enumerate(given):
        name = known.get(position) or re.sub("[^A-Za-z0-9_.-]", "", title)
        usable = _ELEMENT_NAME.fullmatch(name) and name not in TAKEN and name not in names
        # A column that another one stands for has its name taken, wherever it stands.
        taken = position not in known and name in known.values()
        names.append(name if usable and not taken else "")
    return names


def _position(titles: Sequence[str], synonyms: Sequence[str]) -> int:
    """Return the index of the column with the first of these titles, in any case; -1 if there is none."""
    lowered = [title.lower() for title in titles]
    return next((lowered.index(synonym) for synonym in synonyms if synonym in lowered), -1)
