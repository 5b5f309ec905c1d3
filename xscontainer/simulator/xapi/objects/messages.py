"""The methods of messages (alerts)."""

from typing import Any, Dict, List

from xscontainer.simulator.xapi.database.query import compile_query
from xscontainer.simulator.xapi.state.call import Call
from xscontainer.simulator.xapi.wire.failures import XapiError

_FIELDS = ["uuid", "name", "priority", "cls", "obj_uuid", "timestamp", "body"]
Record = Dict[str, Any]


def create(call: Call, name: str, priority: int, cls: str, obj_uuid: str, body: str) -> str:
    """message.create: the object must exist."""
    table = call.pool.db.tables[call.pool.model.by_lower[cls.lower()].name]
    if obj_uuid not in table.by_uuid:
        raise XapiError("UUID_INVALID", cls, obj_uuid)
    return call.pool.messages.add(name, priority, cls, obj_uuid, body)


def destroy(call: Call, ref: str) -> str:
    """message.destroy."""
    call.pool.messages.destroy(ref)
    return ""


def destroy_many(call: Call, refs: List[str]) -> str:
    """message.destroy_many: destroy one after the other, up to the first that does not exist."""
    for ref in refs:
        call.pool.messages.destroy(ref)
    return ""


def get(call: Call, cls: str, obj_uuid: str, since: str) -> Record:
    """message.get: of one object, since a moment."""
    return {
        ref: r
        for ref, r in call.pool.messages.items()
        if r["cls"] == cls and r["obj_uuid"] == obj_uuid and r["timestamp"] >= since
    }


def get_since(call: Call, since: str) -> Record:
    """message.get_since."""
    return {ref: r for ref, r in call.pool.messages.items() if r["timestamp"] >= since}


def get_all(call: Call) -> List[str]:
    """message.get_all."""
    return [ref for ref, _r in call.pool.messages.items()]


def get_all_records(call: Call) -> Record:
    """message.get_all_records."""
    return dict(call.pool.messages.items())


def get_all_records_where(call: Call, text: str) -> Record:
    """message.get_all_records_where."""
    test = compile_query(text, _FIELDS)
    return {ref: r for ref, r in call.pool.messages.items() if test(r)}


def get_by_uuid(call: Call, identity: str) -> str:
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
