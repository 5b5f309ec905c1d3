"""The diagnosis of a VM: the steps on the way to its engine, and their JSON form. Pure.

Much of the text comes from guests: it is cut, put on one line and rid of control characters. Escaping for a terminal
is left to the CLI.
"""

import json
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from xscontainer.core.bounded import json_from
from xscontainer.errors import XSContainerError
from xscontainer.sanitize import clean_text, line

OK = "OK"
MOST_DETAIL = 300  # characters
MOST_MESSAGE = 1200
MOST_STEPS = 32
MOST_DOCUMENT = 65536

# The steps in their order; the steps after a failed one are not taken.
_FIRST = ("vm", "power", "settings", "address")
_LAST = ("engine", "containers", "registered", "published", "optional")
OVER_SSH: Tuple[str, ...] = _FIRST + ("key", "tcp", "ssh", "hostkey", "login", "socket") + _LAST
OVER_TLS: Tuple[str, ...] = _FIRST + ("certificates", "tcp", "tls", "login") + _LAST


class Step(NamedTuple):
    step: str
    ok: bool
    detail: str
    ms: int


class Diagnosis(NamedTuple):
    """The result.

    :ivar code: OK, or the code of the one cause.
    :ivar message: the cause in sentences.
    :ivar next: what to do about it; "" if nothing is to be done.
    :ivar facts: vm, name, address, fingerprint, engine and others by name, as far as they were found out.
    """

    code: str
    message: str
    next: str
    steps: Tuple[Step, ...]
    facts: Dict[str, Any]

    def to_json(self) -> str:
        """Write the diagnosis as one line of ASCII; the names in it are part of the interface."""
        told = {"code": self.code, "message": self.message, "next": self.next}
        return json.dumps(dict(self.facts, **told, steps=[dict(step._asdict()) for step in self.steps]))

    @classmethod
    def from_json(cls, text: str) -> "Diagnosis":
        """Read a diagnosis.

        :raises ValueError: the text is not one.
        """
        try:
            if len(text) > MOST_DOCUMENT:
                raise ValueError("it is too long")
            facts = dict(json_from(text))
            code, message, what_next = (clean_text(facts.pop(name), MOST_MESSAGE)
                                        for name in ("code", "message", "next"))
            steps = tuple(Step(clean_text(step["step"], 32), step["ok"] is True, _line(step["detail"]), int(step["ms"]))
                          for step in facts.pop("steps")[:MOST_STEPS])
        except (TypeError, LookupError) as error:
            raise ValueError(f"this is no diagnosis: {text[:80]!r}") from error
        return cls(code, message, what_next, steps, facts)


class Trace:
    """Collects the steps of a diagnosis; for one thread.

    :ivar deadline: by ``clock``; every step on the way stops waiting then.
    :ivar ladder: OVER_SSH or OVER_TLS.
    :ivar facts: as in Diagnosis.
    """

    def __init__(self, clock: "Callable[[], float]", seconds: float) -> None:
        self._clock = clock
        self._began = self._looked = clock()
        self.deadline = self._began + seconds
        self.ladder: Tuple[str, ...] = OVER_SSH
        self.steps: List[Step] = []
        self.facts: Dict[str, Any] = {}

    def left(self) -> float:
        """Seconds until the deadline, at least a moment."""
        return max(0.1, self.deadline - self._clock())

    def done(self, step: str, detail: str = "") -> None:
        """Record that a step succeeded."""
        self._add(step, True, detail)

    def _add(self, step: str, ok: bool, detail: str) -> None:
        now = self._clock()
        self.steps.append(Step(step, ok, _line(detail), round((now - self._looked) * 1000)))
        self._looked = now

    def ended(self, error: "Optional[XSContainerError]", message: str = "", step: str = "") -> Diagnosis:
        """End the trace; returns the diagnosis.

        :param error: the cause; None: no step failed, as ``message`` says.
        :param step: the one that failed; "": the step after the last one that succeeded.
        """
        if error is None:
            return self._told(OK, message, "")
        passed = [seen.step for seen in self.steps]
        waiting = [name for name in self.ladder if name not in passed]
        for name in waiting[:waiting.index(step)] if step in waiting else ():
            self._add(name, True, "")
        self._add(step or (waiting + ["vm"])[0], False, error.message)
        return self._told(error.code, error.message, error.hint)

    def _told(self, code: str, message: str, what_next: str) -> Diagnosis:
        facts = dict(self.facts, ms=round((self._clock() - self._began) * 1000))
        return Diagnosis(code, clean_text(message, MOST_MESSAGE), clean_text(what_next, MOST_MESSAGE),
                         tuple(self.steps), facts)


def _line(text: Any) -> str:
    return line(text, MOST_DETAIL)
