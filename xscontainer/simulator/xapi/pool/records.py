"""Reading and writing the pool's objects without the API, as XAPI itself does."""

from typing import Any, Dict

from xscontainer.simulator.xapi.state.pool_data import PoolData
from xscontainer.simulator.xapi.wire.values import Time


class Records(PoolData):
    """The methods that read and write any object of the database."""

    def vm(self, ref: str) -> Dict[str, Any]:
        """Return a copy of a VM's record."""
        return self.record("VM", ref)

    def record(self, cls: str, ref: str) -> Dict[str, Any]:
        """Return a copy of a record; integers are int, dates text."""
        with self.db.lock:
            return dict(self.db.find(cls, ref).values)

    def records(self, cls: str) -> Dict[str, Dict[str, Any]]:
        """Return reference -> record of every object of a class."""
        with self.db.lock:
            return {row.ref: dict(row.values) for row in self.db.rows(cls)}

    def other_config(self, ref: str, cls: str = "VM") -> Dict[str, str]:
        """Return a copy of an object's other_config."""
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
        """Return the reference of the object with that uuid."""
        return self.db.by_uuid(cls, identity).ref
