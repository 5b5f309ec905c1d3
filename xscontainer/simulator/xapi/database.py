"""The pool's database: tables of rows, numbered writes, what changed since when, who waits for a change."""

import threading
import time
import uuid
from collections import OrderedDict, deque
from typing import Any, Callable, Deque, Dict, Iterator, List, NamedTuple, Optional, Tuple

from .datamodel import Class, Model
from .encode import json_member, xml_member
from .failures import XapiError
from .values import NULL

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
# What forget_since() can take back; old values are kept for it, so this bounds memory.
_UNDO_WRITES = 2000


class Row:
    """One record; `values` is read only outside this module and its sets and maps are never changed in place.

    What it looks like encoded is kept, unless a field was set while it was being encoded.
    """

    __slots__ = ("cls", "ref", "values", "created", "modified", "_edition", "_pieces", "_xml", "_json")
    _keeping = threading.Lock()  # of all rows, for that little is done under it

    def __init__(self, cls: Class, ref: str, values: Dict[str, Any]) -> None:
        self.cls = cls
        self.ref = ref
        self.values = values
        self.created = 0
        self.modified = 0
        self._edition = 0
        self._pieces: Optional[Dict[str, str]] = None
        self._xml: Optional[str] = None
        self._json: Optional[str] = None

    def __getitem__(self, field: str) -> Any:
        return self.values[field]

    def put(self, field: str, value: Any) -> None:
        """Set a field and drop what was encoded of it; the database calls this under its lock."""
        piece = xml_member(field, value) if self._pieces is not None else ""
        with self._keeping:
            self.values[field] = value
            self._edition += 1
            self._xml = self._json = None
            if self._pieces is not None and piece:
                self._pieces[field] = piece
            else:
                self._pieces = None

    def xml(self) -> str:
        """The record as an XML-RPC value."""
        with self._keeping:
            text, pieces, edition = self._xml, self._pieces, self._edition
        if text is None:
            if pieces is None:
                pieces = {k: xml_member(k, v) for k, v in self.values.items()}
            text = "<value><struct>" + "".join(pieces.values()) + "</struct></value>"
            with self._keeping:
                if edition == self._edition:
                    self._xml, self._pieces = text, pieces
        return text

    def json(self) -> str:
        """The record as a JSON object."""
        with self._keeping:
            text, edition = self._json, self._edition
        if text is None:
            text = "{" + ",".join([json_member(k, v) for k, v in self.values.items()]) + "}"
            with self._keeping:
                if edition == self._edition:
                    self._json = text
        return text


class Deleted(NamedTuple):
    """What the database remembers of a destroyed record."""

    generation: int
    cls: str
    ref: str
    created: int


class Table:
    """The rows of one class, by reference and by uuid, the most recently changed last."""

    def __init__(self, cls: Class) -> None:
        self.cls = cls
        self.rows: "OrderedDict[str, Row]" = OrderedDict()
        self.by_uuid: Dict[str, Row] = {}
        self.recent: "OrderedDict[str, Row]" = OrderedDict()


Watcher = Callable[[str, str], None]


class Database:
    """All tables under one lock; every write that changes something gets the next generation number."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.lock = threading.RLock()
        self.tables = {name: Table(cls) for name, cls in model.classes.items()}
        self.generation = 1000
        self.message_generation = 0
        self.deleted: Deque[Deleted] = deque(maxlen=20000)
        self.watchers: List[Watcher] = []
        self._undo: Deque[Tuple[float, int, Callable[[], None]]] = deque(maxlen=_UNDO_WRITES)

    # Reading

    def find(self, cls: str, ref: str) -> Row:
        """The row of that class and reference; HANDLE_INVALID if there is none."""
        row = self.tables[cls].rows.get(ref)
        if row is None:
            raise XapiError("HANDLE_INVALID", cls, ref)
        return row

    def get(self, cls: str, ref: str) -> Optional[Row]:
        """The row of that class and reference, None if there is none."""
        return self.tables[cls].rows.get(ref)

    def by_uuid(self, cls: str, identity: str) -> Row:
        """The row of that class and uuid; UUID_INVALID if there is none."""
        row = self.tables[cls].by_uuid.get(identity)
        if row is None:
            raise XapiError("UUID_INVALID", cls, identity)
        return row

    def rows(self, cls: str) -> List[Row]:
        """All rows of a class, oldest first."""
        with self.lock:
            return list(self.tables[cls].rows.values())

    def changed(self, table: Table, since: int) -> Iterator[Row]:
        """Rows of `table` written after generation `since`, the latest first."""
        for row in reversed(table.recent.values()):
            if row.modified <= since:
                return
            yield row

    # Writing

    def create(self, cls: str, values: Dict[str, Any], ref: str = "") -> Row:
        """Add a record; fields not in `values` get their defaults, uuid and reference are made up if absent."""
        table = self.tables[cls]
        full = table.cls.new_values()
        full.update(values)
        if "uuid" in full and not full["uuid"]:
            full["uuid"] = str(uuid.uuid4())
        row = Row(table.cls, ref or "OpaqueRef:" + str(uuid.uuid4()), full)
        with self.lock:
            self._insert(table, row)
            self._undo_with(lambda: self._erase(row))
            for field in full:
                if (cls, field) in RELATIONS:
                    self._relate(row, field, NULL, full[field])
            self._written(row, created=True)
        return row

    def set(self, row: Row, field: str, value: Any) -> bool:
        """Set one field; False, and no new generation, when it has that value already."""
        with self.lock:
            old = row.values[field]
            if old == value and type(old) is type(value):
                if not isinstance(value, dict) or list(old) == list(value):
                    return False
                row.put(field, value)
                return False
            row.put(field, value)
            self._undo_with(lambda: row.put(field, old))
            if (row.cls.name, field) in RELATIONS:
                self._relate(row, field, old, value)
            self._written(row)
        return True

    def add_to(self, row: Row, field: str, key: str, value: Any) -> None:
        """Add a key to a map; MAP_DUPLICATE_KEY if it is there."""
        with self.lock:
            if key in row.values[field]:
                raise XapiError("MAP_DUPLICATE_KEY", row.cls.name, field, row.ref, key)
            new = {key: value}
            new.update(row.values[field])
            self.set(row, field, new)

    def remove_from(self, row: Row, field: str, key: str) -> None:
        """Remove a key from a map; nothing happens if it is not there."""
        with self.lock:
            if key in row.values[field]:
                self.set(row, field, {k: v for k, v in row.values[field].items() if k != key})

    def destroy(self, row: Row) -> None:
        """Remove a record."""
        with self.lock:
            table = self.tables[row.cls.name]
            gone = Deleted(self.generation + 1, row.cls.lower, row.ref, row.created)

            def restore() -> None:
                self._insert(table, row)
                if gone in self.deleted:
                    self.deleted.remove(gone)

            self._erase(row)
            self._undo_with(restore)
            self.generation += 1
            self.deleted.append(gone)
            for field, value in row.values.items():
                if (row.cls.name, field) in RELATIONS:
                    self._relate(row, field, value, NULL)
            self._notify(row.cls.lower, row.ref)

    def touch(self, row: Row) -> int:
        """Count a write that changes nothing; returns the generation before it."""
        with self.lock:
            before = self.generation
            self._written(row)
            return before

    def forget_since(self, moment: float) -> None:
        """Take back the writes after time.monotonic() `moment`, generation included: what a killed xapi forgets.

        At most the last 2000 writes; references that relations keep count as writes of their own.
        """
        with self.lock:
            while self._undo and self._undo[-1][0] > moment:
                _when, generation, undo = self._undo.pop()
                undo()
                self.generation = generation
            for table in self.tables.values():
                for row in table.rows.values():
                    row.modified = min(row.modified, self.generation)

    def renew_references(self) -> Dict[str, str]:
        """Give every record a new reference, as after a pool join; returns old -> new."""
        with self.lock:
            renewed = {ref: "OpaqueRef:" + str(uuid.uuid4()) for t in self.tables.values() for ref in t.rows}
            for table in self.tables.values():
                rows = list(table.rows.values())
                table.rows.clear()
                table.recent.clear()
                for row in rows:
                    row.ref = renewed[row.ref]
                    for field, value in row.values.items():
                        row.put(field, _renew(value, renewed))
                    table.rows[row.ref] = table.recent[row.ref] = row
                    self.generation += 1
                    row.created = row.modified = self.generation
            self.deleted.clear()
            self._undo.clear()
        return renewed

    def _insert(self, table: Table, row: Row) -> None:
        table.rows[row.ref] = row
        table.recent[row.ref] = row
        if "uuid" in row.values:
            table.by_uuid[row.values["uuid"]] = row

    def _erase(self, row: Row) -> None:
        table = self.tables[row.cls.name]
        table.rows.pop(row.ref, None)
        table.recent.pop(row.ref, None)
        table.by_uuid.pop(row.values.get("uuid", ""), None)

    def _relate(self, row: Row, field: str, old: str, new: str) -> None:
        cls, back = RELATIONS[(row.cls.name, field)]
        rows = self.tables[cls].rows
        if old in rows:
            self.set(rows[old], back, [r for r in rows[old].values[back] if r != row.ref])
        if new in rows:
            self.set(rows[new], back, [row.ref] + rows[new].values[back])

    def _undo_with(self, undo: Callable[[], None]) -> None:
        self._undo.append((time.monotonic(), self.generation, undo))

    def _written(self, row: Row, created: bool = False) -> None:
        self.generation += 1
        row.modified = self.generation
        if created:
            row.created = self.generation
        self.tables[row.cls.name].recent.move_to_end(row.ref)
        self._notify(row.cls.lower, row.ref)

    def _notify(self, cls: str, ref: str) -> None:
        for watcher in self.watchers:
            watcher(cls, ref)


def _renew(value: Any, renewed: Dict[str, str]) -> Any:
    if isinstance(value, list):
        return [renewed.get(v, v) if isinstance(v, str) else v for v in value]
    if isinstance(value, dict):
        return {renewed.get(k, k) if isinstance(k, str) else k: v for k, v in value.items()}
    return renewed.get(value, value) if type(value) is str else value
