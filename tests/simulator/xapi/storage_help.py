"""Helpers that the tests of storage share."""

from typing import Any, Callable, Dict, List

import pytest

from xscontainer.simulator.xapi import Pool

MIB = 1048576


def failure(call: Callable[..., Any], *params: Any) -> List[str]:
    """Return the details of the failure that a call must raise."""
    library = pytest.importorskip("XenAPI")
    with pytest.raises(library.Failure) as caught:
        call(*params)
    details: List[str] = caught.value.details
    return details


def sr_named(pool: Pool, name: str) -> str:
    """Return the reference of the SR of that name."""
    return next(ref for ref, record in pool.records("SR").items() if record["name_label"] == name)


def vdi_record(sr: str, size: int = 2 * MIB, **fields: Any) -> Dict[str, Any]:
    """Return a record for VDI.create."""
    record: Dict[str, Any] = {
        "name_label": "disk",
        "name_description": "",
        "SR": sr,
        "virtual_size": str(size),
        "type": "user",
        "sharable": False,
        "read_only": False,
        "other_config": {},
    }
    record.update(fields)
    return record


def vbd_record(vm: str, vdi: str, **fields: Any) -> Dict[str, Any]:
    """Return a record for VBD.create: of a writable disk, or without a VDI of an empty CD drive."""
    record: Dict[str, Any] = {
        "VM": vm,
        "VDI": vdi or "OpaqueRef:NULL",
        "userdevice": "autodetect",
        "bootable": False,
        "mode": "RW" if vdi else "RO",
        "type": "Disk" if vdi else "CD",
        "empty": not vdi,
        "other_config": {},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
    }
    record.update(fields)
    return record


def content_of(pool: Pool, vdi: str) -> bytes:
    """Return a disk's content."""
    with open(pool.disk_path(vdi), "rb") as stream:
        return stream.read()
