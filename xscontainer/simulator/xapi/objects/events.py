"""event.from (the changes since a token), event.inject, and the rest of the old interface."""

import re
import time
import uuid
from typing import Any, Dict, Iterable, List, Tuple

from xscontainer.simulator.xapi.database.database import SILENT
from xscontainer.simulator.xapi.database.row import Row
from xscontainer.simulator.xapi.database.table import Table
from xscontainer.simulator.xapi.state.call import Call
from xscontainer.simulator.xapi.state.event_hub import Subscription, Waiter
from xscontainer.simulator.xapi.wire.failures import Dropped, XapiError
from xscontainer.simulator.xapi.wire.values import WireInt

_TOKEN = re.compile(r"(\d+),(\d+)$")
Token = Tuple[int, int]
# First and longest delay, in seconds, of a poll that was woken twice without an event to report.
_FIRST_DELAY, _MAX_DELAY = 0.00625, 0.05


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


def _changed(table: Table, wanted: Subscription, since: int) -> Iterable[Row]:
    """Return the wanted rows of a table that were written after generation `since`, the latest first."""
    cls = table.cls.lower
    if wanted.everything or cls in wanted.classes:
        return table.changed(since)
    found = (table.rows.get(ref) for ref in wanted.objects.get(cls, ()))
    rows = [row for row in found if row is not None and row.modified > since]
    return sorted(rows, key=lambda row: row.modified, reverse=True)


def _collect(call: Call, wanted: Subscription, since: Token) -> Tuple[List[Dict[str, Any]], Token]:
    """Return the events after `since` and the token of the last one; the caller holds the lock."""
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
        for row in _changed(table, wanted, since[0]):
            created = row.created > since[0]
            event = _event(row.created if created else row.modified, cls, "add" if created else "mod", row.ref)
            event["snapshot"] = row
            events.append(event)
            last = max(last, row.modified)
    events.reverse()
    messages, last_message = call.pool.messages.events(wanted, since[1])
    return messages + events, (last, last_message)


def _counts(call: Call) -> Dict[str, int]:
    # A member forwards the call, so that the numbers lose their type and are sent as strings in XML-RPC.
    number = WireInt if call.host is call.pool.coordinator else int
    tables = call.pool.db.tables
    by_lower = call.pool.model.by_lower
    return {
        cls: number(len(tables[by_lower[cls].name].rows) if cls != "message" else 0) for cls in call.pool.model.counted
    }


def event_from(call: Call, classes: List[str], token: str, timeout: float) -> Dict[str, Any]:
    """event.from: return the changes after `token`; wait up to `timeout` seconds for the first.

    The first write wakes it at once, in the middle of what the writer is doing: between the removal and the addition of
    a key it shows neither.
    """
    since = _parse(token)
    deadline = time.monotonic() + timeout
    wanted = Subscription(classes)
    waiter = Waiter(wanted)
    in_vain = 0
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
            if in_vain > 0:
                time.sleep(min(_FIRST_DELAY * 2 ** (in_vain - 1), _MAX_DELAY, max(0.0, deadline - time.monotonic())))
            in_vain += 1
    finally:
        hub.remove(waiter)


def inject(call: Call, cls: str, ref: str) -> str:
    """event.inject: report an object as changed; return a token from before."""
    if cls not in call.pool.db.tables:
        raise XapiError("HANDLE_INVALID", cls, ref)
    database = call.pool.db
    with database.lock:
        before = database.generation
        database.written(database.find(cls, ref))
    return _format((before, 0))


def register(call: Call, _classes: List[str]) -> str:
    """event.register of the old interface: accepted, as XAPI does."""
    call.pool.registered.add(call.session.ref)
    return ""


def unregister(call: Call, _classes: List[str]) -> str:
    """event.unregister of the old interface."""
    call.pool.registered.discard(call.session.ref)
    return ""


def next_events(call: Call) -> List[Any]:
    """event.next of the old interface: refused without event.register; never reports anything here."""
    if call.session.ref not in call.pool.registered:
        raise XapiError("SESSION_NOT_REGISTERED", "trackid=" + _trackid(call.session.ref))
    return []


def _trackid(session_ref: str) -> str:
    """Return the short name of a session that XAPI shows in errors and logs."""
    return uuid.uuid5(uuid.NAMESPACE_OID, session_ref).hex


HANDLERS = {
    "event.from": event_from,
    "event.inject": inject,
    "event.register": register,
    "event.unregister": unregister,
    "event.next": next_events,
    "event.get_current_id": lambda call: 0,
}
