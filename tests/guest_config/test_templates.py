"""The guest templates are accepted by dom0's importer, together with the base templates of a host."""

import json
import re
import shutil
import uuid
from pathlib import Path
from typing import Any, Dict, List, Set

import pytest

from rpm.pack.release import NAMESPACE
from tests.guest_config.filling import GUEST_CONFIG, ROOT
from xscontainer import keys
from xscontainer.simulator.xapi.objects.templates import read_all

HOSTS = ROOT / "tests" / "data" / "vm-templates"
OURS = GUEST_CONFIG / "templates"
NAMES: List[str] = sorted(path.name for path in OURS.iterdir())


def load(path: Path) -> Dict[str, Any]:
    return json.loads(path.read_text(encoding="ascii"))


EXAMPLES = {path.name: load(path) for path in sorted(HOSTS.glob("*.json"))}
TEMPLATES = {name: load(OURS / name) for name in NAMES}


def known_keys() -> "Set[str]":
    return {key for template in EXAMPLES.values() for key in template}


@pytest.mark.parametrize("name", NAMES)
def test_the_importer_of_dom0_loads_the_template(name: str) -> None:
    """The importer stops at a file that it cannot load, and imports none after it."""
    template = TEMPLATES[name]
    assert name.startswith("xscontainer-") and name.endswith(".json") and name not in EXAMPLES
    assert {"uuid", "reference_label", "name_label", "derived_from", "min_memory", "disks"} <= set(template)
    assert set(template) <= known_keys()
    assert "uuid" not in EXAMPLES[template["derived_from"]], "derives from no base template"
    sizes = [template["min_memory"]] + [disk["size"] for disk in template["disks"]]
    assert all(re.match(r"[0-9]+[TGMK]?\Z", size) for size in sizes)
    assert all(set(disk) <= {"size", "sr", "bootable", "type"} for disk in template["disks"])
    for value in template.values():
        if isinstance(value, dict):
            assert value and all(isinstance(text, str) and text for text in value.values())
        else:
            assert isinstance(value, (str, list))


def test_uuids_and_labels_are_unique_and_follow_from_the_file_name() -> None:
    """A changed uuid would leave the old template behind; the uuid of another template would replace that one."""
    for key in ("uuid", "reference_label", "name_label"):
        values = [template[key] for template in TEMPLATES.values()]
        assert len(set(values)) == len(values)
    for key in ("uuid", "reference_label"):
        theirs = {example.get(key) for example in EXAMPLES.values()}
        assert not theirs & {template[key] for template in TEMPLATES.values()}
    for name, template in TEMPLATES.items():
        assert template["reference_label"] + ".json" == name
        assert template["uuid"] == str(uuid.uuid5(NAMESPACE, "template " + template["reference_label"]))


def test_clients_offer_a_config_drive_for_the_templates() -> None:
    labels = [template["name_label"] for template in TEMPLATES.values()]
    assert labels.count("CoreOS") == 1, "Xen Orchestra asks for exactly this name"
    assert {"Fedora CoreOS"} < {label for label in labels if "coreos" in label.lower()}, "XenCenter asks for this word"


@pytest.mark.parametrize("name", NAMES)
def test_a_vm_from_the_template_is_monitored_as_soon_as_it_runs(name: str, tmp_path: Path) -> None:
    for directory in (HOSTS, OURS):
        for path in directory.glob("*.json"):
            shutil.copy(str(path), str(tmp_path))
    whole = {template["uuid"]: template for template in read_all(str(tmp_path))}[TEMPLATES[name]["uuid"]]
    assert whole["other_config"][keys.MONITOR] == "True"
    assert whole["other_config"]["linux_template"] == "true", "what it derives from is kept"
    assert whole["HVM_boot_params"] == {"firmware": "uefi", "order": "cdn"}
    assert "device-model" not in whole["platform"], "the importer refuses it beside UEFI"
