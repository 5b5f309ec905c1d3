"""Counting calls, and making them misbehave on request."""

import threading
import time
from collections import Counter
from typing import Any, Dict, Iterable, List, NamedTuple, Optional
from typing import Counter as CounterType

from .failures import Dropped, HttpError, XapiError


class Stats:
    """Calls and bytes of their request bodies, by method and by the originator of the session."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Count from nothing."""
        with self._lock:
            self.calls_by: CounterType[Any] = Counter()
            self.bytes_by: CounterType[Any] = Counter()

    def count(self, method: str, originator: str, size: int) -> None:
        """One call has been served."""
        with self._lock:
            self.calls_by[(originator, method)] += 1
            self.bytes_by[(originator, method)] += size

    @staticmethod
    def _sum(counter: Dict[Any, int], method: Optional[str], originator: Optional[str]) -> int:
        return sum(
            n for (who, name), n in list(counter.items()) if method in (None, name) and originator in (None, who)
        )

    def calls(self, method: Optional[str] = None, originator: Optional[str] = None) -> int:
        """How many calls of `method` (None: of any) were served for `originator` (None: for anybody)."""
        return self._sum(self.calls_by, method, originator)

    def bytes(self, method: Optional[str] = None, originator: Optional[str] = None) -> int:
        """The bytes of the bodies of those calls' requests."""
        return self._sum(self.bytes_by, method, originator)

    def by_method(self, originator: Optional[str] = None) -> Dict[str, int]:
        """Method -> calls."""
        out: Dict[str, int] = {}
        for (who, name), number in list(self.calls_by.items()):
            if originator in (None, who):
                out[name] = out.get(name, 0) + number
        return out


class Fault(NamedTuple):
    """What happens to a call instead of, or (delay) before, its own work."""

    kind: str
    seconds: float
    description: List[str]


class Faults:
    """Faults by method; "*" stands for every method, "Async.VM.start" for the making of its task.

    Each is used `times` times, for ever if None.
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
        """No faults any more."""
        with self._lock:
            self._by_method.clear()

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
        """Let the faults of a call, and unless it is told otherwise those of every call, happen.

        True if its answer is to be lost.
        """
        lose = False
        for fault in self._take((method, "*") if others else (method,)):
            if fault.kind == "delay":
                time.sleep(fault.seconds)
            elif fault.kind == "drop":
                raise Dropped()
            elif fault.kind == "drop-after":
                lose = True
            elif fault.kind == "error-500":
                raise HttpError(500, "Simulated")
            else:
                raise XapiError(*fault.description)
        return lose
