"""The functions for config drives, called by a client of a pool with three hosts."""

import os
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest

from tests.configdrive.conftest import sr_of
from tests.configdrive.guest_side import cloud_init_reads, extract
from tests.need import need_program
from tests.plugin.pool import PluginPool
from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one pool serves the whole module
from tests.waiting import until
from xscontainer import keys
from xscontainer.configdrive import image, isoread, placement, site
from xscontainer.core import arguments
from xscontainer.engine.ssh.hostkeys import parse_pin

TEMPLATE = "#cloud-config\nhostname: %XSVMNAMETOHOSTNAME%\nkey: ssh-rsa %CONTAINERRSAPUB%\n" \
           "%XSHINEXISTS%hin: %XSHIN%\n%XSENDHINEXISTS%"
PINNING = TEMPLATE + "private: \"%XSHOSTKEYPRIVATEJSON%\"\npublic: \"%XSHOSTKEYPUBLIC%\"\n"
USER_DATA = "openstack/latest/user_data"


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PluginPool]:
    with PluginPool(str(tmp_path_factory.mktemp("v"))) as made:
        made.pool.step_delay = 0.0
        made.pool.add_storage()
        yield made


@pytest.fixture(autouse=True)
def nothing_left(pool: PluginPool) -> Iterator[None]:
    """Delete VMs and disks after every test, and check that no task is left."""
    pool.pool.faults.clear()
    yield
    pool.pool.faults.clear()
    pool.pool.transfer_delay = 0.0
    xapi = pool.client.xenapi
    for ref in pool.pool.records("VM"):
        record = xapi.VM.get_record(ref)
        if not record["is_control_domain"]:
            pool.pool.refuse_detach(ref, False)
            if record["power_state"] != "Halted":
                xapi.VM.hard_shutdown(ref)
            xapi.VM.destroy(ref)
    for ref in pool.pool.records("VDI"):
        xapi.VDI.destroy(ref)


def sr_uuid(pool: PluginPool, name: str = "Shared storage") -> str:
    return pool.uuid(sr_of(pool.pool, name), "SR")


def new_vm(pool: PluginPool, host: int = -1, name: str = "Web 1", **fields: Any) -> Tuple[str, str]:
    """Make a VM and return its ref and uuid; with ``host`` < 0 it is halted and was never started."""
    if host >= 0:
        ref = pool.pool.create_vm(name, host=pool.hosts[host].sim, **fields)
    else:
        ref = pool.pool.create_vm(name, power_state="Halted", **fields)
    return ref, pool.uuid(ref)


def create(pool: PluginPool, vm_uuid: str, configuration: str = TEMPLATE, asked: int = 0, **more: str) -> str:
    """Call create_config_drive and return the ref of the new disk."""
    arguments = dict({"sruuid": sr_uuid(pool), "configuration": configuration}, **more)
    answer = pool.call(pool.hosts[asked], "create_config_drive", vmuuid=vm_uuid, **arguments)
    assert answer[:4] == "True"
    return str(pool.client.xenapi.VDI.get_by_uuid(answer[4:]))


def refused(pool: PluginPool, vm_uuid: str, configuration: str = TEMPLATE, sr: str = "Shared storage") -> List[str]:
    """Return the ErrorDescription of a call that must fail."""
    return list(pool.failure(pool.hosts[0], "create_config_drive", vmuuid=vm_uuid, sruuid=sr_uuid(pool, sr),
                             configuration=configuration))


def content(pool: PluginPool, vdi: str) -> bytes:
    with open(pool.pool.disk_path(vdi), "rb") as stream:
        return stream.read()


def user_data(pool: PluginPool, vdi: str) -> str:
    found = isoread.file_in(content(pool, vdi), USER_DATA)
    assert found is not None
    return found.decode()


def config(pool: PluginPool, vm: str) -> Dict[str, str]:
    return dict(pool.pool.record("VM", vm)["other_config"])


def drives(pool: PluginPool, vm: str) -> List[Dict[str, Any]]:
    return [record for record in pool.pool.records("VBD").values() if record["VM"] == vm]


# --- creating -----------------------------------------------------------------------------------


@pytest.mark.parametrize("host, kind", [(-1, "hvm"), (0, "hvm"), (1, "hvm"), (0, "pv"), (1, "pv")])
@pytest.mark.parametrize("asked", [0, 2])
def test_a_vm_gets_its_config_drive(pool: PluginPool, tmp_path: Path, host: int, kind: str, asked: int) -> None:
    vm, uuid = new_vm(pool, host, domain_type=kind)
    vdi = create(pool, uuid, asked=asked)
    record = pool.pool.record("VDI", vdi)
    assert record["other_config"]["config-drive"] == "True" and record["SR"] == sr_of(pool.pool, "Shared storage")
    drive, = drives(pool, vm)
    assert (drive["VDI"], drive["type"], drive["mode"], drive["bootable"]) == (vdi, "Disk", "RO", False)
    assert drive["other_config"]["config-drive"] == "True"
    # XAPI plugs no read-only disk into a running HVM guest, which sees the disk after its next start.
    assert drive["currently_attached"] == (host >= 0 and kind == "pv")
    key = pool.hosts[0].context.access.pool_key.private().get_base64()
    expected = f"#cloud-config\nhostname: web-1\nkey: ssh-rsa {key}\n"
    (tmp_path / "drive.iso").write_bytes(content(pool, vdi))
    found = cloud_init_reads(extract(tmp_path / "drive.iso", tmp_path / "out"))
    assert found.user_data == expected.encode()
    assert (found.metadata["uuid"], found.metadata["hostname"]) == (uuid, "web-1")


def test_local_storage_of_another_host_is_filled_there(pool: PluginPool) -> None:
    vm, uuid = new_vm(pool)
    before = pool.hosts[2].calls
    vdi = create(pool, uuid, sruuid=sr_uuid(pool, "Local storage on " + pool.hosts[2].sim.name_label))
    assert pool.hosts[2].calls == before + 1
    assert "hostname: web-1" in user_data(pool, vdi)


def test_br_is_replaced_by_a_newline(pool: PluginPool) -> None:
    vm, uuid = new_vm(pool)
    vdi = create(pool, uuid, "#cloud-config%BR%hostname: %VMNAMETOHOSTNAME%%BR%")
    assert user_data(pool, vdi) == "#cloud-config\nhostname: web-1\n"


def test_datasource_nocloud_makes_a_nocloud_drive(pool: PluginPool, tmp_path: Path) -> None:
    vm, uuid = new_vm(pool)
    vdi = create(pool, uuid, datasource="nocloud")
    (tmp_path / "drive.iso").write_bytes(content(pool, vdi))
    found = cloud_init_reads(extract(tmp_path / "drive.iso", tmp_path / "out"), "nocloud")
    assert found.metadata == {"instance-id": uuid, "local-hostname": "web-1"}
    code, _ = pool.failure(pool.hosts[0], "create_config_drive", vmuuid=uuid, sruuid=sr_uuid(pool), configuration="x",
                           datasource="ec2")
    assert code == "ARGUMENT_INVALID"


@pytest.mark.parametrize("host, kind", [(-1, "hvm"), (1, "hvm"), (1, "pv")])
def test_an_older_drive_is_replaced(pool: PluginPool, host: int, kind: str) -> None:
    vm, uuid = new_vm(pool, host, domain_type=kind)
    data = pool.pool.create_disk(sr_of(pool.pool, "Shared storage"), b"data")
    pool.pool.add_drive(vm, data, userdevice="0")
    first = create(pool, uuid)
    second = create(pool, uuid, TEMPLATE + "# 2\n")
    assert [(drive["VDI"], drive["userdevice"]) for drive in drives(pool, vm)] == [(data, "0"), (second, "2")]
    assert first not in pool.pool.records("VDI")
    assert "# 2" in user_data(pool, second)


def test_an_older_drive_that_is_shared_or_writable_is_not_destroyed(pool: PluginPool) -> None:
    vm, uuid = new_vm(pool)
    other, _ = new_vm(pool, name="other")
    sr = sr_of(pool.pool, "Shared storage")
    mark = {"config-drive": "True"}
    shared = pool.pool.create_disk(sr, b"x", other_config=mark)
    writable = pool.pool.create_disk(sr, b"x", other_config=mark)
    unmarked = pool.pool.create_disk(sr, b"x")
    pool.pool.add_drive(vm, shared, mode="RO", other_config=mark)
    pool.pool.add_drive(other, shared, mode="RO", other_config=mark)
    pool.pool.add_drive(vm, writable, other_config=mark)
    pool.pool.add_drive(vm, unmarked, mode="RO", other_config=mark)
    vdi = create(pool, uuid)
    assert [drive["VDI"] for drive in drives(pool, vm)] == [vdi]
    assert {shared, writable, unmarked} <= set(pool.pool.records("VDI"))
    assert [drive["VDI"] for drive in drives(pool, other)] == [shared]


def test_a_guest_that_does_not_release_its_drive_keeps_it(pool: PluginPool) -> None:
    vm, uuid = new_vm(pool)
    first = create(pool, uuid)
    pool.client.xenapi.VM.start(vm, False, False)
    pool.pool.refuse_detach(vm)
    code, sentence = refused(pool, uuid)
    assert code == "DRIVE_BUSY" and "Unmount" in sentence
    drive, = drives(pool, vm)
    assert drive["VDI"] == first and drive["currently_attached"]
    assert list(pool.pool.records("VDI")) == [first]


def test_a_suspended_vm_keeps_its_drive(pool: PluginPool) -> None:
    vm, uuid = new_vm(pool, 0)
    create(pool, uuid)
    pool.client.xenapi.VM.suspend(vm)
    before = [drive["VDI"] for drive in drives(pool, vm)]
    code, sentence = refused(pool, uuid)
    assert code == "VM_NOT_RUNNING" and "Resume the VM" in sentence
    assert [drive["VDI"] for drive in drives(pool, vm)] == before == list(pool.pool.records("VDI"))


def test_calls_for_one_vm_run_one_after_the_other(pool: PluginPool) -> None:
    vm, uuid = new_vm(pool, 1)
    pool.pool.transfer_delay = 0.1
    arguments = {"vmuuid": uuid, "sruuid": sr_uuid(pool), "configuration": PINNING}
    host = pool.hosts[0].sim.ref
    tasks = [pool.client.xenapi.Async.host.call_plugin(host, "xscontainer", "create_config_drive", arguments)
             for _ in range(4)]
    until(lambda: all(pool.client.xenapi.task.get_status(task) != "pending" for task in tasks), "calls still run", 30)
    assert [pool.client.xenapi.task.get_status(task) for task in tasks] == ["success"] * 4
    drive, = drives(pool, vm)
    assert list(pool.pool.records("VDI")) == [drive["VDI"]]


def test_disks_of_a_killed_call_are_removed_by_the_next_call(pool: PluginPool) -> None:
    vm, uuid = new_vm(pool)
    other, other_uuid = new_vm(pool, name="other")
    sr, mark = sr_of(pool.pool, "Shared storage"), {"config-drive": "True"}
    pool.pool.create_disk(sr, b"x", name=placement.NAME, other_config=dict(mark, **{keys.OWNER: uuid}))
    kept = [pool.pool.create_disk(sr, b"x", name=placement.NAME, other_config=config) for config in (
        mark, {keys.OWNER: uuid}, dict(mark, **{keys.OWNER: other_uuid}))]
    in_use = pool.pool.create_disk(sr, b"x", name=placement.NAME, other_config=dict(mark, **{keys.OWNER: uuid}))
    pool.pool.add_drive(other, in_use, mode="RO")
    _, young = (pool.pool.create_disk(sr, b"x", name=placement.NAME, other_config=dict(
        mark, **{keys.OWNER: uuid, placement.MADE: f"{time.time() - age:.0f} x"})) for age in (3600, 5))
    vdi = create(pool, uuid)
    # Another call may still work with the young disk.
    assert sorted(pool.pool.records("VDI")) == sorted([vdi, in_use, young] + kept)


# --- failing ------------------------------------------------------------------------------------

STEPS = ["VDI.create", "PUT /import_raw_vdi", "VM.add_to_other_config", "VBD.unplug", "VBD.destroy",
         "VM.get_allowed_VBD_devices", "VBD.create", "VBD.plug"]


@pytest.mark.parametrize("host, kind", [(-1, "hvm"), (1, "hvm"), (1, "pv")])
@pytest.mark.parametrize("replacing", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_a_failed_step_changes_nothing(pool: PluginPool, host: int, kind: str, replacing: bool, step: str) -> None:
    vm, uuid = new_vm(pool, domain_type=kind)
    if replacing:
        create(pool, uuid, PINNING)
    if host >= 0:
        pool.client.xenapi.VM.start_on(vm, pool.hosts[host].sim.ref, False, False)
    before = (config(pool, vm), list(pool.pool.records("VDI")),
              [(drive["VDI"], drive["currently_attached"], drive["userdevice"]) for drive in drives(pool, vm)])
    concerns = {"VM.add_to_other_config": host < 0, "VBD.unplug": replacing and host >= 0, "VBD.destroy": replacing,
                "VBD.plug": host >= 0}
    # Adding a key is retried once.
    times = 2 if step == "VM.add_to_other_config" else 1
    pool.pool.faults(step, "fail", times=times, description=["SR_BACKEND_FAILURE_46", "", "no", ""])
    if not concerns.get(step, True):
        create(pool, uuid, PINNING)
        return
    assert refused(pool, uuid, PINNING)[0] == "SR_BACKEND_FAILURE_46"
    after = (config(pool, vm), list(pool.pool.records("VDI")),
             [(drive["VDI"], drive["currently_attached"], drive["userdevice"]) for drive in drives(pool, vm)])
    if kind == "hvm" and step == "VBD.destroy" and host >= 0:
        # A drive that the guest has released is not plugged again; the VM has it after its next start.
        before[2][:] = [(vdi, False, device) for vdi, _, device in before[2]]
    assert after == before
    assert not [task for task in pool.pool.records("task").values() if task["status"] == "pending"]


@pytest.mark.parametrize("step", ["VDI.create", "VDI.get_uuid", "task.get_status", "VBD.create", "VBD.plug"])
def test_a_session_that_ends_half_way_changes_nothing(pool: PluginPool, step: str) -> None:
    """After a restart of xapi, steps are undone on a new session."""
    vm, uuid = new_vm(pool, 1, domain_type="pv")
    first = create(pool, uuid)
    pool.pool.faults(step, "fail", times=1, description=["SESSION_INVALID", "OpaqueRef:gone"])
    assert refused(pool, uuid)[0] == "XAPI_SESSION_LOST"
    assert [(drive["VDI"], drive["currently_attached"]) for drive in drives(pool, vm)] == [(first, True)]
    assert list(pool.pool.records("VDI")) == [first]


def test_an_upload_whose_task_fails_is_reported_in_xapis_words(pool: PluginPool) -> None:
    vm, uuid = new_vm(pool)
    pool.pool.faults("PUT /import_raw_vdi", "fail", times=1, description=["VDI_IO_ERROR", "Device I/O errors"])
    assert refused(pool, uuid) == ["VDI_IO_ERROR", "Device I/O errors"]
    assert not pool.pool.records("VDI") and not drives(pool, vm)


def test_an_upload_follows_storage_that_moves_to_another_host(pool: PluginPool,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """XAPI redirects the upload (302): the call is undone, and the host with the storage repeats it."""
    sr = pool.pool.create_sr("moving", [pool.hosts[0].sim, pool.hosts[1].sim])
    vm, uuid = new_vm(pool)
    seen: List[str] = []
    first = min((pool.hosts[0].sim, pool.hosts[1].sim), key=lambda host: str(host.ref))

    def read(session: Any, vm_uuid: str, sr_uuid: str) -> Any:
        found = real(session, vm_uuid, sr_uuid)
        if not seen:
            seen.append("left")
            pool.pool.attach_sr(sr, first, False)
        return found

    real = site.read
    monkeypatch.setattr(site, "read", read)  # the storage moves before the upload
    vdi = create(pool, uuid, sruuid=pool.uuid(sr, "SR"))
    assert seen == ["left"]
    assert "hostname: web-1" in user_data(pool, vdi)
    assert list(pool.pool.records("VDI")) == [vdi]


def test_storage_that_the_vms_host_lacks_is_an_error(pool: PluginPool) -> None:
    vm, uuid = new_vm(pool, 0)
    name = "Local storage on " + pool.hosts[1].sim.name_label
    code, sentence = refused(pool, uuid, sr=name)
    assert code == "STORAGE_NOT_ATTACHED" and name in sentence


def test_objects_that_are_no_vm_or_no_storage_are_refused(pool: PluginPool) -> None:
    vm, uuid = new_vm(pool)
    assert refused(pool, uuid, sr="ISOs")[0] == "ARGUMENT_INVALID"
    snapshot = pool.uuid(pool.client.xenapi.VM.snapshot(vm, "s"))
    assert refused(pool, snapshot)[0] == "ARGUMENT_INVALID"
    assert refused(pool, uuid, " %BR%")[0] == "ARGUMENT_INVALID"


def test_a_cancelled_call_leaves_the_old_drive_and_no_new_disk(
        pool: PluginPool, monkeypatch: pytest.MonkeyPatch) -> None:
    vm, uuid = new_vm(pool)
    before = create(pool, uuid)

    def new_disk(session: Any, *arguments: Any) -> Any:
        made = real(session, *arguments)
        for ref, record in pool.pool.records("task").items():
            if record["name_label"].startswith("Config drive of") and record["status"] == "pending":
                session.xenapi.task.cancel(ref)
        return made

    real = placement._new_disk
    monkeypatch.setattr(placement, "_new_disk", new_disk)  # a client cancels the task at this moment
    assert refused(pool, uuid)[0] == "CALLED_OFF"
    assert list(pool.pool.records("VDI")) == [before] and len(drives(pool, vm)) == 1
    assert [record["status"] for record in pool.pool.records("task").values()
            if record["name_label"].startswith("Config drive of")][-1] == "cancelled"


# --- host keys ----------------------------------------------------------------------------------


def private_key(pool: PluginPool, vdi: str, directory: Path) -> str:
    """Return the public half, which ssh-keygen reads from the private one in the user data."""
    line = next(line for line in user_data(pool, vdi).splitlines() if line.startswith("private: "))
    path = directory / "key"
    path.write_text(line[len('private: "'):-1].replace("\\n", "\n"))
    os.chmod(str(path), 0o600)
    done = subprocess.run([need_program("ssh-keygen", "openssh-client"), "-y", "-f", str(path)], stdout=subprocess.PIPE,
                          timeout=30, check=True)
    return done.stdout.decode()


def test_a_host_key_is_pinned_before_the_first_boot(pool: PluginPool, tmp_path: Path) -> None:
    vm, uuid = new_vm(pool)
    vdi = create(pool, uuid, PINNING)
    pinned = config(pool, vm)[keys.HOST_KEY]
    assert parse_pin(pinned).kind == "ssh-ed25519" and config(pool, vm)[keys.OWNER] == uuid
    assert private_key(pool, vdi, tmp_path).split()[:2] == ["ssh-ed25519", pinned]
    assert f'public: "ssh-ed25519 {pinned}"' in user_data(pool, vdi)
    # Another drive before the first boot has another key.
    create(pool, uuid, PINNING)
    assert config(pool, vm)[keys.HOST_KEY] != pinned
    # Without a key in the configuration the guest makes its own.
    create(pool, uuid, TEMPLATE)
    assert keys.HOST_KEY not in config(pool, vm)


def test_the_private_host_key_is_only_on_the_drive(pool: PluginPool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    vm, uuid = new_vm(pool)
    vdi = create(pool, uuid, PINNING)
    line = next(line for line in user_data(pool, vdi).splitlines() if line.startswith("private: "))
    secret = line.split("\\n")[2]
    assert len(secret) > 40
    answer = pool.call(pool.hosts[0], "get_config_drive_configuration", vdiuuid=pool.uuid(vdi, "VDI"))
    seen = [answer, caplog.text] + [str(pool.pool.records(kind)) for kind in ("VM", "VDI", "VBD", "task", "secret")]
    assert not [text for text in seen if secret in text]


@pytest.mark.parametrize("running", [False, True])
def test_a_guest_that_has_run_keeps_its_host_key(pool: PluginPool, running: bool) -> None:
    vm, uuid = new_vm(pool)
    pool.client.xenapi.VM.add_to_other_config(vm, keys.HOST_KEY, "AAAAC3NzaC1lZDI1NTE5AAAAIA==")
    pool.client.xenapi.VM.start(vm, False, False)
    if not running:
        pool.client.xenapi.VM.hard_shutdown(vm)
    vdi = create(pool, uuid, PINNING + "%XSHOSTKEYEXISTS%once%XSENDHOSTKEYEXISTS%")
    assert config(pool, vm)[keys.HOST_KEY] == "AAAAC3NzaC1lZDI1NTE5AAAAIA=="
    assert 'private: ""' in user_data(pool, vdi) and "once" not in user_data(pool, vdi)


def test_a_clone_gets_its_own_host_key(pool: PluginPool) -> None:
    vm, uuid = new_vm(pool)
    create(pool, uuid, PINNING)
    clone = pool.client.xenapi.VM.clone(vm, "clone")
    create(pool, pool.uuid(clone), PINNING)
    assert config(pool, clone)[keys.OWNER] == pool.uuid(clone)
    assert config(pool, clone)[keys.HOST_KEY] != config(pool, vm)[keys.HOST_KEY]
    assert len(drives(pool, clone)) == len(drives(pool, vm)) == 1


# --- the host-internal network ------------------------------------------------------------------


def vif(pool: PluginPool, vm: str, network: str, device: str = "0") -> str:
    return str(pool.client.xenapi.VIF.create({
        "VM": vm, "network": network, "device": device, "MAC": "00:16:3E:0A:0B:0C", "MTU": "1500", "other_config": {},
        "qos_algorithm_type": "", "qos_algorithm_params": {}}))


def test_the_part_for_the_internal_network_is_kept_for_vms_on_it(pool: PluginPool) -> None:
    vm, uuid = new_vm(pool)
    assert "hin:" not in user_data(pool, create(pool, uuid))
    vif(pool, vm, pool.pool.create_network("another"))
    assert "hin:" not in user_data(pool, create(pool, uuid))
    vif(pool, vm, pool.pool.internal_network, "1")
    assert "hin: 00:16:3e:0a:0b:0c\n" in user_data(pool, create(pool, uuid))


@pytest.mark.parametrize("host, wish", [(-1, "1"), (0, "yes"), (-1, "True"), (-1, "on")])
def test_a_vm_is_put_on_the_internal_network_if_the_pool_prefers_it(pool: PluginPool, host: int, wish: str) -> None:
    pool_ref, = pool.pool.records("pool")
    pool.client.xenapi.pool.add_to_other_config(pool_ref, keys.INTERNAL_NETWORK, wish)
    try:
        vm, uuid = new_vm(pool, host)
        create(pool, uuid, "# no word of it")
        assert not pool.client.xenapi.VM.get_VIFs(vm)
        pool.pool.faults("VBD.create", "fail", times=1, description=["SR_BACKEND_FAILURE_46", "", "no", ""])
        assert refused(pool, uuid)[0] == "SR_BACKEND_FAILURE_46"
        assert not pool.client.xenapi.VM.get_VIFs(vm)
        vdi = create(pool, uuid)
        made, = pool.client.xenapi.VM.get_VIFs(vm)
        record = pool.client.xenapi.VIF.get_record(made)
        assert record["network"] == pool.pool.internal_network and record["currently_attached"] == (host >= 0)
        assert f"hin: {record['MAC'].lower()}\n" in user_data(pool, vdi)
    finally:
        pool.client.xenapi.pool.remove_from_other_config(pool_ref, keys.INTERNAL_NETWORK)


# --- reading back -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [TEMPLATE, "a\n\n\n  b\t\u00e9\u65e5 &lt;<&>\"' %%\n", "#!/bin/sh\necho 1"])
@pytest.mark.parametrize("asked", [0, 1])
def test_the_configuration_is_read_back_unchanged(pool: PluginPool, text: str, asked: int) -> None:
    vm, uuid = new_vm(pool)
    vdi = create(pool, uuid, text, sruuid=sr_uuid(pool, "Local storage on " + pool.hosts[1].sim.name_label))
    answer = pool.call(pool.hosts[asked], "get_config_drive_configuration", vdiuuid=pool.uuid(vdi, "VDI"))
    assert answer == "True" + text


def test_a_drive_in_use_is_read_on_its_host(pool: PluginPool) -> None:
    vm, uuid = new_vm(pool, 2, domain_type="pv")
    vdi = create(pool, uuid)
    before = [host.calls for host in pool.hosts]
    pool.call(pool.hosts[0], "get_config_drive_configuration", vdiuuid=pool.uuid(vdi, "VDI"))
    assert [host.calls - number for host, number in zip(pool.hosts, before)] == [1, 0, 1]


def test_a_download_follows_storage_that_moves_to_another_host(pool: PluginPool,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """XAPI redirects the download (302), like the upload."""
    sr = pool.pool.create_sr("moving", [pool.hosts[0].sim, pool.hosts[1].sim])
    vdi = create(pool, new_vm(pool)[1], sruuid=pool.uuid(sr, "SR"))
    real, calls = site.is_marked, pool.hosts[1].calls

    def is_marked(other_config: Any) -> bool:
        pool.pool.attach_sr(sr, pool.hosts[0].sim, False)
        return real(other_config)

    monkeypatch.setattr(site, "is_marked", is_marked)  # the storage moves before the download
    answer = pool.call(pool.hosts[0], "get_config_drive_configuration", vdiuuid=pool.uuid(vdi, "VDI"))
    assert answer == "True" + TEMPLATE and pool.hosts[1].calls == calls + 1


def test_a_foreign_drive_gives_its_user_data(pool: PluginPool) -> None:
    old = image.write({"openstack/latest/user_data": b"old \xc3\xa9"}, "config-2")
    vdi = pool.pool.create_disk(sr_of(pool.pool, "Shared storage"), old, other_config={"config-drive": "True"})
    assert pool.call(pool.hosts[0], "get_config_drive_configuration", vdiuuid=pool.uuid(vdi, "VDI")) == "Trueold \u00e9"


def test_a_mark_on_the_vbd_alone_is_enough(pool: PluginPool) -> None:
    vm, _ = new_vm(pool)
    vdi = pool.pool.create_disk(sr_of(pool.pool, "Shared storage"), image.write({USER_DATA: b"old"}, "config-2"))
    pool.pool.add_drive(vm, vdi, mode="RO", other_config={"config-drive": "True"})
    assert pool.call(pool.hosts[0], "get_config_drive_configuration", vdiuuid=pool.uuid(vdi, "VDI")) == "Trueold"


def test_drives_are_read_one_after_the_other(pool: PluginPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dozen large drives at once would need more memory than the daemon may have."""
    held: List[int] = []
    most: List[int] = []

    def read(content: bytes) -> str:
        held.append(len(content))
        most.append(len(held))
        time.sleep(0.02)
        held.pop()
        return "read"

    monkeypatch.setattr(image, "template_in", read)  # counts how many are held at once
    sr = sr_of(pool.pool, "Shared storage")
    call = [pool.hosts[0].sim.ref, "xscontainer", "get_config_drive_configuration"]
    tasks = [pool.client.xenapi.Async.host.call_plugin(*call, {"vdiuuid": pool.uuid(pool.pool.create_disk(
        sr, b"x" * 4096, other_config={"config-drive": "True"}), "VDI")}) for _ in range(6)]
    until(lambda: all(pool.client.xenapi.task.get_status(task) != "pending" for task in tasks), "calls still run", 30)
    assert [pool.client.xenapi.task.get_status(task) for task in tasks] == ["success"] * 6
    assert most == [1] * 6


@pytest.mark.parametrize("content_, other_config, size", [
    (b"x" * 100000, {"config-drive": "True"}, 0), (image.write({"openstack/latest/user_data": b"x"}, "x"), {}, 0),
    (image.write({"readme": b"x"}, "x"), {"config-drive": "True"}, 0), (b"", {"config-drive": "True"}, 1 << 40),
], ids=["no image", "not marked", "no configuration", "huge"])
def test_a_disk_that_is_no_config_drive_is_not_read(pool: PluginPool, content_: bytes, other_config: Dict[str, str],
                                             size: int) -> None:
    sr = pool.pool.create_sr("large", shared=True, physical_size=1 << 42)
    vdi = pool.pool.create_disk(sr, content_, size, other_config=other_config)
    code, _ = pool.failure(pool.hosts[0], "get_config_drive_configuration", vdiuuid=pool.uuid(vdi, "VDI"))
    assert code == "NOT_A_CONFIG_DRIVE"


# --- defaults -----------------------------------------------------------------------------------

GUEST_CONFIG = Path(__file__).resolve().parent.parent.parent / "guest-config"


@pytest.mark.parametrize("name, file", [
    ("CoreOS", "ignition/flatcar.ign"), ("Fedora CoreOS", "ignition/fedora-coreos.ign"),
    ("Ubuntu Jammy 22.04", "cloud-config/ubuntu.yaml"), ("Debian Bookworm 12", "cloud-config/debian.yaml"),
    ("Rocky Linux 9", "cloud-config/almalinux-rocky.yaml"), ("Other install media", "cloud-config/generic.yaml"),
])
def test_defaults_follow_the_template(pool: PluginPool, name: str, file: str) -> None:
    template = pool.pool.create_vm(name, template=True, power_state="Halted")
    answer = pool.call(pool.hosts[1], "get_config_drive_default", templateuuid=pool.uuid(template))
    assert answer.encode() == b"True" + (GUEST_CONFIG / file).read_bytes()


def test_a_renamed_template_is_recognised_by_its_origin(pool: PluginPool) -> None:
    template = pool.pool.create_vm("Our own", template=True, reference_label="debian-12", power_state="Halted")
    answer = pool.call(pool.hosts[0], "get_config_drive_default", templateuuid=pool.uuid(template))
    assert answer.encode() == b"True" + (GUEST_CONFIG / "cloud-config/debian.yaml").read_bytes()


def test_the_plugin_accepts_exactly_the_known_layouts() -> None:
    assert arguments.DATASOURCES == image.LAYOUTS
