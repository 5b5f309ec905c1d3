"""One container engine, reached over a connection: what it is, what it has, what it does, what happens in it.

Each family of verbs has its own file: :mod:`.lists` (all containers), :mod:`.containers` (one container). A new family
is a class that :class:`Engine` inherits from and that uses ``self.calls``: ``call`` for one answer, ``follow`` for a
stream.
"""

import math
import threading
from typing import Any, Dict, List, NamedTuple, Optional

from xscontainer.core.engine_event import EngineEvent
from xscontainer.core.target import DOCKER
from xscontainer.engine import api_version, failures, past_events
from xscontainer.engine.calls import DEFAULT_LIMITS, Calls, Limits, json_object
from xscontainer.engine.connection import Connection
from xscontainer.engine.containers import Containers, Top
from xscontainer.engine.events import EventStream, subscribe
from xscontainer.engine.pods import Pods
from xscontainer.engine.stats import Stats
from xscontainer.errors import (
    EngineGarbage,
    EngineLost,
    EngineRefused,
    EngineTimeout,
    EngineTooMuch,
    EngineWithoutEvents,
    EngineWithoutFacts,
)
from xscontainer.sanitize import trimmed
from xscontainer.settings import EngineSettings

__all__ = ["Engine", "Facts", "Limits", "Top"]

_NO_ROOM = ("The VM's SSH server allows one session at a time, which requests need.",
            "Raise MaxSessions in the VM's sshd_config, or allow AllowStreamLocalForwarding there.")


class Facts(NamedTuple):
    """The engine's answers to GET /version and GET /info; None where it gave none, and ``missing`` says why."""

    version: Optional[Dict[str, Any]]
    info: Optional[Dict[str, Any]]
    missing: Optional[EngineWithoutFacts]


class Engine(Containers):
    """One engine. Thread-safe: each call has a client and a stream of its own.

    All calls raise XSContainerErrors only: a ConnectError if the connection failed, an EngineError otherwise.

    :param api_version: API version, as "1.41"; None: negotiate it.
    :ivar hung_up: whether hang_up() was called.
    """

    def __init__(self, connection: Connection, settings: EngineSettings, api_version: Optional[str] = None,
                 limits: Limits = DEFAULT_LIMITS) -> None:
        self.connection = connection
        self.calls = Calls(connection, settings, limits, api_version)
        self.pods = Pods()
        self.hung_up = False
        self._making = threading.Lock()
        self._stats: Optional[Stats] = None

    @property
    def stats(self) -> Stats:
        """The resources that the containers use, shared by everybody who looks."""
        with self._making:
            if self._stats is None:
                self._stats = Stats(self.calls)
            return self._stats

    @property
    def kind(self) -> str:
        """core.target.DOCKER or PODMAN; "" while that is not known."""
        return self.calls.kind

    def version(self, timeout: Optional[float] = None) -> Dict[str, Any]:
        """Return the answer to GET /version, which also decides the API version of the other calls.

        :param timeout: seconds, instead of the setting request_timeout.
        """
        return self.calls.ask_version(timeout)

    def info(self, timeout: Optional[float] = None) -> Dict[str, Any]:
        """Return the answer to GET /info.

        :param timeout: seconds, instead of the setting request_timeout.
        """
        found: Dict[str, Any] = self.calls.call("Asking for the engine's facts", lambda client: client.info(),
                                                shape=lambda answer: trimmed(json_object(answer)), timeout=timeout)
        return found

    def facts(self) -> Facts:
        """Return the answers to GET /version and /info. Some proxies in front of an engine refuse these requests."""
        found: List[Optional[Dict[str, Any]]] = []
        missing = None
        for ask in (self.version, self.info):
            try:
                found.append(ask())
            except (EngineRefused, EngineTimeout, EngineGarbage, EngineTooMuch, EngineLost) as error:
                found.append(None)
                missing = EngineWithoutFacts(f"The engine does not say what it is. {error.message}")
        return Facts(found[0], found[1], missing)

    def probe(self, timeout: float) -> None:
        """Send a liveness probe: the cheapest request whose answer needs the engine's containers.

        :param timeout: seconds until the engine must have answered.
        """
        operation = "Probing the engine"

        def once(version: str) -> None:
            with self.calls.lease(version) as client, failures.translating(operation, failures.API_SIDE):
                answer = client.get_raw(api_version.path(version, "/containers/json?limit=1"), timeout)
            if answer.status >= 400:
                raise failures.refusal(answer.status, answer.body, operation)
        self.calls.with_version(once)

    def events(self, timeout: float = math.inf, since_ns: int = 0) -> EventStream:
        """Return a stream of what happens from now on. It ends with the engine, or with close().

        :param timeout: seconds until the engine must have accepted; at most the setting request_timeout.
        :param since_ns: begin with what a Docker engine remembers since then; for Podman see :meth:`past_events`.
        :raises EngineWithoutEvents: if the connection has room for one stream only, which requests need.
        """
        self.calls.find_version()  # which shows how much room there is
        if self.connection.room == 1:
            raise EngineWithoutEvents(*_NO_ROOM)
        seconds = min(timeout, self.calls.settings.request_timeout)
        since_ns = since_ns if self.kind == DOCKER else 0
        stream = self.calls.follow(lambda version: subscribe(self.connection, version, seconds, since_ns))
        if self.connection.room == 1:  # known only now
            stream.close()
            raise EngineWithoutEvents(*_NO_ROOM)
        return stream

    def past_events(self, since_ns: int, until_ns: int) -> "List[EngineEvent]":
        """Return the last events that the engine remembers, oldest first; see :func:`past_events.read`."""
        return past_events.read(self, since_ns, until_ns)

    def close(self, hang_up: bool = False) -> None:
        """Close all streams; ``hang_up``: close the connection, too, and first. Otherwise its owner closes it."""
        self.calls.close(hang_up)

    def hang_up(self) -> None:
        """End all streams and the connection from any thread, without waiting. The owner still has to close them."""
        self.hung_up = True
        self.calls.hang_up()
