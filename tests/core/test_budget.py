"""Budgets limit each guest and all guests together, and an honest guest never waits."""

import collections
import random
import threading
from typing import Deque, Dict, List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xscontainer.core.budget import BURST_BYTES, CPU, Budgets, FairRate, ThreadMeter, thread_cpu, writing


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


Turns = List[Tuple[float, str, float]]


def greedy(rate: FairRate, clock: Clock, guests: "Dict[str, float]", seconds: float) -> Turns:
    """Return the turns of guests that take a turn whenever they may, as (time, name, cost).

    :param guests: name -> cost of each turn.
    """
    due = {name: clock.now for name in guests}
    turns = []
    end = clock.now + seconds
    while clock.now < end:
        name = min(due, key=lambda guest: due[guest])
        clock.now = max(clock.now, due[name])
        wait = rate.delay(name)
        if wait <= 0.0:
            turns.append((clock.now, name, guests[name]))
            rate.spend(name, guests[name])
            clock.now += guests[name] / 2  # two cores
            wait = rate.delay(name)
        due[name] = clock.now + wait + 1e-6
    return turns


def most_in(turns: Turns, window: float, who: str = "") -> float:
    found, inside = 0.0, 0.0
    recent: Deque[Tuple[float, float]] = collections.deque()
    for at, name, cost in turns:
        if who in ("", name):
            recent.append((at, cost))
            inside += cost
            while recent[0][0] <= at - window:
                inside -= recent.popleft()[1]
            found = max(found, inside)
    return found


@pytest.mark.parametrize("cost", [0.0005, 0.005, 0.02])
def test_one_guest_takes_at_most_a_tenth_of_a_core(cost: float) -> None:
    clock = Clock()
    turns = greedy(FairRate(CPU, clock), clock, {"flood": cost}, 40.0)
    assert most_in(turns, 10.0) <= 1.0
    assert sum(cost for _, _, cost in turns) >= 0.06 * 40.0, "the guest is served all the time"


@pytest.mark.parametrize("number", [3, 10, 40])
def test_all_guests_together_take_at_most_half_a_core(number: int) -> None:
    clock = Clock()
    turns = greedy(FairRate(CPU, clock), clock, {f"flood{index}": 0.005 for index in range(number)}, 40.0)
    later = [turn for turn in turns if turn[0] >= 1010.0]
    assert most_in(later, 10.0) <= 5.0
    # The burst of each guest comes on top, once.
    assert most_in(turns, 10.0) <= max(5.0, CPU.burst * number)
    shares = [sum(cost for _, name, cost in later if name == f"flood{index}") for index in range(number)]
    assert max(shares) <= 2.0 * min(shares), "all guests are throttled alike"


def test_an_honest_guest_never_waits_for_hostile_ones() -> None:
    clock = Clock()
    rate = FairRate(CPU, clock)
    for _ in range(60):
        greedy(rate, clock, {f"flood{index}": 0.005 for index in range(30)}, 1.0)
        assert rate.delay("honest") == 0.0
        rate.spend("honest", 0.005)


def test_an_overdrawn_guest_waits_once() -> None:
    clock = Clock()
    rate = FairRate(CPU, clock)
    rate.spend("list", 0.9)
    wait = rate.delay("list")
    assert 0.7 / CPU.each <= wait <= 0.75 / CPU.each
    clock.now += wait
    assert rate.delay("list") == pytest.approx(0.0, abs=1e-6)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 1), st.floats(0, 30)), max_size=60))
def test_budgets_refill_up_to_their_burst(uses: "List[Tuple[str, float, float]]") -> None:
    clock = Clock()
    rate = FairRate(CPU, clock)
    for guest, cost, pause in uses:
        rate.spend(guest, cost)
        clock.now += pause
        assert rate.delay(guest) >= 0.0
    clock.now += 10000.0
    for guest in "abcd":
        assert rate.recovered(guest) and rate.delay(guest) == 0.0
        rate.spend(guest, CPU.burst + 0.01)
        assert rate.delay(guest) > 0.0


def test_throttled_for_returns_how_long_a_guest_has_been_throttled() -> None:
    clock = Clock()
    budget = Budgets(clock).of("vm")
    assert budget.throttled_for() == 0.0
    for _ in range(10):
        budget.charge(0.3)
        clock.now += budget.hold()
    assert budget.hold() == pytest.approx(0.0, abs=1e-6)
    assert budget.throttled_for() >= 10 * 0.3 / CPU.each - 3.0, "the time between turns counts as throttled, too"
    clock.now += CPU.burst / CPU.each
    assert budget.throttled_for() == 0.0


def test_a_new_connection_keeps_the_budget_of_its_vm() -> None:
    budgets = Budgets(Clock())
    budgets.of("vm").charge(1.0)
    assert budgets.of("vm").hold() > 0.0
    budgets.forget("vm")
    assert budgets.of("vm").hold() > 0.0, "a VM that goes and comes back keeps its budget, too"
    assert budgets.of("other").hold() == 0.0


def test_a_thread_is_charged_for_its_own_cpu_time() -> None:
    """The CPU time of other threads and waiting cost nothing."""
    clock = Clock()
    budgets = Budgets(clock)
    held: List[float] = []

    def work() -> None:
        meter = ThreadMeter(budgets.of("busy"))
        while thread_cpu() < CPU.burst + 0.1:
            random.random()
        held.append(meter.charge())
        held.append(meter.charge())

    def wait() -> None:
        meter = ThreadMeter(budgets.of("idle"))
        thread.join()
        held.append(meter.charge())

    thread = threading.Thread(target=work)
    waiting = threading.Thread(target=wait)
    thread.start()
    waiting.start()
    waiting.join(60.0)
    assert held[0] >= 0.1 / CPU.each - 0.001
    assert held[1] == 0.0 and held[2] == 0.0


def test_the_cpu_time_of_a_block_is_charged() -> None:
    budgets = Budgets(Clock())
    before = thread_cpu()
    with budgets.of("vm").charged():
        while thread_cpu() < before + CPU.burst + 0.05:
            random.random()
    assert budgets.of("vm").hold() > 0.0


def test_flapping_vms_share_the_write_rate_of_a_host() -> None:
    """A single change of another VM is written immediately."""
    clock = Clock()
    budgets = Budgets(clock, write_rates=writing(20, 1000000))
    written: List[Tuple[float, int]] = []
    began = clock.now
    while clock.now < began + 60.0:
        for number in range(10):
            budget = budgets.of(f"flap{number}")
            if budget.hold_writing() == 0.0:
                budget.wrote(250000)
                written.append((clock.now, number))
        if (clock.now - began) % 5.0 < 0.1:
            assert budgets.of("honest").hold_writing() == 0.0
            budgets.of("honest").wrote(20000)
        clock.now += 0.1
    assert sum(250000 for at, _ in written if at >= began + 10.0) <= 51 * 1000000
    times = [sum(number == who for _, who in written) for number in range(10)]
    assert min(times) >= 20 and max(times) <= min(times) + 3


def test_small_writes_are_counted_too() -> None:
    clock = Clock()
    budgets = Budgets(clock, write_rates=writing(20, 1000000))
    count = 0
    for _ in range(1000):
        for number in range(100):
            budget = budgets.of(str(number))
            if budget.hold_writing() == 0.0:
                budget.wrote(100)
                count += 1
        clock.now += 0.05
    assert count <= 100 * 4 + 21 * 50


def test_a_single_vm_is_not_throttled_by_the_bounds_of_the_host() -> None:
    clock = Clock()
    budget = Budgets(clock, write_rates=writing(20, 1000000)).of("vm")
    for _ in range(100):
        assert budget.hold_writing() == 0.0
        budget.wrote(int(BURST_BYTES))
        clock.now += 0.7
