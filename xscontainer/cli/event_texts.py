"""The events of containers as get_events returns them, and their texts for people."""

import json
import time
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from xscontainer.cli import plugin_call
from xscontainer.cli.ui.meaning import BAD, GOOD, PLAIN, QUIET, WARNING

_MEANINGS = {"die": QUIET, "oom": BAD, "start": GOOD, "restart": GOOD, "unpause": GOOD, "destroy": QUIET,
             "kill": WARNING, "stop": QUIET, "pause": WARNING}


class Event(NamedTuple):
    """One event.

    :ivar number: grows with each event that the daemon records.
    :ivar time: seconds since 1970, by the guest's clock.
    :ivar exit_code: of "die". :ivar signal: of "kill". :ivar health: of "health_status". None or "" for others.
    :ivar by: who caused it; "" if that is not known.
    """

    number: int
    time: float
    action: str
    id: str
    name: str
    image: str
    exit_code: Optional[int] = None
    signal: str = ""
    health: str = ""
    by: str = ""

    @property
    def text(self) -> str:
        """The action with its details."""
        detail = self.health or self.signal
        if self.exit_code is not None:
            detail = f"exit code {self.exit_code}"
        return f"{self.action} ({detail})" if detail else self.action

    @property
    def meaning(self) -> str:
        """The meaning for the terminal's colours."""
        if self.action == "die":
            return QUIET if self.exit_code == 0 else BAD
        if self.action == "health_status":
            return {"healthy": GOOD, "unhealthy": BAD}.get(self.health, PLAIN)
        return _MEANINGS.get(self.action, PLAIN)


class Events(NamedTuple):
    """One answer of get_events.

    :ivar events: the oldest first.
    :ivar last: number of the newest event that is recorded.
    :ivar since: from when on no event is missing, seconds since 1970.
    """

    events: Tuple[Event, ...]
    last: int
    since: float


def read(answer: str) -> Events:
    """Read an answer of get_events.

    :raises XapiError: when it cannot be read.
    """
    with plugin_call.reading():
        found: Dict[str, Any] = json.loads(answer)
        return Events(tuple(map(_event, found["events"])), int(found["last"]), float(found["since"]))


def _event(fields: "Dict[str, Any]") -> Event:
    about, code = fields["container"], fields["exit_code"]
    return Event(int(fields["number"]), float(fields["time"]), str(fields["action"]), str(about["id"]),
                 str(about["name"]), str(about["image"]), None if code is None else int(code),
                 str(fields["signal"] or ""), str(fields["health"] or ""), str(fields["by"] or ""))


def local_time(seconds: float) -> str:
    """Return a moment by the clock and in the zone of this machine."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "?"


def ended_on_purpose(events: "Tuple[Event, ...]", container_id: str) -> bool:
    """Return whether the events say that somebody stopped the container the last time that it ended."""
    own: List[Event] = [event for event in events if event.id == container_id]
    for number in range(len(own) - 1, -1, -1):
        if own[number].action == "die":
            # An engine reports "stop" after the end of a container that it was told to stop.
            return bool(own[number].by) or any(event.action == "stop" for event in own[number + 1:])
    return False


def ran_out_of_memory(events: "Tuple[Event, ...]", container_id: str) -> bool:
    """Return whether the kernel killed a process of the container for want of memory in its last run."""
    for event in reversed(events):
        if event.id == container_id and event.action == "start":
            return False
        if event.id == container_id and event.action == "oom":
            return True
    return False
