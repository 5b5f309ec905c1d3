"""Tests of which monitors run and which lists are wiped. The registry gets stand-ins for the monitors."""

import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.waiting import until
from xscontainer import keys
from xscontainer.access.pool_state import CurrentPool, PoolState
from xscontainer.core.budget import Budgets
from xscontainer.core.vm_record import NULL_REF, VMChange, VMRecord
from xscontainer.errors import ObjectGone, VMNotRegistered, XapiError, XapiUnavailable
from xscontainer.monitoring import change_limit, pending_writes, registry
from xscontainer.monitoring.registry import Registry
from xscontainer.xapi.pool import PoolRecord
from xscontainer.xapi.session import SessionPool
from xscontainer.xapi.watch import Batch

HERE, THERE = "OpaqueRef:here", "OpaqueRef:there"
ON = {"xscontainer-monitor": "True"}


def vm(uuid: str = "u", power_state: str = "Running", resident_on: str = HERE,
       ref: str = "OpaqueRef:v", **other_config: str) -> VMRecord:
    return VMRecord(ref, uuid, uuid, power_state, resident_on if power_state == "Running" else NULL_REF, 1, NULL_REF,
                    {**ON, **other_config}, True)


def known_pool(is_coordinator: bool) -> CurrentPool:
    """A pool whose state is known, as seen by the host HERE."""
    pool = CurrentPool(SessionPool(lambda: pytest.fail("XAPI is not asked"), 1, 1.0), "")
    pool.set(PoolState(PoolRecord("OpaqueRef:pool", HERE if is_coordinator else THERE, {}), HERE, frozenset()))
    return pool


class World:
    """The surroundings of a registry, with a log of what it did."""

    def __init__(self, is_coordinator: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self.log: List[str] = []
        self.forgotten: List[str] = []
        self.not_ours: List[str] = []
        self.monitors: List["StandIn"] = []
        self.wiping: Optional[BaseException] = None
        self.settling: Any = None
        self.starting: Optional[BaseException] = None
        self.updating: Optional[BaseException] = None
        self.registry = Registry(known_pool(is_coordinator), self._make, self.wipe, self.resync, self.forget, clock,
                                 self.not_ours.append)
        self._thread: Optional[threading.Thread] = None

    def _make(self, record: VMRecord) -> Any:
        self.monitors.append(StandIn(self, record))
        return self.monitors[-1]

    def wipe(self, record: VMRecord, by: str = "registry") -> None:
        self.log.append(f"{by} wipes {record.uuid}")
        if self.wiping is not None:
            raise self.wiping

    def resync(self) -> None:
        self.log.append("resync")

    def forget(self, vm_uuid: str) -> None:
        self.forgotten.append(vm_uuid)

    def deliver(self, *records: VMRecord, gone: str = "", full: bool = False) -> None:
        changes = [VMChange(record.uuid, record) for record in records]
        changes += [VMChange(uuid, None) for uuid in gone.split()]
        self.registry.deliver(Batch(changes, None, full))

    def run(self) -> None:
        """Let the registry handle all that was delivered, and end."""
        self.registry.stop()
        self.registry.run()

    def start(self) -> None:
        self._thread = threading.Thread(target=self.registry.run)
        self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self.registry.stop()
            self._thread.join(10)
            assert not self._thread.is_alive()

    def did(self, action: str) -> int:
        return sum(line == action for line in list(self.log))


class StandIn:
    """The part of a Monitor that the registry uses; it is its own publication, too."""

    def __init__(self, world: World, record: VMRecord) -> None:
        self.world, self.vm, self.alive, self.publication = world, record, False, self
        self.stale = False

    def start(self) -> None:
        self.world.log.append(f"start {self.vm.uuid}")
        if self.world.starting is not None:
            raise self.world.starting
        self.alive = True

    def stop(self) -> None:
        self.world.log.append(f"stop {self.vm.uuid}")
        self.alive = False

    def join(self, _timeout: float) -> bool:
        return not self.alive

    def update(self, record: VMRecord) -> bool:
        self.world.log.append(f"update {record.uuid}")
        if self.world.updating is not None:
            raise self.world.updating
        self.vm = record
        return True

    def replace_if_stale(self) -> bool:
        return self.stale

    def wipe(self, record: VMRecord) -> None:
        self.world.wipe(record, "publication")

    def observe(self, record: VMRecord) -> None:
        self.world.log.append(f"observe {record.uuid}")

    def settle(self) -> Optional[float]:
        self.world.log.append(f"settle {self.vm.uuid}")
        if isinstance(self.world.settling, BaseException):
            raise self.world.settling
        return None


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.stop()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the rounds of the registry short."""
    monkeypatch.setattr(registry, "ROUND", 0.02)
    monkeypatch.setattr(pending_writes, "XAPI_PAUSE", 0.05)
    monkeypatch.setattr(pending_writes, "REFUSED_PAUSE", 0.02)


def test_a_vm_that_runs_here_is_monitored_and_updated(world: World) -> None:
    world.deliver(vm(), vm("other", resident_on=THERE), full=True)
    world.deliver(vm(docker_ps="<docker_ps/>"))
    world.run()
    assert world.log == ["start u", "update u", "settle u", "stop u"]


def test_only_enabled_vms_that_run_here_are_monitored(world: World) -> None:
    world.start()
    world.deliver(vm())
    until(lambda: world.registry.records())
    assert world.registry.records() == [vm()]
    assert id(world.registry.monitor("u")) == id(world.monitors[0])
    with pytest.raises(VMNotRegistered):
        world.registry.monitor("other")


@pytest.mark.parametrize("record, wiped", [
    (vm(power_state="Halted"), True), (vm(power_state="Suspended"), True),
    (vm(**{"xscontainer-monitor": "False"}), True), (vm(resident_on=THERE, docker_ps="<docker_ps/>"), False),
    (vm(resident_on=NULL_REF, docker_ps="<docker_ps/>"), False)])
def test_a_monitor_ends_as_in_the_table(world: World, record: VMRecord, wiped: bool) -> None:
    world.deliver(vm())
    world.deliver(record)
    world.run()
    assert world.log == ["start u", "stop u"] + ["publication wipes u"] * wiped


@pytest.mark.parametrize("record, ended", [
    (vm(power_state="Halted"), False), (vm(power_state="Suspended"), False),
    (vm(resident_on=NULL_REF), False), (vm(resident_on=THERE), True), (vm(**{"xscontainer-monitor": "False"}), True),
    (vm(power_state="Halted", **{"xscontainer-monitor": "False"}), True)])
def test_the_record_of_events_ends_when_the_vm_is_not_managed_or_moves(world: World, record: VMRecord,
                                                                       ended: bool) -> None:
    world.deliver(vm())
    world.deliver(record)
    world.run()
    assert world.not_ours == ["u"] * ended


def test_a_destroyed_vm_stops_its_monitor_and_is_forgotten(world: World) -> None:
    world.deliver(vm())
    world.deliver(gone="u")
    world.run()
    assert world.log == ["start u", "stop u"]
    assert world.forgotten == ["u"]


def test_state_is_kept_only_for_vms_that_exist() -> None:
    """Many VMs are created and destroyed while the daemon runs."""
    budgets = Budgets()
    world = World()
    world.registry._forget = budgets.forget
    for number in range(1000):
        budgets.of(f"u{number}")
        world.deliver(vm(f"u{number}"))
        if number >= 10:
            world.deliver(gone=f"u{number - 10}")
    world.run()
    assert sorted(budgets._guests) == [f"u{number}" for number in range(990, 1000)]
    assert len(world.registry._records) == 10 and not world.registry._writes.wipes
    assert not world.registry._limit._paces and not world.registry._limit._deferred


def test_the_coordinator_wipes_an_inherited_list() -> None:
    for is_coordinator in (False, True):
        world = World(is_coordinator)
        world.deliver(vm(power_state="Halted", docker_ps="<docker_ps/>"), full=True)
        world.run()
        assert world.log == ["registry wipes u"] * is_coordinator


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def patient(*later: VMRecord) -> World:
    """Return the world of a member that has seen a halted VM with a list, but never monitored it, an hour later.

    :param later: changes of the VM before that hour is over.
    """
    clock = Clock()
    world = World(clock=clock)
    world.deliver(vm(power_state="Halted", docker_ps="<docker_ps/>"), full=True)
    if later:
        world.deliver(*later)
    world.start()
    until(lambda: world.registry._queue.empty() and world.registry.turned_at == clock.now)
    assert world.log == []
    clock.now += 3600.0
    world.deliver(vm("another", power_state="Halted"))  # makes the registry look at the clock
    until(lambda: world.registry.turned_at == clock.now and not world.registry._writes.wipes)
    world.stop()
    return world


def test_any_host_wipes_a_list_that_stays_too_long(quick: None) -> None:
    """The daemons of the VM's host and of the coordinator may be off."""
    assert patient().log == ["registry wipes u"]


def test_a_late_wipe_is_dropped_when_the_vm_runs_again(quick: None) -> None:
    assert patient(vm(resident_on=THERE, docker_ps="<docker_ps>new</docker_ps>")).log == []


def test_the_list_of_a_disabled_vm_is_wiped_by_its_host(world: World) -> None:
    world.deliver(vm(docker_ps="<docker_ps/>", **{"xscontainer-monitor": "False"}))
    world.run()
    assert world.log == ["registry wipes u"]


def test_a_reboot_keeps_the_monitor(world: World) -> None:
    world.deliver(vm())
    world.deliver(vm()._replace(domid=2))
    world.run()
    assert world.did("start u") == 1 and world.did("update u") == 1


# --- supervision


def test_a_dead_monitor_is_replaced(world: World, quick: None) -> None:
    world.start()
    world.deliver(vm())
    until(lambda: world.monitors and world.monitors[0].alive)
    world.monitors[0].alive = False
    until(lambda: len(world.monitors) == 2 and world.monitors[1].alive)
    assert id(world.registry.monitor("u")) == id(world.monitors[1])


def test_a_monitor_that_cannot_start_is_started_later(world: World, quick: None) -> None:
    world.starting = RuntimeError("can't start new thread")
    world.start()
    world.deliver(vm())
    until(lambda: world.did("start u") >= 3)
    world.starting = None
    until(lambda: world.registry.monitor("u").alive)


def test_the_time_of_the_last_round_advances(world: World, quick: None) -> None:
    world.start()
    before = world.registry.turned_at
    until(lambda: world.registry.turned_at > before)


@pytest.mark.parametrize("what", ["starting", "updating", "settling", "wiping"])
def test_an_error_about_one_vm_leaves_the_others_monitored(
        world: World, quick: None, what: str, caplog: pytest.LogCaptureFixture) -> None:
    world.start()
    if what != "starting":
        world.deliver(vm())
        until(lambda: world.did("start u"))
    setattr(world, what, MemoryError("none is left"))
    world.deliver(vm(power_state="Halted") if what == "wiping" else vm(docker_ps="x"))
    until(lambda: world.did("resync"))
    assert "u'" in caplog.text and "none is left" in caplog.text
    setattr(world, what, None)
    world.deliver(vm("v"), vm(docker_ps="x"), full=True)
    until(lambda: len(world.registry.records()) == 2)
    if what == "settling":
        count = world.did("settle u")
        world.deliver(vm(docker_ps="x"))
        until(lambda: world.did("settle u") > count)


def test_a_persistent_error_is_retried_with_backoff() -> None:
    now = [0.0]
    world = World(clock=lambda: now[0])
    world.registry._resync = lambda: world.deliver(vm(), full=True)
    world.starting, tries = MemoryError("none is left"), []

    def pause() -> float:
        now[0] += 1.0
        if now[0] > 3600.0:
            world.registry.stop()
        tries.append(world.did("start u"))
        return 0.0

    world.registry._pause = pause  # type: ignore[method-assign]
    world.deliver(vm(), full=True)
    world.registry.run()
    assert 10 < tries[-1] < 60 and tries[-1] - tries[-1200] <= 6


def test_stop_ends_every_monitor_and_wipes_none(world: World) -> None:
    world.deliver(*(vm(f"u{number}") for number in range(20)))
    world.run()
    assert sum(line.startswith("stop") for line in world.log) == 20
    assert not any("wipes" in line for line in world.log)
    assert world.registry.records() == []


def test_stop_does_not_wait_for_a_monitor_that_hangs(world: World) -> None:
    world.deliver(vm())
    world.start()
    until(lambda: world.monitors)
    world.monitors[0].join = lambda timeout: time.sleep(timeout) or False  # type: ignore[assignment,func-returns-value]
    begun = time.monotonic()
    world.stop()
    assert time.monotonic() - begun < 2.0


# --- failures of XAPI


def test_a_wipe_is_retried_until_xapi_is_back(world: World, quick: None) -> None:
    world.wiping = XapiUnavailable("away")
    world.start()
    world.deliver(vm())
    world.deliver(vm(power_state="Halted"))
    until(lambda: world.did("publication wipes u") >= 3)
    # Later events of the same halt leave the wipe to the publication, which knows its own writes.
    world.deliver(vm(power_state="Halted", docker_ps="<docker_ps/>"))
    world.deliver(vm(power_state="Halted"))
    count = world.did("publication wipes u")
    until(lambda: world.did("publication wipes u") > count + 1)
    world.wiping = None
    until(lambda: not world.registry._writes.wipes)
    assert world.did("registry wipes u") == 0


@pytest.mark.parametrize("where", [HERE, THERE])
def test_a_pending_wipe_is_dropped_when_the_vm_runs_again(world: World, quick: None, where: str) -> None:
    """The host that runs the VM may have published a new list by then."""
    world.wiping = XapiUnavailable("away")
    world.start()
    world.deliver(vm())
    world.deliver(vm(power_state="Halted"))
    until(lambda: world.did("publication wipes u") >= 1)
    world.deliver(vm(resident_on=where, docker_ps="<docker_ps>new</docker_ps>"))
    until(lambda: not world.registry._writes.wipes)
    count = world.did("publication wipes u")
    world.wiping = None
    before = world.registry.turned_at
    until(lambda: world.registry.turned_at > before + 0.1)
    assert world.did("publication wipes u") == count and world.did("registry wipes u") == 0


def test_a_refused_wipe_is_not_repeated(world: World, quick: None) -> None:
    world.wiping = XapiError("no")
    world.start()
    world.deliver(vm())
    world.deliver(vm(power_state="Halted"))
    until(lambda: world.did("publication wipes u"))
    before = world.registry.turned_at
    until(lambda: world.registry.turned_at > before + 0.1)
    assert world.did("publication wipes u") == 1


@pytest.mark.parametrize("error", [XapiUnavailable("away"), XapiError("refused"), ObjectGone("gone")])
def test_no_error_about_one_vm_ends_the_registry(world: World, quick: None, error: BaseException) -> None:
    world.settling = error
    world.start()
    world.deliver(vm())
    world.deliver(vm(docker_ps="x"))
    until(lambda: world.did("settle u"))
    world.deliver(vm("v"))
    until(lambda: world.did("start v"))
    world.settling = None
    count = world.did("settle u")
    until(lambda: world.did("settle u") > count)


def test_each_round_asks_an_absent_xapi_only_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt may take as long as a call's timeout: twenty in a row would look like a stuck registry."""
    monkeypatch.setattr(pending_writes, "XAPI_PAUSE", 30.0)
    world.settling = XapiUnavailable("away")
    world.start()
    for number in range(20):
        world.deliver(vm(f"u{number}"))
        world.registry.check(f"u{number}")
    until(lambda: world.did("start u19"))
    assert sum(line.startswith("settle") for line in world.log) == 1


def test_a_thousand_wipes_do_not_delay_a_start() -> None:
    """Example: a whole pool is shut down, and XAPI takes 50 ms for each of four keys."""
    now, gap, booted = [0.0], 0.0, 0.0
    world = World(is_coordinator=True, clock=lambda: now[0])

    def wipe(record: VMRecord) -> None:
        nonlocal gap, booted
        gap = max(gap, now[0] - world.registry.turned_at)
        now[0] += 0.2
        world.log.append("wiped")
        if world.did("wiped") == 100:
            world.deliver(vm("boots"))
            booted = now[0]
        if world.did("wiped") == 1000:
            world.registry.stop()

    started: List[float] = []
    world.registry._writes._usual_wipe = wipe
    world.deliver(*(vm(f"u{number}", "Halted", docker_ps="x") for number in range(1000)), full=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StandIn, "start", lambda monitor: started.append(now[0]))
        world.registry.run()
    assert world.did("wiped") == 1000 and started
    assert started[0] - booted <= 1.5 and gap <= 1.5


def test_a_check_of_an_unknown_vm_is_ignored(world: World) -> None:
    world.registry.check("nobody")
    world.run()
    assert world.log == [] and not world.registry._writes._checks


# --- any history


STEPS = st.lists(st.tuples(
    st.sampled_from(["a", "b"]), st.sampled_from(["Running", "Running", "Halted", "Suspended", "gone"]),
    st.sampled_from([HERE, HERE, THERE, NULL_REF]), st.sampled_from(["True", "True", "False"]), st.booleans(),
    st.booleans()), max_size=30)


@given(STEPS, st.booleans())
def test_exactly_the_enabled_vms_here_have_one_live_monitor(steps: Any, is_coordinator: bool) -> None:
    """After any history exactly the VMs that run here and are switched on have a live monitor, and only one each."""
    world = World(is_coordinator)
    truth: Dict[str, VMRecord] = {}
    for uuid, state, host, switch, listed, away in steps:
        if state == "gone":
            truth.pop(uuid, None)
            world.deliver(gone=uuid)
        else:
            truth[uuid] = vm(uuid, state, host, **{"xscontainer-monitor": switch}, **({keys.PS: "x"} if listed else {}))
            world.deliver(truth[uuid])
        world.wiping = XapiUnavailable("away") if away else None
    end = world.registry._running.end
    alive: List[str] = []

    def look_and_end() -> None:
        alive.extend(monitor.vm.uuid for monitor in world.monitors if monitor.alive)
        end()

    world.registry._running.end = look_and_end  # type: ignore[method-assign]
    world.run()
    expected = [uuid for uuid, record in truth.items() if record.power_state == "Running"
                and record.resident_on == HERE and record.other_config["xscontainer-monitor"] == "True"]
    assert sorted(alive) == sorted(expected)


class _Hand:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_flapping_settings_are_rate_limited_and_the_latest_wins() -> None:
    clock = _Hand()
    world = World(clock=clock)
    world.deliver(vm())
    for number in range(400):
        world.deliver(vm(**{keys.ENGINE_SOCKET: f"/{number}"}))
        world.registry._take()
        world.registry._look_after()
        clock.now += 0.05
    assert change_limit.CHANGES <= world.did("update u") <= change_limit.CHANGES + 20.0 / change_limit.CHANGES_INTERVAL
    clock.now += change_limit.CHANGES_INTERVAL
    world.registry._look_after()
    assert world.monitors[0].vm.other_config[keys.ENGINE_SOCKET] == "/399"
    world.registry._look_after()
    assert world.did("update u") <= change_limit.CHANGES + 1 + 20.0 / change_limit.CHANGES_INTERVAL


def test_flapping_addresses_do_not_delay_a_start_or_migration() -> None:
    clock = _Hand()
    world = World(clock=clock)
    world.deliver(vm())
    for number in range(100):
        world.deliver(vm()._replace(networks={"0/ip": f"192.0.2.{number}"}))
    world.deliver(vm("other"))
    world.deliver(vm()._replace(networks={"0/ip": "192.0.2.200"}, domid=7))
    while world.registry._queue.qsize():
        world.registry._take()
    assert world.did("start other") == 1
    assert world.monitors[0].vm.domid == 7
    world.deliver(vm(resident_on=THERE))
    world.registry._take()
    assert world.did("stop u") == 1
    clock.now += 100.0
    world.registry._look_after()
    assert world.did("update u") <= change_limit.CHANGES + 1, "no deferred change of the flapping is left"


def test_our_own_writes_are_observed_while_settings_flap() -> None:
    clock = _Hand()
    world = World(clock=clock)
    world.deliver(vm())
    for number in range(100):
        world.deliver(vm(**{keys.ENGINE_SOCKET: f"/{number}"}))
    world.deliver(vm(**{keys.ENGINE_SOCKET: "/99", keys.PS: "list"}))
    while world.registry._queue.qsize():
        world.registry._take()
    assert world.did("observe u") == 101 - change_limit.CHANGES


def test_the_reason_for_a_stale_list_is_written() -> None:
    world = World()
    world.start()
    world.deliver(vm("u"))
    until(lambda: world.did("settle u") or world.monitors)
    before = world.did("settle u")
    world.monitors[0].stale = True
    try:
        until(lambda: world.did("settle u") > before)
    finally:
        world.stop()
