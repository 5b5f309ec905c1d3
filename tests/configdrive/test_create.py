"""One call creates a VM with listed containers from a template."""

import json
from pathlib import Path
from typing import Any, Dict, Iterator

import pytest

from tests.configdrive.cloud import Cloud
from tests.need import need, need_program
from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one world serves several tests
from xscontainer import keys
from xscontainer.errors import XapiError
from xscontainer.simulator.guests.base import own_user
from xscontainer.simulator.guests.openssh import OpenSSHGuest

ROOT = Path(__file__).resolve().parent.parent.parent
GIB = 1 << 30
pytestmark = pytest.mark.real


@pytest.fixture(scope="module", params=["embedded", "openssh"])
def cloud(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    real = request.param == "openssh"
    if real:
        need(not OpenSSHGuest.missing(), OpenSSHGuest.missing())
    need_program("cloud-init")
    with Cloud(str(tmp_path_factory.mktemp("c")), real) as world:
        world.pool.step_delay = 0.0
        world.templates = templates(world, tmp_path_factory.mktemp("t"))  # type: ignore[attr-defined]
        yield world


def templates(world: Cloud, directory: Path) -> Dict[str, str]:
    """Return the pack's templates, as a host makes them from the pack's files and its own base templates."""
    bases = (ROOT / "tests" / "data" / "vm-templates").glob("base-*.json")
    for file in (*bases, *(ROOT / "guest-config" / "templates").glob("*.json")):
        (directory / file.name).write_bytes(file.read_bytes())
    return world.pool.add_templates_from(str(directory))


@pytest.fixture(autouse=True)
def emptied(cloud: Cloud) -> Iterator[None]:
    """Give every test an image, and remove VMs and disks after it."""
    cloud.image = cloud.add_image()
    yield
    cloud.pool.faults.clear()
    cloud.boot_fails = False
    cloud.at_start = lambda: None
    with cloud.session() as session:
        for ref, record in cloud.pool.records("VM").items():
            if not record["is_a_template"] and not record["is_control_domain"]:
                if record["power_state"] != "Halted":
                    session.xenapi.VM.hard_shutdown(ref)
                session.xenapi.VM.destroy(ref)
        for ref in cloud.pool.records("VDI"):
            session.xenapi.VDI.destroy(ref)
    cloud._more.close()
    cloud.booted.clear()


def create(cloud: Cloud, template: str, **more: str) -> Dict[str, Any]:
    """Call create.

    :param more: arguments. The image is added unless one is given; empty arguments are left out.
    """
    arguments = {
        "imageuuid": cloud.uuid("VDI", cloud.image),
        "templateuuid": cloud.uuid("VM", cloud.templates[template]), "name": "Web 1",  # type: ignore[attr-defined]
        "sruuid": cloud.uuid("SR", cloud.storage["Shared storage"]),
        "networkuuid": cloud.uuid("network", cloud.network), "username": cloud.user, "wait": "30"}
    if cloud.real and "configuration" not in more:
        default = cloud.call(0, "get_config_drive_default", templateuuid=arguments["templateuuid"])[4:]
        more["configuration"] = default.replace("name: core", f"name: {own_user()}").replace(
            '"name": "core"', f'"name": "{own_user()}"')
    given = {name: value for name, value in dict(arguments, **more).items() if name == "name" or value}
    answer = cloud.call(1, "create", **given)
    assert answer.startswith("True")
    return dict(json.loads(answer[4:]))


def left(cloud: Cloud) -> Any:
    """Return the objects that a failure must not change."""
    vms = [ref for ref, record in cloud.pool.records("VM").items() if not record["is_a_template"]]
    return [sorted(found) for found in (vms, cloud.pool.records("VDI"), cloud.pool.records("VBD"),
                                        cloud.pool.records("VIF"))]


@pytest.mark.parametrize("template", ["CoreOS", "Fedora CoreOS", "Docker on Debian", "Docker on Ubuntu"])
def test_one_call_creates_a_listed_vm_from_a_template(cloud: Cloud, template: str) -> None:
    made = create(cloud, template)
    ref = cloud.pool.uuid_to_ref(made["vm"])
    config = cloud.pool.other_config(ref)
    assert made["published"] and "hello" in config[keys.PS] and config[keys.MONITOR] == "True"
    # No unknown key was trusted: the guest presents the key that was pinned before its first boot.
    assert config[keys.HOST_KEY] == made["host_key"] != ""
    assert cloud.wanted[ref].private and cloud.wanted[ref].hostname == "web-1"
    record = cloud.pool.vm(ref)
    assert (record["name_label"], record["power_state"], record["is_a_template"]) == ("Web 1", "Running", False)
    system, drive = cloud.disks(ref)
    assert (system["userdevice"], system["bootable"], system["mode"]) == ("0", True, "RW")
    assert cloud.uuid("VDI", drive["VDI"]) == made["config_drive"]
    interface, = cloud.pool.records("VIF").values()
    assert interface["network"] == cloud.network and interface["VM"] == ref
    tasks = [task for task in cloud.pool.records("task").values() if task["name_label"] == "Creating Web 1"]
    assert tasks and all(task["status"] == "success" and task["progress"] == 1.0 for task in tasks)


@pytest.mark.parametrize("sr", ["Shared storage", "Local storage on host1"])
def test_an_image_replaces_the_empty_disk_of_the_template(cloud: Cloud, sr: str) -> None:
    image = cloud.pool.create_disk(cloud.storage[sr], b"a system", 2 * GIB, name="debian.raw")
    made = create(cloud, "Docker on Debian", imageuuid=cloud.uuid("VDI", image), memory=str(3 * GIB), vcpus="4")
    ref = cloud.pool.uuid_to_ref(made["vm"])
    system = cloud.disks(ref)[0]
    assert system["bootable"] and system["VDI"] != image
    disk = cloud.pool.record("VDI", system["VDI"])
    assert disk["SR"] == cloud.storage["Shared storage"] and disk["virtual_size"] == 20 * GIB
    with open(cloud.pool.disk_path(system["VDI"]), "rb") as stream:
        assert stream.read(8) == b"a system"
    assert image in cloud.pool.records("VDI")
    record = cloud.pool.vm(ref)
    assert (record["memory_static_max"], record["VCPUs_max"], record["VCPUs_at_startup"]) == (3 * GIB, 4, 4)


def test_a_guest_that_needs_longer_than_the_wait_is_no_failure(cloud: Cloud) -> None:
    cloud.boot_fails = True
    made = create(cloud, "Docker on Debian", wait="1")
    assert made["published"] is False
    assert cloud.pool.vm(cloud.pool.uuid_to_ref(made["vm"]))["power_state"] == "Running"


@pytest.mark.parametrize("code", ["SESSION_INVALID", "INTERNAL_ERROR"])
@pytest.mark.parametrize("method", ["VM.get_other_config", "VM.get_by_uuid", "task.set_progress", "task.set_status"])
def test_a_started_vm_is_reported_when_xapi_fails_afterwards(cloud: Cloud, method: str, code: str) -> None:
    cloud.boot_fails = True
    cloud.at_start = lambda: cloud.pool.faults(method, "fail", times=1, description=[code, "x"])
    made = create(cloud, "Docker on Debian", wait="1")
    assert cloud.pool.vm(cloud.pool.uuid_to_ref(made["vm"]))["power_state"] == "Running"
    assert made["published"] is False
    if method.startswith("VM."):
        assert method in json.loads(made["status"])["message"]
    pending = [ref for ref, task in cloud.pool.records("task").items() if task["status"] == "pending"]
    assert len(pending) == (method == "task.set_status")
    with cloud.session() as session:
        for ref in pending:
            session.xenapi.task.set_status(ref, "success")


@pytest.mark.parametrize("step", [
    "VM.clone", "VM.provision", "VIF.create", "VM.set_memory", "VDI.create", "PUT /import_raw_vdi",
    "VBD.create", "VM.start", "VDI.clone", "VDI.resize",
])
def test_a_failed_step_leaves_nothing_behind(cloud: Cloud, step: str) -> None:
    image = cloud.pool.create_disk(cloud.storage["Shared storage"], b"a system", 2 * GIB)
    before = left(cloud)
    cloud.pool.faults(step, "fail", times=1, description=["SR_BACKEND_FAILURE_46", "", "no", ""])
    with pytest.raises(XapiError) as caught:
        create(cloud, "Docker on Debian", imageuuid=cloud.uuid("VDI", image), memory=str(3 * GIB))
    assert caught.value.details[0] == "SR_BACKEND_FAILURE_46"
    assert left(cloud) == before
    assert not [task for task in cloud.pool.records("task").values() if task["status"] == "pending"]


def test_a_clone_whose_answer_was_lost_is_removed(cloud: Cloud) -> None:
    before = left(cloud)
    templates_before = sorted(cloud.pool.records("VM"))
    cloud.pool.faults("task.get_result", "fail", times=1, description=["SESSION_INVALID", "OpaqueRef:gone"])
    with pytest.raises(XapiError) as caught:
        create(cloud, "Docker on Debian")
    assert caught.value.details[0] == "XAPI_SESSION_LOST"
    assert left(cloud) == before and sorted(cloud.pool.records("VM")) == templates_before


@pytest.mark.parametrize("wrong", [
    {"name": ""}, {"name": "a\nb"}, {"name": "x" * 256}, {"memory": "lots"}, {"vcpus": "-1"}, {"vcpus": "65"},
    {"wait": "100000"}, {"username": "a b"}, {"datasource": "ec2"}, {"configuration": " %BR% "},
    {"sruuid": "00000000-0000-0000-0000-000000000000"}, {"imageuuid": "nonsense"},
], ids=lambda wrong: "{}={}".format(*next(iter(wrong.items())))[:20])
def test_impossible_wishes_are_refused(cloud: Cloud, wrong: Dict[str, str]) -> None:
    before = left(cloud)
    with pytest.raises(XapiError) as caught:
        create(cloud, "Docker on Debian", **wrong)
    assert caught.value.details[0] in ("ARGUMENT_INVALID", "OBJECT_GONE")
    assert left(cloud) == before


def test_a_vm_that_is_no_template_is_refused(cloud: Cloud) -> None:
    vm = cloud.pool.create_vm("no template", power_state="Halted")
    with pytest.raises(XapiError) as caught:
        create(cloud, "Docker on Debian", templateuuid=cloud.uuid("VM", vm))
    assert caught.value.details[0] == "ARGUMENT_INVALID"


def test_a_template_without_a_system_needs_an_image(cloud: Cloud) -> None:
    before, vms = left(cloud), sorted(cloud.pool.records("VM"))
    with pytest.raises(XapiError) as caught:
        create(cloud, "Docker on Debian", imageuuid="")
    assert caught.value.details[0] == "ARGUMENT_INVALID" and "--image" in caught.value.details[1]
    assert left(cloud) == before and sorted(cloud.pool.records("VM")) == vms
    calls = cloud.pool.stats.calls("VM.clone")
    own_template(cloud)
    with pytest.raises(XapiError, match="no image can be used"):
        create(cloud, "Our Debian")
    assert cloud.pool.stats.calls("VM.clone") == calls


def own_template(cloud: Cloud) -> str:
    """Make a template with a system on its disk; that of an earlier test is removed."""
    with cloud.session() as session:
        for ref in session.xenapi.VM.get_by_name_label("Our Debian"):
            session.xenapi.VM.destroy(ref)
    base = cloud.pool.create_vm("Our Debian", template=True, power_state="Halted")
    cloud.pool.add_drive(base, cloud.pool.create_disk(cloud.storage["Local storage on host1"], b"ours"), userdevice="0")
    cloud.templates["Our Debian"] = base  # type: ignore[attr-defined]
    return base


def test_the_first_interface_is_on_the_chosen_network(cloud: Cloud) -> None:
    """The interfaces of the template do not matter; a second interface stays unchanged."""
    base, dmz = own_template(cloud), cloud.pool.create_network("dmz")
    with cloud.session() as session:
        for device in ("1", "0"):
            session.xenapi.VIF.create({
                "VM": base, "network": dmz, "device": device, "MAC": "", "MTU": "9000", "other_config": {"a": device},
                "qos_algorithm_type": "", "qos_algorithm_params": {}})
    made = create(cloud, "Our Debian", imageuuid="", wait="0")
    vm = cloud.pool.uuid_to_ref(made["vm"])
    found = {record["device"]: record for record in cloud.pool.records("VIF").values() if record["VM"] == vm}
    assert {device: record["network"] for device, record in found.items()} == {"0": cloud.network, "1": dmz}
    assert (found["0"]["MTU"], found["0"]["other_config"]) == (9000, {"a": "0"})


@pytest.mark.parametrize("template, pinned", [("CoreOS", False), ("Docker on Debian", True)])
def test_a_disk_that_may_have_booted_keeps_the_host_key_that_ignition_set(
        cloud: Cloud, template: str, pinned: bool) -> None:
    """cloud-init detects that it is in another VM, and installs the new key."""
    own_template(cloud)
    default = cloud.call(0, "get_config_drive_default", templateuuid=cloud.uuid(
        "VM", cloud.templates[template]))[4:]  # type: ignore[attr-defined]
    made = create(cloud, "Our Debian", imageuuid="", configuration=default, wait="0")
    assert bool(made["host_key"]) == pinned
    vm = cloud.pool.uuid_to_ref(made["vm"])
    assert bool(cloud.wanted[vm].private) == pinned


def test_a_template_with_a_disk_is_cloned_with_its_disk(cloud: Cloud) -> None:
    base = own_template(cloud)
    before = set(cloud.pool.records("VDI"))
    made = create(cloud, "Our Debian", imageuuid="")
    system, drive = cloud.disks(cloud.pool.uuid_to_ref(made["vm"]))
    disk = cloud.pool.record("VDI", system["VDI"])
    assert disk["SR"] == cloud.storage["Shared storage"]
    assert cloud.uuid("VDI", drive["VDI"]) == made["config_drive"]
    with open(cloud.pool.disk_path(system["VDI"]), "rb") as stream:
        assert stream.read(4) == b"ours"
    assert set(cloud.pool.records("VDI")) - before == {system["VDI"], drive["VDI"]}, "a clone beside the template stays"
    (original,) = cloud.disks(base)
    kept = ("userdevice", "bootable", "mode", "type", "other_config", "unpluggable")
    assert {name: system[name] for name in kept} == {name: original[name] for name in kept}
    assert disk["name_label"] == cloud.pool.record("VDI", original["VDI"])["name_label"]
    assert made["published"]
