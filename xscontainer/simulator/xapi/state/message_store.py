"""Messages (alerts): kept outside the database, with numbers of their own in event tokens."""

import threading
import time
import uuid
from collections import OrderedDict, deque
from typing import Any, Deque, Dict, List, Tuple

from xscontainer.simulator.xapi.database.clock import now
from xscontainer.simulator.xapi.database.database import Database
from xscontainer.simulator.xapi.state.event_hub import Subscription
from xscontainer.simulator.xapi.wire.failures import XapiError

_LIMIT = 10000
Record = Dict[str, Any]


class Messages:
    """The pool's messages, oldest first; beyond 10000 the oldest are removed."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._lock = threading.RLock()
        self._all: "OrderedDict[str, Record]" = OrderedDict()
        self._changes: Deque[Tuple[int, str, str]] = deque(maxlen=2 * _LIMIT)
        self._number = 0

    def _changed(self, operation: str, ref: str) -> None:
        self._number = max(self._number + 1, int(time.time() * 1000000))
        self._changes.append((self._number, operation, ref))

    def add(self, name: str, priority: int, cls: str, obj_uuid: str, body: str) -> str:
        """Store a message about the object of that class and uuid; return its reference."""
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
        with self._db.lock:
            self._db.notify("message", ref)

    def find(self, ref: str) -> Record:
        """Return the message of that reference; raise HANDLE_INVALID if there is none."""
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
        """Return (reference, record) of every message, the newest first."""
        with self._lock:
            return list(reversed(list(self._all.items())))

    def events(self, wanted: Subscription, since: int) -> Tuple[List[Dict[str, Any]], int]:
        """Return the events after number `since`, and the number of the last one."""
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
