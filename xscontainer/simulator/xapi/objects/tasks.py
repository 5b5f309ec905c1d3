"""Tasks of clients and of Async calls, the rights to change them, and the threads of Async calls."""

import uuid
from typing import Any, Callable, List, Optional

from xscontainer.simulator.xapi.database.clock import now
from xscontainer.simulator.xapi.database.roles import denied
from xscontainer.simulator.xapi.database.row import Row
from xscontainer.simulator.xapi.state.call import Call
from xscontainer.simulator.xapi.state.pool_data import PoolData
from xscontainer.simulator.xapi.wire.encode import xml
from xscontainer.simulator.xapi.wire.failures import Dropped, XapiError
from xscontainer.simulator.xapi.wire.values import NULL, check_storable

_ANY = "task.destroy/any"


def _new(call: Call, label: str, description: str) -> Row:
    pool = call.pool
    with pool.db.lock:
        row = pool.db.create(
            "task",
            {
                "name_label": label,
                "name_description": description,
                "created": now(),
                "status": "pending",
                "resident_on": call.host.ref,
                "progress": 0.0,
                "type": "<none/>",
                "subtask_of": NULL,
                "backtrace": "()",
            },
        )
        pool.task_owners[row.ref] = call.session.row["subject"] if call.session.role else ""
        pool.db.set(call.session.row, "tasks", call.session.row["tasks"] + [row.ref])
    return row


def run_async(call: Call, label: str, work: Callable[[], Any]) -> str:
    """Start an Async call in a thread of the pool; return its task's reference."""
    row = _new(call, label, "")
    call.task = row.ref
    call.pool.workers.start(lambda: _finish(call, row, work))
    return row.ref


def _finish(call: Call, row: Row, work: Callable[[], Any]) -> None:
    error: Optional[List[str]]
    try:
        value = work()
        check_storable(value)
        result, error = xml(value), None
    except XapiError as failed:
        result, error = "", failed.description
    except Dropped:
        return
    end(call.pool, row, result if result != "<value></value>" else "", error)


def end(pool: PoolData, row: Row, result: str, error: Optional[List[str]]) -> None:
    """Finish a task, if it still exists, with a result or an ErrorDescription."""
    database = pool.db
    with database.lock:
        if database.get("task", row.ref) is not row:
            return
        for field, new in (
            ("result", result),
            ("error_info", error or []),
            ("progress", 1.0),
            ("finished", now()),
            ("allowed_operations", []),
            ("status", "failure" if error else "success"),
        ):
            database.set(row, field, new)


def _check_owner(call: Call, ref: str) -> None:
    """Raise RBAC_PERMISSION_DENIED if the task is another client's and the role does not permit that."""
    role = call.session.role
    if role is None or role in call.pool.model.roles[_ANY]:
        return
    if call.pool.task_owners.get(ref) != call.session.row["subject"] or call.pool.db.get("task", ref) is None:
        raise denied(call.pool.model, _ANY)


def create(call: Call, label: str, description: str) -> str:
    """task.create."""
    return _new(call, label, description).ref


def destroy(call: Call, ref: str) -> str:
    """task.destroy: a pending task is only marked (and cannot be marked twice)."""
    _check_owner(call, ref)
    database = call.pool.db
    row = database.find("task", ref)
    with database.lock:
        if row["status"] in ("pending", "cancelling"):
            database.add_to(row, "current_operations", "task", "destroy")
        else:
            database.destroy(row)
            call.pool.task_owners.pop(ref, None)
    return ""


def cancel(call: Call, ref: str) -> str:
    """task.cancel: only note the request."""
    _check_owner(call, ref)
    row = call.pool.db.find("task", ref)
    call.pool.db.add_to(row, "current_operations", "DummyRef:|{}|task.cancel".format(uuid.uuid4()), "cancel")
    return ""


def _set(field: str) -> Callable[..., str]:
    def run(call: Call, ref: str, value: Any) -> str:
        _check_owner(call, ref)
        check_storable(value)
        call.pool.db.set(call.pool.db.find("task", ref), field, value)
        return ""

    return run


HANDLERS = {"task.create": create, "task.destroy": destroy, "task.cancel": cancel}
for _field in ("progress", "status", "result", "error_info", "resident_on"):
    HANDLERS["task.set_" + _field] = _set(_field)
