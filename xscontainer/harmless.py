"""JSON values from whoever may be hostile, made harmless: what is ill-typed or out of bounds is taken for nothing.

None of these raises.
"""

import re
from datetime import datetime, timezone
from typing import Any, Mapping, Optional

LATEST = 253402300799  # the last second of the year 9999: clients turn times into dates

_RFC3339 = re.compile(r"[0-9]{4}(?:-[0-9]{2}){2}T[0-9]{2}(?::[0-9]{2}){2}(?:\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})\Z")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

# Characters XML 1.0 forbids, and Unicode's non-characters, at which XAPI refuses or cuts a string.
NOT_TEXT = "\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufdd0-\ufdef" + "".join(
    chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(17)
)
_NOT_TEXT = re.compile(f"[{NOT_TEXT}]")
# What any client trims (Python and JavaScript differ about U+0085 and U+FEFF).
SPACE = "".join(chr(c) for c in range(0x10000) if chr(c).isspace()) + "\ufeff"


def clean_text(value: object, limit: int) -> str:
    """``value`` as text of at most ``limit`` characters: no control characters, trimmed; "" when it is no string."""
    if not isinstance(value, str):
        return ""
    if len(value) > limit:
        value = value[: limit - 1] + "…"
    if "\r" in value:
        # As any XML parser would: what is read back must equal what was written.
        value = value.replace("\r\n", "\n").replace("\r", "\n")
    return _NOT_TEXT.sub("\ufffd", value).strip(SPACE)


def integer(value: object, low: int, high: int) -> Optional[int]:
    """A whole number within the bounds, also from a float or short digits; else None."""
    if isinstance(value, str) and len(value) <= 20:
        try:
            value = int(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        return None
    return int(value)


def moment(value: object) -> int:
    """Seconds since the epoch, 0 when it is no time; also from RFC 3339 text, where Docker's API has a number."""
    if isinstance(value, str) and _RFC3339.match(value):
        try:
            given = datetime.strptime(value[:19] + "+0000", "%Y-%m-%dT%H:%M:%S%z")
        except ValueError:
            return 0
        zone = _RFC3339.match(value).group(1)  # type: ignore[union-attr]
        shift = 0 if zone == "Z" else (int(zone[1:3]) * 60 + int(zone[4:6])) * (-60 if zone[0] == "+" else 60)
        value = int((given - _EPOCH).total_seconds()) + shift
    return integer(value, 0, LATEST) or 0


def mapping(value: object) -> Mapping[str, Any]:
    """A JSON object; an empty one if it is none."""
    return value if isinstance(value, dict) else {}
