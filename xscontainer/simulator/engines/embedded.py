"""An engine made of threads: the Engine API on a Unix socket, containers that are only records."""

import collections
import os
import shutil
import socket
import threading
import time
from typing import Any, Counter, Dict, List, Optional, Sequence, Union
from urllib.parse import unquote

from xscontainer.simulator.engines import relay
from xscontainer.simulator.engines.acceptor import Acceptor
from xscontainer.simulator.engines.api import Api
from xscontainer.simulator.engines.call import Identity
from xscontainer.simulator.engines.errors import SimulatorError
from xscontainer.simulator.engines.faults import AT_CONNECT, AT_REQUEST, Fault, Faults
from xscontainer.simulator.engines.lifecycle import Lifecycle
from xscontainer.simulator.engines.started import Started
from xscontainer.simulator.engines.store import ApiError
from xscontainer.simulator.engines.wire import BadRequest, Connection, Request

MAX_SOCKET_PATH = 100
IMAGE = "busybox:latest"


class EmbeddedEngine(Started):
    """Engine API at ``<directory>/docker.sock``; a context manager (entering starts it, leaving closes it).

    A thread per connection, none while nobody is connected; with a shared acceptor an idle engine costs one socket.

    :param directory: created if absent; removed by close() if this engine created it.
    :param socket_path: another place for the socket; at most 100 characters.
    :param identity: which engine and which API versions it pretends to be.
    :param acceptor: shared by several engines and closed by its owner; None: the engine's own.
    """

    def __init__(
        self, directory: str, socket_path: str = "", identity: Optional[Identity] = None,
        acceptor: Optional[Acceptor] = None,
    ) -> None:
        self.directory = os.path.abspath(directory)
        self.socket_path = socket_path or os.path.join(self.directory, "docker.sock")
        if len(self.socket_path) > MAX_SOCKET_PATH:
            raise SimulatorError(f"the socket path is longer than {MAX_SOCKET_PATH} characters: {self.socket_path}")
        self.identity = identity or Identity()
        self.faults = Faults()
        self.requests: "Counter[str]" = collections.Counter()
        """Requests so far by verb, such as ``GET /containers/json`` and ``POST /containers/{}/stop``."""
        self._made_directory = not os.path.isdir(self.directory)
        self._own_acceptor = acceptor is None
        self._acceptor = acceptor or Acceptor()
        self._threads = relay.Threads()
        self._listener: Optional[socket.socket] = None
        self._gate = threading.Event()
        self._gate.set()
        self.life = Lifecycle(self._threads.stopping)
        self.life.add_image(IMAGE)
        self._api = Api(self.life, self.identity, "/var/lib/docker")
        self._headers = self._api.headers()

    # -- life -------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Listen. Containers are as stop() or kill() left them, but for those whose restart policy brings them back.

        :raises SimulatorError: the socket cannot be made.
        """
        if self._listener is not None:
            return
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if os.path.lexists(self.socket_path):
                os.unlink(self.socket_path)
            listener.bind(self.socket_path)
            listener.listen(128)
        except OSError as error:
            listener.close()
            raise SimulatorError(f"cannot listen on {self.socket_path}: {error}") from error
        self.life.clock.reopen()
        self._listener = listener
        self._acceptor.add(listener, self._on_connection)
        self.life.resume()

    def stop(self) -> None:
        """The engine ends as its service manager ends it: running containers exit first, connections close."""
        with self.life.lock:
            for container in self.life.listed():
                if container.up:
                    self.life.force_state(container.id, "exited", 137)
        self._down(unlink=True)

    def kill(self) -> None:
        """The engine dies at once: the socket file stays behind, nobody listens on it, containers run on."""
        self._down(unlink=False)

    def _down(self, unlink: bool) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            self._acceptor.remove(listener)
            listener.close()
            if unlink and os.path.lexists(self.socket_path):
                os.unlink(self.socket_path)
        self.life.clock.close()
        self.thaw()
        self._threads.end()

    def restart(self, down: float = 0.0) -> None:
        """stop(), stay away for ``down`` seconds, start()."""
        self.stop()
        time.sleep(down)
        self.start()

    @property
    def running(self) -> bool:
        return self._listener is not None

    def freeze(self) -> None:
        """Hang: connections are accepted and stay open, nothing is answered, until thaw()."""
        self._gate.clear()

    def thaw(self) -> None:
        self._gate.set()

    def close(self) -> None:
        """End, and remove the socket and (if made here) the directory. Callable twice."""
        self._down(unlink=True)
        self._threads.close()
        if self._own_acceptor:
            self._acceptor.close()
        if os.path.lexists(self.socket_path):
            os.unlink(self.socket_path)
        if self._made_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return self._threads.sockets

    # -- serving ----------------------------------------------------------------------------------------------------
    def _on_connection(self, sock: socket.socket) -> None:
        self._threads.start(self._serve, sock, name="simulator-engine")

    def _serve(self, sock: socket.socket) -> None:
        stopping = self._threads.stopping
        with relay.closing_on_stop(sock, self._threads):
            connection = Connection(sock, self._headers, stopping)
            fault = self.faults.take("connect", AT_CONNECT) if self.faults.at_connect else None
            if fault is not None and relay.play(sock, fault, stopping):
                return
            connection.fault = fault
            try:
                while not stopping.is_set():
                    request = connection.read()
                    if request is None or not self._one(connection, request) or connection.close_after:
                        return
            except BadRequest as error:
                connection.answer(400, str(error).encode(), "text/plain; charset=utf-8")

    def _one(self, connection: Connection, request: Request) -> bool:
        """Answer one request; False: the connection is over."""
        request = request._replace(path=unquote(request.path))
        self.requests[self._api.verb(request)] += 1
        self._gate.wait()
        fault = self.faults.take(f"{request.method} {request.target}", AT_REQUEST)
        if fault is None:
            self._api.handle(request, connection)
            return True
        return self._misbehave(connection, request, fault)

    def _misbehave(self, connection: Connection, request: Request, fault: Fault) -> bool:
        if fault.kind == "huge":
            self._endless(connection)
            return False
        if fault.kind in ("status", "body"):
            kind = "application/json"
            body = fault.body or b'{"message":"so it was asked for"}\n'
            connection.answer(fault.status or (500 if fault.kind == "status" else 200), body, kind)
            return True
        if relay.play(connection.sock, fault, self._threads.stopping):
            return False
        before, connection.fault = connection.fault, fault
        self._api.handle(request, connection)
        connection.fault = before
        return fault.kind != "cut"

    def _endless(self, connection: Connection) -> None:
        """A 200 whose JSON string, and line, never ends."""
        connection.start_stream()
        connection.send_chunk(b'[{"Id":"')
        while not self._threads.stopping.is_set():
            connection.send_chunk(b"x" * 65536)

    # -- containers -------------------------------------------------------------------------------------------------
    def run(
        self, name: str, command: Union[str, Sequence[str]] = ("sleep", "1000000"), image: str = IMAGE,
        start: bool = True, state: str = "", exit_code: int = 0, health: str = "", **options: Any
    ) -> str:
        """Create (and start) a container; its id.

        :param state: put it into this state at once, without history: created, running, paused, restarting, removing,
            exited (with ``exit_code``) or dead.
        :param health: starting, healthy or unhealthy.
        :param options: more of the create body, in the Engine API's own words (Labels=..., HostConfig=..., ...).
        """
        self.life.add_image(image)
        host_config: Dict[str, Any] = {"NetworkMode": "none"}
        host_config.update(options.pop("HostConfig", {}))
        words = [command] if isinstance(command, str) else list(command)
        body = {"Image": image, "Cmd": words, "HostConfig": host_config, "StopTimeout": 1}
        body.update(options)
        with self.life.lock:
            container = self.life.create(name, body)
            if start and state != "created":
                self.life.start(container.id)
            if state and state != "running":
                self.life.force_state(container.id, state, exit_code)
            if health:
                self.life.set_health(container.id, health)
        return container.id

    def add_image(self, name: str) -> None:
        """Make an image name usable."""
        self.life.add_image(name)

    def do(self, verb: str, container: str, **options: Any) -> None:
        """start, stop, restart, kill, pause, unpause, remove, rename (``name=``), finish (``exit_code=``) or health
        (``status=``) a container.

        :raises SimulatorError: the engine refuses.
        """
        seconds = float(options.get("timeout", 0))
        life = self.life
        verbs: Dict[str, Any] = {
            "start": lambda: life.start(container), "stop": lambda: life.stop(container, seconds),
            "restart": lambda: life.restart(container, seconds),
            "kill": lambda: life.kill(container, str(options.get("signal", ""))),
            "pause": lambda: life.pause(container), "unpause": lambda: life.unpause(container),
            "remove": lambda: life.remove(container, bool(options.get("force", True))),
            "rename": lambda: life.rename(container, str(options.get("name", ""))),
            "finish": lambda: life.finish(container, int(options.get("exit_code", 0))),
            "health": lambda: life.set_health(container, str(options.get("status", "healthy"))),
        }
        if verb not in verbs:
            raise SimulatorError(f"no such verb: {verb}")
        try:
            verbs[verb]()
        except ApiError as error:
            raise SimulatorError(error.message) from error

    def make_dead(self, container: str) -> None:
        """Bring a container into the state "dead"."""
        self.life.force_state(container, "dead")

    def list(self) -> List[Dict[str, Any]]:
        """All containers in short: Id, Names, Image, State, Status, Labels."""
        now = time.time()
        with self.life.lock:
            return [
                {"Id": container.id, "Names": ["/" + container.name], "Image": container.image,
                 "State": container.state, "Status": container.status(now), "Labels": dict(container.labels)}
                for container in self.life.listed()
            ]
