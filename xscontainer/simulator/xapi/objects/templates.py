"""Guest templates, made from the host's JSON files, and VM.provision, which creates their disks."""

import json
import os
from typing import Any, Dict, List
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from xscontainer.simulator.xapi.objects import drives, operations, vdis, vms
from xscontainer.simulator.xapi.state.call import Call
from xscontainer.simulator.xapi.state.pool_data import PoolData
from xscontainer.simulator.xapi.wire.failures import internal

DISKS = "disks"
_UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_MAPS = ("other_config", "platform", "HVM_boot_params")


def size_of(text: str) -> int:
    """Return the bytes of a size as the files write it: 8G, 512M, 1024.

    :raises ValueError: it is none.
    """
    factor = _UNITS.get(text[-1:].upper(), 1)
    return int(text[:-1] if factor > 1 else text) * factor


def read_all(directory: str) -> List[Dict[str, Any]]:
    """Return the templates in a directory, each merged with its bases; bases alone are left out.

    :raises ValueError: a file is no such template; the text names the file.
    """
    files: Dict[str, Dict[str, Any]] = {}
    for name in sorted(os.listdir(directory)):
        if name.endswith(".json"):
            with open(os.path.join(directory, name), encoding="utf-8") as stream:
                try:
                    files[name] = json.load(stream)
                except ValueError as error:
                    raise ValueError("{}: {}".format(name, error)) from error
    return [_whole(files, name, []) for name, content in files.items() if "uuid" in content]


def _whole(files: Dict[str, Dict[str, Any]], name: str, below: List[str]) -> Dict[str, Any]:
    if name not in files or name in below:
        raise ValueError("{}: derived from {}, which is not there".format(below[-1] if below else name, name))
    own = files[name]
    if "derived_from" not in own:
        return dict(own)
    whole = _whole(files, own["derived_from"], below + [name])
    for key, value in own.items():
        if isinstance(value, dict):
            merged = dict(whole.get(key, {}), **value)
            whole[key] = {k: v for k, v in merged.items() if v is not None}
        elif key != "derived_from":
            whole[key] = value
    return whole


def provision_xml(disks: List[Dict[str, Any]]) -> str:
    """Return the text of other_config:disks. The client fills in the SR."""
    rows = [
        "<disk bootable={} device={} size={} sr={} type={}/>".format(
            quoteattr("true" if number == 0 else "false"),
            quoteattr(str(number)),
            quoteattr(str(size_of(str(disk["size"])))),
            quoteattr(str(disk.get("sr", ""))),
            quoteattr(str(disk.get("type", "system"))),
        )
        for number, disk in enumerate(disks)
    ]
    return "<provision>" + "".join(rows) + "</provision>"


def _recommendations(template: Dict[str, Any]) -> str:
    fields = []
    if "max_memory" in template:
        fields.append(("field", "memory-static-max", str(size_of(template["max_memory"]))))
    if "vcpus_max" in template:
        fields.append(("field", "vcpus-max", str(template["vcpus_max"])))
    for key, name in (("number_of_vbds", "number-of-vbds"), ("number_of_vifs", "number-of-vifs")):
        if key in template:
            fields.append(("property", name, str(template[key])))
    for key in ("supports_bios", "supports_uefi", "supports_secure_boot"):
        if key in template:
            fields.append(("field", key.replace("_", "-"), template[key]))
    rows = "".join('<restriction {}={} max={}/>'.format(kind, quoteattr(n), quoteattr(v)) for kind, n, v in fields)
    return "<restrictions>" + rows + "</restrictions>"


def record_of(template: Dict[str, Any]) -> Dict[str, Any]:
    """Return the fields of a template's VM record.

    :raises ValueError: a required field is missing, or a map's value is no string.
    """
    missing = [key for key in ("uuid", "name_label", "reference_label", "min_memory") if not template.get(key)]
    if missing:
        raise ValueError("{}: no {}".format(template.get("name_label", template.get("uuid")), ", ".join(missing)))
    for field in _MAPS:
        wrong = [key for key, value in template.get(field, {}).items() if not isinstance(value, str)]
        if wrong:
            raise ValueError("{}: {} of {} must be text".format(template["name_label"], ", ".join(wrong), field))
    config = dict(template.get("other_config", {}), default_template="true")
    if template.get("disks"):
        config[DISKS] = provision_xml(template["disks"])
    memory = size_of(template["min_memory"])
    values: Dict[str, Any] = {name: memory for name in (
        "memory_static_max", "memory_dynamic_max", "memory_dynamic_min", "memory_static_min", "memory_target")}
    values.update(
        uuid=template["uuid"],
        name_label=template["name_label"],
        name_description=template.get("name_description", ""),
        reference_label=template["reference_label"],
        is_a_template=True,
        is_default_template=True,
        user_version=1,
        VCPUs_max=1,
        VCPUs_at_startup=1,
        memory_overhead=vms.memory_overhead(1),
        HVM_boot_policy=template.get("HVM_boot_policy", ""),
        HVM_boot_params=dict(template.get("HVM_boot_params", {})),
        HVM_shadow_multiplier=1.0,
        platform=dict(template.get("platform", {})),
        actions_after_shutdown="destroy",
        actions_after_reboot="restart",
        actions_after_crash="restart",
        hardware_platform_version=2,
        generation_id="0:0",
        domain_type="hvm" if template.get("HVM_boot_policy") else "pv",
        recommendations=_recommendations(template),
        other_config=config,
    )
    operations.no_operations(values)
    return values


def add_all(pool: PoolData, directory: str) -> Dict[str, str]:
    """Make the default templates of a directory, replacing those with their uuids; return name -> reference."""
    records = [record_of(template) for template in read_all(directory)]
    made = {}
    with pool.db.lock:
        for values in records:
            old = pool.db.tables["VM"].by_uuid.get(values["uuid"])
            if old is not None:
                vms.remove(pool, old)
            made[values["name_label"]] = vms.new_vm(pool, values).ref
    return made


def provision(call: Call, ref: str) -> str:
    """VM.provision: create the disks of other_config:disks, and make the template a VM."""
    pool = call.pool
    vm = pool.db.find("VM", ref)
    wanted = vm["other_config"].get(DISKS)
    if wanted is not None:
        try:
            disks = [dict(element.attrib) for element in ElementTree.fromstring(wanted).iter("disk")]
            sizes = [int(disk["size"]) for disk in disks]
        except (ElementTree.ParseError, KeyError, ValueError) as error:
            raise internal("Xapi_templates.Parse_failure: {}".format(error)) from error
        srs = [pool.db.by_uuid("SR", disk.get("sr", "")) for disk in disks]
        for disk, size, sr in zip(disks, sizes, srs):
            _create_disk(pool, ref, disk, size, sr.ref)
        with pool.db.lock:
            pool.db.remove_from(vm, "other_config", DISKS)
    return vms.set_is_a_template(call, ref, False)


def _create_disk(pool: PoolData, vm: str, disk: Dict[str, str], size: int, sr: str) -> None:
    device = disk.get("device", "autodetect")
    vdi = vdis.new_vdi(
        pool,
        {
            "name_label": "{} {}".format(pool.db.find("VM", vm)["name_label"], device),
            "name_description": "Created by template provisioner",
            "SR": sr,
            "virtual_size": size,
            "type": disk.get("type", "system") if disk.get("type") in ("system", "user", "ephemeral") else "system",
            "sharable": False,
            "read_only": False,
            "other_config": {},
            "sm_config": {"vmhint": vm},
        },
    )
    drives.new_vbd(
        pool,
        {
            "VM": vm,
            "VDI": vdi.ref,
            "userdevice": device,
            "bootable": disk.get("bootable") == "true",
            "mode": "RW",
            "type": "Disk",
            "unpluggable": disk.get("type") == "user",
            "empty": False,
            "other_config": {"owner": ""},
        },
    )


HANDLERS = {"VM.provision": provision}
