"""Sanitize JSON values from hostile sources: a value of a wrong type or out of bounds counts as absent.

No function here raises.
"""

import re
from datetime import datetime, timezone
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple

TRIMMED_TEXT, TRIMMED_CHARACTERS, TRIMMED_VALUES = 512, 32768, 1000
LATEST = 253402300799  # the last second of the year 9999: clients turn times into dates

_RFC3339 = re.compile(r"[0-9]{4}(?:-[0-9]{2}){2}T[0-9]{2}(?::[0-9]{2}){2}(?:\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})\Z")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

# Characters XML 1.0 forbids, and Unicode's non-characters, at which XAPI refuses or cuts a string.
NOT_TEXT = "\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufdd0-\ufdef" + "".join(
    chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(17)
)
# Legal but invisible characters that change how the visible text is read: C1 controls and bidirectional marks, with
# which a name can look like another name.
INVISIBLE = "\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
REPLACED = NOT_TEXT + INVISIBLE
_REPLACED = re.compile(f"[{REPLACED}]")
# White space that any client trims (Python and JavaScript differ about U+0085 and U+FEFF).
# Written out: to ask str.isspace() for each character would take 7 ms of each start.
SPACE = ("\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009"
         "\u200a\u2028\u2029\u202f\u205f\u3000\ufeff")


def clean_text(value: object, limit: int) -> str:
    """Return a string trimmed and cut to ``limit`` characters; "" if ``value`` is no string.

    Control characters and bidirectional marks become U+FFFD.
    """
    if not isinstance(value, str):
        return ""
    if len(value) > limit:
        value = value[: limit - 1] + "…"
    if "\r" in value:
        # As any XML parser does: a value that is read back must equal the value that was written.
        value = value.replace("\r\n", "\n").replace("\r", "\n")
    value = value.strip(SPACE)
    if value.isprintable():
        return value  # none of the characters that are replaced is printable; this takes a quarter of the time
    return _REPLACED.sub("\ufffd", value).strip(SPACE)


def line(value: object, limit: int) -> str:
    """Return ``value`` as one line of at most ``limit`` visible characters, for a message to people.

    Characters that are not printable become U+FFFD, white space becomes one space.
    """
    text = " ".join(str(value).split())
    if not text.isprintable():
        text = "".join(char if char.isprintable() else "\ufffd" for char in text)
    return text if len(text) <= limit else text[:limit - 1] + "…"


def integer(value: object, low: int, high: int) -> Optional[int]:
    """Return a whole number within the bounds, also from a float or from digits; else None."""
    if isinstance(value, str) and len(value) <= 20:
        try:
            value = int(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        return None
    return int(value)


def moment(value: object) -> Optional[int]:
    """Return seconds since the epoch from a number or from text as in RFC 3339; None for all else.

    Docker's API gives numbers. Times before 1970-01-01T00:00:01Z count as none.
    """
    if isinstance(value, str) and _RFC3339.match(value):
        try:
            given = datetime.strptime(value[:19] + "+0000", "%Y-%m-%dT%H:%M:%S%z")
        except ValueError:
            return None
        zone = _RFC3339.match(value).group(1)  # type: ignore[union-attr]
        shift = 0 if zone == "Z" else (int(zone[1:3]) * 60 + int(zone[4:6])) * (-60 if zone[0] == "+" else 60)
        value = int((given - _EPOCH).total_seconds()) + shift
    return integer(value, 1, LATEST)


def trimmed(facts: Mapping[str, Any]) -> Dict[str, Any]:
    """Return a bounded copy of an engine's facts: first texts, numbers and switches, then lists and objects.

    At most TRIMMED_CHARACTERS and TRIMMED_VALUES are kept.
    """
    room = [TRIMMED_CHARACTERS, TRIMMED_VALUES]

    def take(value: object, depth: int) -> object:
        room[1] -= 1
        if isinstance(value, str):
            value = value[:max(0, min(TRIMMED_TEXT, room[0]))]
            room[0] -= len(value)
            return value
        if depth and isinstance(value, list):
            return [take(member, depth - 1) for member in value[:max(0, room[1])]]
        if depth and isinstance(value, dict):
            return dict(pairs(value, depth))
        return None if isinstance(value, (list, dict)) else value

    def pairs(members: Mapping[str, Any], depth: int) -> Iterator[Tuple[str, Any]]:
        for nested in (False, True):
            for name, value in members.items():
                if room[1] > 0 and isinstance(value, (list, dict)) is nested:
                    room[0] -= len(name)
                    yield name[:TRIMMED_TEXT], take(value, depth - 1)

    return dict(pairs(facts, 3))


def mapping(value: object) -> Mapping[str, Any]:
    """Return ``value`` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


# Bytes of a map's entry in XML-RPC, without its key and value.
_ENTRY_BYTES = len("<member><name></name><value><string></string></value></member>")


def request_bytes(text: str) -> int:
    """Return how many bytes a text takes in a request to XAPI: the longer of XML-RPC and JSON-RPC."""
    # "&lt;", "&gt;", "&amp;" and "&quot;" in XML-RPC; a backslash in JSON, which is never longer. Written out for
    # speed: a long list is measured in ten thousand pieces.
    count = text.count
    return (len(text.encode("utf-8")) + 3 * (count("<") + count(">")) + 4 * count("&") + 5 * count('"')
            + count("\\") + count("\n") + count("\t"))


def map_bytes(entries: "Mapping[str, str]") -> int:
    """Return how many bytes a map of strings takes in a request to XAPI."""
    return sum(request_bytes(key) + request_bytes(value) + _ENTRY_BYTES for key, value in entries.items())
