"""Numbers of containers by state and by health. Pure."""

from typing import Dict, Iterable, NamedTuple, Sequence

from xscontainer.core.container import Container

MOST_STATES = 16  # that are counted apart; an engine may invent more words
OTHER = "other"


class Tally(NamedTuple):
    """Numbers of containers.

    :ivar counts: state -> number.
    :ivar health: starting, healthy or unhealthy -> number, of the containers with a health check.
    :ivar containers: all of them, also those that a list had no room for.
    """

    counts: Dict[str, int]
    health: Dict[str, int]
    containers: int


NONE = Tally({}, {}, 0)


def tally(containers: "Sequence[Container]", left_out: int = 0) -> Tally:
    """Return the numbers of these containers.

    :param left_out: number of further containers, whose states are unknown.
    """
    counts: Dict[str, int] = {}
    health: Dict[str, int] = {}
    for container in containers:
        _add(counts, container.state, 1)
        if container.health:
            _add(health, container.health, 1)
    return Tally(counts, health, len(containers) + left_out)


def total(tallies: "Iterable[Tally]") -> Tally:
    """Return the sum of these numbers."""
    counts: Dict[str, int] = {}
    health: Dict[str, int] = {}
    containers = 0
    for each in tallies:
        containers += each.containers
        for state, number in each.counts.items():
            _add(counts, state, number)
        for result, number in each.health.items():
            _add(health, result, number)
    return Tally(counts, health, containers)


def _add(numbers: "Dict[str, int]", name: str, number: int) -> None:
    if name not in numbers and len(numbers) >= MOST_STATES:
        name = OTHER
    numbers[name] = numbers.get(name, 0) + number
