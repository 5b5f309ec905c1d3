"""The records of a new pool."""

import os
import time
import uuid
from typing import Any, Callable, Dict, List

from xscontainer.simulator.xapi.database.clock import now
from xscontainer.simulator.xapi.database.datamodel import ROLES
from xscontainer.simulator.xapi.database.row import Row
from xscontainer.simulator.xapi.state.host_data import HostData
from xscontainer.simulator.xapi.state.pool_data import PoolData
from xscontainer.simulator.xapi.wire.values import NULL, Time

INTERNAL_NETWORK = (
    "Network on which guests will be assigned a private link-local IP address which can be used to talk XenAPI"
)
CPU = {
    "vendor": "GenuineIntel",
    "speed": 2400,
    "modelname": "CPU",
    "family": 6,
    "model": 85,
    "stepping": "7",
    "flags": "fpu vmx",
}


def populate(pool: PoolData) -> None:
    """Fill the database of a new pool: roles, hosts and what belongs to them, the pool, one network."""
    database = pool.db
    for name in ROLES:
        database.create("role", {"name_label": name})
    for host in pool.hosts:
        _add_host(pool, host)
    values = _typed(pool, "pool", pool.model.records["pool"])
    telemetry = database.create("secret", {"value": str(uuid.uuid4())})
    values.update(uuid="", master=pool.coordinator.ref, telemetry_uuid=telemetry.ref, telemetry_next_collection=now())
    database.create("pool", values)
    database.create(
        "network",
        {
            "name_label": "Host internal management network",
            "bridge": "xenapi",
            "name_description": INTERNAL_NETWORK,
            "other_config": {
                "is_guest_installer_network": "true",
                "is_host_internal_management_network": "true",
                "ip_begin": "169.254.0.1",
                "ip_end": "169.254.255.254",
                "netmask": "255.255.0.0",
            },
        },
    )


def _add_host(pool: PoolData, host: HostData) -> None:
    database = pool.db
    values = _typed(pool, "host", pool.model.records["host"])
    metrics = database.create("host_metrics", {"memory_total": 17179869184, "live": True, "last_updated": now()})
    started = str(int(time.time()))
    values.update(
        uuid="",
        name_label=host.name_label,
        hostname=host.name_label,
        address=host.address,
        metrics=metrics.ref,
        resident_VMs=[],
        host_CPUs=[],
        certificates=[],
        control_domain=NULL,
        other_config={"agent_start_time": started + ".", "boot_time": started + "."},
        software_version=dict(values["software_version"], date=time.strftime("%Y-%m-%d"), linux=os.uname().release),
    )
    row = database.create("host", values)
    host.ref, host.uuid = row.ref, row["uuid"]
    database.set(row, "control_domain", _add_control_domain(pool, host, row).ref)
    for kind in ("host", "host_internal"):
        database.create("Certificate", {"host": row.ref, "type": kind})
    for number in range(4):
        database.create("host_cpu", dict(CPU, host=row.ref, number=number))


def _add_control_domain(pool: PoolData, host: HostData, row: Row) -> Row:
    database = pool.db
    dom0 = _typed(pool, "VM", pool.model.records["dom0"])
    vm_metrics = database.create(
        "VM_metrics", {"VCPUs_number": 2, "VCPUs_utilisation": {"1": 0.0, "2": 0.0}, "current_domain_type": "pv"}
    )
    dom0.update(
        uuid="",
        name_label="Control domain on host: " + host.name_label,
        consoles=[],
        resident_on=row.ref,
        affinity=row.ref,
        metrics=vm_metrics.ref,
    )
    domain = database.create("VM", dom0)
    for protocol in ("rfb", "vt100"):
        console = database.create("console", {"protocol": protocol, "VM": domain.ref})
        database.set(console, "location", "https://{}/console?ref={}".format(host.address, console.ref))
    return domain


def _typed(pool: PoolData, cls: str, record: Dict[str, Any]) -> Dict[str, Any]:
    """Return a recorded record with numbers and dates as in the database."""
    convert: Dict[str, Callable[[Any], Any]] = {"int": int, "datetime": Time, "int set": _integers}
    fields = pool.model.classes[cls].fields
    return {name: convert.get(fields[name].kind, _same)(value) for name, value in record.items()}


def _same(value: Any) -> Any:
    return value


def _integers(values: List[Any]) -> List[int]:
    return [int(v) for v in values]
