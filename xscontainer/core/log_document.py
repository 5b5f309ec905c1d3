"""The JSON document of ``get_logs``, within a bound of its length. Pure."""

import json
from datetime import datetime, timedelta
from typing import Dict, List, NamedTuple, Optional, Sequence

from xscontainer.core.log_lines import LogLine, nanoseconds

MOST_JSON_BYTES = 1 << 20  # of the document; all of it is ASCII
# An upper bound of what the document takes in memory until the reply is sent, for each byte and each line of the log:
# decoded text, its JSON, and the reply, in which "&" takes five bytes. 5000 empty lines took 2.4 MB.
_BYTES_FOR_BYTE, _BYTES_FOR_LINE = 16, 800
_FIRST = datetime(1970, 1, 1)
_STDIN = "stdin"  # no engine sends it, but the framing has a number for it


class LogContainer(NamedTuple):
    """The container that a log belongs to: its whole id, and its name, "" if it has none."""

    id: str
    name: str


class Page(NamedTuple):
    """One answer of ``get_logs``.

    :ivar lines: the oldest first.
    :ivar truncated: whether lines that were asked for are missing, because they are too long together.
    :ivar dropped: how many further lines were dropped, because the container writes too fast.
    :ivar follow: the token with which the log is followed; None: it is not followed.
    :ivar ended: whether the log that was followed is over.
    """

    container: LogContainer
    lines: Sequence[LogLine]
    truncated: bool = False
    dropped: int = 0
    follow: Optional[str] = None
    ended: bool = False

    def document(self) -> str:
        """Return the document, of at most MOST_JSON_BYTES. The oldest lines are left out first."""
        rest = {"truncated": self.truncated, "dropped": self.dropped, "follow": self.follow, "ended": self.ended}
        head = json.dumps({"container": self.container._asdict()})[:-1]
        room = MOST_JSON_BYTES - len(head) - len(json.dumps(rest)) - 20
        kept: List[str] = []
        for line in reversed(self.lines):
            encoded = json.dumps(_fields(line))
            room -= len(encoded) + 2
            if room < 0:
                rest["truncated"] = True
                break
            kept.append(encoded)
        return f'{head}, "lines": [{", ".join(reversed(kept))}], {json.dumps(rest)[1:]}'


def memory_of(size: int, lines: int) -> int:
    """Return how many bytes of memory a document takes at most, with the reply that holds it.

    :param size: bytes of the log, in UTF-8. :param lines: how many lines they are.
    """
    return min(size, MOST_JSON_BYTES) * _BYTES_FOR_BYTE + lines * _BYTES_FOR_LINE


def _fields(line: LogLine) -> "Dict[str, object]":
    fields: "Dict[str, object]" = {
        "time": time_of(line.stamp), "stream": "stdout" if line.stream == _STDIN else line.stream, "text": line.text}
    if line.cut:
        fields["cut"] = True
    return fields


def time_of(stamp: str) -> Optional[str]:
    """Return a time in RFC 3339 with nanoseconds, in UTC, so that times sort as texts; None if ``stamp`` is none.

    Engines leave zeros at the end out, and podman gives whole seconds with the zone of its host.
    """
    moment = nanoseconds(stamp)
    if moment is None:
        return None
    seconds, fraction = divmod(moment, 1000000000)
    try:
        return f"{(_FIRST + timedelta(seconds=seconds)).isoformat()}.{fraction:09d}Z"
    except OverflowError:
        return None
