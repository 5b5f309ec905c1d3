"""The budget of the memory that this process holds for guests."""

import threading
from typing import Any, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.waiting import until
from xscontainer.core import memory_budget as memory
from xscontainer.errors import EngineTooMuch, MemoryBusy, XSContainerError


def test_released_memory_can_be_claimed_again() -> None:
    budget = memory.Budget(most=100, each=100)
    claim = budget.claim("a")
    claim.set(60)
    claim.set(100)
    with pytest.raises(MemoryBusy):
        budget.claim("a").set(1, patience=0.0)
    claim.set(40)
    budget.claim("b").set(60)
    claim.release()
    claim.release()
    assert budget.total == 60


def test_no_guest_gets_more_than_its_bound() -> None:
    budget = memory.Budget(most=100, each=40)
    claim = budget.claim("a")
    with pytest.raises(EngineTooMuch):
        claim.set(41)
    claim.set(30)
    with pytest.raises(MemoryBusy):  # another answer of this guest holds the rest
        budget.claim("a").set(20, patience=0.0)
    budget.claim("b").set(40)
    assert budget.total == 70


def test_a_claim_waits_until_memory_is_released() -> None:
    budget = memory.Budget(most=100, each=100)
    held, waiting = budget.claim("a"), budget.claim("a")
    held.set(90)
    thread = threading.Thread(target=waiting.set, args=(50, 60.0))
    thread.start()
    held.set(10)
    thread.join()
    assert (waiting.size, budget.total) == (50, 60)


def test_a_guest_above_its_share_gives_memory_up_for_a_guest_below_it() -> None:
    budget = memory.Budget(most=100, each=100)
    small, large = budget.claim("greedy", lambda: given_up.append("small")), budget.claim("greedy", lambda: gone())
    given_up: List[str] = []

    def gone() -> None:
        given_up.append("large")
        large.release()

    small.set(20)
    large.set(80)
    budget.claim("honest").set(50, patience=60.0)
    assert given_up == ["large"] and large.lost and not small.lost
    with pytest.raises(MemoryBusy, match="was dropped"):
        large.set(1)


def test_a_guest_within_its_share_keeps_its_memory() -> None:
    budget = memory.Budget(most=100, each=100)
    for name in ("a", "b", "c"):
        budget.claim(name, lambda: pytest.fail("the guest is within its share")).set(25)
    with pytest.raises(MemoryBusy):
        budget.claim("d").set(26, patience=0.0)
    budget.claim("d").set(25)


def test_freed_memory_goes_to_the_entitled_guest_first() -> None:
    budget = memory.Budget(most=100, each=100)
    holder, more = budget.claim("a"), budget.claim("a")
    holder.set(100)  # gives nothing up when it is asked to
    entitled = budget.claim("b")
    thread = threading.Thread(target=entitled.set, args=(50, 60.0))
    thread.start()
    until(lambda: 50 in budget._waiting.values())
    holder.set(60)
    with pytest.raises(MemoryBusy):
        more.set(20, patience=0.0)
    holder.set(50)
    thread.join()
    assert (entitled.size, budget.total) == (50, 100)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 60)), max_size=60))
def test_the_totals_stay_correct_and_within_the_bounds(steps: Any) -> None:
    budget = memory.Budget(most=100, each=50)
    claims = [[budget.claim(f"guest {owner}") for _ in range(4)] for owner in range(4)]
    for owner, number, size in steps:
        before = claims[owner][number].size
        try:
            claims[owner][number].set(size, patience=0.0)
            assert claims[owner][number].size == size
        except XSContainerError:
            assert claims[owner][number].size == before
        assert budget.total == sum(claim.size for of_one in claims for claim in of_one) <= 100
        assert all(sum(claim.size for claim in of_one) <= 50 for of_one in claims)
    for of_one in claims:
        for claim in of_one:
            claim.release()
    assert budget.total == 0 and not budget._held and not budget._claims


def test_a_reply_counts_until_it_is_sent() -> None:
    memory.keep("a guest", 1000)  # not counted outside a plugin call, whose end would release it
    assert memory.BUDGET.total == 0
    with pytest.raises(ZeroDivisionError):
        with memory.held_for_reply():
            memory.keep("a guest", 1000)
            memory.keep("a guest", 500)
            assert memory.BUDGET.total == 1500
            raise ZeroDivisionError
    assert memory.BUDGET.total == 0


def test_a_small_document_does_not_wait_behind_large_ones() -> None:
    entered, go_on = threading.Event(), threading.Event()

    def large() -> None:
        with memory.turn(memory.SMALL_BYTES + 1):
            entered.set()
            go_on.wait(60.0)

    thread = threading.Thread(target=large)
    thread.start()
    try:
        assert entered.wait(60.0)
        with memory.turn(memory.SMALL_BYTES):
            pass
        assert not memory.workshop.acquire(blocking=False)
    finally:
        go_on.set()
        thread.join(60.0)
