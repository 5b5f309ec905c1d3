"""New references for every record: what a pool join does to a database."""

import uuid
from typing import Any, Dict

from xscontainer.simulator.xapi.database.database import Database


def renew_references(database: Database) -> Dict[str, str]:
    """Give every record a new reference; return old -> new. Uuids stay."""
    with database.lock:
        renewed = {ref: "OpaqueRef:" + str(uuid.uuid4()) for t in database.tables.values() for ref in t.rows}
        for table in database.tables.values():
            rows = list(table.rows.values())
            table.rows.clear()
            table.recent.clear()
            for row in rows:
                row.ref = renewed[row.ref]
                for field, value in row.values.items():
                    row.put(field, _renew(value, renewed))
                table.rows[row.ref] = table.recent[row.ref] = row
                database.generation += 1
                row.created = row.modified = database.generation
        database.deleted.clear()
        database.history.clear()
    return renewed


def _renew(value: Any, renewed: Dict[str, str]) -> Any:
    if isinstance(value, list):
        return [renewed.get(v, v) if isinstance(v, str) else v for v in value]
    if isinstance(value, dict):
        return {renewed.get(k, k) if isinstance(k, str) else k: v for k, v in value.items()}
    return renewed.get(value, value) if type(value) is str else value
