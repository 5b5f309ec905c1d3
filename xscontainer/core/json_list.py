"""Decode a JSON list from a guest one member at a time, while its bytes come in.

A list of any length costs the memory of one member, and of what the caller keeps.
"""

import re
from typing import Any, Callable

from xscontainer.core import bounded

MOST_MEMBER = 2 << 20  # bytes; a container with 10,000 published ports takes 1.4 MB
_PIECE = 65536
_SPACE: Any = re.compile(r"[ \t\r\n]*")
_OF_NUMBER: Any = re.compile(r"[0-9.eE+-]*")

# The states of the reader, by the next character that it expects.
_BEGIN, _FIRST, _MEMBER, _SEPARATOR, _NOTHING = range(5)


class ListReader:
    """Reads one JSON list.

    :param take: called with each member, in their order.
    :ivar held: bytes of an incomplete member that are kept.
    """

    def __init__(self, take: Callable[[Any], None]) -> None:
        self._take = take
        self._state = _BEGIN
        self._buffer = bytearray()
        self._again = 0  # length of the buffer at which decoding a member is tried again

    @property
    def held(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Decode the members that ``data`` completes.

        :raises ValueError: it is no JSON list, or a member is nested too deep. TooCostly: a member is too large.
        """
        for start in range(0, len(data), _PIECE):
            self._buffer += data[start:start + _PIECE]
            if len(self._buffer) >= self._again:
                self._read(last=False)

    def end(self) -> None:
        """End the document.

        :raises ValueError, TooCostly: as ``feed``; also if the list is not complete.
        """
        self._read(last=True)
        if self._state != _NOTHING or self._buffer:
            raise ValueError("the list is not complete")

    def _read(self, last: bool) -> None:
        raw = bytes(self._buffer)
        bounded.check_cost(raw)
        bounded.check_depth(raw)
        # Encoding the rest again must give the same bytes.
        text = raw.decode("utf-8", "surrogateescape")
        at = self._members(text, last)
        if at:
            self._buffer = bytearray(text[at:].encode("utf-8", "surrogateescape"))
        if len(self._buffer) > MOST_MEMBER:
            raise bounded.TooCostly(len(self._buffer))
        # A large member is tried again when it has doubled: each byte is read twice then, not a hundred times.
        self._again = min(2 * len(self._buffer), MOST_MEMBER)

    def _members(self, text: str, last: bool) -> int:
        """Take all complete members; returns where the rest begins."""
        skip, number, scan = _SPACE.match, _OF_NUMBER.match, bounded.DECODER.scan_once  # type: ignore[attr-defined]
        at = 0
        while True:
            at = skip(text, at).end()
            if at == len(text):
                return at
            character = text[at]
            if self._state == _BEGIN and character == "[":
                self._state, at = _FIRST, at + 1
            elif self._state in (_FIRST, _SEPARATOR) and character == "]":
                self._state, at = _NOTHING, at + 1
            elif self._state == _SEPARATOR and character == ",":
                self._state, at = _MEMBER, at + 1
            elif self._state in (_FIRST, _MEMBER):
                try:
                    member, end = scan(text, at)
                except (StopIteration, ValueError):
                    if last:
                        raise ValueError("a member of the list is not valid JSON") from None
                    return at  # incomplete
                if not last and isinstance(member, (int, float)) and number(text, end).end() == len(text):
                    return at  # the number may go on
                self._state, at = _SEPARATOR, end
                self._take(member)
            else:
                raise ValueError(f"unexpected {character!r} between members")
