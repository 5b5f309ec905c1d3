"""Storage of the simulated pool through PyPI's XenAPI: repositories, disks, drives, and refused calls."""

import os
from typing import Any, List, Tuple

import pytest

from tests.simulator.xapi.storage_help import MIB, content_of, failure, sr_named, vbd_record, vdi_record
from tests.simulator.xapi.wireclient import Client
from xscontainer.simulator.xapi import Pool

NULL = "OpaqueRef:NULL"


@pytest.fixture
def xapi(client: Any) -> Any:
    """Return the proxy of a session."""
    return client.xenapi


@pytest.fixture
def shared(furnished: Pool) -> str:
    """Return the SR that all hosts share."""
    return sr_named(furnished, "Shared storage")


@pytest.fixture
def isos(furnished: Pool) -> str:
    """Return the SR for discs."""
    return sr_named(furnished, "ISOs")


@pytest.fixture
def vm(furnished: Pool) -> str:
    """Make a running VM."""
    return furnished.create_vm("one", host=furnished.hosts[0])


@pytest.fixture
def seen(furnished: Pool) -> List[Tuple[str, str, str]]:
    """Record the reported changes of drives."""
    events: List[Tuple[str, str, str]] = []
    furnished.on_disk(lambda *event: events.append(event))
    return events


# Repositories


def test_a_furnished_pool_has_local_shared_and_iso_storage(furnished: Pool, xapi: Any) -> None:
    """There is a local SR on each host, a shared one that is the default, and one for ISOs."""
    records = xapi.SR.get_all_records()
    assert {r["name_label"]: (r["shared"], r["content_type"], len(r["PBDs"])) for r in records.values()} == {
        "Local storage on host1": (False, "user", 1),
        "Local storage on host2": (False, "user", 1),
        "Shared storage": (True, "user", 2),
        "ISOs": (True, "iso", 2),
    }
    (pool_ref,) = xapi.pool.get_all()
    assert records[xapi.pool.get_default_SR(pool_ref)]["name_label"] == "Shared storage"
    assert all(xapi.PBD.get_currently_attached(pbd) for pbd in xapi.PBD.get_all())
    assert all(int(r["physical_size"]) > 0 == int(r["physical_utilisation"]) for r in records.values())


def test_a_new_pool_has_no_storage(tmp_path: Any) -> None:
    """The pool of the recordings had no storage."""
    with Pool(str(tmp_path), hosts=1) as bare, Client(bare.coordinator) as client:
        session = client.call("session.login_with_password", "root", "")
        assert [client.call(cls + ".get_all", session) for cls in ("SR", "PBD", "VDI", "VBD", "VIF")] == [[]] * 5


def test_a_scan_of_an_iso_sr_follows_its_directory(furnished: Pool, xapi: Any, isos: str) -> None:
    """New files in the SR's directory get records; records of removed files are removed."""
    directory = xapi.PBD.get_device_config(xapi.SR.get_PBDs(isos)[0])["location"]
    path = os.path.join(directory, "tools.iso")
    with open(path, "wb") as stream:
        stream.write(b"disc")
    assert xapi.SR.get_VDIs(isos) == []
    xapi.SR.scan(isos)
    (vdi,) = xapi.SR.get_VDIs(isos)
    record = xapi.VDI.get_record(vdi)
    assert (record["name_label"], record["virtual_size"], record["read_only"]) == ("tools.iso", "4", True)
    assert furnished.disk_path(vdi) == path
    os.unlink(path)
    xapi.SR.scan(isos)
    assert xapi.SR.get_VDIs(isos) == []


def test_introduce_needs_the_disc_s_file(furnished: Pool, xapi: Any, isos: str) -> None:
    directory = xapi.PBD.get_device_config(xapi.SR.get_PBDs(isos)[0])["location"]
    open(os.path.join(directory, "a.iso"), "wb").close()
    before: Tuple[Any, ...] = (isos, "user", False, True, {})
    after: Tuple[Any, ...] = ({}, {}, True, "0", "0", NULL, False, "19700101T00:00:00Z", NULL)
    identity = "11111111-2222-3333-4444-555555555555"

    def introduce(location: str) -> str:
        return str(xapi.VDI.introduce(identity, "a", "", *before, location, *after))

    assert failure(introduce, "b.iso") == ["VDI_LOCATION_MISSING", isos, "b.iso"]
    assert xapi.VDI.get_uuid(introduce("a.iso")) == identity


def test_an_sr_is_unplugged_only_where_no_vm_uses_it(furnished: Pool, xapi: Any, vm: str, shared: str) -> None:
    pbds = {xapi.PBD.get_host(pbd): pbd for pbd in xapi.SR.get_PBDs(shared)}
    disk = furnished.create_disk(shared)
    furnished.add_drive(vm, disk)
    here, there = (pbds[host.ref] for host in furnished.hosts)
    assert failure(xapi.PBD.unplug, here) == ["VDI_IN_USE", disk, "detach"]
    xapi.PBD.unplug(there)
    assert xapi.PBD.get_currently_attached(there) is False
    assert failure(xapi.VM.pool_migrate, vm, furnished.hosts[1].ref, {}) == ["VM_REQUIRES_SR", vm, shared]
    assert failure(xapi.SR.forget, shared) == ["SR_HAS_PBD", shared]
    xapi.PBD.plug(there)
    xapi.VM.pool_migrate(vm, furnished.hosts[1].ref, {})
    assert xapi.VM.get_resident_on(vm) == furnished.hosts[1].ref


def test_destroying_an_sr_removes_its_disks(furnished: Pool, xapi: Any) -> None:
    host = furnished.hosts[1].ref
    sr = xapi.SR.create(host, {}, "0", "mine", "", "ext", "user", False, {})
    disk = xapi.VDI.create(vdi_record(sr))
    path = furnished.disk_path(disk)
    assert os.path.exists(path)
    xapi.PBD.unplug(xapi.SR.get_PBDs(sr)[0])
    assert failure(xapi.VDI.create, vdi_record(sr)) == ["SR_HAS_NO_PBDS", sr]
    xapi.SR.destroy(sr)
    assert not os.path.exists(path)
    assert failure(xapi.VDI.get_record, disk) == ["HANDLE_INVALID", "VDI", disk]


# Disks


@pytest.mark.parametrize("asked, got", [(1, 2 * MIB), (2 * MIB, 2 * MIB), (2 * MIB + 1, 4 * MIB)])
def test_sizes_are_rounded_up_to_whole_blocks(furnished: Pool, xapi: Any, shared: str, asked: int, got: int) -> None:
    """The disk's file has the rounded size and is empty."""
    disk = xapi.VDI.create(vdi_record(shared, asked))
    record = xapi.VDI.get_record(disk)
    assert (record["virtual_size"], record["managed"], record["location"]) == (str(got), True, record["uuid"])
    assert content_of(furnished, disk) == bytes(got)
    assert xapi.SR.get_virtual_allocation(shared) == str(got)


def test_a_disk_is_refused_without_sr_room_size_or_fields(furnished: Pool, xapi: Any, shared: str) -> None:
    small = furnished.create_sr("small", physical_size=4 * MIB)
    assert failure(xapi.VDI.create, vdi_record("OpaqueRef:x")) == ["HANDLE_INVALID", "SR", "OpaqueRef:x"]
    assert failure(xapi.VDI.create, vdi_record(small, 6 * MIB))[0] == "SR_BACKEND_FAILURE_44"
    assert failure(xapi.VDI.create, vdi_record(shared, 0))[0] == "SR_BACKEND_FAILURE_79"
    incomplete = vdi_record(shared)
    del incomplete["sharable"]
    assert failure(xapi.VDI.create, incomplete)[0] == "INTERNAL_ERROR"
    assert xapi.VDI.get_all() == []


def test_destroying_an_unused_disk_removes_its_file_and_drives(
    furnished: Pool, xapi: Any, vm: str, shared: str
) -> None:
    """A disk that a VM has attached is not destroyed."""
    disk = xapi.VDI.create(vdi_record(shared))
    drive = xapi.VBD.create(vbd_record(vm, disk))
    path = furnished.disk_path(disk)
    xapi.VBD.plug(drive)
    assert failure(xapi.VDI.destroy, disk) == ["VDI_IN_USE", disk, "destroy"]
    assert "destroy" not in xapi.VDI.get_allowed_operations(disk)
    xapi.VBD.unplug(drive)
    assert "destroy" in xapi.VDI.get_allowed_operations(disk)
    xapi.VDI.destroy(disk)
    assert xapi.VM.get_VBDs(vm) == []
    assert not os.path.exists(path)


def test_a_forgotten_disk_leaves_its_file(furnished: Pool, xapi: Any, shared: str) -> None:
    """Only the record is removed."""
    disk = furnished.create_disk(shared, b"kept")
    path = furnished.disk_path(disk)
    xapi.VDI.forget(disk)
    assert xapi.VDI.get_all() == []
    assert os.path.exists(path)


def test_clones_snapshots_and_copies_have_the_same_content(furnished: Pool, xapi: Any, shared: str) -> None:
    """Copies of large and mostly empty disks stay small."""
    disk = furnished.create_disk(shared, b"head", size=512 * MIB, name="data", other_config={"config-drive": "True"})
    with open(furnished.disk_path(disk), "r+b") as stream:
        stream.seek(300 * MIB)
        stream.write(b"middle")
    local = sr_named(furnished, "Local storage on host2")
    made = [xapi.VDI.clone(disk, {}), xapi.VDI.snapshot(disk, {}), xapi.VDI.copy(disk, local, NULL, NULL)]
    for ref in made:
        record = xapi.VDI.get_record(ref)
        assert (record["name_label"], record["other_config"]) == ("data", {"config-drive": "True"})
        assert int(record["physical_utilisation"]) < 4 * MIB
        with open(furnished.disk_path(ref), "rb") as stream:
            assert stream.read(4) == b"head"
            stream.seek(300 * MIB)
            assert stream.read(7) == b"middle\0"
    assert [xapi.VDI.get_SR(ref) for ref in made] == [shared, shared, local]
    assert xapi.VDI.get_snapshots(disk) == [made[1]]
    assert xapi.VDI.get_is_a_snapshot(made[1]) is True


# Drives


def test_autodetect_takes_the_first_free_position(xapi: Any, furnished: Pool, vm: str, shared: str) -> None:
    """No position is given twice."""
    disks = [furnished.create_disk(shared) for _ in range(3)]
    assert xapi.VM.get_allowed_VBD_devices(vm)[:2] == ["0", "1"]
    xapi.VBD.create(vbd_record(vm, disks[0], userdevice="1"))
    drives = [xapi.VBD.create(vbd_record(vm, disk)) for disk in disks[1:]]
    assert [xapi.VBD.get_userdevice(drive) for drive in drives] == ["0", "2"]
    assert failure(xapi.VBD.create, vbd_record(vm, disks[0], userdevice="2")) == ["DEVICE_ALREADY_EXISTS", "2"]
    assert failure(xapi.VBD.create, vbd_record(vm, disks[0], userdevice="a"))[0] == "INVALID_VALUE"
    assert xapi.VM.get_allowed_VBD_devices(vm)[0] == "3"


def test_a_drive_of_the_wrong_kind_or_mode_is_refused(xapi: Any, furnished: Pool, vm: str, shared: str) -> None:
    """A disk drive needs a disk, a CD drive is read-only, and a read-only disk is not attached for writing."""
    disk = furnished.create_disk(shared, read_only=True)
    refused = [
        (vbd_record(vm, "", type="Disk", mode="RW"), "VBD_NOT_REMOVABLE_MEDIA"),
        (vbd_record(vm, disk, type="CD"), "VBD_CDS_MUST_BE_READONLY"),
        (vbd_record(vm, disk), "VDI_READONLY"),
        (vbd_record(vm, "OpaqueRef:x"), "HANDLE_INVALID"),
    ]
    for record, code in refused:
        assert failure(xapi.VBD.create, record)[0] == code
    assert xapi.VM.get_VBDs(vm) == []


def test_plugging_and_unplugging_a_disk_is_reported(
    xapi: Any, furnished: Pool, vm: str, shared: str, seen: List[Tuple[str, str, str]]
) -> None:
    """The callbacks of on_disk() hear of both."""
    disk = furnished.create_disk(shared, b"content")
    drive = xapi.VBD.create(vbd_record(vm, disk))
    assert (xapi.VBD.get_currently_attached(drive), xapi.VDI.get_VBDs(disk)) == (False, [drive])
    assert failure(xapi.VBD.unplug, drive) == ["DEVICE_ALREADY_DETACHED", drive]
    xapi.VBD.plug(drive)
    assert (xapi.VBD.get_currently_attached(drive), xapi.VBD.get_device(drive)) == (True, "xvda")
    assert failure(xapi.VBD.plug, drive) == ["DEVICE_ALREADY_ATTACHED", drive]
    assert failure(xapi.VBD.destroy, drive)[0] == "OPERATION_NOT_ALLOWED"
    assert seen == [(vm, "attach", drive)]
    furnished.refuse_detach(vm)
    assert failure(xapi.VBD.unplug, drive)[:3] == ["DEVICE_DETACH_REJECTED", "VBD", drive]
    furnished.refuse_detach(vm, False)
    xapi.VBD.unplug(drive)
    xapi.VBD.destroy(drive)
    assert seen == [(vm, "attach", drive), (vm, "detach", drive)]
    assert xapi.VDI.get_VBDs(disk) == []


def test_a_read_only_disk_is_not_plugged_into_an_hvm_guest(xapi: Any, furnished: Pool, vm: str, shared: str) -> None:
    drive = xapi.VBD.create(vbd_record(vm, furnished.create_disk(shared), mode="RO"))
    assert failure(xapi.VBD.plug, drive) == ["DISK_VBD_MUST_BE_READWRITE_FOR_HVM", drive]
    assert not xapi.VBD.get_currently_attached(drive)
    xapi.VM.hard_shutdown(vm)
    xapi.VM.start(vm, False, False)
    assert xapi.VBD.get_currently_attached(drive)
    other = furnished.create_vm("pv", domain_type="pv")
    drive = xapi.VBD.create(vbd_record(other, furnished.create_disk(shared), mode="RO"))
    xapi.VBD.plug(drive)
    assert xapi.VBD.get_currently_attached(drive)
    xapi.VM.hard_shutdown(other)
    xapi.VM.destroy(other)


def test_drives_of_a_halted_vm_cannot_be_plugged(xapi: Any, furnished: Pool, shared: str) -> None:
    """plug and unplug need a running VM."""
    halted = furnished.create_vm("halted", power_state="Halted")
    drive = furnished.add_drive(halted, furnished.create_disk(shared))
    assert failure(xapi.VBD.plug, drive) == ["VM_BAD_POWER_STATE", halted, "running", "halted"]
    assert failure(xapi.VBD.unplug, drive)[0] == "VM_BAD_POWER_STATE"


def test_discs_are_inserted_and_ejected(
    xapi: Any, furnished: Pool, vm: str, isos: str, shared: str, seen: List[Tuple[str, str, str]]
) -> None:
    """A CD drive holds one disc at a time, which the guest can read."""
    disc = xapi.VDI.create(vdi_record(isos, 2048, name_label="guest.iso"))
    assert xapi.VDI.get_location(disc) == "guest.iso"
    drive = furnished.add_drive(vm, userdevice="3")
    assert failure(xapi.VBD.eject, drive) == ["VBD_IS_EMPTY", drive]
    xapi.VBD.insert(drive, disc)
    assert (xapi.VBD.get_VDI(drive), xapi.VBD.get_empty(drive)) == (disc, False)
    assert failure(xapi.VBD.insert, drive, disc) == ["VBD_NOT_EMPTY", drive]
    assert failure(xapi.VDI.destroy, disc) == ["VDI_IN_USE", disc, "destroy"]
    paths = []
    furnished.on_disk(lambda _vm, _event, vbd: paths.append(furnished.disk_path(furnished.record("VBD", vbd)["VDI"])))
    xapi.VBD.eject(drive)
    assert paths == [furnished.disk_path(disc)]
    assert (xapi.VBD.get_VDI(drive), xapi.VBD.get_empty(drive), xapi.VDI.get_VBDs(disc)) == (NULL, True, [])
    assert seen == [(vm, "insert", drive), (vm, "eject", drive)]
    other = furnished.add_drive(vm, furnished.create_disk(shared))
    assert failure(xapi.VBD.insert, other, disc) == ["VBD_NOT_REMOVABLE_MEDIA", other]
    assert failure(xapi.VBD.eject, other) == ["VBD_NOT_REMOVABLE_MEDIA", other]


def test_a_new_cd_drive_is_attached_at_the_next_start(xapi: Any, furnished: Pool, vm: str, isos: str) -> None:
    """A CD drive is emulated hardware, which a running VM neither gains nor loses."""
    drive = xapi.VBD.create(vbd_record(vm, ""))
    assert failure(xapi.VBD.plug, drive)[0] == "OPERATION_NOT_ALLOWED"
    xapi.VM.hard_shutdown(vm)
    xapi.VM.start(vm, False, False)
    assert xapi.VBD.get_currently_attached(drive) is True
    assert failure(xapi.VBD.unplug, drive)[0] == "OPERATION_NOT_ALLOWED"


def test_drives_are_attached_while_the_vm_runs(
    xapi: Any, furnished: Pool, shared: str, seen: List[Tuple[str, str, str]]
) -> None:
    """Nothing is reported for an empty CD drive."""
    vm = furnished.create_vm("one", power_state="Halted")
    disk = furnished.create_disk(shared)
    drive, tray = furnished.add_drive(vm, disk), furnished.add_drive(vm)

    def attached() -> List[bool]:
        return [xapi.VBD.get_currently_attached(vbd) for vbd in (drive, tray)]

    assert attached() == [False, False]
    xapi.VM.start(vm, False, False)
    assert attached() == [True, True]
    xapi.VM.suspend(vm)
    assert attached() == [False, False]
    xapi.VM.resume(vm, False, False)
    assert attached() == [True, True]
    xapi.VM.hard_shutdown(vm)
    assert attached() == [False, False]
    assert seen == [(vm, event, drive) for event in ("attach", "detach") * 2]


def test_a_vm_starts_only_where_its_disks_are(xapi: Any, furnished: Pool) -> None:
    vm = furnished.create_vm("one", power_state="Halted")
    local = sr_named(furnished, "Local storage on host2")
    furnished.add_drive(vm, furnished.create_disk(local))
    first, second = (host.ref for host in furnished.hosts)
    assert failure(xapi.VM.start_on, vm, first, False, False) == ["VM_REQUIRES_SR", vm, local]
    assert xapi.VM.get_power_state(vm) == "Halted"
    xapi.VM.start(vm, False, False)
    assert xapi.VM.get_resident_on(vm) == second
    xapi.VM.hard_shutdown(vm)
    furnished.attach_sr(local, furnished.hosts[1], attached=False)
    assert failure(xapi.VM.start, vm, False, False) == ["NO_HOSTS_AVAILABLE"]


def test_two_vms_may_read_but_not_write_one_disk(xapi: Any, furnished: Pool, vm: str, shared: str) -> None:
    disk = furnished.create_disk(shared)
    reader = furnished.add_drive(vm, disk, mode="RO")
    other = furnished.create_vm("two", power_state="Halted")
    drive = furnished.add_drive(other, disk, mode="RW")
    assert failure(xapi.VM.start, other, False, False) == ["VDI_IN_USE", disk, "attach"]
    xapi.VBD.set_mode(drive, "RO")
    xapi.VM.start(other, False, False)
    assert xapi.VBD.get_currently_attached(reader) is True


# VMs and their disks


def test_a_clone_has_copies_of_disks_and_the_same_discs(xapi: Any, furnished: Pool, shared: str, isos: str) -> None:
    """other_config is copied along, and VM.copy may choose the SR."""
    vm = furnished.create_vm("one", power_state="Halted")
    disk = furnished.create_disk(shared, b"mine", other_config={"config-drive": "True"})
    disc = furnished.create_disk(isos, b"disc", name="a.iso")
    furnished.add_drive(vm, disk, mode="RO", other_config={"config-drive": "True"})
    furnished.add_drive(vm, disc, kind="CD")
    local = sr_named(furnished, "Local storage on host1")
    for copy, sr in ((xapi.VM.clone(vm, "two"), shared), (xapi.VM.copy(vm, "three", local), local)):
        drives = {xapi.VBD.get_type(drive): xapi.VBD.get_record(drive) for drive in xapi.VM.get_VBDs(copy)}
        assert drives["CD"]["VDI"] == disc
        own = drives["Disk"]
        assert (own["mode"], own["userdevice"], own["other_config"]) == ("RO", "0", {"config-drive": "True"})
        assert own["VDI"] != disk
        assert content_of(furnished, own["VDI"])[:5] == b"mine\0"
        record = xapi.VDI.get_record(own["VDI"])
        assert (record["SR"], record["other_config"]) == (sr, {"config-drive": "True"})
    xapi.VM.destroy(copy)
    assert xapi.VDI.get_VBDs(own["VDI"]) == []
    assert len(xapi.VDI.get_VBDs(disc)) == 2


def test_a_revert_restores_the_disks(xapi: Any, furnished: Pool, shared: str) -> None:
    vm = furnished.create_vm("one", power_state="Halted")
    disk = furnished.create_disk(shared, b"before")
    furnished.add_drive(vm, disk)
    other = furnished.create_disk(shared)
    furnished.add_drive(vm, other)
    snapshot = xapi.VM.snapshot(vm, "s", [other])
    with open(furnished.disk_path(disk), "r+b") as stream:
        stream.write(b"after!")
    xapi.VM.revert(snapshot)
    (drive,) = xapi.VM.get_VBDs(vm)
    assert content_of(furnished, xapi.VBD.get_VDI(drive))[:7] == b"before\0"
    assert failure(xapi.VDI.get_record, disk)[0] == "HANDLE_INVALID"
    assert len(xapi.VM.get_VBDs(snapshot)) == 1


def test_disks_are_found_after_a_pool_join(furnished: Pool, vm: str, shared: str) -> None:
    """refuse_detach() still holds after a pool join, too."""
    disk = furnished.create_disk(shared, b"content")
    furnished.add_drive(vm, disk)
    furnished.refuse_detach(vm)
    identity = furnished.record("VDI", disk)["uuid"]
    furnished.rejoin()
    again = furnished.uuid_to_ref(identity, "VDI")
    assert again != disk
    assert content_of(furnished, again)[:8] == b"content\0"
    with Client(furnished.coordinator) as door:
        session = door.call("session.login_with_password", "root", "")
        reply, _response = door.xml("VBD.unplug", [session, furnished.record("VDI", again)["VBDs"][0]])
    assert reply["ErrorDescription"][0] == "DEVICE_DETACH_REJECTED"


# Networks


def test_interfaces_are_attached_while_the_vm_runs(xapi: Any, furnished: Pool) -> None:
    """A running VM has an address on the host-internal network."""
    vm = furnished.create_vm("one", power_state="Halted")
    record = {
        "VM": vm,
        "network": furnished.internal_network,
        "device": "0",
        "MAC": "",
        "MTU": "1500",
        "other_config": {},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
    }
    inner = xapi.VIF.create(record)
    xapi.VM.start(vm, False, False)
    assert xapi.VIF.get_currently_attached(inner) is True
    (address,) = xapi.network.get_assigned_ips(furnished.internal_network).values()
    assert address.startswith("169.254.")
    assert xapi.VM.get_allowed_VIF_devices(vm) == ["1", "2", "3", "4", "5", "6"]
    lan = xapi.VIF.create(dict(record, network=furnished.create_network("lan"), device="1"))
    assert xapi.VIF.get_currently_attached(lan) is False
    xapi.VIF.plug(lan)
    assert failure(xapi.VIF.plug, lan) == ["DEVICE_ALREADY_ATTACHED", lan]
    assert failure(xapi.VIF.destroy, lan)[0] == "OPERATION_NOT_ALLOWED"
    xapi.VIF.unplug(lan)
    xapi.VIF.destroy(lan)
    xapi.VM.hard_shutdown(vm)
    assert xapi.VIF.get_currently_attached(inner) is False
    assert xapi.network.get_assigned_ips(furnished.internal_network) == {}


def test_every_host_has_its_address_on_the_management_network(xapi: Any, furnished: Pool) -> None:
    network = furnished.add_management_network()
    interfaces = [xapi.PIF.get_record(pif) for pif in xapi.network.get_PIFs(network)]
    assert {pif["host"]: pif["IP"] for pif in interfaces} == {host.ref: host.address for host in furnished.hosts}
    assert all(pif["management"] and pif["currently_attached"] for pif in interfaces)
