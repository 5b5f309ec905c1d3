"""Objects of an unfinished ``create`` on this host are removed, and only those that it provably made."""

import contextlib
from types import SimpleNamespace
from typing import Any, Callable, Iterator, List

import pytest

from tests.configdrive.conftest import sr_of
from xscontainer.host import hostlock
from xscontainer.simulator.xapi import Pool
from xscontainer.verbs import leftovers
from xscontainer.xapi import unfinished
from xscontainer.xapi.session import Session, SessionPool


@pytest.fixture
def context(pool: Pool, login: Callable[..., Session], tmp_path: Any) -> Iterator[Any]:
    sessions = SessionPool(login, 4, 10.0)
    (tmp_path / "run").mkdir()
    daemon = SimpleNamespace(socket=str(tmp_path / "run" / "d"))
    yield SimpleNamespace(sessions=sessions, settings=SimpleNamespace(daemon=daemon),
                          this_host_ref=lambda: pool.hosts[0].ref)
    sessions.close()


def here(pool: Pool) -> str:
    return str(pool.record("host", pool.hosts[0].ref)["uuid"])


def make_vm(pool: Pool, session: Session, by: unfinished.Making, name: str = "half", **more: Any) -> str:
    ref = pool.create_vm(name, **{"power_state": "Halted", **more})
    unfinished.mark(session, "VM", ref, by)
    return str(ref)


def make_disk(pool: Pool, session: Session, by: unfinished.Making, name: str = unfinished.DISK) -> str:
    ref = pool.create_disk(sr_of(pool, "Shared storage"), b"half", name=name)
    unfinished.mark(session, "VDI", ref, by)
    return str(ref)


def test_an_unfinished_create_that_still_runs_is_left_alone(pool: Pool, session: Session, context: Any) -> None:
    with leftovers.making(context) as by:
        vm, disk = make_vm(pool, session, by), make_disk(pool, session, by)
        leftovers.sweep(context, session)
        assert vm in pool.records("VM") and disk in pool.records("VDI")
    leftovers.sweep(context, session)
    assert vm not in pool.records("VM") and disk not in pool.records("VDI")


def test_a_failed_create_is_remembered_until_it_is_cleaned_up(pool: Pool, session: Session, context: Any) -> None:
    with contextlib.suppress(KeyError), leftovers.making(context) as by:
        # The process was killed between the clone and its mark.
        unmarked = pool.create_vm(unfinished.passing_name("half", by.id), power_state="Halted")
        another = pool.create_vm("half", power_state="Halted")
        raise KeyError
    leftovers.sweep(context, session)
    assert unmarked not in pool.records("VM") and another in pool.records("VM")
    assert leftovers._known(context) == []


def test_a_vm_is_removed_with_its_own_disks_only(pool: Pool, session: Session, context: Any) -> None:
    by = unfinished.Making(here(pool), "0a1b2c3d-0000-4000-8000-123456789abc")
    vm, other = make_vm(pool, session, by), pool.create_vm("other", power_state="Halted")
    own, shared = (pool.create_disk(sr_of(pool, "Shared storage"), b"x", name=name) for name in ("own", "shared"))
    pool.add_drive(vm, own, userdevice="0")
    pool.add_drive(vm, shared, userdevice="1")
    pool.add_drive(other, shared, userdevice="0")
    leftovers.sweep(context, session)
    assert vm not in pool.records("VM") and other in pool.records("VM")
    assert own not in pool.records("VDI") and shared in pool.records("VDI")


@pytest.mark.parametrize("case", ["another host's", "a clone", "a snapshot", "running", "no mark", "malformed",
                                  "another's disk in use", "a copied disk", "a disk of that name", "renamed disk"])
def test_objects_that_create_did_not_provably_make_stay(pool: Pool, session: Session, context: Any, case: str) -> None:
    by = unfinished.Making(here(pool), "0a1b2c3d-0000-4000-8000-123456789abc")
    xapi = session.xenapi
    keep: List[Any] = []
    if case == "another host's":
        elsewhere = by._replace(host=str(pool.record("host", pool.hosts[1].ref)["uuid"]))
        keep = [("VM", make_vm(pool, session, elsewhere)), ("VDI", make_disk(pool, session, elsewhere))]
    elif case in ("a clone", "a snapshot"):
        vm = make_vm(pool, session, by)
        copied = xapi.VM.clone(vm, "theirs") if case == "a clone" else xapi.VM.snapshot(vm, "theirs")
        assert unfinished.KEY in pool.other_config(copied)
        keep = [("VM", copied)]
    elif case == "running":
        keep = [("VM", make_vm(pool, session, by, power_state="Running", host=pool.hosts[0]))]
    elif case == "no mark":
        keep = [("VM", pool.create_vm(unfinished.passing_name("x", by.id), power_state="Halted"))]
    elif case == "malformed":
        vm = pool.create_vm("theirs", power_state="Halted", other_config={unfinished.KEY: f"{by.host} {by.id}"})
        keep = [("VM", vm)]
    elif case == "another's disk in use":
        disk = make_disk(pool, session, by)
        pool.add_drive(pool.create_vm("theirs", power_state="Halted"), disk, userdevice="0")
        keep = [("VDI", disk)]
    elif case == "a copied disk":
        keep = [("VDI", xapi.VDI.copy(make_disk(pool, session, by), sr_of(pool, "Shared storage"), "OpaqueRef:NULL",
                                      "OpaqueRef:NULL"))]
        assert unfinished.KEY in pool.record("VDI", keep[0][1])["other_config"]
    elif case == "a disk of that name":
        keep = [("VDI", pool.create_disk(sr_of(pool, "Shared storage"), b"x", name=unfinished.DISK))]
    else:
        keep = [("VDI", make_disk(pool, session, by, "somebody uses it by now"))]
    leftovers.sweep(context, session)
    for cls, ref in keep:
        assert ref in pool.records(cls), case


def test_a_create_has_ended_when_no_process_holds_its_lock(context: Any, tmp_path: Any) -> None:
    making_id = "0a1b2c3d-0000-4000-8000-123456789abc"
    assert leftovers._has_ended(context, making_id)
    with hostlock.held(str(tmp_path / "run"), f"making-{making_id}.lock", 0.0):
        assert not leftovers._has_ended(context, making_id)
    assert leftovers._has_ended(context, making_id) and leftovers._known(context) == [making_id]

