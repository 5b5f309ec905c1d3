"""A client's view of one VM, with times: the demo's proof that a change really arrived."""

import contextlib
import json
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional

import docker
import urllib3

from xscontainer import keys
from xscontainer.core.container import Container
from xscontainer.simulator.world import World, by_name

SEEN_SECONDS = 15.0


class Sight(NamedTuple):
    """One look: time in seconds since the epoch, the host's reference, the list (None: no list)."""

    at: float
    host: str
    docker_ps: Optional[str]


class Eye:
    """A client that follows one VM with event.from. A context manager.

    :param vm: the VM's name.
    """

    def __init__(self, world: World, vm: str) -> None:
        self._world = world
        self._lock = threading.Lock()
        self._sights: List[Sight] = []
        self._watcher = world.watch([f"vm/{world.vm(vm).ref}"], self._look)

    def __enter__(self) -> "Eye":
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._watcher.stop()

    def _look(self, _ref: str, snapshot: Dict[str, Any]) -> None:
        sight = Sight(time.time(), snapshot["resident_on"], snapshot["other_config"].get(keys.PS))
        with self._lock:
            self._sights.append(sight)

    def since(self, number: int = 0) -> List[Sight]:
        """Return all looks so far but the first ``number``."""
        with self._lock:
            return self._sights[number:]

    def wait(self, what: str, condition: Callable[[Sight], Any], after: int = 0) -> Sight:
        """Wait for a look that fulfils ``condition``, not among the first ``after`` ones; return it.

        :raises SimulatorError: there was none within SEEN_SECONDS.
        """
        found: List[Sight] = []

        def seen() -> bool:
            found.extend(sight for sight in self.since(after) if condition(sight))
            return bool(found)

        self._world.wait(seen, what, SEEN_SECONDS)
        return found[0]

    def wait_state(self, container: str, state: str, after: int = 0) -> Sight:
        """Wait for a look that shows the container in that state; raise as :meth:`wait`."""
        def shown(sight: Sight) -> bool:
            one: Optional[Container] = by_name(sight.docker_ps).get(container) if sight.docker_ps else None
            return one is not None and one.state == state

        return self.wait(f"a list that shows {container} {state}", shown, after)


@contextlib.contextmanager
def engine_events(socket_path: str) -> "Iterator[Callable[[str, str], float]]":
    """Listen to an engine's own events; yield a function (container's name, event) -> seconds since the epoch.

    That function reads on until the event comes, and raises OSError if it does not.
    """
    client = docker.APIClient(base_url="unix://" + socket_path, version="auto", timeout=SEEN_SECONDS)
    try:
        stream = client.events(filters={"type": "container"})
        try:
            yield lambda container, event: _moment(stream, container, event)
        finally:
            stream.close()
    finally:
        client.close()


def _moment(stream: Any, container: str, event: str) -> float:
    try:
        for line in stream:
            event_record = json.loads(line.decode("utf-8") if isinstance(line, bytes) else line)
            if event_record["Action"] == event and event_record["Actor"]["Attributes"]["name"] == container:
                return float(event_record["timeNano"]) / 1e9
    except urllib3.exceptions.HTTPError as error:
        raise OSError(f"the engine did not report {event} of {container}: {error}") from error
    raise OSError(f"the engine's event stream ended without {event} of {container}")
