"""Recognize the events that xscontainer's own actions caused. Pure: the caller passes the time.

An action announces itself before it acts. Events of its container count as caused by it if the action causes such
events, if they come while it is under way or a few seconds later, and as often as it causes them. So the crash of a
container that xscontainer has just started is not xscontainer's.

All times are seconds since the epoch, by this host's clock.
"""

from typing import Dict, List

from xscontainer.core.engine_event import EngineEvent

GRACE = 5.0  # s between the end of an action and its last event
# s between an event's time by the engine's clock and by ours, for events that come later than they happened.
SKEW = 5.0
# s for which a finished action is remembered: its events may come late, after an outage of the event stream.
REMEMBERED = 600.0
MOST = 64  # actions that are remembered for one VM

# The events that an action causes, and how often. A container is asked to end (SIGTERM), then killed.
_ENDS = {"kill": 2, "die": 1, "stop": 1}
_CAUSES: Dict[str, Dict[str, int]] = {
    "start": {"start": 1},
    "stop": dict(_ENDS, unpause=1),
    "restart": dict(_ENDS, unpause=1, start=1, restart=1),
    "pause": {"pause": 1},
    "unpause": {"unpause": 1},
}


class Cause:
    """One action on a container.

    :param container: whole id or name of the container.
    :param action: start, stop, restart, pause or unpause.
    """

    def __init__(self, container: str, action: str, now: float) -> None:
        self._container = container
        self._left = dict(_CAUSES[action])
        self._from = now
        self.until = float("inf")
        self.text = f"xscontainer ({action})"

    def takes(self, event: EngineEvent, at: float, early: float) -> bool:
        """Return whether the action caused an event of the time ``at``, and count the event."""
        if event.id != self._container and event.name != self._container:
            return False
        if not self._from - early <= at <= self.until or not self._left.get(event.kind):
            return False
        self._left[event.kind] -= 1
        if event.kind == "start":
            for kind in _ENDS:  # an end that follows the start is another one
                self._left.pop(kind, None)
        return True


class Causes:
    """The last actions on the containers of one VM."""

    def __init__(self) -> None:
        self._causes: List[Cause] = []

    def begin(self, container: str, action: str, now: float) -> Cause:
        """Announce an action that is about to begin; parameters as for Cause."""
        cause = Cause(container, action, now)
        self._causes = [known for known in self._causes if known.until > now - REMEMBERED][1 - MOST:] + [cause]
        return cause

    def end(self, cause: Cause, now: float, grace: float = GRACE) -> None:
        """Say that an action has ended; its events may come until ``grace`` seconds later."""
        cause.until = now + grace

    def of(self, event: EngineEvent, now: float, past: bool = False) -> str:
        """Return the text that says which action caused the event; "" if none did.

        :param past: the event is reported late, so its own time counts.
        """
        at, early = (event.time_ns / 1e9, SKEW) if past else (now, 0.0)
        return next((cause.text for cause in self._causes if cause.takes(event, at, early)), "")
