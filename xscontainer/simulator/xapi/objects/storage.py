"""Storage repositories (SRs) and the hosts' connections to them (PBDs)."""

import os
import uuid
from typing import Any, Dict, List

from xscontainer.simulator.xapi.database.row import Row
from xscontainer.simulator.xapi.objects import vdis
from xscontainer.simulator.xapi.objects.generic import record_values
from xscontainer.simulator.xapi.state.call import Call
from xscontainer.simulator.xapi.state.pool_data import PoolData
from xscontainer.simulator.xapi.wire.failures import XapiError
from xscontainer.simulator.xapi.wire.values import NULL

GIB = 1024**3
# The last parameters of SR.create and SR.introduce are these fields.
_GIVEN = ("name_label", "name_description", "type", "content_type", "shared", "sm_config")
_ATTACHED = ["unplug", "update", "pbd_create", "vdi_clone", "scan", "vdi_create", "vdi_destroy", "vdi_snapshot"]
_DETACHED = ["plug", "forget", "pbd_create", "pbd_destroy"]


def refresh(pool: PoolData, sr: Row) -> None:
    """Bring an SR's allowed_operations up to date."""
    pool.db.set(sr, "allowed_operations", list(_ATTACHED if vdis.attached_to(pool, sr) else _DETACHED))


def new_sr(pool: PoolData, values: Dict[str, Any], hosts: List[str], plugged: bool = True) -> Row:
    """Make an SR, and a PBD for each of the hosts (references)."""
    database = pool.db
    with database.lock:
        sr = database.create("SR", dict({"physical_size": 100 * GIB, "other_config": {}}, **values))
        os.makedirs(vdis.sr_directory(pool, sr), exist_ok=True)
        for host in hosts:
            database.create(
                "PBD",
                {
                    "host": host,
                    "SR": sr.ref,
                    "device_config": {"location": vdis.sr_directory(pool, sr)},
                    "currently_attached": plugged,
                },
            )
        refresh(pool, sr)
    return sr


def create(call: Call, host: str, _device: Dict[str, str], size: int, *given: Any) -> str:
    """SR.create: attached to the host, or (shared) to all. ``given``: see _GIVEN."""
    pool = call.pool
    values = dict(zip(_GIVEN, given))
    hosts = [h.ref for h in pool.hosts] if values["shared"] else [pool.db.find("host", host).ref]
    if size > 0:
        values["physical_size"] = size
    return new_sr(pool, values, hosts).ref


def introduce(call: Call, identity: str, *given: Any) -> str:
    """SR.introduce: an SR without any PBD yet. ``given``: see _GIVEN."""
    return new_sr(call.pool, dict(zip(_GIVEN, given), uuid=identity or str(uuid.uuid4())), []).ref


def scan(call: Call, ref: str) -> str:
    """SR.scan: add and remove the records of an ISO SR by its directory; measure all disks again."""
    pool = call.pool
    sr = pool.db.find("SR", ref)
    vdis.check_attached(pool, sr)
    with pool.db.lock:
        known = {pool.db.find("VDI", vdi)["location"]: pool.db.find("VDI", vdi) for vdi in sr["VDIs"]}
        if sr["content_type"] == "iso":
            found = {name for name in os.listdir(vdis.sr_directory(pool, sr)) if name.endswith(".iso")}
            for name in sorted(found - set(known)):
                known[name] = _picked_up(pool, sr, name)
            for name in set(known) - found:
                vdis.remove(pool, known.pop(name), content=False)
        for vdi in known.values():
            vdis.refresh(pool, vdi)
    return ""


def _picked_up(pool: PoolData, sr: Row, name: str) -> Row:
    size = os.path.getsize(os.path.join(vdis.sr_directory(pool, sr), name))
    return pool.db.create(
        "VDI",
        {
            "SR": sr.ref,
            "name_label": name,
            "location": name,
            "virtual_size": size,
            "type": "user",
            "read_only": True,
            "managed": True,
            "parent": NULL,
        },
    )


def _gone(content: bool) -> Any:
    """SR.forget and SR.destroy: only when no host has it attached."""

    def run(call: Call, ref: str) -> str:
        pool = call.pool
        with pool.db.lock:
            sr = pool.db.find("SR", ref)
            if vdis.attached_to(pool, sr):
                raise XapiError("SR_HAS_PBD", ref)
            for vdi in list(sr["VDIs"]):
                vdis.remove(pool, pool.db.find("VDI", vdi), content)
            for pbd in list(sr["PBDs"]):
                pool.db.destroy(pool.db.find("PBD", pbd))
            pool.db.destroy(sr)
        return ""

    return run


def create_pbd(call: Call, given: Dict[str, Any]) -> str:
    """PBD.create: one for each host and SR, not plugged yet."""
    pool = call.pool
    values = record_values(pool.model.classes["PBD"], given)
    sr, host = pool.db.find("SR", values["SR"]), pool.db.find("host", values["host"])
    for ref in sr["PBDs"]:
        if pool.db.find("PBD", ref)["host"] == host.ref:
            return str(ref)
    return pool.db.create("PBD", dict(values, currently_attached=False)).ref


def plug(call: Call, ref: str) -> str:
    """PBD.plug."""
    set_plugged(call.pool, call.pool.db.find("PBD", ref), True)
    return ""


def unplug(call: Call, ref: str) -> str:
    """PBD.unplug: not while a VM on that host uses a disk of the SR."""
    set_plugged(call.pool, call.pool.db.find("PBD", ref), False)
    return ""


def set_plugged(pool: PoolData, pbd: Row, plugged: bool) -> None:
    """Attach an SR to a host, or detach it; VDI_IN_USE if a VM there holds a disk of it."""
    with pool.db.lock:
        sr = pool.db.find("SR", pbd["SR"])
        if not plugged:
            for ref in sr["VDIs"]:
                for vbd in vdis.attached_vbds(pool, pool.db.find("VDI", ref)):
                    if pool.db.find("VM", vbd["VM"])["resident_on"] == pbd["host"]:
                        raise XapiError("VDI_IN_USE", ref, "detach")
        pool.db.set(pbd, "currently_attached", plugged)
        refresh(pool, sr)


def destroy_pbd(call: Call, ref: str) -> str:
    """PBD.destroy: only of one that is not plugged."""
    pool = call.pool
    with pool.db.lock:
        pbd = pool.db.find("PBD", ref)
        if pbd["currently_attached"]:
            raise XapiError("OPERATION_NOT_ALLOWED", "PBD is currently attached")
        pool.db.destroy(pbd)
    return ""


HANDLERS = {
    "SR.create": create,
    "SR.introduce": introduce,
    "SR.scan": scan,
    "SR.update": scan,
    "SR.forget": _gone(content=False),
    "SR.destroy": _gone(content=True),
    "PBD.create": create_pbd,
    "PBD.plug": plug,
    "PBD.unplug": unplug,
    "PBD.destroy": destroy_pbd,
}
