"""Methods that follow from the data model: getters, setters, maps and sets, records, create and destroy."""

import uuid
from typing import Any, Callable, Dict, List

from xscontainer.simulator.xapi.database.datamodel import Class, Method, Model
from xscontainer.simulator.xapi.database.query import compile_query
from xscontainer.simulator.xapi.state.call import Call
from xscontainer.simulator.xapi.wire.failures import XapiError, internal
from xscontainer.simulator.xapi.wire.values import check_storable, clean, clean_all

Handler = Callable[..., Any]


def not_implemented(name: str) -> Handler:
    """Return the handler of a method that the simulator does not have."""

    def refuse(_call: Call, *_params: Any) -> Any:
        raise XapiError("NOT_IMPLEMENTED", name)

    return refuse


def handler(model: Model, method: Method) -> Handler:
    """Return the handler of a method that no module serves by name."""
    cls = model.classes[method.cls]
    verb = method.verb
    whole = _WHOLE.get(verb)
    if whole is not None:
        return whole(cls)
    for prefix, make in _PER_FIELD:
        if verb.startswith(prefix) and verb[len(prefix) :] in cls.fields:
            return make(cls, verb[len(prefix) :])
    return not_implemented(method.name)


def get_field(cls: Class, field: str) -> Handler:
    """X.get_F."""
    name = cls.name
    return lambda call, ref: call.pool.db.find(name, ref).values[field]


def set_field(cls: Class, field: str) -> Handler:
    """X.set_F."""

    def run(call: Call, ref: str, value: Any) -> str:
        row = call.pool.db.find(cls.name, ref)
        check_storable(value)
        call.pool.db.set(row, field, value)
        return ""

    return run


def add_to_map(cls: Class, field: str) -> Handler:
    """X.add_to_F: key and value are cut at the first character that XML forbids."""

    def run(call: Call, ref: str, key: str, value: str) -> str:
        row = call.pool.db.find(cls.name, ref)
        key = clean(key)
        if not key:
            raise internal("Db_exn.Empty_key_in_map")
        call.pool.db.add_to(row, field, key, clean(value))
        return ""

    return run


def remove_from_map(cls: Class, field: str) -> Handler:
    """X.remove_from_F."""

    def run(call: Call, ref: str, key: str) -> str:
        call.pool.db.remove_from(call.pool.db.find(cls.name, ref), field, key)
        return ""

    return run


def add_item(cls: Class, field: str) -> Handler:
    """X.add_F of a set of strings (tags)."""

    def run(call: Call, ref: str, value: str) -> str:
        with call.pool.db.lock:
            row = call.pool.db.find(cls.name, ref)
            if value not in row.values[field]:
                call.pool.db.set(row, field, row.values[field] + [clean(value)])
        return ""

    return run


def remove_item(cls: Class, field: str) -> Handler:
    """X.remove_F of a set of strings."""

    def run(call: Call, ref: str, value: str) -> str:
        with call.pool.db.lock:
            row = call.pool.db.find(cls.name, ref)
            call.pool.db.set(row, field, [v for v in row.values[field] if v != value])
        return ""

    return run


def _get_all(cls: Class) -> Handler:
    return lambda call: [row.ref for row in call.pool.db.rows(cls.name)]


def _get_all_records(cls: Class) -> Handler:
    return lambda call: {row.ref: row for row in call.pool.db.rows(cls.name)}


def _where(cls: Class) -> Handler:
    def run(call: Call, text: str) -> Dict[str, Any]:
        test = compile_query(text, list(cls.fields))
        return {row.ref: row for row in call.pool.db.rows(cls.name) if test(row.values)}

    return run


def _refs_where(cls: Class) -> Handler:
    records = _where(cls)
    return lambda call, text: list(records(call, text))


def _get_record(cls: Class) -> Handler:
    return lambda call, ref: call.pool.db.find(cls.name, ref)


def _get_by_uuid(cls: Class) -> Handler:
    return lambda call, identity: call.pool.db.by_uuid(cls.name, identity).ref


def _get_by_name_label(cls: Class) -> Handler:
    return lambda call, label: [r.ref for r in call.pool.db.rows(cls.name) if r.values["name_label"] == label]


def record_values(cls: Class, given: Dict[str, Any]) -> Dict[str, Any]:
    """Return the checked fields of a record argument, without unknown and read-only fields."""
    values: Dict[str, Any] = {}
    for field in cls.fields.values():
        if field.name == "uuid" or not field.given:
            continue
        if field.name in given:
            values[field.name] = clean_all(cls.checkers[field.name](given[field.name]))
        elif field.default is None:
            raise internal('Server_helpers.Dispatcher_FieldNotFound("{}")'.format(field.name))
    return values


def _create(cls: Class) -> Handler:
    def run(call: Call, given: Dict[str, Any]) -> str:
        values = record_values(cls, given)
        values["uuid"] = str(uuid.uuid4())
        return call.pool.db.create(cls.name, values).ref

    return run


def _destroy(cls: Class) -> Handler:
    def run(call: Call, ref: str) -> str:
        with call.pool.db.lock:
            call.pool.db.destroy(call.pool.db.find(cls.name, ref))
        return ""

    return run


_WHOLE: Dict[str, Callable[[Class], Handler]] = {
    "get_all": _get_all,
    "get_all_records": _get_all_records,
    "get_all_records_where": _where,
    "get_all_where": _refs_where,
    "get_record": _get_record,
    "get_by_uuid": _get_by_uuid,
    "get_by_name_label": _get_by_name_label,
    "create": _create,
    "destroy": _destroy,
}
_PER_FIELD: List[Any] = [
    ("get_", get_field),
    ("set_", set_field),
    ("add_to_", add_to_map),
    ("remove_from_", remove_from_map),
    ("add_", add_item),
    ("remove_", remove_item),
]
