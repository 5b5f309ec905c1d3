"""Faults that tests inject into calls."""

import threading
import time
from typing import Any, Dict, Iterable, List, NamedTuple, Optional

from xscontainer.simulator.xapi.wire.failures import Dropped, HttpError, XapiError


class Fault(NamedTuple):
    """A fault that strikes a call instead of its own work, or (delay) before it."""

    kind: str
    seconds: float
    description: List[str]


class Faults:
    """Faults by method; "*" stands for every method, "Async.VM.start" for the making of its task.

    Each strikes `times` times, without end if None.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_method: Dict[str, List[List[Any]]] = {}

    def __call__(
        self,
        method: str,
        kind: str,
        times: Optional[int] = None,
        seconds: float = 0.0,
        description: Optional[List[str]] = None,
    ) -> None:
        """Add a fault of kind "delay", "drop", "drop-after" (do the work, lose the answer), "error-500" or "fail"."""
        with self._lock:
            self._by_method.setdefault(method, []).append([Fault(kind, seconds, description or []), times])

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._by_method.clear()

    @property
    def left(self) -> int:
        """Number of faults that have not struck as often as they should."""
        with self._lock:
            return sum(map(len, self._by_method.values()))

    def _take(self, names: Iterable[str]) -> List[Fault]:
        if not self._by_method:
            return []
        out = []
        with self._lock:
            for name in names:
                for entry in list(self._by_method.get(name, [])):
                    out.append(entry[0])
                    if entry[1] is not None:
                        entry[1] -= 1
                        if entry[1] <= 0:
                            self._by_method[name].remove(entry)
        return out

    def apply(self, method: str, others: bool = True) -> bool:
        """Play the faults of a method and, with `others`, those of every method.

        :returns: whether the answer is to be lost.
        """
        answer_lost = False
        for fault in self._take((method, "*") if others else (method,)):
            if fault.kind == "delay":
                time.sleep(fault.seconds)
            elif fault.kind == "drop":
                raise Dropped()
            elif fault.kind == "drop-after":
                answer_lost = True
            elif fault.kind == "error-500":
                raise HttpError(500, "Simulated")
            else:
                raise XapiError(*fault.description)
        return answer_lost
