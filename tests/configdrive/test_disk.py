"""Disks and drives of VMs in the simulated XAPI."""

import contextlib
import io
import os
import socket
import threading
from pathlib import Path
from typing import Any, Callable, List

import pytest

from tests.configdrive.conftest import sr_of
from xscontainer.core.vm_record import NULL_REF
from xscontainer.errors import (
    DriveBusy,
    DriveMissing,
    StorageElsewhere,
    StorageNotAttached,
    TransferFailed,
    XapiError,
    XSContainerError,
)
from xscontainer.simulator.xapi import Pool
from xscontainer.xapi import disk, storage
from xscontainer.xapi.endpoint import LocalSocket
from xscontainer.xapi.session import Session

MIB = 1048576
CONTENT = os.urandom(3 * MIB)
DEADLINE = 20.0


def new_disk(pool: Pool, session: Session, sr: str = "Shared storage") -> str:
    return disk.create(session, sr_of(pool, sr), len(CONTENT), "test", other_config={"config-drive": "True"})


def uuid_of(session: Session, vdi: str) -> str:
    return str(session.xenapi.VDI.get_uuid(vdi))


def put(pool: Pool, session: Session, vdi: str, content: bytes = CONTENT, seconds: float = DEADLINE,
        length: int = -1) -> None:
    disk.upload(session, uuid_of(session, vdi), io.BytesIO(content), len(content) if length < 0 else length, seconds,
                endpoint=LocalSocket(pool.coordinator.socket_path))


def no_task_is_left(pool: Pool) -> bool:
    return not pool.records("task")


def test_uploaded_content_is_downloaded_unchanged(pool: Pool, session: Session) -> None:
    vdi = new_disk(pool, session)
    seen: List[float] = []
    disk.upload(session, uuid_of(session, vdi), io.BytesIO(CONTENT), len(CONTENT), DEADLINE, seen.append)
    assert seen[-1] == 1.0 and seen == sorted(seen)
    with open(pool.disk_path(vdi), "rb") as stream:
        assert stream.read(len(CONTENT)) == CONTENT
    size = int(session.xenapi.VDI.get_virtual_size(vdi))
    assert size == 4 * MIB
    back = disk.download(session, uuid_of(session, vdi), size, DEADLINE)
    assert back == CONTENT + bytes(MIB)
    assert session.xenapi.VDI.get_other_config(vdi) == {"config-drive": "True"}
    assert no_task_is_left(pool)
    disk.destroy(session, vdi)
    disk.destroy(session, vdi)
    assert vdi not in pool.records("VDI")


def test_a_member_serves_its_own_storage(pool: Pool, login: Callable[..., Session]) -> None:
    member = pool.hosts[1]
    session = login(member)
    vdi = new_disk(pool, session, "Local storage on " + member.name_label)
    disk.upload(session, uuid_of(session, vdi), io.BytesIO(CONTENT), len(CONTENT), DEADLINE)
    with pytest.raises(StorageElsewhere):
        put(pool, session, vdi)  # through the coordinator, to which the storage is not attached
    with pytest.raises(StorageElsewhere):
        disk.download(session, uuid_of(session, vdi), MIB, DEADLINE, LocalSocket(pool.coordinator.socket_path))
    assert no_task_is_left(pool)


def test_a_task_that_fails_after_the_200_is_a_failure(pool: Pool, session: Session) -> None:
    vdi = new_disk(pool, session)
    pool.faults("PUT /import_raw_vdi", "fail", times=1, description=["VDI_IO_ERROR", "Device I/O errors"])
    with pytest.raises(XapiError) as caught:
        put(pool, session, vdi)
    assert caught.value.details == ["VDI_IO_ERROR", "Device I/O errors"]
    assert no_task_is_left(pool)
    disk.destroy(session, vdi)


def test_content_that_does_not_fit_is_a_failure(pool: Pool, session: Session) -> None:
    vdi = new_disk(pool, session)
    with pytest.raises(XapiError) as caught:
        put(pool, session, vdi, bytes(5 * MIB))
    assert caught.value.details[:1] == ["VDI_IO_ERROR"]


def test_a_source_that_ends_early_is_a_failure(pool: Pool, session: Session) -> None:
    vdi = new_disk(pool, session)
    with pytest.raises(TransferFailed, match="3145728 of 3500000"):
        put(pool, session, vdi, length=3500000)
    disk.destroy(session, vdi)
    assert no_task_is_left(pool)


def test_a_refused_upload_reports_the_reason(pool: Pool, session: Session) -> None:
    vdi = new_disk(pool, session)
    drive = pool.add_drive(pool.create_vm("a", host=pool.coordinator), vdi)
    assert pool.record("VBD", drive)["currently_attached"]
    with pytest.raises(XapiError) as caught:
        put(pool, session, vdi)
    assert caught.value.details[:1] == ["VDI_IN_USE"]


def test_waiting_for_a_task_ends_at_the_deadline(pool: Pool, session: Session) -> None:
    vdi = new_disk(pool, session)
    pool.transfer_delay = 30.0
    with pytest.raises(TransferFailed, match="within 0.5 seconds"):
        put(pool, session, vdi, seconds=0.5)


@pytest.mark.parametrize("size", [400000, 5 * MIB])
@pytest.mark.parametrize("answer, error, said", [
    (b"HTTP/1.1 302 Found\r\nlocation: https://10.0.0.2/import_raw_vdi\r\ncontent-length: 0\r\n\r\n", StorageElsewhere,
     "10.0.0.2"),
    (b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", TransferFailed, "403"),
    (b"HTTP/1.1 200 OK\r\n\r\n", TransferFailed, "broke"),
    (b"", TransferFailed, "broke"),
], ids=["302", "403", "200", "nothing"])
def test_an_early_answer_is_read_although_the_peer_closed_the_connection(
        tmp_path: Path, session: Session, size: int, answer: bytes, error: Any, said: str) -> None:
    path = str(tmp_path / "xapi")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.settimeout(DEADLINE)
        listener.bind(path)
        listener.listen(1)

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                received = b""
                while b"\r\n\r\n" not in received:
                    received += client.recv(1)
                client.sendall(answer)

        server = threading.Thread(target=serve)
        server.start()
        try:
            with pytest.raises(error, match=said):
                disk.upload(session, "nobody's", io.BytesIO(bytes(size)), size, DEADLINE,
                            endpoint=LocalSocket(path))
        finally:
            server.join(DEADLINE)


@pytest.mark.parametrize("kind", ["drop", "drop-after", "error-500"])
def test_a_broken_connection_is_a_failure(pool: Pool, session: Session, kind: str) -> None:
    vdi = new_disk(pool, session)
    pool.faults("GET /export_raw_vdi", kind, times=1)
    try:
        got = disk.download(session, uuid_of(session, vdi), 4 * MIB, DEADLINE)
        assert kind == "drop-after" and got == bytes(4 * MIB)
    except XSContainerError:
        assert kind != "drop-after"
    with pytest.raises(TransferFailed, match="cannot be reached"):
        disk.download(session, uuid_of(session, vdi), MIB, DEADLINE, LocalSocket("/nonexistent/xapi"))


def test_disks_are_attached_and_detached(pool: Pool, session: Session) -> None:
    vm = pool.create_vm("a", host=pool.coordinator, domain_type="pv")
    first, second = new_disk(pool, session), new_disk(pool, session)
    pool.add_drive(vm, first, userdevice="0")
    device = disk.free_device(session, vm)
    assert device == "1"
    vbd = disk.attach(session, vm, second, device, read_only=True, running=True, other_config={"config-drive": "True"})
    found = disk.drives(session, vm)
    assert [(drive.vdi, drive.device, drive.mode, drive.attached) for drive in found] == [
        (first, "0", "RW", True), (second, "1", "RO", True)]
    assert found[1].other_config == {"config-drive": "True"}
    pool.refuse_detach(vm)
    with pytest.raises(DriveBusy):
        disk.detach(session, found[1])
    assert vbd in pool.records("VBD")
    pool.refuse_detach(vm, False)
    disk.detach(session, found[1])
    disk.detach(session, found[1])
    assert [drive.vdi for drive in disk.drives(session, vm)] == [first]


def test_a_first_disk_leaves_the_boot_position_free(pool: Pool, session: Session) -> None:
    vm = pool.create_vm("a")
    assert disk.free_device(session, vm) == "1"
    pool.add_drive(vm, new_disk(pool, session), userdevice="1")
    pool.add_drive(vm, new_disk(pool, session), userdevice="2")
    assert disk.free_device(session, vm) == "4"


def test_a_disk_that_cannot_be_plugged_leaves_no_vbd(pool: Pool, session: Session) -> None:
    vm = pool.create_vm("a", host=pool.coordinator, domain_type="pv")
    vdi = new_disk(pool, session, "Local storage on " + pool.hosts[1].name_label)
    with pytest.raises(XapiError) as caught:
        disk.attach(session, vm, vdi, "1", read_only=True, running=True)
    assert caught.value.details[:1] == ["SR_NOT_ATTACHED"]
    assert not pool.records("VBD")


@pytest.mark.parametrize("running", [False, True])
def test_a_cd_is_inserted_and_ejected(pool: Pool, session: Session, running: bool) -> None:
    vm = pool.create_vm("a", host=pool.coordinator if running else None)
    vdi = new_disk(pool, session)
    pool.add_drive(vm)
    drive = disk.cd_drive(session, vm, running)
    assert drive.kind == "CD" and drive.vdi == NULL_REF
    disk.insert(session, drive, vdi)
    assert disk.disc_in(session, drive) == vdi
    with pytest.raises(DriveBusy):
        disk.insert(session, drive, vdi)
    disk.eject(session, drive)
    disk.eject(session, drive)
    assert disk.disc_in(session, drive) == NULL_REF


def test_a_missing_cd_drive_is_created(pool: Pool, session: Session) -> None:
    vm = pool.create_vm("a")
    drive = disk.cd_drive(session, vm, running=False)
    assert (drive.kind, drive.device) == ("CD", "3")
    assert disk.cd_drive(session, vm, running=False).ref == drive.ref


def test_a_running_vm_that_accepts_no_cd_drive_is_an_error(pool: Pool, session: Session) -> None:
    vm = pool.create_vm("a", host=pool.coordinator)
    pool.faults("VBD.plug", "fail", times=1, description=["OPERATION_NOT_ALLOWED", "no hotplug of CD drives"])
    with pytest.raises(DriveMissing):
        disk.cd_drive(session, vm, running=True)
    assert not pool.records("VBD")


def test_the_hosts_that_storage_is_attached_to_are_found(pool: Pool, session: Session) -> None:
    here, there = pool.coordinator, pool.hosts[1]
    shared, local = sr_of(pool, "Shared storage"), sr_of(pool, "Local storage on " + there.name_label)
    assert storage.attached_hosts(session, shared) == sorted([here.ref, there.ref])
    assert storage.nearest_host(session, shared, here.ref) == here.ref
    assert storage.nearest_host(session, shared, there.ref) == there.ref
    assert storage.nearest_host(session, local, here.ref) == there.ref
    assert storage.nearest_host(session, shared) == min(here.ref, there.ref)
    pool.attach_sr(local, there, False)
    with pytest.raises(StorageNotAttached, match="attached to no host"):
        storage.nearest_host(session, local, here.ref)
