"""Counting the calls of each client."""

import threading
from collections import Counter
from typing import Any, Dict, Optional
from typing import Counter as CounterType


class Stats:
    """Calls and bytes of their request bodies, by method and by the originator of the session."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Set all counts to 0."""
        with self._lock:
            self.calls_by: CounterType[Any] = Counter()
            self.bytes_by: CounterType[Any] = Counter()

    def count(self, method: str, originator: str, size: int) -> None:
        """Count one call."""
        with self._lock:
            self.calls_by[(originator, method)] += 1
            self.bytes_by[(originator, method)] += size

    @staticmethod
    def _sum(counter: Dict[Any, int], method: Optional[str], originator: Optional[str]) -> int:
        return sum(
            n for (who, name), n in list(counter.items()) if method in (None, name) and originator in (None, who)
        )

    def calls(self, method: Optional[str] = None, originator: Optional[str] = None) -> int:
        """Return the number of calls served, of `method` (None: any) and for `originator` (None: anybody)."""
        return self._sum(self.calls_by, method, originator)

    def bytes(self, method: Optional[str] = None, originator: Optional[str] = None) -> int:
        """Return the bytes of the bodies of those calls' requests."""
        return self._sum(self.bytes_by, method, originator)

    def by_method(self, originator: Optional[str] = None) -> Dict[str, int]:
        """Return method -> number of calls, for `originator` (None: anybody)."""
        out: Dict[str, int] = {}
        for (who, name), number in list(self.calls_by.items()):
            if originator in (None, who):
                out[name] = out.get(name, 0) + number
        return out
