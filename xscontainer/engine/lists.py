"""The engine's verbs for all containers: list, count, and find those that a name may mean."""

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple, TypeVar, cast

from xscontainer.core import memory_budget as memory
from xscontainer.core.container import ContainerList
from xscontainer.core.target import PODMAN
from xscontainer.engine import listing, pods
from xscontainer.engine.calls import Calls
from xscontainer.engine.pods import Pods

_ENTRY_BYTES = 1000  # of a container in an engine's answer, about

Result = TypeVar("Result")
Collecting = TypeVar("Collecting")


class Running(NamedTuple):
    """The running containers.

    :ivar ids: whole ids, in the engine's order.
    :ivar left_out: how many more there are.
    """

    ids: Tuple[str, ...]
    left_out: int


def running(calls: Calls, most: int, timeout: "Optional[float]" = None) -> Running:
    """Return the running containers (GET /containers/json); paused and restarting ones are among them.

    :param most: how many to keep. :param timeout: seconds, instead of the setting request_timeout.
    """
    def shape(found: listing.Ids) -> Running:
        return Running(tuple(found.ids), found.number - len(found.ids))

    return cast(Running, calls.call("Listing the containers", lambda client: client.each_container(
        lambda: listing.Sink(listing.Ids(most)), all_states=False), shape=shape, timeout=timeout))


class Lists:
    """Part of :class:`.api.Engine`. Errors as for :class:`.calls.Calls`."""

    calls: Calls
    pods: Pods

    def listed(self, limit: int, shape: "Callable[[ContainerList], Result]", details: bool = False) -> Result:
        """Return what ``shape`` makes of the list of all containers, in any state (GET /containers/json?all=1).

        dockerd sends some events before its list changes: a list that is read at once may show the state before.

        :param limit: how many containers to keep; see core.container.Collected.
        :param shape: called in the memory.workshop, so it must not wait.
        :param details: also read networks, mounts and restart counts.
        """
        def make() -> listing.Collected:
            return listing.Collected(limit, details)

        self.calls.find_version()  # which shows the kind of engine
        if self.calls.kind != PODMAN:
            return self._list(make, lambda collected: shape(collected.result()))
        found = self.pods.added_to(self._list(make, lambda collected: collected.result()),
                                   lambda: pods.ask(self.calls))
        with memory.turn(_ENTRY_BYTES * len(found.containers)):
            return shape(found)

    def count(self) -> int:
        """Return the number of containers, in any state."""
        return self._list(listing.Count, lambda counted: counted.number)

    def called(self, container: str) -> List[Dict[str, Any]]:
        """Return Id, Names and State of each container that ``container`` (an id, short id or name) may mean."""
        return self._list(lambda: listing.Called(container), lambda found: found.entries)

    def containers(self) -> List[Dict[str, Any]]:
        """Return each container, in any state, as the engine describes it. Takes more memory than ``listed``."""
        return self._list(listing.Entries, lambda found: found.entries)

    def _list(self, collect: "Callable[[], Collecting]", shape: "Callable[[Collecting], Result]") -> Result:
        return cast(Result, self.calls.call("Listing the containers", lambda client: client.each_container(
            lambda: listing.Sink(collect())), shape=shape))
