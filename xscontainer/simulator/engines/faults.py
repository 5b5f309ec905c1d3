"""Faults that tests switch on: what a guest or an engine does wrong, to which requests and how often.

One :class:`Faults` per guest or engine. The server asks it with :meth:`Faults.take` at two moments: when a connection
was accepted (subject ``connect``) and, in an engine, when a request was read (subject ``GET /containers/json?all=1``,
as sent).
A guest's faults are for its connections; an engine's are for requests unless ``match`` says ``connect``.

==================  =====================================================================  =================
kind                what happens                                                           where
==================  =====================================================================  =================
``silent``          the connection stays open and nothing is ever sent                     connect, request
``close``           it is closed at once                                                   connect, request
``late``            ``seconds`` pass before anything is sent, then all is well             connect, request
``slow``            every byte of the answer waits ``seconds``                             connect, request
``cut``             closed after ``size`` bytes of the answer                              connect, request
``garbage``         ``size`` random bytes (1000 if 0), then closed                         connect, request
``huge``            an answer without end (for events: a line without end)                 connect, request
``status``          HTTP ``status`` with ``body`` as the message                           request
``body``            HTTP ``status`` (200 if 0) with exactly ``body``: invalid JSON, types  request
``events-end``      an event stream ends properly after ``size`` events                    request
``events-stall``    an event stream opens and then carries nothing                         request
``no-forwarding``   streamlocal channels are refused (embedded SSH)                        channel
``no-exec``         exec channels are refused (embedded SSH)                               channel
``channel-silent``  a channel opens, and nothing ever comes out of it (embedded SSH)       channel
==================  =====================================================================  =================
"""

import collections
import re
import threading
from typing import Counter, Iterable, List, NamedTuple, Optional

AT_CONNECT = ("silent", "close", "late", "slow", "cut", "garbage", "huge")
AT_REQUEST = AT_CONNECT + ("status", "body", "events-end", "events-stall")
AT_CHANNEL = ("no-forwarding", "no-exec", "channel-silent")


class Fault(NamedTuple):
    """One kind of misbehaviour; the table above says which fields count."""

    kind: str
    match: str = ""
    seconds: float = 0.0
    size: int = 0
    status: int = 0
    body: bytes = b""


class _Rule:
    """A fault and how often it is still to strike (0: always)."""

    def __init__(self, fault: Fault, left: int) -> None:
        self.fault = fault
        self.left = left


class Faults:
    """The faults that are switched on. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: List[_Rule] = []
        self.fired: "Counter[str]" = collections.Counter()

    def set(
        self, kind: str, match: str = "", times: int = 0, seconds: float = 0.0, size: int = 0, status: int = 0,
        body: bytes = b"",
    ) -> None:
        """Switch a fault on.

        :param match: a regular expression that the subject must contain; empty: every subject.
        :param times: how often; 0: until cleared.
        :raises ValueError: unknown kind.
        """
        if kind not in AT_REQUEST + AT_CHANNEL:
            raise ValueError(f"no such fault: {kind}")
        with self._lock:
            self._rules.append(_Rule(Fault(kind, match, seconds, size, status, body), times))

    def clear(self, kind: str = "") -> None:
        """Switch one kind off, or all. A connection that hangs already goes on hanging until it ends."""
        with self._lock:
            self._rules = [rule for rule in self._rules if kind and rule.fault.kind != kind]

    @property
    def at_connect(self) -> bool:
        """Return whether a fault names ``connect``. An engine's faults apply to requests otherwise."""
        return any("connect" in rule.fault.match for rule in self._rules)

    def take(self, subject: str, kinds: Iterable[str]) -> Optional[Fault]:
        """Return and count the first fault of these kinds for ``subject``; None: there is none."""
        if not self._rules:  # the common case, on every request: no lock
            return None
        with self._lock:
            for rule in self._rules:
                fault = rule.fault
                if fault.kind in kinds and re.search(fault.match, subject):
                    if rule.left == 1:
                        self._rules.remove(rule)
                    elif rule.left:
                        rule.left -= 1
                    self.fired[fault.kind] += 1
                    return fault
        return None
