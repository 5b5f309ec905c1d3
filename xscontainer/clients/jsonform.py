"""Write the results of get_inspect and get_top as JSON.

The text is ASCII, so that no character is lost on the way through XAPI, and has at most JSON_LIMIT bytes. What is left
out is counted in ``left_out``.
"""

import json
import math
import re
from typing import Sequence

from xscontainer.clients.xmlform import COLUMN_LIMIT, DEPTH_LIMIT, ROW_LIMIT, VALUE_CHARACTERS

JSON_LIMIT = 1 << 20  # bytes
CELL_CHARACTERS = 1024
_NOTICE = ',"left_out":00000000'  # space that is kept for it
_SURROGATE = re.compile("[\ud800-\udfff]")
_MOST_INTEGER = 1 << 64


def inspect_result(found: object) -> str:
    """Return the plugin's answer to get_inspect: the engine's own object, at most DEPTH_LIMIT levels deep.

    Members beyond JSON_LIMIT are left out and counted in a member ``left_out`` at the end.
    """
    writer = _Writer(JSON_LIMIT - len("True{}") - len(_NOTICE))
    members = found if isinstance(found, dict) else {}
    writer.written += b"{"
    writer.members(members, 1)
    if writer.left_out:
        writer.written += f'{"," if writer.wrote else ""}"left_out":{writer.left_out}'.encode("ascii")
    writer.written += b"}"
    return "True" + writer.written.decode("ascii")


class _Writer:
    """Writes nested values until the room is used up.

    :ivar wrote: whether the last container got a member.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.written = bytearray()  # as many short texts take twenty times as much memory
        self.left_out = 0
        self.wrote = False

    def members(self, value: object, depth: int) -> None:
        """Write the members of a dict or list."""
        wrote = False
        pairs = value.items() if isinstance(value, dict) else ((None, each) for each in value)  # type: ignore
        for key, member in pairs:
            start = ("," if wrote else "") + ("" if key is None else f"{_scalar(str(key))}:")
            wrote = self._member(start, member, depth) or wrote
        self.wrote = wrote

    def _member(self, start: str, value: object, depth: int) -> bool:
        """Write one member; return whether there was room for it."""
        if not isinstance(value, (dict, list)):
            return self._put(start + _scalar(value), 0)
        opening, closing = ("{", b"}") if isinstance(value, dict) else ("[", b"]")
        if depth >= DEPTH_LIMIT:
            self.left_out += 1
            return False
        if not self._put(start + opening, len(closing)):
            return False
        self.members(value, depth + 1)
        self.written += closing
        return True

    def _put(self, text: str, reserved: int) -> bool:
        if len(text) + reserved > self.room:
            self.left_out += 1
            return False
        self.written += text.encode("ascii")
        self.room -= len(text) + reserved
        return True


def _scalar(value: object) -> str:
    if isinstance(value, str):
        if len(value) > VALUE_CHARACTERS:
            value = value[:VALUE_CHARACTERS - 1] + "…"
        return json.dumps(_SURROGATE.sub("\ufffd", value))
    if isinstance(value, bool) or value is None or isinstance(value, float) and math.isfinite(value):
        return json.dumps(value)
    if isinstance(value, int):
        return str(value) if -_MOST_INTEGER < value < _MOST_INTEGER else json.dumps(hex(value))
    return "null"  # NaN and infinities, which Python reads and JSON does not have


def top_result(titles: "Sequence[str]", processes: "Sequence[Sequence[str]]") -> str:
    """Return the plugin's answer to get_top: titles of the columns, and one list of texts for each process.

    At most ROW_LIMIT processes and COLUMN_LIMIT columns; those left out are counted in ``left_out``.
    """
    head = f'True{{"titles":{_row(titles)},"processes":['
    room = JSON_LIMIT - len(head) - len("]}") - len(_NOTICE)
    rows = []
    for process in processes[:ROW_LIMIT]:
        row = _row(process)
        room -= len(row) + 1
        if room < 0:
            break
        rows.append(row)
    missing = len(processes) - len(rows)
    return f'{head}{",".join(rows)}]' + (f',"left_out":{missing}' if missing else "") + "}"


def _row(cells: "Sequence[str]") -> str:
    return f'[{",".join(_scalar(cell[:CELL_CHARACTERS]) for cell in cells[:COLUMN_LIMIT])}]'
