"""Disks (VDIs): their records, and their content as sparse files in the pool's directory."""

import os
import uuid
from typing import Any, Dict, List

from xscontainer.simulator.xapi.database.clock import now
from xscontainer.simulator.xapi.database.row import Row
from xscontainer.simulator.xapi.objects.generic import record_values
from xscontainer.simulator.xapi.state.call import Call
from xscontainer.simulator.xapi.state.pool_data import PoolData
from xscontainer.simulator.xapi.wire.failures import XapiError
from xscontainer.simulator.xapi.wire.values import NULL

MIB = 1048576
# Block size to which a disk's size is rounded up, by kind of SR. VHD has blocks of 2 MiB.
_ROUND = {"iso": 1, "udev": 1}
_IDLE = ["generate_config", "forget", "destroy", "snapshot", "copy", "clone", "resize"]
_BUSY = ["snapshot", "copy", "clone"]
_CHUNK = 1048576


def path_of(pool: PoolData, vdi: Row) -> str:
    """Return the file with a VDI's raw content. Uuids name it, since a pool join does not change them."""
    return os.path.join(sr_directory(pool, pool.db.find("SR", vdi["SR"])), os.path.basename(_file_name(vdi)))


def sr_directory(pool: PoolData, sr: Row) -> str:
    """Return the directory of an SR's content."""
    return os.path.join(pool.directory, "storage", sr["uuid"])


def _file_name(vdi: Row) -> str:
    location = str(vdi["location"])
    return location if location.endswith(".iso") else location + ".raw"


def attached_to(pool: PoolData, sr: Row) -> List[str]:
    """Return the references of the hosts on which an SR is attached."""
    pbds = [pool.db.find("PBD", ref) for ref in sr["PBDs"]]
    return [pbd["host"] for pbd in pbds if pbd["currently_attached"]]


def check_attached(pool: PoolData, sr: Row) -> None:
    """Raise SR_HAS_NO_PBDS unless some host has the SR attached."""
    if not attached_to(pool, sr):
        raise XapiError("SR_HAS_NO_PBDS", sr.ref)


def attached_vbds(pool: PoolData, vdi: Row) -> List[Row]:
    """Return the VBDs that attach a VDI to running VMs."""
    rows = [pool.db.find("VBD", ref) for ref in vdi["VBDs"]]
    return [row for row in rows if row["currently_attached"]]


def check_free(pool: PoolData, vdi: Row, operation: str, reading: bool = False) -> None:
    """Raise VDI_IN_USE while a VM or a transfer uses the VDI; readers do not exclude each other."""
    held = [row for row in attached_vbds(pool, vdi) if not (reading and row["mode"] == "RO")]
    busy = [mode for mode in pool.transfers.get(vdi["uuid"], []) if not (reading and mode == "RO")]
    if held or busy:
        raise XapiError("VDI_IN_USE", vdi.ref, operation)


def begin_transfer(pool: PoolData, identity: str, mode: str) -> None:
    """Mark a VDI (uuid) as read ("RO") or written ("RW"); VDI_IN_USE if that cannot be."""
    with pool.db.lock:
        vdi = pool.db.by_uuid("VDI", identity)
        check_free(pool, vdi, "attach", reading=mode == "RO")
        pool.transfers[identity] = pool.transfers.get(identity, []) + [mode]
        refresh(pool, vdi)


def end_transfer(pool: PoolData, identity: str, mode: str) -> None:
    """Undo begin_transfer()."""
    with pool.db.lock:
        remaining = list(pool.transfers.pop(identity))
        remaining.remove(mode)
        if remaining:
            pool.transfers[identity] = remaining
        vdi = pool.db.tables["VDI"].by_uuid.get(identity)
        if vdi is not None:
            refresh(pool, vdi)


def refresh(pool: PoolData, vdi: Row) -> None:
    """Update the fields that depend on use and content: allowed_operations, utilisation, the SR's sums."""
    database = pool.db
    with database.lock:
        busy = bool(attached_vbds(pool, vdi) or pool.transfers.get(vdi["uuid"]))
        database.set(vdi, "allowed_operations", list(_BUSY if busy else _IDLE))
        path = path_of(pool, vdi)
        if os.path.exists(path):
            database.set(vdi, "physical_utilisation", os.stat(path).st_blocks * 512)
        measure(pool, database.find("SR", vdi["SR"]))


def measure(pool: PoolData, sr: Row) -> None:
    """Set an SR's virtual_allocation and physical_utilisation to the sums over its disks."""
    disks = [pool.db.find("VDI", ref) for ref in sr["VDIs"]]
    pool.db.set(sr, "virtual_allocation", sum(disk["virtual_size"] for disk in disks))
    pool.db.set(sr, "physical_utilisation", sum(disk["physical_utilisation"] for disk in disks))


def new_vdi(pool: PoolData, values: Dict[str, Any]) -> Row:
    """Make a VDI with an empty file, of the checked values of VDI.create."""
    sr = pool.db.find("SR", values["SR"])
    check_attached(pool, sr)
    size = values["virtual_size"]
    if size <= 0:
        raise XapiError("SR_BACKEND_FAILURE_79", "", "VDI Invalid size [opterr=VDI size must be positive]", "")
    block = _ROUND.get(sr["type"], 2 * MIB)
    size = (size + block - 1) // block * block
    if size > sr["physical_size"] - sr["physical_utilisation"]:
        raise XapiError("SR_BACKEND_FAILURE_44", "", "There is insufficient space", "")
    identity = str(uuid.uuid4())
    location = identity
    if sr["content_type"] == "iso":
        name = os.path.basename(values.get("sm_config", {}).get("path", "") or values.get("name_label", ""))
        taken = {pool.db.find("VDI", ref)["location"] for ref in sr["VDIs"]}
        location = name if name.endswith(".iso") and name not in taken else identity + ".iso"
    full = dict(values, uuid=identity, virtual_size=size, location=location, managed=True, parent=NULL)
    with pool.db.lock:
        row = pool.db.create("VDI", full)
        path = path_of(pool, row)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as stream:
            stream.truncate(size)
        refresh(pool, row)
    return row


def copy_of(pool: PoolData, vdi: Row, sr: str = "", **fields: Any) -> Row:
    """Make a copy of a VDI in `sr` or in its own SR; `fields` replace those of the original."""
    check_attached(pool, pool.db.find("SR", vdi["SR"]))
    kept = ("name_label", "name_description", "virtual_size", "type", "sharable", "read_only", "other_config",
            "xenstore_data", "tags")
    values = {name: vdi[name] for name in kept}
    values["sm_config"] = {key: value for key, value in vdi["sm_config"].items() if key != "path"}
    values["SR"] = sr or vdi["SR"]
    values.update(fields)
    row = new_vdi(pool, values)
    _copy_sparse(path_of(pool, vdi), path_of(pool, row))
    refresh(pool, row)
    return row


def _copy_sparse(source: str, target: str) -> None:
    """Copy a file without its holes: disks are large and mostly empty."""
    with open(source, "rb") as old, open(target, "r+b") as new:
        at, end = 0, os.fstat(old.fileno()).st_size
        while at < end:
            try:
                at = os.lseek(old.fileno(), at, os.SEEK_DATA)
            except OSError:
                return  # a hole up to the end
            hole = os.lseek(old.fileno(), at, os.SEEK_HOLE)
            old.seek(at)
            new.seek(at)
            while at < hole:
                data = old.read(min(_CHUNK, hole - at))
                new.write(data)
                at += len(data)


def remove(pool: PoolData, vdi: Row, content: bool) -> None:
    """Remove a VDI's record and the VBDs that name it, and with `content` its file."""
    with pool.db.lock:
        for ref in list(vdi["VBDs"]):
            pool.db.destroy(pool.db.find("VBD", ref))
        sr = pool.db.find("SR", vdi["SR"])
        path = path_of(pool, vdi)
        pool.db.destroy(vdi)
        if content and os.path.exists(path):
            os.unlink(path)
        measure(pool, sr)


def create(call: Call, given: Dict[str, Any]) -> str:
    """VDI.create: the size is rounded up to what the SR can hold."""
    return new_vdi(call.pool, record_values(call.pool.model.classes["VDI"], given)).ref


def _end(operation: str, content: bool) -> Any:
    def run(call: Call, ref: str) -> str:
        pool = call.pool
        with pool.db.lock:
            vdi = pool.db.find("VDI", ref)
            check_free(pool, vdi, operation)
            check_attached(pool, pool.db.find("SR", vdi["SR"]))
            remove(pool, vdi, content)
        return ""

    return run


def snapshot(call: Call, ref: str, _params: Dict[str, str]) -> str:
    """VDI.snapshot: also of a disk in use."""
    vdi = call.pool.db.find("VDI", ref)
    return snapshot_of(call.pool, vdi).ref


def snapshot_of(pool: PoolData, vdi: Row) -> Row:
    """Make a snapshot of a VDI."""
    row = copy_of(pool, vdi)
    with pool.db.lock:
        pool.db.set(row, "is_a_snapshot", True)
        pool.db.set(row, "snapshot_of", vdi.ref)
        pool.db.set(row, "snapshot_time", now())
    return row


def clone(call: Call, ref: str, _params: Dict[str, str]) -> str:
    """VDI.clone: beside the original."""
    return copy_of(call.pool, call.pool.db.find("VDI", ref)).ref


def copy(call: Call, ref: str, sr: str, _base: str = NULL, into: str = NULL) -> str:
    """VDI.copy: a full copy in `sr`, or into a VDI that is there and large enough."""
    pool = call.pool
    vdi = pool.db.find("VDI", ref)
    check_free(pool, vdi, "copy", reading=True)
    if into == NULL:
        return copy_of(pool, vdi, pool.db.find("SR", sr).ref).ref
    target = pool.db.find("VDI", into)
    check_free(pool, target, "copy")
    if target["read_only"]:
        raise XapiError("VDI_READONLY", into)
    if target["virtual_size"] < vdi["virtual_size"]:
        raise XapiError("VDI_TOO_SMALL", into, str(vdi["virtual_size"]))
    _copy_sparse(path_of(pool, vdi), path_of(pool, target))
    return into


def resize(call: Call, ref: str, size: int) -> str:
    """VDI.resize: a disk in use keeps its size, and none shrinks."""
    pool = call.pool
    vdi = pool.db.find("VDI", ref)
    check_free(pool, vdi, "resize")
    if size < vdi["virtual_size"]:
        raise XapiError("SR_BACKEND_FAILURE_79", "", "VDI Invalid size [opterr=shrinking not allowed]", "")
    with pool.db.lock:
        size = (size + 2 * MIB - 1) // (2 * MIB) * (2 * MIB)
        os.truncate(path_of(pool, vdi), size)
        pool.db.set(vdi, "virtual_size", size)
        refresh(pool, vdi)
    return ""


def introduce(call: Call, *given: Any) -> str:
    """VDI.introduce: make a record for a file that is in the SR already."""
    names = (
        "uuid name_label name_description SR type sharable read_only other_config location xenstore_data sm_config "
        "managed virtual_size physical_utilisation metadata_of_pool is_a_snapshot snapshot_time snapshot_of"
    ).split()
    pool, values = call.pool, dict(zip(names, given))
    sr = pool.db.find("SR", values["SR"])
    check_attached(pool, sr)
    with pool.db.lock:
        row = pool.db.create("VDI", dict(values, managed=True, parent=NULL))
        path = path_of(pool, row)
        if not os.path.exists(path):
            pool.db.destroy(row)
            raise XapiError("VDI_LOCATION_MISSING", sr.ref, values["location"])
        pool.db.set(row, "virtual_size", os.path.getsize(path))
        refresh(pool, row)
    return row.ref


def update(call: Call, ref: str) -> str:
    """VDI.update: measure it again."""
    refresh(call.pool, call.pool.db.find("VDI", ref))
    return ""


HANDLERS = {
    "VDI.create": create,
    "VDI.destroy": _end("destroy", True),
    "VDI.forget": _end("forget", False),
    "VDI.snapshot": snapshot,
    "VDI.clone": clone,
    "VDI.copy": copy,
    "VDI.resize": resize,
    "VDI.introduce": introduce,
    "VDI.update": update,
}
