"""A disk's raw content over HTTP: PUT /import_raw_vdi and GET /export_raw_vdi, on every host's socket and port.

As in xapi the answer 200 is sent before the content, so only the task shows the result.
"""

import base64
import binascii
from typing import IO, Callable, NamedTuple, Optional
from urllib.parse import urlencode

from xscontainer.simulator.xapi.database.row import Row
from xscontainer.simulator.xapi.objects import tasks, vdis
from xscontainer.simulator.xapi.state.host_data import HostData
from xscontainer.simulator.xapi.state.pool_data import PoolData
from xscontainer.simulator.xapi.state.session_store import Session
from xscontainer.simulator.xapi.wire.exchange import Exchange
from xscontainer.simulator.xapi.wire.failures import Dropped, HttpError, XapiError, internal

_CHUNK = 262144
IMPORT, EXPORT = "PUT /import_raw_vdi", "GET /export_raw_vdi"
# The permission that a session needs, by request.
PERMISSIONS = {IMPORT: "http/put_import_raw_vdi", EXPORT: "http/get_export_raw_vdi"}


class _Fault(NamedTuple):
    """A fault that strikes a transfer after the 200: the answer is lost, or the task fails."""

    lose: bool
    failure: Optional[XapiError]


def serve(pool: PoolData, host: HostData, exchange: Exchange) -> None:
    """Serve one transfer that came in at `host`.

    :raises HttpError: it fails before the answer has begun.
    """
    session = _authorised(pool, exchange)
    originator = session.originator if session else ""
    pool.stats.count(exchange.name, originator, exchange.length or 0)
    if not pool.coordinator.up:
        raise HttpError(500, "Server_error(HOST_OFFLINE, [ {} ])".format(pool.coordinator.ref))
    task = _task(pool, exchange)
    try:
        _transfer(pool, host, exchange, task)
    except XapiError as failed:
        _end(pool, host, task, failed)
        if not exchange.begun:
            raise HttpError(500, _shown(failed)) from failed
    except HttpError as refused:
        _end(pool, host, task, internal(refused.text or str(refused.status)))
        raise
    except OSError:
        _end(pool, host, task, XapiError("VDI_IO_ERROR", "Device I/O errors"))
        raise


def _transfer(pool: PoolData, host: HostData, exchange: Exchange, task: Optional[Row]) -> None:
    vdi = _vdi(pool, exchange)
    if exchange.name == IMPORT:
        if "transfer-encoding" in exchange.headers:
            raise HttpError(403)
        if exchange.length is None:
            raise HttpError(500, 'Failure("We require a content-length: HTTP header")')
    if exchange.query.get("format", "raw") != "raw":
        raise HttpError(500, 'Failure("Unknown format {}")'.format(exchange.query["format"]))
    target = _reached_from(pool, host, vdi)
    if target is not host:
        query = urlencode(exchange.query)
        exchange.begin(302, {"location": "{}{}?{}".format(pool.transfer_url(target), exchange.path, query)})
        return  # the task goes on at the other host
    fault = _fault(pool, exchange.name)
    mode, flags, work = ("RW", "r+b", _receive) if exchange.name == IMPORT else ("RO", "rb", _send)
    if mode == "RW" and vdi["read_only"]:
        raise XapiError("VDI_READONLY", vdi.ref)
    identity = vdi["uuid"]
    vdis.begin_transfer(pool, identity, mode)
    try:
        headers = {"content-type": "application/octet-stream"}
        if task is not None:
            headers["task-id"] = task.ref
        exchange.begin(200, headers)
        with open(vdis.path_of(pool, vdi), flags) as stream:
            work(exchange, stream, vdi["virtual_size"], _reporter(pool, task))
        pool.workers.pause(pool.transfer_delay)
        if fault.failure is not None:
            raise fault.failure
    finally:
        vdis.end_transfer(pool, identity, mode)
    _end(pool, host, task, None)
    if fault.lose:
        raise Dropped()


def _receive(exchange: Exchange, stream: IO[bytes], size: int, report: Callable[[float], None]) -> None:
    left = total = exchange.length or 0
    while left:
        data = exchange.read(min(_CHUNK, left))
        # The disk is full, or the client has closed.
        if not data or total - left + len(data) > size:
            raise XapiError("VDI_IO_ERROR", "Device I/O errors")
        stream.write(data)
        left -= len(data)
        report(1.0 - left / total)


def _send(exchange: Exchange, stream: IO[bytes], size: int, report: Callable[[float], None]) -> None:
    sent = 0
    while sent < size:
        data = stream.read(min(_CHUNK, size - sent))
        exchange.write(data)
        sent += len(data)
        report(sent / size)


def _reporter(pool: PoolData, task: Optional[Row]) -> Callable[[float], None]:
    """Return a function that writes a task's progress, a tenth at a time."""
    shown = [0]

    def report(done: float) -> None:
        tenth = int(done * 10)
        if task is not None and shown[0] < tenth < 10:
            shown[0] = tenth
            pool.db.set(task, "progress", tenth / 10)

    return report


def _reached_from(pool: PoolData, host: HostData, vdi: Row) -> HostData:
    """Return this host if the disk's SR is attached here, else another host where it is."""
    sr = pool.db.find("SR", vdi["SR"])
    hosts = vdis.attached_to(pool, sr)
    if host.ref in hosts:
        return host
    other = next((h for h in pool.hosts if h.ref in hosts and h.up), None)
    if other is None:
        raise XapiError("SR_HAS_NO_PBDS", sr.ref)
    return other


def _authorised(pool: PoolData, exchange: Exchange) -> Optional[Session]:
    """Return the session that the request names; None on the local socket, which needs no session."""
    ref = exchange.named("session_id")
    if not ref:
        if exchange.local or _knows_root(pool, exchange.headers.get("authorization", "")):
            return None
        raise HttpError(403)
    try:
        session = pool.sessions.find(ref)
    except XapiError as failed:
        raise HttpError(500, _shown(failed)) from failed
    if session.role is not None and session.role not in pool.model.roles[PERMISSIONS[exchange.name]]:
        raise HttpError(403)
    return session


def _knows_root(pool: PoolData, authorization: str) -> bool:
    kind, _space, word = authorization.partition(" ")
    try:
        name, _colon, password = base64.b64decode(word.encode(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeError):
        return False
    user = pool.sessions.users.get(name)
    return kind.lower() == "basic" and user is not None and user.role is None and user.password == password


def _task(pool: PoolData, exchange: Exchange) -> Optional[Row]:
    ref = exchange.named("task_id")
    if not ref:
        return None
    try:
        return pool.db.find("task", ref)
    except XapiError as failed:
        raise HttpError(500, _shown(failed)) from failed


def _vdi(pool: PoolData, exchange: Exchange) -> Row:
    """Return the disk, by uuid or by reference."""
    name = exchange.query.get("vdi", "")
    if not name:
        raise HttpError(500, 'Failure("Missing vdi query parameter")')
    return pool.db.get("VDI", name) or pool.db.by_uuid("VDI", name)


def _fault(pool: PoolData, name: str) -> _Fault:
    """Return the fault of a transfer; a "fail" strikes after the content was received."""
    try:
        return _Fault(pool.faults.apply(name), None)
    except XapiError as failed:
        return _Fault(False, failed)


def _end(pool: PoolData, host: HostData, task: Optional[Row], failed: Optional[XapiError]) -> None:
    """Finish the task, unless xapi itself has ended."""
    if task is not None and host.up:
        tasks.end(pool, task, "", failed.description if failed else None)


def _shown(failed: XapiError) -> str:
    return "Server_error({}, [ {} ])".format(failed.description[0], "; ".join(failed.description[1:]))
