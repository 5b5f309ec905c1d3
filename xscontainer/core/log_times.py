"""The times that people give for a log: as docker's ``--since`` and ``--until`` take them."""

import re
from typing import Optional

from xscontainer.core.log_lines import nanoseconds

SECOND = 1000000000  # nanoseconds
_LATEST = (1 << 63) - 1
_UNITS = {"d": 86400 * SECOND, "h": 3600 * SECOND, "m": 60 * SECOND, "s": SECOND, "ms": 1000000, "us": 1000,
          "µs": 1000, "ns": 1}
_PART = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,9}))?(h|ms|m|s|us|µs|ns|d)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+\Z")
_UNIX = re.compile(r"([0-9]{1,11})(?:\.([0-9]{1,9}))?\Z")
_DATE = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:T([0-9]{2}:[0-9]{2})(:[0-9]{2}(?:\.[0-9]{1,9})?)?)?"
                   r"(Z|[+-][0-9]{2}:[0-9]{2})?\Z")


def moment(text: str, now: float) -> Optional[int]:
    """Return the nanoseconds since 1970 that a text means, None if it means no time.

    Understood are a duration before ``now`` ("90s", "1h30m", "2d"), seconds since 1970 ("1796084682.5"), and a date in
    RFC 3339, of which the time, the seconds and the zone (UTC) may be left out.

    :param now: seconds since 1970.
    """
    text = text.strip()
    if len(text) > 64 or not text.isprintable():
        return None
    unix, date = _UNIX.match(text), _DATE.match(text)
    if unix:
        found: Optional[int] = _fixed(unix.group(1), unix.group(2), SECOND)
    elif _DURATION.match(text):
        before = sum(_fixed(whole, part, _UNITS[unit]) for whole, part, unit in _PART.findall(text))
        found = max(0, int(now * SECOND) - before)
    elif date:
        day, minutes, seconds, zone = date.groups()
        found = nanoseconds(f"{day}T{minutes or '00:00'}{seconds or ':00'}{zone or 'Z'}")
    else:
        return None
    return found if found is not None and 0 <= found <= _LATEST else None


def _fixed(whole: str, part: Optional[str], unit: int) -> int:
    return int(whole) * unit + int((part or "0").ljust(9, "0")) * unit // SECOND
