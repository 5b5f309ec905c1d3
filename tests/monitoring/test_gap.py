"""Clients must not see a VM without its list, although a list is replaced in two transactions."""

import threading
from typing import Any, List

import pytest

from tests.monitoring.gap import watch_updates
from xscontainer.simulator.xapi import Pool
from xscontainer.xapi.session import SessionPool
from xscontainer.xapi.wake import BLIND, HEARD, WAITING_AGAIN, ClientWake


class Clock:
    """A clock that only sleeping advances."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: List[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def injected(pool: Pool) -> int:
    return pool.stats.calls("event.inject", "watch")


@pytest.mark.real
def test_xen_orchestra_never_sees_a_vm_without_its_list(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Pool(str(tmp_path_factory.mktemp("gap")), hosts=2) as pool:
        seen = watch_updates(pool, 12, 20000)
    assert seen.changes == seen.updates
    # The client has 30 ms to receive the event, and runs beside other processes on a busy machine.
    assert seen.orchestra <= 1


def test_a_write_does_not_wait_when_waking_is_disabled(pool: Pool, sessions: SessionPool) -> None:
    clock = Clock()
    wake = ClientWake(sessions, lambda: str(pool.coordinator.ref), lambda: False, clock, clock.sleep)
    wake.before_writing()
    assert not clock.slept and not injected(pool)


def test_a_burst_of_writes_needs_one_event(pool: Pool, sessions: SessionPool) -> None:
    clock = Clock()
    wake = ClientWake(sessions, lambda: str(pool.coordinator.ref), lambda: True, clock, clock.sleep)
    for _ in range(5):
        wake.before_writing()
        clock.now += 0.01
    assert injected(pool) == 1 and sum(clock.slept) == pytest.approx(HEARD, abs=0.002)


def test_writes_start_while_clients_do_not_poll(pool: Pool, sessions: SessionPool) -> None:
    """Each write has an event at least 30 ms before it, and not much earlier."""
    clock = Clock()
    wake = ClientWake(sessions, lambda: str(pool.coordinator.ref), lambda: True, clock, clock.sleep)
    events: List[float] = []
    make_event = wake._make_event

    def noted(session: Any) -> None:
        events.append(clock.now)
        make_event(session)

    wake._make_event = noted  # type: ignore[method-assign, unused-ignore]
    for step in range(200):
        began = clock.now
        wake.before_writing()
        assert HEARD * 0.99 <= clock.now - events[-1] < BLIND
        assert clock.now - began <= WAITING_AGAIN + HEARD + 0.01
        clock.now += 0.007 * (step % 90)
    assert all(later - earlier >= WAITING_AGAIN for earlier, later in zip(events, events[1:]))


def test_a_write_does_not_wait_when_the_event_fails(pool: Pool, sessions: SessionPool) -> None:
    clock = Clock()
    wake = ClientWake(sessions, lambda: str(pool.coordinator.ref), lambda: True, clock, clock.sleep)
    pool.faults("event.inject", "fail", times=1, description=["INTERNAL_ERROR", "x"])
    wake.before_writing()
    assert not clock.slept


def test_the_event_names_the_hosts_own_vm_after_its_ref_has_changed(pool: Pool, sessions: SessionPool) -> None:
    clock = Clock()
    wake = ClientWake(sessions, lambda: str(pool.coordinator.ref), lambda: True, clock, clock.sleep)
    wake._vm = "OpaqueRef:of-another-pool"
    wake.before_writing()
    assert sum(clock.slept) >= HEARD and wake._vm in pool.records("VM")


def test_threads_wait_for_the_same_event(pool: Pool, sessions: SessionPool) -> None:
    wake = ClientWake(sessions, lambda: str(pool.coordinator.ref), lambda: True)
    threads = [threading.Thread(target=wake.before_writing) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
    # One event, unless the machine is so busy that the first event is already over.
    assert 1 <= injected(pool) <= 3
