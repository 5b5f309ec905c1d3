"""Calls to an engine: a client for each call, the API version, the translation of errors, and the open streams.

A verb (:mod:`.containers`, :mod:`.lists`, :mod:`.api`) says what to ask, and :class:`Calls` gets the answer through
:class:`.docker_client.EngineClient`, :class:`.adapter.EngineAdapter` and ``Connection.open_stream``.
"""

import threading
import time
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, TypeVar

import docker.errors

from xscontainer.core import current_call, memory_budget
from xscontainer.core.container import ID_OR_NAME
from xscontainer.engine import api_version, failures
from xscontainer.engine.adapter import EngineAdapter
from xscontainer.engine.connection import Connection
from xscontainer.engine.docker_client import EngineClient
from xscontainer.engine.lines import Subscription
from xscontainer.errors import (
    ArgumentError,
    EngineGarbage,
    EngineRefused,
    EngineTimeout,
    EngineTooOld,
    TransportLost,
)
from xscontainer.sanitize import trimmed
from xscontainer.settings import EngineSettings

Result = TypeVar("Result")
Stream = TypeVar("Stream", bound=Subscription)


class Limits(NamedTuple):
    """Limits of one Engine that are no settings.

    :ivar version_seconds: how long GET /version may take before the engine is asked without an API version.
    :ivar stop_seconds: how much longer stop and restart may take than other calls.
    :ivar warm_clients: how many idle clients are kept, each with an open stream, so that a call costs one round trip.
    :ivar memory: the budget that answers are charged to; None: the process's.
    """

    version_seconds: float = 5.0
    stop_seconds: float = 60.0
    warm_clients: int = 2
    memory: Optional[memory_budget.Budget] = None


DEFAULT_LIMITS = Limits()


class Calls:
    """The calls to one engine. Thread-safe: each call has a client and a stream of its own.

    All methods raise XSContainerErrors only: a ConnectError if the connection failed, an EngineError otherwise.

    :param version: API version, as "1.41"; None: negotiate it with the first call.
    :ivar version: "": calls name no version, so the engine uses its newest.
    :ivar kind: core.target.DOCKER or PODMAN; "" while that is not known.
    """

    def __init__(self, connection: Connection, settings: EngineSettings, limits: Limits,
                 version: Optional[str] = None) -> None:
        self.connection = connection
        self.settings = settings
        self.limits = limits
        self.version = version
        self.kind = ""
        self._budget = limits.memory or memory_budget.BUDGET
        self._changed = threading.Condition()
        self._idle: List[EngineClient] = []
        self._in_use = 0  # clients
        self._streams: List[Subscription] = []
        self._closed = False

    def ask_version(self, timeout: Optional[float] = None) -> Dict[str, Any]:
        """Return the answer to GET /version, and use the API version that follows from it from now on.

        :param timeout: seconds, instead of the setting request_timeout.
        """
        operation = "Asking for the engine's version"
        with self.lease("", 0.0, timeout) as client:
            found: Dict[str, Any] = trimmed(
                json_object(_translated(operation, lambda: client.version(api_version=False))))
        self.kind = api_version.kind(found)
        self.version = api_version.negotiate(found)
        return found

    def call(self, operation: str, verb: Callable[[EngineClient], Any], container: Optional[str] = None,
             extra_seconds: float = 0.0, shape: "Callable[[Any], Any]" = lambda answer: answer,
             timeout: Optional[float] = None) -> Any:
        """Return what ``shape`` makes of the answer to one request.

        :param operation: begins the message of an error, as "Starting the container".
        :param verb: sends the request with the client that it is given.
        :param container: the container that the request is about, for the message "no such container".
        :param extra_seconds: how much longer than the timeout the call may take.
        :param shape: called before the answer's memory is released, in the memory.workshop: it must not wait.
        :param timeout: seconds, instead of the setting request_timeout.
        """
        def once(version: str) -> Any:
            with self.lease(version, extra_seconds, timeout) as client:
                return shape(_translated(operation, lambda: verb(client), container))
        return self.with_version(once)

    def with_version(self, call: Callable[[str], Result]) -> Result:
        """Return the result of ``call``, which gets the API version.

        If the engine refuses the version, because it was updated meanwhile, negotiate again and call a second time.
        """
        version = self.version
        if version is None:
            self.find_version()
            return call(self.version or "")
        try:
            return call(version)
        except EngineTooOld:
            self.ask_version()
            if self.version == version:
                raise
            return call(self.version or "")

    def find_version(self) -> None:
        """Negotiate the API version unless it is known. That shows the kind of engine and the connection's room, too.

        :raises XSContainerError: if the engine cannot be reached, or is too old.
        """
        if self.version is not None:
            return
        try:
            self.ask_version(min(self.limits.version_seconds, self.settings.request_timeout))
        except (EngineRefused, EngineTimeout):
            # Some proxies in front of an engine do not pass GET /version on.
            if self.version is None:
                self.version = ""

    @contextmanager
    def lease(self, version: str, extra_seconds: float = 0.0,
              timeout: Optional[float] = None) -> Iterator[EngineClient]:
        """Lend a client for the duration of the block; parameters as for :meth:`call`."""
        seconds = self.settings.request_timeout if timeout is None else timeout
        deadline = time.monotonic() + current_call.remaining(seconds + extra_seconds)
        client = self._free_client(deadline)
        if client is None:
            adapter = EngineAdapter(self.connection, self.settings.max_response_bytes, self._budget)
            client = EngineClient(adapter, version, 0.0)
        client.use(version, max(1.0, deadline - time.monotonic()))
        try:
            yield client
        finally:
            client.adapter.forget()
            with self._changed:
                # If another thread waits for a stream of the connection, an idle one that is kept would block it.
                keep = (not self._closed and client.adapter.idle and len(self._idle) < self.limits.warm_clients
                        and not self.connection.crowded)
                if keep:
                    self._idle.append(client)
            if not keep:
                client.close()
            with self._changed:
                self._in_use -= 1
                self._changed.notify()

    def _free_client(self, deadline: float) -> Optional[EngineClient]:
        """Return an idle client, or None if the connection has room for another; count it as in use.

        :raises EngineTimeout: if there was neither until the deadline.
        """
        with self._changed:
            while not self._idle:
                room = self.connection.room
                if not room or self._in_use < self._room_for_requests(room):
                    break
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not self._changed.wait(remaining):
                    raise _all_in_use()
            self._in_use += 1
            return self._idle.pop() if self._idle else None

    @contextmanager
    def reserving(self, wanted: int, spare: int, deadline: float) -> Iterator[int]:
        """Reserve up to ``wanted`` streams of Connection.open_stream() for the block; yield how many, at least one.

        :param spare: how many to leave for other calls, if the connection limits them.
        :param deadline: by time.monotonic().
        :raises EngineTimeout: if all stayed in use until then.
        """
        count = self._reserve(wanted, spare, deadline)
        try:
            yield count
        finally:
            with self._changed:
                self._in_use -= count
                self._changed.notify_all()

    def _reserve(self, wanted: int, spare: int, deadline: float) -> int:
        idle: List[EngineClient] = []  # they would take the streams that are counted here
        try:
            with self._changed:
                while True:
                    room = self.connection.room
                    if not room:
                        count = wanted
                        break
                    idle, self._idle = idle + self._idle, []
                    free = self._room_for_requests(room) - self._in_use
                    count = max(1, min(wanted, free - spare))
                    if free > 0:
                        break
                    remaining = deadline - time.monotonic()
                    if remaining <= 0 or not self._changed.wait(remaining):
                        raise _all_in_use()
                self._in_use += count
                return count
        finally:
            for client in idle:
                client.close()

    def _room_for_requests(self, room: int) -> int:
        return max(1, room - sum(not stream.closed for stream in self._streams))

    def follow(self, subscribe: "Callable[[str], Stream]") -> Stream:
        """Return a long-lived stream, which ends with :meth:`close` at the latest.

        :param subscribe: opens the stream with the API version that it is given.
        :raises TransportLost: if this object was closed meanwhile.
        """
        stream = self.with_version(subscribe)
        with self._changed:
            self._streams = [known for known in self._streams if not known.closed]
            if not self._closed:
                self._streams.append(stream)
                return stream
        stream.close()
        raise TransportLost("The engine's connection was closed.")

    def close(self, hang_up: bool = False) -> None:
        """Close all clients and streams.

        :param hang_up: close the connection, too. It is closed first: each channel's end is reported to the guest, and
            a guest that does not read would delay that.
        """
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            streams, self._streams = self._streams, []
        for stream in streams:
            stream.closed = True  # before its connection ends, so that its reader does not report a failure
        if hang_up:
            self.connection.close()
        for stream in streams:
            stream.close()
        for client in idle:
            client.close()

    def hang_up(self) -> None:
        """End all streams and the connection without waiting. The owner still has to close them."""
        with self._changed:
            for stream in self._streams:
                stream.closed = True  # so that its reader does not report a failure
        self.connection.hang_up()


def _all_in_use() -> EngineTimeout:
    return EngineTimeout("All sessions that the VM's SSH server allows at once stayed in use.",
                         "Raise MaxSessions in the VM's sshd_config, or allow AllowStreamLocalForwarding there.")


def check_container(container: str) -> str:
    """Return ``container`` if it can be an id or a name.

    :raises ArgumentError: if not.
    """
    if not ID_OR_NAME.match(container):
        raise ArgumentError(f"{failures.words(container)} is not an id or a name of a container.")
    return container


def json_object(value: Any) -> Dict[str, Any]:
    """Return ``value`` if it is a JSON object.

    :raises EngineGarbage: if not.
    """
    if not isinstance(value, dict):
        raise EngineGarbage("The engine's answer is not the object that its API describes.")
    return value


def _translated(operation: str, call: Callable[[], Result], container: Optional[str] = None) -> Result:
    with failures.translating(operation, failures.API_SIDE):
        try:
            return call()
        except docker.errors.APIError as error:
            raise failures.refusal(error.status_code or 0, error.explanation, operation, container) from error
