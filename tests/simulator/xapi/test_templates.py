"""Default templates from the host's JSON, and VMs made from them as clients make them."""

import json
import os
from typing import Any, Dict
from xml.etree import ElementTree

import pytest

from tests.simulator.xapi.storage_help import failure, sr_named
from xscontainer.simulator.xapi import Pool

GIB = 1024**3
BASE = {
    "name_description": "A base",
    "max_memory": "512G",
    "vcpus_max": 64,
    "other_config": {"linux_template": "true", "install-methods": "cdrom"},
    "platform": {"vga": "std", "device-model": "qemu-upstream-compat"},
    "HVM_boot_policy": "BIOS order",
    "HVM_boot_params": {"firmware": "bios", "order": "cdn"},
}
DERIVED = {"platform": {"device-model": None, "secureboot": "auto"}, "derived_from": "base.json"}
COREOS = {
    "uuid": "12345678-0000-4000-8000-000000000001",
    "reference_label": "coreos",
    "name_label": "CoreOS",
    "derived_from": "derived.json",
    "min_memory": "2G",
    "disks": [{"size": "8G"}, {"size": "512M"}],
}


def write(directory: Any, **files: Any) -> str:
    """Write templates into a directory; return it."""
    os.makedirs(str(directory), exist_ok=True)
    for name, content in files.items():
        with open(os.path.join(str(directory), name + ".json"), "w") as stream:
            stream.write(content if isinstance(content, str) else json.dumps(content))
    return str(directory)


@pytest.fixture
def coreos(furnished: Pool, tmp_path: Any) -> str:
    """Make a default template with two disks."""
    made = furnished.add_templates_from(write(tmp_path / "t", base=BASE, derived=DERIVED, coreos=COREOS))
    assert list(made) == ["CoreOS"]
    return made["CoreOS"]


def test_a_template_inherits_the_fields_of_its_base(furnished: Pool, coreos: str) -> None:
    """Fields that are null in the template are left out."""
    record = furnished.vm(coreos)
    assert (record["uuid"], record["is_a_template"], record["is_default_template"]) == (COREOS["uuid"], True, True)
    assert (record["name_label"], record["reference_label"]) == ("CoreOS", "coreos")
    assert record["platform"] == {"vga": "std", "secureboot": "auto"}
    assert record["HVM_boot_params"] == {"firmware": "bios", "order": "cdn"}
    assert (record["memory_static_min"], record["memory_static_max"]) == (2 * GIB, 2 * GIB)
    assert record["other_config"]["linux_template"] == "true"
    disks = [disk.attrib for disk in ElementTree.fromstring(record["other_config"]["disks"])]
    assert [(d["device"], d["size"], d["sr"], d["bootable"]) for d in disks] == [
        ("0", str(8 * GIB), "", "true"),
        ("1", str(GIB // 2), "", "false"),
    ]


def test_a_template_replaces_the_one_with_its_uuid(furnished: Pool, coreos: str, tmp_path: Any) -> None:
    write(tmp_path / "t", coreos=dict(COREOS, min_memory="4G"))
    again = furnished.add_templates_from(str(tmp_path / "t"))["CoreOS"]
    assert [ref for ref, r in furnished.records("VM").items() if r["name_label"] == "CoreOS"] == [again]
    assert furnished.vm(again)["memory_static_max"] == 4 * GIB


@pytest.mark.parametrize(
    "broken",
    [
        "{",
        dict(COREOS, derived_from="nowhere.json"),
        dict(COREOS, derived_from="broken.json"),
        {k: v for k, v in COREOS.items() if k != "min_memory"},
        dict(COREOS, other_config={"a": True}),
        dict(COREOS, disks=[{"size": "large"}]),
    ],
)
def test_one_bad_file_prevents_all_templates(furnished: Pool, tmp_path: Any, broken: Any) -> None:
    good = dict(COREOS, uuid="12345678-0000-4000-8000-000000000002", derived_from="base.json")
    directory = write(tmp_path / "t", base=BASE, derived=DERIVED, broken=broken, good=good)
    with pytest.raises(ValueError):
        furnished.add_templates_from(directory)
    assert not [r for r in furnished.records("VM").values() if r["is_default_template"]]


def provisioned(xapi: Any, template: str, sr: str) -> str:
    """Make a VM as clients do: put the SR into other_config:disks."""
    vm = xapi.VM.clone(template, "mine")
    disks = ElementTree.fromstring(xapi.VM.get_other_config(vm)["disks"])
    for disk in disks:
        disk.set("sr", xapi.SR.get_uuid(sr))
    xapi.VM.remove_from_other_config(vm, "disks")
    xapi.VM.add_to_other_config(vm, "disks", ElementTree.tostring(disks).decode())
    xapi.VM.provision(vm)
    return str(vm)


def test_a_provisioned_vm_gets_its_disks_and_starts(furnished: Pool, client: Any, coreos: str) -> None:
    """The disks are made on the SR that was named."""
    xapi, sr = client.xenapi, sr_named(furnished, "Local storage on host2")
    vm = provisioned(xapi, coreos, sr)
    record = xapi.VM.get_record(vm)
    assert (record["is_a_template"], record["is_default_template"]) == (False, False)
    assert record["other_config"]["base_template_name"] == "CoreOS"
    assert "disks" not in record["other_config"]
    found: Dict[str, Any] = {}
    for drive in record["VBDs"]:
        vbd = xapi.VBD.get_record(drive)
        vdi = xapi.VDI.get_record(vbd["VDI"])
        found[vbd["userdevice"]] = (vbd["mode"], vbd["bootable"], vdi["virtual_size"], vdi["SR"])
    assert found == {"0": ("RW", True, str(8 * GIB), sr), "1": ("RW", False, str(GIB // 2), sr)}
    xapi.VM.start(vm, False, False)
    assert xapi.VM.get_resident_on(vm) == furnished.hosts[1].ref


def test_provisioning_without_a_valid_sr_is_refused(furnished: Pool, client: Any, coreos: str) -> None:
    """A text that is no provision document is refused, too. The clone stays a template."""
    xapi = client.xenapi
    vm = xapi.VM.clone(coreos, "mine")
    assert failure(xapi.VM.provision, vm) == ["UUID_INVALID", "SR", ""]
    furnished.set_key(vm, "disks", "<provision>")
    assert failure(xapi.VM.provision, vm)[0] == "INTERNAL_ERROR"
    assert (xapi.VM.get_is_a_template(vm), xapi.VM.get_VBDs(vm)) == (True, [])


def test_the_base_templates_of_a_host_are_accepted(furnished: Pool) -> None:
    """They are the templates that the pack's templates derive from."""
    directory = os.path.join(os.path.dirname(__file__), "..", "..", "data", "vm-templates")
    assert "CoreOS" in furnished.add_templates_from(directory)
