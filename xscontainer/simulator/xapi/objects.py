"""Reading and writing the pool's objects from beside the API, as XAPI itself would."""

from typing import Any, Dict

from .database import Database
from .datamodel import Model
from .values import Time


class Objects:
    """What a pool offers to look at and change its database; `db` and `model` are set by the pool."""

    db: Database
    model: Model

    def vm(self, ref: str) -> Dict[str, Any]:
        """A VM's record."""
        return self.record("VM", ref)

    def record(self, cls: str, ref: str) -> Dict[str, Any]:
        """A copy of a record (integers are int, dates text)."""
        with self.db.lock:
            return dict(self.db.find(cls, ref).values)

    def records(self, cls: str) -> Dict[str, Dict[str, Any]]:
        """Reference -> record of every object of a class."""
        with self.db.lock:
            return {row.ref: dict(row.values) for row in self.db.rows(cls)}

    def other_config(self, ref: str, cls: str = "VM") -> Dict[str, str]:
        """A copy of an object's other_config."""
        return dict(self.record(cls, ref)["other_config"])

    def set_key(self, ref: str, key: str, value: str, cls: str = "VM", field: str = "other_config") -> None:
        """Set one key of a map field in one write."""
        with self.db.lock:
            row = self.db.find(cls, ref)
            new = {k: v for k, v in row[field].items() if k != key}
            self.db.set(row, field, dict({key: value}, **new))

    def remove_key(self, ref: str, key: str, cls: str = "VM", field: str = "other_config") -> None:
        """Remove one key of a map field."""
        self.db.remove_from(self.db.find(cls, ref), field, key)

    def set_field(self, cls: str, ref: str, field: str, value: Any) -> None:
        """Write any field, as XAPI itself would."""
        self.db.set(
            self.db.find(cls, ref),
            field,
            Time(value) if self.model.classes[cls].fields[field].kind == "datetime" else value,
        )

    def uuid_to_ref(self, identity: str, cls: str = "VM") -> str:
        """The reference of the object with that uuid."""
        return self.db.by_uuid(cls, identity).ref
