"""The records of one class."""

from collections import OrderedDict
from typing import Dict, Iterator

from xscontainer.simulator.xapi.database.datamodel import Class
from xscontainer.simulator.xapi.database.row import Row


class Table:
    """The rows of one class, by reference and by uuid, the most recently changed last."""

    def __init__(self, cls: Class) -> None:
        self.cls = cls
        self.rows: "OrderedDict[str, Row]" = OrderedDict()
        self.by_uuid: Dict[str, Row] = {}
        self.recent: "OrderedDict[str, Row]" = OrderedDict()

    def insert(self, row: Row) -> None:
        """Add a row."""
        self.rows[row.ref] = row
        self.recent[row.ref] = row
        if "uuid" in row.values:
            self.by_uuid[row.values["uuid"]] = row

    def erase(self, row: Row) -> None:
        """Remove a row."""
        self.rows.pop(row.ref, None)
        self.recent.pop(row.ref, None)
        self.by_uuid.pop(row.values.get("uuid", ""), None)

    def changed(self, since: int) -> Iterator[Row]:
        """Yield the rows written after generation ``since``, the latest first."""
        for row in reversed(self.recent.values()):
            if row.modified <= since:
                return
            yield row
