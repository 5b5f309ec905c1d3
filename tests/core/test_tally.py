"""Containers are counted by state and health."""

from tests.clients.engine_json import entry
from xscontainer.core.container import containers_from_api
from xscontainer.core.tally import MOST_STATES, NONE, OTHER, Tally, tally, total


def test_states_and_healths_are_counted() -> None:
    found = containers_from_api([
        entry(1, Status="Up 5 minutes (healthy)"), entry(2, Status="Up 5 minutes (unhealthy)"), entry(3),
        entry(4, State="exited", Status="Exited (1) 5 minutes ago")]).containers
    assert tally(found, 3) == Tally({"running": 3, "exited": 1}, {"healthy": 1, "unhealthy": 1}, 7)
    assert tally(()) == NONE


def test_sums_add_up() -> None:
    one, other = Tally({"running": 1}, {"healthy": 1}, 2), Tally({"running": 2, "dead": 1}, {}, 3)
    assert total([one, other, NONE]) == Tally({"running": 3, "dead": 1}, {"healthy": 1}, 5)
    assert total([]) == NONE


def test_an_engine_that_invents_states_does_not_make_the_counts_long() -> None:
    found = containers_from_api([entry(number, State=f"state{number}") for number in range(100)]).containers
    counted = tally(found)
    assert len(counted.counts) == MOST_STATES + 1 and counted.counts[OTHER] == 100 - MOST_STATES
    assert len(total([counted, tally(found[:50])]).counts) <= MOST_STATES + 1
