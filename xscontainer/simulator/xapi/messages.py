"""Messages (alerts): kept outside the database, with numbers of their own in event tokens."""

import threading
import time
import uuid
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, Deque, Dict, List, Tuple

from .clock import now
from .failures import XapiError
from .query import compile_query

if TYPE_CHECKING:
    from .dispatch import Call
    from .events import Subscription
    from .pool import Pool

_LIMIT = 10000
_FIELDS = ["uuid", "name", "priority", "cls", "obj_uuid", "timestamp", "body"]
Record = Dict[str, Any]


class Messages:
    """The pool's messages, oldest first; beyond 10000 the oldest go."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._lock = threading.RLock()
        self._all: "OrderedDict[str, Record]" = OrderedDict()
        self._changes: Deque[Tuple[int, str, str]] = deque(maxlen=2 * _LIMIT)
        self._number = 0

    def _changed(self, operation: str, ref: str) -> None:
        self._number = max(self._number + 1, int(time.time() * 1000000))
        self._changes.append((self._number, operation, ref))

    def add(self, name: str, priority: int, cls: str, obj_uuid: str, body: str) -> str:
        """Store a message about the object of that class and uuid; returns its reference."""
        ref = "OpaqueRef:" + str(uuid.uuid4())
        with self._lock:
            self._all[ref] = {
                "uuid": str(uuid.uuid4()),
                "name": name,
                "priority": priority,
                "cls": cls,
                "obj_uuid": obj_uuid,
                "timestamp": now(),
                "body": body,
            }
            self._changed("add", ref)
            while len(self._all) > _LIMIT:
                self._changed("del", self._all.popitem(last=False)[0])
        self._notify(ref)
        return ref

    def _notify(self, ref: str) -> None:
        with self._pool.db.lock:
            for watcher in self._pool.db.watchers:
                watcher("message", ref)

    def find(self, ref: str) -> Record:
        """The message of that reference; HANDLE_INVALID if there is none."""
        with self._lock:
            if ref not in self._all:
                raise XapiError("HANDLE_INVALID", "message", ref)
            return self._all[ref]

    def destroy(self, ref: str) -> None:
        """Remove a message."""
        with self._lock:
            self.find(ref)
            del self._all[ref]
            self._changed("del", ref)
        self._notify(ref)

    def items(self) -> List[Tuple[str, Record]]:
        """(reference, record) of every message, the newest first."""
        with self._lock:
            return list(reversed(list(self._all.items())))

    def events(self, wanted: "Subscription", since: int) -> Tuple[List[Dict[str, Any]], int]:
        """Events after number `since`, and the number behind the last of them."""
        out: List[Dict[str, Any]] = []
        last = since
        if not (wanted.everything or "message" in wanted.classes):
            return out, since
        with self._lock:
            for number, operation, ref in self._changes:
                if number <= since:
                    continue
                last = number
                event: Dict[str, Any] = {
                    "id": "0",
                    "timestamp": "0.0",
                    "class": "message",
                    "operation": operation,
                    "ref": ref,
                }
                if operation == "add":
                    if ref not in self._all:
                        continue
                    event["snapshot"] = self._all[ref]
                elif since == 0:
                    continue
                out.append(event)
        return out, last


def create(call: "Call", name: str, priority: int, cls: str, obj_uuid: str, body: str) -> str:
    """message.create: the object must exist."""
    table = call.pool.db.tables[call.pool.model.by_lower[cls.lower()].name]
    if obj_uuid not in table.by_uuid:
        raise XapiError("UUID_INVALID", cls, obj_uuid)
    return call.pool.messages.add(name, priority, cls, obj_uuid, body)


def destroy(call: "Call", ref: str) -> str:
    """message.destroy."""
    call.pool.messages.destroy(ref)
    return ""


def destroy_many(call: "Call", refs: List[str]) -> str:
    """message.destroy_many: one after the other, up to the first that is not there."""
    for ref in refs:
        call.pool.messages.destroy(ref)
    return ""


def get(call: "Call", cls: str, obj_uuid: str, since: str) -> Record:
    """message.get: of one object, since a moment."""
    return {
        ref: r
        for ref, r in call.pool.messages.items()
        if r["cls"] == cls and r["obj_uuid"] == obj_uuid and r["timestamp"] >= since
    }


def get_since(call: "Call", since: str) -> Record:
    """message.get_since."""
    return {ref: r for ref, r in call.pool.messages.items() if r["timestamp"] >= since}


def get_all(call: "Call") -> List[str]:
    """message.get_all."""
    return [ref for ref, _r in call.pool.messages.items()]


def get_all_records(call: "Call") -> Record:
    """message.get_all_records."""
    return dict(call.pool.messages.items())


def get_all_records_where(call: "Call", text: str) -> Record:
    """message.get_all_records_where."""
    test = compile_query(text, _FIELDS)
    return {ref: r for ref, r in call.pool.messages.items() if test(r)}


def get_by_uuid(call: "Call", identity: str) -> str:
    """message.get_by_uuid."""
    for ref, record in call.pool.messages.items():
        if record["uuid"] == identity:
            return ref
    raise XapiError("UUID_INVALID", "message", identity)


HANDLERS = {
    "message.create": create,
    "message.destroy": destroy,
    "message.destroy_many": destroy_many,
    "message.get": get,
    "message.get_since": get_since,
    "message.get_all": get_all,
    "message.get_all_records": get_all_records,
    "message.get_all_records_where": get_all_records_where,
    "message.get_by_uuid": get_by_uuid,
    "message.get_record": lambda call, ref: call.pool.messages.find(ref),
}
