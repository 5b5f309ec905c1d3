"""The log of a simulated container, stored as dockerd's driver json-file stores it: long lines in parts."""

import io
import struct
import time
from typing import Iterable, List, NamedTuple, Optional, Tuple

PART = 16384
UNREADABLE = ("none",)  # logging drivers that dockerd cannot read


class LogEntry(NamedTuple):
    """One line, or a part of one.

    :ivar at: nanoseconds since 1970. :ivar stream: 1 is stdout, 2 is stderr.
    """

    at: int
    stream: int
    data: bytes

    def encoded(self, timestamps: bool, terminal: bool) -> bytes:
        """Return the entry as the engine sends it."""
        seconds, nanoseconds = divmod(self.at, 1000000000)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09d}Z "
        data = (stamp.encode("ascii") if timestamps else b"") + self.data
        return data if terminal else struct.pack(">BxxxL", self.stream, len(data)) + data


def entries(output: Iterable[Tuple[int, bytes]], terminal: bool = False) -> List[LogEntry]:
    """Return what dockerd stores of this output now. A terminal has one stream, and CR LF at the end of a line."""
    found: List[LogEntry] = []
    for stream, data in output:
        if terminal:
            stream, data = 1, data.replace(b"\n", b"\r\n")
        for line in io.BytesIO(data):  # which splits at LF alone
            # One time for all parts of a line, as dockerd does, and never the same for two lines.
            at = max(int(time.time() * 1e9), found[-1].at + 1 if found else 0)
            content = line[:-1] if line.endswith(b"\n") else line
            starts = range(0, max(1, len(content)), PART)
            parts = [content[start:start + PART] for start in starts]
            parts[-1] += line[len(content):]
            # Bytes that are not UTF-8 are lost in its JSON.
            found += [LogEntry(at, stream, part.decode("utf-8", "replace").encode("utf-8")) for part in parts]
    return found


def chosen(log: List[LogEntry], tail: Optional[int], since: int, until: Optional[int],
           streams: Iterable[int]) -> List[LogEntry]:
    """Return the entries that a request asks for: dockerd counts the tail before it looks at time and stream."""
    newest = log if tail is None else log[len(log) - min(tail, len(log)):]
    return [entry for entry in newest
            if entry.stream in streams and entry.at >= since and (until is None or entry.at <= until)]
