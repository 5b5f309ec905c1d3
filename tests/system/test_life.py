"""The life of VMs and pools, with a daemon on each of two hosts and a real sshd in each VM."""

import threading
import time
from typing import Callable, Iterator, List, NamedTuple

import pytest

from tests.bench.scene import VM
from tests.system.world import World, reach
from tests.waiting import until
from xscontainer import keys
from xscontainer.core.vm_record import NULL_REF
from xscontainer.xapi.session import Session

pytestmark = pytest.mark.real

COMES_BACK = 10.0  # seconds; mostly it takes one, and `make bench` measures it


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(2) as made:
        def power(ref: str, what: str) -> None:
            """Guests go down and up with their VMs."""
            for vm in made.vms:
                if vm.ref == ref and what in ("stop", "suspend"):
                    vm.guest.stop()
                elif vm.ref == ref and what in ("start", "resume"):
                    vm.guest.start()
                elif vm.ref == ref and what == "reboot":
                    vm.guest.restart()

        made.pool.on_power(power)
        made.wait_right()
        yield made


@pytest.fixture
def vm(world: World) -> Iterator[VM]:
    """One that runs on the second host and is shown; the other one is looked at when all is done."""
    vm = world.vms[0]
    if world.pool.vm(vm.ref)["power_state"] != "Running":
        world.session.xenapi.VM.start_on(vm.ref, world.pool.hosts[1].ref, False, False)
    world.wait_right()
    yield vm
    world.wait_right(world.vms[1])


class Absent(NamedTuple):
    """Watches a VM's list in a thread of its own. ``gaps``: seconds of each time that it was absent."""

    gaps: List[float]
    stop: "Callable[[], None]"


def watch(world: World, vm: VM) -> Absent:
    done = threading.Event()
    gaps: List[float] = []

    def look() -> None:
        began = None
        while not done.wait(0.001):
            present, now = bool(world.ps(vm)), time.monotonic()
            if present and began is not None:
                gaps.append(now - began)
            began = None if present else began or now
        if began is not None:
            gaps.append(time.monotonic() - began)

    thread = threading.Thread(target=look)
    thread.start()

    def stop() -> None:
        done.set()
        thread.join(10)

    return Absent(gaps, stop)


def toggle(vm: VM, container: str = "container-0000") -> None:
    """Pause it, or go on with it."""
    paused = any(found["Names"] == ["/" + container] and found["State"] == "paused" for found in vm.engine.list())
    vm.engine.do("unpause" if paused else "pause", container)


def test_live_migration_loses_nothing(world: World, vm: VM) -> None:
    pool, xapi = world.pool, world.session.xenapi
    for target in (0, 1):
        pool.stats.reset()
        watched = watch(world, vm)
        moved = threading.Thread(target=lambda to=target: xapi.VM.pool_migrate(vm.ref, pool.hosts[to].ref, {}))
        try:
            moved.start()
            while moved.is_alive():
                toggle(vm)
                world.wait_right(vm, seconds=COMES_BACK)
            toggle(vm)
            world.wait_right(vm, seconds=COMES_BACK)
        finally:
            moved.join(30)
            watched.stop()
        assert pool.vm(vm.ref)["resident_on"] == pool.hosts[target].ref
        # A key is replaced by two calls, and the moment between them can be seen.
        assert max(watched.gaps, default=0.0) < 0.5
        until(lambda: vm.guest.sessions == 1, f"{vm.guest.sessions} hosts hold a connection")
        left = pool.hosts[1 - target].name_label
        # The host that it left replaced keys, which takes one call of each kind, and wiped none.
        assert (pool.stats.calls("VM.remove_from_other_config", left)
                <= pool.stats.calls("VM.add_to_other_config", left))
        pool.stats.reset()
        for _ in range(3):
            toggle(vm)
            world.wait_right(vm)
        assert world.writes(target) > 0 and world.writes(1 - target) == 0


@pytest.mark.parametrize("end, begin", [("clean_shutdown", "start_on"), ("hard_shutdown", "start_on"),
                                        ("suspend", "resume_on")])
def test_the_list_is_removed_with_a_shutdown_and_shown_after_the_start(
        world: World, vm: VM, end: str, begin: str
) -> None:
    xapi = world.session.xenapi
    getattr(xapi.VM, end)(vm.ref)
    until(lambda: not set(keys.PUBLISHED) & set(world.pool.other_config(vm.ref)), "it was not wiped", COMES_BACK)
    assert world.key(vm, keys.MONITOR) == "True"
    assert world.failure(0, "start", vmuuid=vm.uuid, container="container-0000")[0] == "VM_NOT_RUNNING"
    host = world.pool.hosts[0 if end == "suspend" else 1].ref
    getattr(xapi.VM, begin)(vm.ref, host, False, False)
    world.wait_right(vm, seconds=COMES_BACK)
    if end == "suspend":
        xapi.VM.pool_migrate(vm.ref, world.pool.hosts[1].ref, {})


def test_a_reboot_is_followed(world: World, vm: VM) -> None:
    world.session.xenapi.VM.hard_reboot(vm.ref)
    toggle(vm)
    world.wait_right(vm, seconds=COMES_BACK)
    until(lambda: vm.guest.sessions == 1, "there is not one connection")


def test_a_clone_shows_its_own_list_or_none(world: World, vm: VM) -> None:
    pool, xapi = world.pool, world.session.xenapi
    snapshot = xapi.VM.snapshot(vm.ref, "a snapshot")
    assert pool.other_config(snapshot)[keys.PS]
    clone = xapi.VM.clone(snapshot, "a clone")
    xapi.VM.set_is_a_template(clone, False)
    until(lambda: not set(keys.PUBLISHED) & set(pool.other_config(clone)), "it carries a list that is not its own",
          COMES_BACK)
    own = world.add_vm("other", ["clones-own"])
    pool.set_networks(own.ref, {})
    for key, value in reach(own.guest).items():
        pool.set_key(clone, key, value)
    pool.set_networks(clone, {"0/ip": own.guest.address})
    original, own.ref, own.uuid = own.ref, clone, pool.vm(clone)["uuid"]
    shown: List[str] = []
    watcher = watch_texts(world, own, shown)
    try:
        xapi.VM.start_on(clone, pool.hosts[1].ref, False, False)
        world.wait_right(own, seconds=COMES_BACK)
    finally:
        watcher()
    assert not any("container-0000" in text for text in shown)
    assert world.key(own, keys.HOST_KEY) == own.guest.host_key_base64 != world.key(vm, keys.HOST_KEY)
    assert world.key(own, keys.OWNER) == own.uuid
    for ref in (clone, original):
        xapi.VM.hard_shutdown(ref)
        xapi.VM.destroy(ref)
    xapi.VM.destroy(snapshot)
    until(lambda: own.guest.sessions == 0, "a destroyed VM is still connected")
    world.vms.remove(own)
    own.guest.close()
    own.engine.close()


def watch_texts(world: World, vm: VM, shown: List[str]) -> "Callable[[], None]":
    """Collect every list of a VM that can be read."""
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.001):
            text = world.ps(vm)
            if text not in shown[-1:]:
                shown.append(text)

    thread = threading.Thread(target=look)
    thread.start()

    def stop() -> None:
        done.set()
        thread.join(10)

    return stop


def test_an_old_list_that_a_revert_restores_is_removed(world: World, vm: VM) -> None:
    pool, xapi = world.pool, world.session.xenapi
    snapshot = xapi.VM.snapshot(vm.ref, "before")
    vm.engine.run("later")
    world.wait_right(vm)
    xapi.VM.revert(snapshot)
    until(lambda: pool.vm(vm.ref)["power_state"] == "Halted" and not world.ps(vm), "an old list stands", COMES_BACK)
    xapi.VM.start_on(vm.ref, pool.hosts[1].ref, False, False)
    world.wait_right(vm, seconds=COMES_BACK)
    xapi.VM.destroy(snapshot)


def test_a_list_that_another_client_overwrites_is_repaired(world: World, vm: VM) -> None:
    world.pool.set_key(vm.ref, keys.PS, "<docker_ps/>")
    world.wait_right(vm, seconds=5.0)
    world.pool.remove_key(vm.ref, keys.INFO)
    world.wait_right(vm, seconds=5.0)


def test_a_destroyed_vm_is_disconnected(world: World) -> None:
    vm = world.add_vm("short-lived")
    world.wait_right(vm)
    assert vm.guest.sessions == 1
    world.session.xenapi.VM.hard_shutdown(vm.ref)
    world.session.xenapi.VM.destroy(vm.ref)
    until(lambda: vm.guest.sessions == 0, "a destroyed VM is still connected")
    vm.engine.run("unseen")
    world.vms.remove(vm)
    vm.guest.close()
    vm.engine.close()


# --- the pool -----------------------------------------------------------------------------------


def renew_session(world: World) -> None:
    """All sessions ended; ours, too."""
    world.session.logout()
    world.session = Session.login(world.pool.coordinator.socket_path, "bench", 120.0, 10.0)


def all_follow(world: World, seconds: float = COMES_BACK) -> None:
    """Changes of every VM are shown."""
    world.wait_right(seconds=seconds)
    for vm in world.vms:
        toggle(vm)
    world.wait_right(seconds=seconds)


def test_another_coordinator_takes_over_and_gives_back(world: World, vm: VM) -> None:
    for host in (1, 0):
        world.pool.change_coordinator(world.pool.hosts[host])
        renew_session(world)
        toggle(vm)
        all_follow(world)
        halted(world, vm)


def halted(world: World, vm: VM) -> None:
    """The coordinator, whichever it is, wipes what was left by nobody in particular."""
    left = {keys.MONITOR: "True", keys.PS: "<docker_ps/>"}
    ref = world.pool.create_vm("left", power_state="Halted", other_config=left)
    until(lambda: keys.PS not in world.pool.other_config(ref), "nobody wiped it", COMES_BACK)
    world.session.xenapi.VM.destroy(ref)


def test_after_joining_another_pool_all_is_found_again_under_new_references(world: World, vm: VM) -> None:
    before = vm.ref
    world.pool.rejoin()
    renew_session(world)
    for each in world.vms:
        each.ref = world.pool.uuid_to_ref(each.uuid)
    assert vm.ref != before
    toggle(vm)
    all_follow(world)


def test_a_member_whose_coordinator_is_away_catches_up(world: World, vm: VM) -> None:
    world.pool.set_coordinator_down(True)
    toggle(vm)
    vm.engine.run("made-while-away")
    until(lambda: vm.guest.sessions == 1)
    world.pool.set_coordinator_down(False)
    all_follow(world)


@pytest.mark.parametrize("number", [0, 1], ids=["coordinator", "member"])
def test_an_xapi_that_crashes_misses_nothing(world: World, vm: VM, number: int) -> None:
    host = world.pool.hosts[number]
    host.crash()
    toggle(vm)
    vm.engine.run(f"made-while-{host.name_label}-was-down")
    host.start()
    renew_session(world)
    all_follow(world)


def test_writes_that_xapi_lost_in_a_crash_are_repeated(world: World, vm: VM) -> None:
    coordinator = world.pool.coordinator
    saved = time.monotonic()
    for number in range(3):
        vm.engine.run(f"forgotten-{number}")
        world.wait_right(vm)
    coordinator.crash(lose_writes_since=saved)
    assert not world.right(vm)
    coordinator.start()
    renew_session(world)
    world.wait_right(vm, seconds=5.0)
    assert NULL_REF != world.pool.vm(vm.ref)["resident_on"]


@pytest.mark.parametrize("method", ["VM.add_to_other_config", "VM.remove_from_other_config", "event.from", "*"])
@pytest.mark.parametrize("kind", ["drop", "drop-after", "error-500"])
def test_calls_to_xapi_that_fail_half_way_are_repeated(world: World, vm: VM, method: str, kind: str) -> None:
    world.pool.faults(method, kind, times=3)
    try:
        for _ in range(3):
            toggle(vm)
            vm.engine.run(f"made-{len(vm.engine.list())}")
        world.wait_right(vm, seconds=5.0)
    finally:
        world.pool.faults.clear()


def test_a_vm_that_is_deregistered_by_hand_is_wiped_until_it_is_registered(world: World, vm: VM) -> None:
    xapi = world.session.xenapi
    for value in ("False", ""):
        xapi.VM.remove_from_other_config(vm.ref, keys.MONITOR)
        if value:
            xapi.VM.add_to_other_config(vm.ref, keys.MONITOR, value)
        until(lambda: not set(keys.PUBLISHED) & set(world.pool.other_config(vm.ref)), "it was not wiped", COMES_BACK)
        until(lambda: vm.guest.sessions == 0, "it is still connected", COMES_BACK)
        xapi.VM.remove_from_other_config(vm.ref, keys.MONITOR)
        xapi.VM.add_to_other_config(vm.ref, keys.MONITOR, "True")
        world.wait_right(vm, seconds=COMES_BACK)


def test_calls_are_served_after_all_these_changes(world: World, vm: VM) -> None:
    for host in (0, 1):
        for verb, shown in (("stop", "Exited"), ("start", "Up")):
            assert world.call(host, verb, vmuuid=vm.uuid, container="container-0001") == "True"
            until(lambda shown=shown: world.shown(vm).get("container-0001", "").startswith(shown))  # type: ignore[misc]

