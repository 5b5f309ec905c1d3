"""Config drives of running VMs: a guest never loses its drive, however slowly it releases it."""

import contextlib
import threading
from typing import Any, Iterator, List, Tuple

import pytest

from tests.configdrive.conftest import sr_of
from tests.configdrive.test_verbs import create, drives, new_vm, nothing_left, pool, refused  # noqa: F401 - fixtures
from tests.plugin.pool import PluginPool
from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one pool serves the whole module
from tests.waiting import until
from xscontainer.errors import XapiUnavailable
from xscontainer.xapi import disk, longcall

KINDS = ["hvm", "pv"]


def running(pool: PluginPool, kind: str) -> Tuple[str, str, str]:  # noqa: F811
    """Start a VM with a config drive; return its ref, its uuid and the ref of the drive's disk."""
    vm, uuid = new_vm(pool, domain_type=kind)
    vdi = create(pool, uuid)
    pool.client.xenapi.VM.start_on(vm, pool.hosts[0].sim.ref, False, False)
    return vm, uuid, vdi


def found(pool: PluginPool, vm: str) -> List[Tuple[str, bool]]:  # noqa: F811
    return [(drive["VDI"], drive["currently_attached"]) for drive in drives(pool, vm)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_guest_sees_the_new_drive_after_its_next_start_at_the_latest(pool: PluginPool,  # noqa: F811
                                                                     kind: str) -> None:
    vm, uuid, first = running(pool, kind)
    second = create(pool, uuid)
    assert found(pool, vm) == [(second, kind == "pv")]
    assert list(pool.pool.records("VDI")) == [second] != [first]
    pool.client.xenapi.VM.hard_reboot(vm)
    pool.client.xenapi.VM.hard_shutdown(vm)
    pool.client.xenapi.VM.start(vm, False, False)
    assert found(pool, vm) == [(second, True)]


def test_any_other_reason_not_to_plug_the_drive_is_a_failure(pool: PluginPool) -> None:  # noqa: F811
    vm, uuid, first = running(pool, "pv")
    pool.pool.faults("VBD.plug", "fail", times=1, description=["DEVICE_ATTACH_TIMEOUT", "VBD", "OpaqueRef:x"])
    assert refused(pool, uuid)[0] == "DEVICE_ATTACH_TIMEOUT"
    assert found(pool, vm) == [(first, True)] and list(pool.pool.records("VDI")) == [first]


@pytest.mark.parametrize("kind", KINDS)
def test_the_new_drive_is_attached_before_the_old_one_is_detached(pool: PluginPool, kind: str) -> None:  # noqa: F811
    vm, uuid, first = running(pool, kind)
    seen: List[Any] = []

    def look(ref: str, event: str, vbd: str) -> None:
        if event == "detach":
            seen.append(found(pool, vm))

    with watching(pool, look):
        second = create(pool, uuid)
    assert seen == [[(first, True), (second, kind == "pv")]]


@contextlib.contextmanager
def watching(pool: PluginPool, callback: Any) -> Iterator[None]:  # noqa: F811
    pool.pool.on_disk(callback)
    try:
        yield
    finally:
        pool.pool._disk_callbacks.remove(callback)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_free_position_the_old_drive_is_detached_first(pool: PluginPool, kind: str) -> None:  # noqa: F811
    vm, uuid, first = running(pool, kind)
    sr = sr_of(pool.pool, "Shared storage")
    for device in pool.client.xenapi.VM.get_allowed_VBD_devices(vm):
        pool.pool.add_drive(vm, pool.pool.create_disk(sr, b"x"), userdevice=device)
    others = [(vdi, attached) for vdi, attached in found(pool, vm) if vdi != first]
    pool.pool.faults("VBD.create", "fail", times=1, description=["SR_BACKEND_FAILURE_46", "", "no", ""])
    assert refused(pool, uuid)[0] == "SR_BACKEND_FAILURE_46"
    assert sorted(found(pool, vm)) == sorted(others + [(first, kind == "pv")])
    second = create(pool, uuid)
    assert sorted(found(pool, vm)) == sorted(others + [(second, kind == "pv")])


def test_all_old_drives_are_restored_when_one_is_held(pool: PluginPool) -> None:  # noqa: F811
    """The drive that was already detached is attached again."""
    vm, uuid = new_vm(pool)
    sr, mark = sr_of(pool.pool, "Shared storage"), {"config-drive": "True"}
    disks = [pool.pool.create_disk(sr, b"x", other_config=mark) for _ in range(2)]
    for vdi in disks:
        pool.pool.add_drive(vm, vdi, mode="RO", unpluggable=vdi == disks[0])
    pool.client.xenapi.VM.start(vm, False, False)
    assert refused(pool, uuid)[0] == "DRIVE_BUSY"
    assert found(pool, vm) == [(disks[1], True), (disks[0], False)]
    assert sorted(pool.pool.records("VDI")) == sorted(disks)


@pytest.mark.parametrize("kind", KINDS)
def test_a_guest_that_releases_its_drive_too_slowly_keeps_it(pool: PluginPool, kind: str) -> None:  # noqa: F811
    vm, uuid, first = running(pool, kind)
    pool.pool.faults("VBD.unplug", "fail", times=1, description=["DEVICE_DETACH_TIMEOUT", "VBD", "OpaqueRef:x"])
    code, sentence = refused(pool, uuid)
    assert code == "DRIVE_BUSY" and "Unmount" in sentence
    assert found(pool, vm) == [(first, True)] and list(pool.pool.records("VDI")) == [first]


@pytest.mark.parametrize("method, kind", [("VBD.unplug", "hvm"), ("VBD.plug", "pv"), ("VDI.create", "hvm")])
def test_a_plug_that_takes_longer_than_xapis_answer_is_waited_for(pool: PluginPool,  # noqa: F811
                                                                 method: str, kind: str) -> None:
    vm, uuid, _ = running(pool, kind)
    with timeout(pool, 1.0):
        pool.pool.faults(method, "delay", times=1, seconds=1.6)
        second = create(pool, uuid)
    assert found(pool, vm) == [(second, kind == "pv")] and list(pool.pool.records("VDI")) == [second]


@contextlib.contextmanager
def timeout(pool: PluginPool, seconds: float) -> Iterator[None]:  # noqa: F811
    """Set how long calls of the actions wait for XAPI."""
    forwarding = pool.hosts[0].context.forwarding
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(forwarding.lease()) for _ in range(2)]
        for session in sessions:
            session.timeout = seconds
    try:
        yield
    finally:
        forwarding.forget()


def test_a_guest_that_releases_its_drive_after_the_cancellation_is_no_failure(pool: PluginPool,  # noqa: F811
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """XAPI cannot cancel the guest's part: the guest did release the drive, and that is no failure."""
    vm, uuid, _ = running(pool, "hvm")
    monkeypatch.setattr(disk, "LET_GO_WITHIN", 0.2)  # a shorter deadline
    pool.pool.faults("VBD.unplug", "delay", times=1, seconds=0.8)
    second = create(pool, uuid)
    assert found(pool, vm) == [(second, False)] and list(pool.pool.records("VDI")) == [second]


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_undone_only_after_xapi_has_finished_them(pool: PluginPool, kind: str,  # noqa: F811
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest releases its drive long after the call has given up; the drive is attached again after that."""
    vm, uuid, first = running(pool, kind)
    monkeypatch.setattr(disk, "LET_GO_WITHIN", 0.1)  # a shorter deadline
    monkeypatch.setattr(longcall, "CANCELLED_WITHIN", 0.1)
    let_go = threading.Event()
    not_in_time = longcall._not_in_time

    def given_up(method: str) -> XapiUnavailable:
        threading.Timer(0.5, let_go.set).start()
        return not_in_time(method)

    monkeypatch.setattr(longcall, "_not_in_time", given_up)
    with watching(pool, lambda ref, event, vbd: event == "detach" and let_go.wait(20)):
        call = pool.client.xenapi.Async.host.call_plugin(
            pool.hosts[0].sim.ref, "xscontainer", "create_config_drive",
            {"vmuuid": uuid, "sruuid": pool.uuid(sr_of(pool.pool, "Shared storage"), "SR"), "configuration": "x"})
        until(lambda: any("cancel" in task["current_operations"].values()
                          for task in pool.pool.records("task").values()), "the unplugging was not called off", 20)
        assert pool.client.xenapi.task.get_status(call) == "pending"
        until(lambda: pool.client.xenapi.task.get_status(call) == "failure", "the call goes on", 20)
    assert pool.client.xenapi.task.get_error_info(call)[0] == "DRIVE_BUSY"
    assert found(pool, vm) == [(first, kind == "pv")] and list(pool.pool.records("VDI")) == [first]
