"""The engine's verbs for one container: start, stop, restart, pause, unpause, inspect, top."""

from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from xscontainer.core.target import PODMAN
from xscontainer.engine import container_lookup
from xscontainer.engine.calls import check_container, json_object
from xscontainer.engine.docker_client import EngineClient
from xscontainer.engine.lists import Lists
from xscontainer.errors import ContainerConflict, EngineGarbage, EngineRefused

# The columns that podman computes itself. For others it runs ps in the container, which may have no such program.
_PODMAN_PS = "user,pid,ppid,pcpu,etime,tty,time,args"

Announce = Callable[[int], None]


class Top(NamedTuple):
    """The processes in a container: titles of the columns, and one row for each process."""

    titles: Tuple[str, ...]
    processes: Tuple[Tuple[str, ...], ...]


class Containers(Lists):
    """Part of :class:`.api.Engine`.

    ``container`` is an id, the beginning of an id, or a name (:mod:`.container_lookup`). It is no error if the
    container is already in the state that is asked for. All methods raise

    :raises ContainerNotFound, ContainerConflict, EngineError, ConnectError: as their names say.
    """

    def start(self, container: str) -> None:
        self._call_about("Starting the container", lambda client, which: client.start(which), container)

    def stop(self, container: str, seconds: Optional[int] = None) -> None:
        """Ask the container to end, and kill it if it does not; wait until it has ended.

        :param seconds: how long the container may take to end; None: its own stop time, 10 s if it has none.
        """
        self._call_about("Stopping the container", lambda client, which: client.stop(which, seconds), container,
                         self.calls.limits.stop_seconds)

    def restart(self, container: str, seconds: Optional[int] = None) -> None:
        """Stop the container if it runs, and start it; the parameters are those of :meth:`stop`."""
        self._call_about("Restarting the container", lambda client, which: client.restart(which, seconds), container,
                         self.calls.limits.stop_seconds)

    def pause(self, container: str) -> None:
        with self._allowing_state(container, paused=True):
            self._call_about("Pausing the container", lambda client, which: client.pause(which), container)

    def unpause(self, container: str) -> None:
        with self._allowing_state(container, paused=False):
            self._call_about("Resuming the container", lambda client, which: client.unpause(which), container)

    def inspect(self, container: str, shape: "Callable[[Dict[str, Any]], Any]" = lambda found: found,
                announce: Announce = lambda size: None) -> Any:
        """Return what ``shape`` makes of the engine's description of one container.

        :param shape: called in the memory.workshop, so it must not wait.
        :param announce: called before that with the length of the engine's answer in bytes; may wait and raise.
        """
        def verb(client: EngineClient, which: str) -> Any:
            client.adapter.announce = announce
            return client.inspect_container(which)

        return self._call_about("Inspecting the container", verb, container,
                                shape=lambda found: shape(json_object(found)))

    def top(self, container: str, shape: "Callable[[Top], Any]" = lambda top: top,
            announce: Announce = lambda size: None) -> Any:
        """Return what ``shape`` makes of the processes in a running container; parameters as for ``inspect``.

        :raises ContainerConflict: if the container does not run.
        """
        def verb(client: EngineClient, which: str) -> Any:
            client.adapter.announce = announce
            return client.top(which, _PODMAN_PS if self.calls.kind == PODMAN else None)

        operation = "Listing the container's processes"
        try:
            return self._call_about(operation, verb, container, shape=lambda found: shape(_top(json_object(found))))
        except EngineGarbage as error:
            # For a container that does not run podman answers with status 200 and an empty body.
            if self.calls.kind == PODMAN and not self.runs(container):
                raise ContainerConflict(f"{operation} failed: it is not running.") from error
            raise

    def resolved(self, container: str) -> str:
        """Return an id or a name that no engine takes for another container's.

        :raises ArgumentError: if ``container`` can be neither an id nor a name.
        """
        which = check_container(container)
        if container_lookup.is_ambiguous(container):
            which = container_lookup.resolve(container, self.called(container))
        return which

    def whole_id(self, container: str) -> str:
        """Return the whole id of the container that an id, the beginning of an id or a name means.

        A whole id is returned as it is, whether there is such a container or not.
        """
        which = check_container(container)
        return which if container_lookup.WHOLE_ID.match(which) else container_lookup.resolve(
            which, self.called(which))

    def runs(self, container: str, paused: Optional[bool] = None) -> bool:
        """Return whether the container runs, and whether it is paused as given (None: either)."""
        def look(found: "Dict[str, Any]") -> bool:
            state = found.get("State")
            return (isinstance(state, dict) and state.get("Running") is True
                    and (paused is None or state.get("Paused") is paused))

        return bool(self.inspect(container, look))

    @contextmanager
    def _allowing_state(self, container: str, paused: bool) -> Iterator[None]:
        """Turn a conflict into success if the container is already paused as given.

        For start and stop engines have a status (304) for that, for pause and unpause they do not.
        """
        try:
            yield
        except (ContainerConflict, EngineRefused):
            if not self.runs(container, paused):
                raise

    def _call_about(self, operation: str, verb: Callable[[EngineClient, str], Any], container: str,
                    extra_seconds: float = 0.0, shape: "Callable[[Any], Any]" = lambda answer: answer) -> Any:
        """Call about one container: ``verb`` gets an id or a name that no engine takes for another container's."""
        which = self.resolved(container)
        return self.calls.call(operation, lambda client: verb(client, which), container, extra_seconds, shape)


def _top(found: Dict[str, Any]) -> Top:
    rows = found.get("Processes") or []
    if not isinstance(rows, list) or not isinstance(found.get("Titles"), list):
        raise EngineGarbage("The engine's answer is not a list of processes.")
    return Top(_texts(found["Titles"]), tuple(_texts(row) for row in rows if isinstance(row, list)))


def _texts(values: List[Any]) -> Tuple[str, ...]:
    return tuple(value if isinstance(value, str) else str(value) for value in values)
