"""The verbs of a container engine, over a connection."""

import re
import threading
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, TypeVar

import docker.errors

from xscontainer.engine import failures
from xscontainer.engine.adapter import EngineAdapter, EngineClient
from xscontainer.engine.connection import Connection
from xscontainer.engine.events import EventStream, subscribe
from xscontainer.engine.sockets import DOCKER, PODMAN
from xscontainer.errors import (
    ArgumentError,
    ContainerConflict,
    EngineGarbage,
    EngineRefused,
    EngineTooOld,
    TransportLost,
)
from xscontainer.settings import EngineSettings

OLDEST = (1, 24)
PREFERRED = (1, 44)  # the newest whose answers this code was written against
WARM_CLIENTS = 2  # idle ones kept, each with an open stream, so that a request costs a round trip
STOP_SECONDS = 60.0  # that stop and restart may take longer than other verbs: containers end in their own time

_CONTAINER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}\Z")
# The columns of podman's own ps: its other one is a program that the container may not have.
_PODMAN_PS = "user,pid,ppid,pcpu,etime,tty,time,args"
_VERSION = re.compile(r"([0-9]{1,3})\.([0-9]{1,4})\Z")

Result = TypeVar("Result")


class Top(NamedTuple):
    titles: Tuple[str, ...]
    processes: Tuple[Tuple[str, ...], ...]


def negotiate(version: Dict[str, Any]) -> str:
    """The API version to speak with the engine that gave this answer to GET /version.

    The preferred one, or the engine's newest if that is older, or its oldest if that is newer still: the few
    verbs here have not changed in ten years, so a version nobody here knows is better than no answer.

    :raises EngineTooOld: the engine's newest is older than OLDEST.
    """
    newest = _parse_version(version.get("ApiVersion"))
    oldest = _parse_version(version.get("MinAPIVersion") or "1.0")
    if newest is None or oldest is None:
        raise EngineGarbage("The engine does not say which API versions it speaks.")
    if newest < OLDEST:
        raise EngineTooOld(f"The engine speaks the API up to version {newest[0]}.{newest[1]} only.")
    major, minor = max(min(PREFERRED, newest), oldest)
    return f"{major}.{minor}"


def kind(version: Dict[str, Any]) -> str:
    """Which engine gave this answer to GET /version: PODMAN, or DOCKER for whatever else."""
    parts = version.get("Components")
    names = [part.get("Name") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return PODMAN if "Podman Engine" in names else DOCKER


def _parse_version(text: object) -> Optional[Tuple[int, int]]:
    match = _VERSION.match(text) if isinstance(text, str) else None
    return (int(match.group(1)), int(match.group(2))) if match else None


class Engine:
    """Thread-safe: each call has a client and a stream of its own while it lasts.

    All calls raise XSContainerErrors only: ConnectErrors when the way broke, EngineErrors otherwise.

    :param api_version: skips the negotiation, as "1.41".
    """

    def __init__(self, connection: Connection, settings: EngineSettings, api_version: Optional[str] = None) -> None:
        self.connection = connection
        self._settings = settings
        self._api_version = api_version
        self.kind = ""  # sockets.DOCKER or sockets.PODMAN; "" before version() was asked for
        self._lock = threading.Lock()
        self._idle: List[EngineClient] = []
        self._streams: List[EventStream] = []
        self._closed = False

    # --- what there is

    def version(self) -> Dict[str, Any]:
        """GET /version; also settles which API version the other calls speak."""
        with self._lease("") as client:
            answer = self._said("Asking for the engine's version",
                                lambda: client.version(api_version=False))
        found = _object(answer)
        self.kind = kind(found)
        self._api_version = negotiate(found)
        return found

    def info(self) -> Dict[str, Any]:
        """GET /info."""
        return _object(self._call("Asking for the engine's facts", lambda client: client.info()))

    def containers(self) -> List[Dict[str, Any]]:
        """GET /containers/json?all=1: every container, in any state, as the engine describes it.

        dockerd sends some events before its lists know: a list made at once may show what was before.
        """
        found = self._call("Listing the containers", lambda client: client.containers(all=True))
        if not isinstance(found, list):
            raise EngineGarbage("The engine's list of containers is none.")
        return [entry for entry in found if isinstance(entry, dict)]

    def inspect(self, container: str) -> Dict[str, Any]:
        """All about one container, named by id, short id or name."""
        return _object(self._call("Inspecting the container", lambda client: client.inspect_container(container),
                                  container))

    def top(self, container: str) -> Top:
        """The processes in a running container.

        :raises ContainerConflict: it does not run.
        """
        doing = "Listing the container's processes"
        try:
            found = _object(self._call(doing, lambda client: client.top(container, self._columns()), container))
        except EngineGarbage as error:
            # Podman answers 200 and nothing for one that does not run.
            if self.kind == PODMAN and not self._runs(container):
                raise ContainerConflict(f"{doing} failed: it is not running.") from error
            raise
        rows = found.get("Processes") or []
        if not isinstance(rows, list) or not isinstance(found.get("Titles"), list):
            raise EngineGarbage("The engine's list of processes is none.")
        return Top(_texts(found["Titles"]), tuple(_texts(row) for row in rows if isinstance(row, list)))

    def _columns(self) -> Optional[str]:
        return _PODMAN_PS if self.kind == PODMAN else None

    def _runs(self, container: str, paused: Optional[bool] = None) -> bool:
        """Whether it does, and is paused as given (None: either)."""
        state = self.inspect(container).get("State")
        return (isinstance(state, dict) and state.get("Running") is True
                and (paused is None or state.get("Paused") is paused))

    # --- what to do; a container that is in that state already is no error

    def start(self, container: str) -> None:
        """:param container: id, its beginning, or name; so for the others.

        :raises ContainerNotFound, ContainerConflict, EngineError: so do the others.
        """
        self._call("Starting the container", lambda client: client.start(container), container)

    def stop(self, container: str) -> None:
        """Ask it to end, then end it; waits until it has."""
        self._call("Stopping the container", lambda client: client.stop(container), container, STOP_SECONDS)

    def restart(self, container: str) -> None:
        """As stop() and start(), or start() alone if it does not run."""
        self._call("Restarting the container", lambda client: client.restart(container), container, STOP_SECONDS)

    def pause(self, container: str) -> None:
        with self._already(container, paused=True):
            self._call("Pausing the container", lambda client: client.pause(container), container)

    def unpause(self, container: str) -> None:
        with self._already(container, paused=False):
            self._call("Resuming the container", lambda client: client.unpause(container), container)

    @contextmanager
    def _already(self, container: str, paused: bool) -> Iterator[None]:
        """What starting and stopping answer by a status of its own, pausing answers by a conflict."""
        try:
            yield
        except (ContainerConflict, EngineRefused):
            if not self._runs(container, paused):
                raise

    # --- what happens

    def events(self) -> EventStream:
        """Follow what happens from now on; ends with the engine or with close()."""
        stream = self._retry_version(
            lambda version: subscribe(self.connection, version, self._settings.request_timeout))
        with self._lock:
            self._streams = [known for known in self._streams if not known.closed]
            if not self._closed:
                self._streams.append(stream)
                return stream
        stream.close()
        raise TransportLost("The engine's connection was closed.")

    def close(self, hang_up: bool = False) -> None:
        """End all that is open here.

        :param hang_up: the connection, too, which stays its owner's otherwise. It ends first: a guest is told of
            the end of each channel, and may hold up whoever tells it.
        """
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            streams, self._streams = self._streams, []
        for stream in streams:
            stream.closed = True  # that it ends with the connection is nobody's failure
        if hang_up:
            self.connection.close()
        for stream in streams:
            stream.close()
        for client in idle:
            client.close()

    def hang_up(self) -> None:
        """End it and its connection from any thread, without waiting; whoever owns them still has to close them."""
        with self._lock:
            for stream in self._streams:
                stream.closed = True  # so that whoever reads it takes the end for meant
        self.connection.hang_up()

    # --- how

    def _call(self, doing: str, verb: Callable[[EngineClient], Any], container: Optional[str] = None,
              patience: float = 0.0) -> Any:
        if container is not None and not _CONTAINER.match(container):
            raise ArgumentError(f"{failures.words(container)} is no id or name of a container.")

        def once(version: str) -> Any:
            with self._lease(version, patience) as client:
                return self._said(doing, lambda: verb(client), container)
        return self._retry_version(once)

    def _retry_version(self, call: Callable[[str], Result]) -> Result:
        """Call with the settled API version; settle it anew if the engine (updated, meanwhile) refuses it."""
        settled = self._api_version
        if settled is None:
            self.version()
            return call(self._api_version or "")
        try:
            return call(settled)
        except EngineTooOld:
            self.version()
            if self._api_version == settled:
                raise
            return call(self._api_version or "")

    @contextmanager
    def _lease(self, version: str, patience: float = 0.0) -> Iterator[EngineClient]:
        with self._lock:
            client = self._idle.pop() if self._idle else None
        if client is None:
            client = EngineClient(EngineAdapter(self.connection, self._settings.max_response_bytes), version, 0.0)
        client._version = version
        client.timeout = self._settings.request_timeout + patience
        try:
            yield client
        finally:
            client.adapter.forget()
            with self._lock:
                keep = not self._closed and client.adapter.idle and len(self._idle) < WARM_CLIENTS
                if keep:
                    self._idle.append(client)
            if not keep:
                client.close()

    @staticmethod
    def _said(doing: str, call: Callable[[], Result], container: Optional[str] = None) -> Result:
        with failures.translating(doing, failures.API_SIDE):
            try:
                return call()
            except docker.errors.APIError as error:
                raise failures.refusal(error.status_code or 0, error.explanation, doing,
                                       container) from error


def _object(value: Any) -> Dict[str, Any]:
    if not isinstance(value, dict):
        raise EngineGarbage(f"The engine's answer is a {type(value).__name__} where an object was expected.")
    return value


def _texts(values: List[Any]) -> Tuple[str, ...]:
    return tuple(value if isinstance(value, str) else str(value) for value in values)
