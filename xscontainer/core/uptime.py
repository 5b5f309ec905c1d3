"""The start time of a container, made from the words of an engine's list, such as "Up 5 minutes". Pure.

Docker's list has no start time, and its words become coarser the longer a container runs. A time that is computed from
them anew for each list differs from list to list, and each difference would be published. So :class:`StartTimes` makes
an estimate once for each run of a container, and keeps it as long as the words do not contradict it. The time in an
event of its start replaces the estimate.
"""

import functools
import re
import struct
from typing import TYPE_CHECKING, Dict, Iterable, List, NamedTuple, Optional, Tuple

if TYPE_CHECKING:
    from xscontainer.core.container import Container, ContainerList
    from xscontainer.core.engine_event import EngineEvent

_SPAN = re.compile(r"Up (?:(Less than a second)|About an? (minute|hour)|"
                   r"([0-9]{1,5}) (second|minute|hour|day|week|month|year)s?)(?: |\Z)")
_HOUR, _DAY = 3600.0, 86400.0
_UNITS = {"second": 1.0, "minute": 60.0, "hour": _HOUR, "day": _DAY, "week": 7 * _DAY, "month": 30 * _DAY,
          "year": 365 * _DAY}
# The two elements of an entry in docker_ps: clients.xmlform writes the id first.
_PUBLISHED = re.compile(r"<id>([0-9a-f]{64})</id>|<started_at>([0-9]{1,12})</started_at>")
_PACKED = struct.Struct(">QQ")
_MOST_PACKED = 5000
_ID = re.compile(r"[0-9a-f]{64}\Z")
# A list that is read so long after an event shows it, seconds.
_SHOWN_WITHIN = 15.0
# Clocks of host and guest are corrected now and then, and times are published in whole seconds.
_SLACK = 2.0


class Span(NamedTuple):
    """A time of which only the bounds are known, seconds."""

    shortest: float
    longest: float


@functools.lru_cache(maxsize=512)
def uptime_of(status: str) -> Optional[Span]:
    """Return how long a container with this status text has been running; None if the text does not tell.

    Engines have rounded hours since 2017, and cut them before. Both count: "2 hours" is 1.5 to 3 hours.
    """
    found = _SPAN.match(status)
    if found is None:
        return None
    below, about, count, unit = found.groups()
    if below:
        return Span(0.0, 1.0)
    if about:
        return Span(_UNITS[about], 2 * _UNITS[about])
    shortest, longest = int(count) * _UNITS[unit], (int(count) + 1) * _UNITS[unit]
    return Span(shortest if unit in ("second", "minute") else max(0.0, shortest - _HOUR / 2), longest)


def published_times(docker_ps: str) -> bytes:
    """Return the start times in a published list, for :class:`StartTimes`; 16 bytes for each container that runs."""
    if "<started_at>" not in docker_ps:
        return b""
    packed: List[bytes] = []
    container_id = ""
    for found in _PUBLISHED.finditer(docker_ps):
        if found.group(1):
            container_id = found.group(1)
        elif container_id and len(packed) < _MOST_PACKED:
            packed.append(_PACKED.pack(_key(container_id), int(found.group(2))))
            container_id = ""
    return b"".join(packed)


class StartTimes:
    """The start times of one VM's containers that run, seconds since the epoch. Not thread-safe.

    :param published: times of the list that is published, by this process before it was restarted, or by another host.
    """

    def __init__(self, published: bytes = b"") -> None:
        self._known: Dict[int, int] = dict(_PACKED.iter_unpack(published))
        self._told: Dict[int, Tuple[int, float]] = {}  # by events: when it started, and when we heard so

    def heard(self, events: "Iterable[EngineEvent]", now: float) -> None:
        """Take the exact times of starts, by the engine's clock, from events that came just now."""
        for event in events:
            if event.action == "start" and event.time_ns and _ID.match(event.id) and len(self._told) < _MOST_PACKED:
                self._told[_key(event.id)] = (event.time_ns // 10 ** 9, now)

    def settle(self, found: "ContainerList", asked: float, received: float) -> "ContainerList":
        """Return the list with a start time for each container that runs.

        :param found: as the engine gave it.
        :param asked: when the engine was asked for it, seconds since the epoch.
        :param received: when the list was complete.
        """
        containers = tuple(
            container if container.uptime is None else container._replace(
                started_at=self._time(container, container.uptime, asked, received), uptime=None)
            for container in found.containers)
        if self._told:
            self._told = {key: told for key, told in self._told.items() if told[1] > asked - _SHOWN_WITHIN}
        self._known = {_key(container.id): container.started_at for container in containers
                       if container.started_at is not None}
        return found._replace(containers=containers)

    def _time(self, container: "Container", uptime: Span, asked: float, received: float) -> int:
        earliest, latest = asked - uptime.longest, received - uptime.shortest
        told = self._told.get(_key(container.id))
        if told is not None and earliest - _SLACK <= told[0] <= latest + _SLACK:
            return told[0]
        known = self._known.get(_key(container.id))
        # An estimate is wrong by less than the words were coarse at that time, and they only become coarser.
        coarse = latest - earliest + _SLACK
        if known is not None and earliest - coarse <= known <= latest + coarse:
            return known
        # Most containers are started when they are created.
        if container.created is not None and earliest <= container.created <= latest:
            return container.created
        return max(1, int((earliest + latest) / 2))


def _key(container_id: str) -> int:
    return int(container_id[-15:], 16)  # takes half of the memory of the id
