"""Calls about a VM are charged to its guest."""

import threading
from typing import Any, Iterator

import pytest

from tests.clock import Clock
from xscontainer import keys
from xscontainer.access.opener import Access
from xscontainer.access.pool_state import PoolState
from xscontainer.core.budget import CPU, Budgets, thread_cpu
from xscontainer.core.vm_record import NULL_REF, VMChange, VMRecord
from xscontainer.errors import GuestThrottled
from xscontainer.monitoring.registry import Registry
from xscontainer.plugin.context import DaemonContext
from xscontainer.settings import Settings
from xscontainer.xapi.pool import PoolRecord
from xscontainer.xapi.session import SessionPool
from xscontainer.xapi.watch import Batch

VM = VMRecord("OpaqueRef:v", "u", "web", "Running", "OpaqueRef:here", 1, NULL_REF, {keys.MONITOR: "True"}, True)


class Connected:
    """A monitor with an engine."""

    vm, alive = VM, True

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def join(self, timeout: float) -> bool:
        return True

    def engine(self) -> Any:
        return "the engine"


@pytest.fixture
def context(clock: Clock) -> Iterator[DaemonContext]:
    def login() -> Any:
        raise AssertionError("nobody is to log in")

    sessions = SessionPool(login, 1, 1.0)
    access = Access(Settings(), sessions, Budgets(clock))
    access.pool.set(PoolState(PoolRecord("OpaqueRef:pool", "OpaqueRef:there", {}), "OpaqueRef:here", frozenset()))
    registry = Registry(access.pool, lambda vm: Connected(), lambda vm: None,  # type: ignore[arg-type, return-value]
                        lambda: None)
    registry.deliver(Batch([VMChange(VM.uuid, VM)], None, False))
    registry._take()
    yield DaemonContext(Settings(), access, sessions, registry)


def test_the_cost_of_a_call_is_charged_to_the_vm(context: DaemonContext) -> None:
    budget = context.access.budgets.of(VM.uuid)
    with context.engine(VM.uuid):
        until = thread_cpu() + CPU.burst + 0.05
        while thread_cpu() < until:
            pass
    assert budget.hold() > 0.0


def test_a_call_waits_while_the_guest_has_overdrawn_its_budget(context: DaemonContext, clock: Clock) -> None:
    context.access.budgets.of(VM.uuid).charge(CPU.burst + 0.02)
    waits = []

    class Noted(threading.Event):
        def wait(self, timeout: Any = None) -> bool:
            waits.append(timeout)
            return False

    context.stopping = Noted()
    with context.engine(VM.uuid):
        pass
    assert len(waits) == 1 and 0.02 / CPU.each <= waits[0] <= 0.05 / CPU.each


def test_a_call_is_refused_that_would_wait_too_long(context: DaemonContext, clock: Clock) -> None:
    context.access.budgets.of(VM.uuid).charge(30.0)
    with pytest.raises(GuestThrottled, match="can be served in 4"), context.engine(VM.uuid):
        raise AssertionError("it was served")
    clock.now += 1000.0
    with context.engine(VM.uuid):
        pass
