"""The pool's database: tables of rows, numbered writes, and watchers that are called after each write."""

import threading
import uuid
from collections import deque
from typing import Any, Callable, Deque, Dict, List, NamedTuple, Optional

from xscontainer.simulator.xapi.database.datamodel import Model
from xscontainer.simulator.xapi.database.history import History
from xscontainer.simulator.xapi.database.row import Row
from xscontainer.simulator.xapi.database.table import Table
from xscontainer.simulator.xapi.wire.failures import XapiError
from xscontainer.simulator.xapi.wire.values import NULL

# Setting the left field keeps the right set of references up to date, as XAPI's database does.
RELATIONS = {
    ("VM", "resident_on"): ("host", "resident_VMs"),
    ("VM", "snapshot_of"): ("VM", "snapshots"),
    ("VM", "parent"): ("VM", "children"),
    ("VIF", "VM"): ("VM", "VIFs"),
    ("VIF", "network"): ("network", "VIFs"),
    ("VBD", "VM"): ("VM", "VBDs"),
    ("VBD", "VDI"): ("VDI", "VBDs"),
    ("VDI", "SR"): ("SR", "VDIs"),
    ("VDI", "snapshot_of"): ("VDI", "snapshots"),
    ("PBD", "SR"): ("SR", "PBDs"),
    ("PBD", "host"): ("host", "PBDs"),
    ("PIF", "host"): ("host", "PIFs"),
    ("PIF", "network"): ("network", "PIFs"),
    ("console", "VM"): ("VM", "consoles"),
    ("host_cpu", "host"): ("host", "host_CPUs"),
    ("Certificate", "host"): ("host", "certificates"),
    ("task", "subtask_of"): ("task", "subtasks"),
    ("VTPM", "VM"): ("VM", "VTPMs"),
}
# Classes whose changes make no events.
SILENT = frozenset(["session", "secret", "user", "role", "auth", "event", "message"])


class Deleted(NamedTuple):
    """A destroyed record, as events report it."""

    generation: int
    cls: str
    ref: str
    created: int


Watcher = Callable[[str, str], None]


class Database:
    """All tables under one lock; every write that changes something gets the next generation number."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.lock = threading.RLock()
        self.tables = {name: Table(cls) for name, cls in model.classes.items()}
        self.generation = 1000
        self.deleted: Deque[Deleted] = deque(maxlen=20000)
        self.watchers: List[Watcher] = []
        self.history = History()

    # Reading

    def find(self, cls: str, ref: str) -> Row:
        """Return the row of that class and reference; raise HANDLE_INVALID if there is none."""
        row = self.tables[cls].rows.get(ref)
        if row is None:
            raise XapiError("HANDLE_INVALID", cls, ref)
        return row

    def get(self, cls: str, ref: str) -> Optional[Row]:
        """Return the row of that class and reference, None if there is none."""
        return self.tables[cls].rows.get(ref)

    def by_uuid(self, cls: str, identity: str) -> Row:
        """Return the row of that class and uuid; raise UUID_INVALID if there is none."""
        row = self.tables[cls].by_uuid.get(identity)
        if row is None:
            raise XapiError("UUID_INVALID", cls, identity)
        return row

    def rows(self, cls: str) -> List[Row]:
        """Return all rows of a class, oldest first."""
        with self.lock:
            return list(self.tables[cls].rows.values())

    # Writing

    def create(self, cls: str, values: Dict[str, Any], ref: str = "") -> Row:
        """Add a record. Absent fields get their defaults; an absent uuid and reference are generated."""
        table = self.tables[cls]
        full = table.cls.new_values()
        full.update(values)
        if "uuid" in full and not full["uuid"]:
            full["uuid"] = str(uuid.uuid4())
        row = Row(table.cls, ref or "OpaqueRef:" + str(uuid.uuid4()), full)
        with self.lock:
            table.insert(row)
            self.history.add(self.generation, lambda: table.erase(row))
            for field in full:
                if (cls, field) in RELATIONS:
                    self._relate(row, field, NULL, full[field])
            self.written(row, created=True)
        return row

    def set(self, row: Row, field: str, value: Any) -> bool:
        """Set one field; return False, without a new generation, if it has that value already."""
        with self.lock:
            old = row.values[field]
            if old == value and type(old) is type(value):
                if not isinstance(value, dict) or list(old) == list(value):
                    return False
                row.put(field, value)
                return False
            row.put(field, value)
            self.history.add(self.generation, lambda: row.put(field, old))
            if (row.cls.name, field) in RELATIONS:
                self._relate(row, field, old, value)
            self.written(row)
        return True

    def add_to(self, row: Row, field: str, key: str, value: Any) -> None:
        """Add a key to a map; raise MAP_DUPLICATE_KEY if it exists."""
        with self.lock:
            if key in row.values[field]:
                raise XapiError("MAP_DUPLICATE_KEY", row.cls.name, field, row.ref, key)
            new = {key: value}
            new.update(row.values[field])
            self.set(row, field, new)

    def remove_from(self, row: Row, field: str, key: str) -> None:
        """Remove a key from a map, if it exists."""
        with self.lock:
            if key in row.values[field]:
                self.set(row, field, {k: v for k, v in row.values[field].items() if k != key})

    def destroy(self, row: Row) -> None:
        """Remove a record."""
        with self.lock:
            table = self.tables[row.cls.name]
            gone = Deleted(self.generation + 1, row.cls.lower, row.ref, row.created)

            def restore() -> None:
                table.insert(row)
                if gone in self.deleted:
                    self.deleted.remove(gone)

            table.erase(row)
            self.history.add(self.generation, restore)
            self.generation += 1
            self.deleted.append(gone)
            for field, value in row.values.items():
                if (row.cls.name, field) in RELATIONS:
                    self._relate(row, field, value, NULL)
            self.notify(row.cls.lower, row.ref)

    def forget_since(self, moment: float) -> None:
        """Take back the writes after `moment` (time.monotonic()), which a killed xapi has not saved.

        At most the last 2000 writes; references that relations keep count as writes of their own.
        """
        with self.lock:
            generation = self.history.undo_since(moment)
            if generation is not None:
                self.generation = generation
            for table in self.tables.values():
                for row in table.rows.values():
                    row.modified = min(row.modified, self.generation)

    def _relate(self, row: Row, field: str, old: str, new: str) -> None:
        cls, back = RELATIONS[(row.cls.name, field)]
        rows = self.tables[cls].rows
        if old in rows:
            self.set(rows[old], back, [r for r in rows[old].values[back] if r != row.ref])
        if new in rows:
            self.set(rows[new], back, [row.ref] + rows[new].values[back])

    def written(self, row: Row, created: bool = False) -> None:
        """Count a write of ``row`` and tell the watchers; the caller holds the lock."""
        self.generation += 1
        row.modified = self.generation
        if created:
            row.created = self.generation
        self.tables[row.cls.name].recent.move_to_end(row.ref)
        self.notify(row.cls.lower, row.ref)

    def notify(self, cls: str, ref: str) -> None:
        """Tell the watchers that an object (class in lower case, reference) has changed; the caller holds the lock."""
        for watcher in self.watchers:
            watcher(cls, ref)
