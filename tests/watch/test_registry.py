"""Which monitors run, and what is wiped. Monitors are stand-ins: their factory is the registry's seam."""

import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.waiting import until
from xscontainer import keys, registry
from xscontainer.errors import ObjectGone, VMNotRegistered, XapiError, XapiUnavailable
from xscontainer.registry import Host, Registry
from xscontainer.vmrecord import NULL_REF, VMChange, VMRecord
from xscontainer.xapi.events import Batch

HERE, THERE = "OpaqueRef:here", "OpaqueRef:there"
ON = {"xscontainer-monitor": "True"}


def vm(uuid: str = "u", power_state: str = "Running", resident_on: str = HERE, ref: str = "OpaqueRef:v",
       **other_config: str) -> VMRecord:
    return VMRecord(ref, uuid, uuid, power_state, resident_on if power_state == "Running" else NULL_REF, 1, NULL_REF,
                    {**ON, **other_config}, True)


class World:
    """What the registry acts upon, and what it did."""

    def __init__(self, is_coordinator: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self.log: List[str] = []
        self.monitors: List["StandIn"] = []
        self.wiping: Optional[BaseException] = None
        self.settling: Any = None
        self.starting: Optional[BaseException] = None
        self.telling: Optional[BaseException] = None
        self.registry = Registry(Host(HERE, is_coordinator), self._make, self.wipe, self.resync, clock)
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

    def tell(self, *records: VMRecord, gone: str = "", full: bool = False) -> None:
        changes = [VMChange(record.uuid, record) for record in records]
        changes += [VMChange(uuid, None) for uuid in gone.split()]
        self.registry.deliver(Batch(changes, None, full))

    def run(self) -> None:
        """Let it do what there is to do, and end it."""
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

    def did(self, what: str) -> int:
        return sum(line == what for line in list(self.log))


class StandIn:
    """As much of a Monitor as the registry sees; its own publication, too."""

    def __init__(self, world: World, record: VMRecord) -> None:
        self.world, self.vm, self.alive, self.publication = world, record, False, self

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

    def update(self, record: VMRecord) -> None:
        self.world.log.append(f"update {record.uuid}")
        if self.world.telling is not None:
            raise self.world.telling
        self.vm = record

    def wipe(self, record: VMRecord) -> None:
        self.world.wipe(record, "publication")

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
    """The registry's rounds, as fast as a test has time."""
    monkeypatch.setattr(registry, "ROUND", 0.02)
    monkeypatch.setattr(registry, "XAPI_PAUSE", 0.05)


def test_a_vm_that_runs_here_is_monitored_and_told_of_changes(world: World) -> None:
    world.tell(vm(), vm("other", resident_on=THERE), full=True)
    world.tell(vm(docker_ps="<docker_ps/>"))
    world.run()
    assert world.log == ["start u", "update u", "settle u", "stop u"]


def test_whom_it_monitors(world: World) -> None:
    world.start()
    world.tell(vm())
    until(lambda: world.registry.records())
    assert world.registry.records() == [vm()]
    assert id(world.registry.monitor("u")) == id(world.monitors[0])
    with pytest.raises(VMNotRegistered):
        world.registry.monitor("other")


@pytest.mark.parametrize("record, wiped", [
    (vm(power_state="Halted"), True), (vm(power_state="Suspended"), True),
    (vm(**{"xscontainer-monitor": "False"}), True), (vm(resident_on=THERE, docker_ps="<docker_ps/>"), False),
    (vm(resident_on=NULL_REF, docker_ps="<docker_ps/>"), False)])
def test_the_end_of_a_monitor(world: World, record: VMRecord, wiped: bool) -> None:
    world.tell(vm())
    world.tell(record)
    world.run()
    assert world.log == ["start u", "stop u"] + ["publication wipes u"] * wiped


def test_a_vm_that_is_destroyed(world: World) -> None:
    world.tell(vm())
    world.tell(gone="u")
    world.run()
    assert world.log == ["start u", "stop u"]


def test_the_coordinator_sweeps_what_was_carried_in() -> None:
    for is_coordinator in (False, True):
        world = World(is_coordinator)
        world.tell(vm(power_state="Halted", docker_ps="<docker_ps/>"), full=True)
        world.run()
        assert world.log == ["registry wipes u"] * is_coordinator


def test_a_running_vm_that_is_switched_off_is_swept_by_its_host(world: World) -> None:
    world.tell(vm(docker_ps="<docker_ps/>", **{"xscontainer-monitor": "False"}))
    world.run()
    assert world.log == ["registry wipes u"]


def test_a_reboot_keeps_the_monitor(world: World) -> None:
    world.tell(vm())
    world.tell(vm()._replace(domid=2))
    world.run()
    assert world.did("start u") == 1 and world.did("update u") == 1


# --- supervision


def test_a_monitor_that_ended_by_itself_is_replaced(world: World, quick: None) -> None:
    world.start()
    world.tell(vm())
    until(lambda: world.monitors and world.monitors[0].alive)
    world.monitors[0].alive = False
    until(lambda: len(world.monitors) == 2 and world.monitors[1].alive)
    assert id(world.registry.monitor("u")) == id(world.monitors[1])


def test_a_monitor_that_cannot_start_is_tried_again(world: World, quick: None) -> None:
    world.starting = RuntimeError("can't start new thread")
    world.start()
    world.tell(vm())
    until(lambda: world.did("start u") >= 3)
    world.starting = None
    until(lambda: world.registry.monitor("u").alive)


def test_the_watchdog_sees_that_it_goes_round(world: World, quick: None) -> None:
    world.start()
    before = world.registry.turned_at
    until(lambda: world.registry.turned_at > before)


@pytest.mark.parametrize("what", ["starting", "telling", "settling", "wiping"])
def test_an_error_about_one_vm_leaves_the_others_monitored(
        world: World, quick: None, what: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it is."""
    world.start()
    if what != "starting":
        world.tell(vm())
        until(lambda: world.did("start u"))
    setattr(world, what, MemoryError("none is left"))
    world.tell(vm(power_state="Halted") if what == "wiping" else vm(docker_ps="x"))
    until(lambda: world.did("resync"))
    assert "u'" in caplog.text and "none is left" in caplog.text
    setattr(world, what, None)
    world.tell(vm("v"), vm(docker_ps="x"), full=True)
    until(lambda: len(world.registry.records()) == 2)
    if what == "settling":
        count = world.did("settle u")
        world.tell(vm(docker_ps="x"))
        until(lambda: world.did("settle u") > count)


def test_an_error_that_stays_is_met_less_and_less_often() -> None:
    now = [0.0]
    world = World(clock=lambda: now[0])
    world.registry._resync = lambda: world.tell(vm(), full=True)
    world.starting, tries = MemoryError("none is left"), []

    def pause() -> float:
        now[0] += 1.0
        if now[0] > 3600.0:
            world.registry.stop()
        tries.append(world.did("start u"))
        return 0.0

    world.registry._pause = pause  # type: ignore[method-assign]
    world.tell(vm(), full=True)
    world.registry.run()
    assert 10 < tries[-1] < 60 and tries[-1] - tries[-1200] <= 6


def test_stop_ends_every_monitor_and_wipes_none(world: World) -> None:
    world.tell(*(vm(f"u{number}") for number in range(20)))
    world.run()
    assert sum(line.startswith("stop") for line in world.log) == 20
    assert not any("wipes" in line for line in world.log)
    assert world.registry.records() == []


def test_stop_does_not_wait_for_a_monitor_that_hangs(world: World) -> None:
    world.tell(vm())
    world.start()
    until(lambda: world.monitors)
    world.monitors[0].join = lambda timeout: time.sleep(timeout) or False  # type: ignore[assignment,func-returns-value]
    begun = time.monotonic()
    world.stop()
    assert time.monotonic() - begun < 2.0


# --- XAPI in trouble


def test_a_wipe_is_tried_until_xapi_is_back(world: World, quick: None) -> None:
    world.wiping = XapiUnavailable("away")
    world.start()
    world.tell(vm())
    world.tell(vm(power_state="Halted"))
    until(lambda: world.did("publication wipes u") >= 3)
    # Later events of the same halt change nothing about who knows what was written.
    world.tell(vm(power_state="Halted", docker_ps="<docker_ps/>"))
    world.tell(vm(power_state="Halted"))
    count = world.did("publication wipes u")
    until(lambda: world.did("publication wipes u") > count + 1)
    world.wiping = None
    until(lambda: not world.registry._unwiped)
    assert world.did("registry wipes u") == 0


@pytest.mark.parametrize("where", [HERE, THERE])
def test_a_wipe_that_is_due_is_forgotten_when_the_vm_runs_again(world: World, quick: None, where: str) -> None:
    """Whoever runs it may have published by now."""
    world.wiping = XapiUnavailable("away")
    world.start()
    world.tell(vm())
    world.tell(vm(power_state="Halted"))
    until(lambda: world.did("publication wipes u") >= 1)
    world.tell(vm(resident_on=where, docker_ps="<docker_ps>new</docker_ps>"))
    until(lambda: not world.registry._unwiped)
    count = world.did("publication wipes u")
    world.wiping = None
    before = world.registry.turned_at
    until(lambda: world.registry.turned_at > before + 0.1)
    assert world.did("publication wipes u") == count and world.did("registry wipes u") == 0


def test_a_wipe_that_xapi_refuses_is_not_repeated(world: World, quick: None) -> None:
    world.wiping = XapiError("no")
    world.start()
    world.tell(vm())
    world.tell(vm(power_state="Halted"))
    until(lambda: world.did("publication wipes u"))
    before = world.registry.turned_at
    until(lambda: world.registry.turned_at > before + 0.1)
    assert world.did("publication wipes u") == 1


@pytest.mark.parametrize("error", [XapiUnavailable("away"), XapiError("refused"), ObjectGone("gone")])
def test_no_trouble_with_one_vm_ends_the_registry(world: World, quick: None, error: BaseException) -> None:
    world.settling = error
    world.start()
    world.tell(vm())
    world.tell(vm(docker_ps="x"))
    until(lambda: world.did("settle u"))
    world.tell(vm("v"))
    until(lambda: world.did("start v"))
    world.settling = None
    count = world.did("settle u")
    until(lambda: world.did("settle u") > count)


def test_while_xapi_is_away_each_round_asks_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try may take as long as a call's deadline: twenty in a row would look like a registry that is stuck."""
    monkeypatch.setattr(registry, "XAPI_PAUSE", 30.0)
    world.settling = XapiUnavailable("away")
    world.start()
    for number in range(20):
        world.tell(vm(f"u{number}"))
        world.registry.check(f"u{number}")
    until(lambda: world.did("start u19"))
    assert sum(line.startswith("settle") for line in world.log) == 1


def test_a_thousand_wipes_hold_no_start_up_and_are_not_stuck() -> None:
    """A whole pool is shut down, and XAPI takes 50 ms for each of four keys."""
    now, gap, booted = [0.0], 0.0, 0.0
    world = World(is_coordinator=True, clock=lambda: now[0])

    def wipe(record: VMRecord) -> None:
        nonlocal gap, booted
        gap = max(gap, now[0] - world.registry.turned_at)
        now[0] += 0.2
        world.log.append("wiped")
        if world.did("wiped") == 100:
            world.tell(vm("boots"))
            booted = now[0]
        if world.did("wiped") == 1000:
            world.registry.stop()

    started: List[float] = []
    world.registry._wipe = wipe
    world.tell(*(vm(f"u{number}", "Halted", docker_ps="x") for number in range(1000)), full=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StandIn, "start", lambda monitor: started.append(now[0]))
        world.registry.run()
    assert world.did("wiped") == 1000 and started
    assert started[0] - booted <= 1.5 and gap <= 1.5


def test_check_of_a_vm_that_is_not_here(world: World) -> None:
    world.registry.check("nobody")
    world.run()
    assert world.log == [] and not world.registry._checks


# --- whatever happens


STEPS = st.lists(st.tuples(
    st.sampled_from(["a", "b"]), st.sampled_from(["Running", "Running", "Halted", "Suspended", "gone"]),
    st.sampled_from([HERE, HERE, THERE, NULL_REF]), st.sampled_from(["True", "True", "False"]), st.booleans(),
    st.booleans()), max_size=30)


@given(STEPS, st.booleans())
def test_no_third_state(steps: Any, is_coordinator: bool) -> None:
    """After any history: exactly what runs here and is switched on has a live monitor, and only one."""
    world = World(is_coordinator)
    truth: Dict[str, VMRecord] = {}
    for uuid, state, host, switch, listed, away in steps:
        if state == "gone":
            truth.pop(uuid, None)
            world.tell(gone=uuid)
        else:
            truth[uuid] = vm(uuid, state, host, **{"xscontainer-monitor": switch}, **({keys.PS: "x"} if listed else {}))
            world.tell(truth[uuid])
        world.wiping = XapiUnavailable("away") if away else None
    end = world.registry._end
    alive: List[str] = []

    def look_and_end() -> None:
        alive.extend(monitor.vm.uuid for monitor in world.monitors if monitor.alive)
        end()

    world.registry._end = look_and_end  # type: ignore[method-assign]
    world.run()
    expected = [uuid for uuid, record in truth.items() if record.power_state == "Running"
                and record.resident_on == HERE and record.other_config["xscontainer-monitor"] == "True"]
    assert sorted(alive) == sorted(expected)
