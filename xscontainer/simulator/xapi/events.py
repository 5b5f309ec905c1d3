"""event.from, event.inject and what is left of the old interface: who waits for what, and what has changed."""

import re
import threading
import time
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Set, Tuple

from .database import SILENT, Database, Row, Table
from .failures import Dropped, XapiError
from .values import WireInt

if TYPE_CHECKING:
    from .dispatch import Call

_TOKEN = re.compile(r"(\d+),(\d+)$")
Token = Tuple[int, int]
# So many writes within one delay are load; it never makes a report later than so many seconds.
_LOAD = 4
_MOST_DELAY = 0.05


class Subscription:
    """What an event.from asks for: whole classes, and single objects ("vm/OpaqueRef:...")."""

    def __init__(self, classes: List[str]) -> None:
        self.everything = "*" in classes
        self.classes: Set[str] = set()
        self.objects: Dict[str, Set[str]] = {}
        for entry in classes:
            cls, slash, ref = entry.partition("/")
            if slash:
                self.objects.setdefault(cls.lower(), set()).add(ref)
            else:
                self.classes.add(cls.lower())

    def matches(self, cls: str, ref: str) -> bool:
        """True if a change of that object is to be reported."""
        return self.everything or cls in self.classes or ref in self.objects.get(cls, ())


class Waiter:
    """One waiting event.from; wake() may be called from any thread, any number of times."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.heard = 0
        self._lock = threading.Lock()
        self._lock.acquire()

    def changed(self, cls: str, ref: str) -> None:
        """The database's notice of a write."""
        if self.subscription.matches(cls, ref):
            self.heard += 1
            self.wake()

    def wake(self) -> None:
        """End the wait."""
        try:
            self._lock.release()
        except RuntimeError:
            pass  # already awake

    def wait(self, seconds: float) -> None:
        """Until wake() or `seconds` have passed."""
        self._lock.acquire(timeout=max(0.0, seconds))

    def gather(self, delay: float) -> None:
        """Let writes gather: for `delay` seconds, under load for longer, twice as long each time."""
        waited = 0.0
        while waited < _MOST_DELAY and delay > 0:
            heard = self.heard
            time.sleep(delay)
            waited += delay
            if self.heard - heard < _LOAD:
                return
            delay = min(2 * delay, _MOST_DELAY - waited)


class Events:
    """The pool's waiting readers; `delay` seconds pass between a write and its report, so that writes gather."""

    def __init__(self, database: Database, delay: float = 0.001) -> None:
        self._db = database
        self._waiters: Set[Waiter] = set()
        self.delay = delay

    def add(self, waiter: Waiter) -> None:
        """Let a waiter hear of writes."""
        with self._db.lock:
            self._waiters.add(waiter)
            self._db.watchers.append(waiter.changed)

    def remove(self, waiter: Waiter) -> None:
        """Forget a waiter."""
        with self._db.lock:
            self._waiters.discard(waiter)
            self._db.watchers.remove(waiter.changed)

    def wake_all(self) -> None:
        """Let every reader look at its session and its host again."""
        with self._db.lock:
            for waiter in self._waiters:
                waiter.wake()


def _parse(token: str) -> Token:
    if token == "":
        return 0, 0
    match = _TOKEN.match(token)
    if not match:
        raise XapiError("EVENT_FROM_TOKEN_PARSE_FAILURE", token)
    return int(match.group(1)), int(match.group(2))


def _format(token: Token) -> str:
    return "{:020d},{:020d}".format(*token)


def _event(number: int, cls: str, operation: str, ref: str) -> Dict[str, Any]:
    return {"id": str(number), "timestamp": "0.0", "class": cls, "operation": operation, "ref": ref}


def _changed(database: Database, table: Table, wanted: Subscription, since: int) -> Iterable[Row]:
    """The wanted rows of a table that were written after generation `since`, the latest first."""
    cls = table.cls.lower
    if wanted.everything or cls in wanted.classes:
        return database.changed(table, since)
    found = (table.rows.get(ref) for ref in wanted.objects.get(cls, ()))
    rows = [row for row in found if row is not None and row.modified > since]
    return sorted(rows, key=lambda row: row.modified, reverse=True)


def _collect(call: "Call", wanted: Subscription, since: Token) -> Tuple[List[Dict[str, Any]], Token]:
    """The events after `since` and the token behind the last of them; the caller holds the lock."""
    database = call.pool.db
    events = []
    last = since[0]
    for gone in reversed(database.deleted):
        if gone.generation <= since[0]:
            break
        if gone.created <= since[0] and gone.cls not in SILENT and wanted.matches(gone.cls, gone.ref):
            events.append(_event(gone.generation, gone.cls, "del", gone.ref))
            last = max(last, gone.generation)
    for table in database.tables.values():
        cls = table.cls.lower
        if not table.rows or cls in SILENT:
            continue
        for row in _changed(database, table, wanted, since[0]):
            created = row.created > since[0]
            event = _event(row.created if created else row.modified, cls, "add" if created else "mod", row.ref)
            event["snapshot"] = row
            events.append(event)
            last = max(last, row.modified)
    events.reverse()
    messages, last_message = call.pool.messages.events(wanted, since[1])
    return messages + events, (last, last_message)


def _counts(call: "Call") -> Dict[str, int]:
    # Forwarded by a member the numbers lose their type and are sent as strings in XML-RPC.
    number = WireInt if call.host.is_coordinator else int
    tables = call.pool.db.tables
    by_lower = call.pool.model.by_lower
    return {
        cls: number(len(tables[by_lower[cls].name].rows) if cls != "message" else 0) for cls in call.pool.model.counted
    }


def event_from(call: "Call", classes: List[str], token: str, timeout: float) -> Dict[str, Any]:
    """event.from: everything that changed after `token`, waiting up to `timeout` seconds for it."""
    since = _parse(token)
    deadline = time.monotonic() + timeout
    wanted = Subscription(classes)
    waiter = Waiter(wanted)
    hub = call.pool.events
    hub.add(waiter)
    try:
        while True:
            with call.pool.db.lock:
                events, last = _collect(call, wanted, since)
                if events or time.monotonic() >= deadline:
                    return {"events": events, "valid_ref_counts": _counts(call), "token": _format(last)}
            waiter.wait(deadline - time.monotonic())
            if not call.serving():
                raise Dropped()
            if not call.pool.sessions.alive(call.session):
                raise XapiError("SESSION_INVALID", call.session.ref)
            if time.monotonic() < deadline:
                waiter.gather(hub.delay)
    finally:
        hub.remove(waiter)


def inject(call: "Call", cls: str, ref: str) -> str:
    """event.inject: report an object as changed; returns a token from before that."""
    if cls not in call.pool.db.tables:
        raise XapiError("HANDLE_INVALID", cls, ref)
    with call.pool.db.lock:
        before = call.pool.db.touch(call.pool.db.find(cls, ref))
    return _format((before, 0))


def register(call: "Call", _classes: List[str]) -> str:
    """event.register of the old interface: accepted, as XAPI does."""
    call.pool.registered.add(call.session.ref)
    return ""


def unregister(call: "Call", _classes: List[str]) -> str:
    """event.unregister of the old interface."""
    call.pool.registered.discard(call.session.ref)
    return ""


def next_events(call: "Call") -> List[Any]:
    """event.next of the old interface: refused without event.register; never reports anything here."""
    if call.session.ref not in call.pool.registered:
        raise XapiError("SESSION_NOT_REGISTERED", "trackid=" + call.pool.trackid(call.session.ref))
    return []


HANDLERS = {
    "event.from": event_from,
    "event.inject": inject,
    "event.register": register,
    "event.unregister": unregister,
    "event.next": next_events,
    "event.get_current_id": lambda call: 0,
}
