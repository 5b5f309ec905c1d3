"""An engine made of threads: the Engine API on a Unix socket, containers that are only records."""

import os
import shutil
import socket
from typing import Counter, Optional

from xscontainer.simulator.engines import relay
from xscontainer.simulator.engines.acceptor import Acceptor
from xscontainer.simulator.engines.api import Api
from xscontainer.simulator.engines.call import Identity
from xscontainer.simulator.engines.errors import SimulatorError
from xscontainer.simulator.engines.faults import Faults
from xscontainer.simulator.engines.lifecycle import Lifecycle
from xscontainer.simulator.engines.record_containers import RecordContainers
from xscontainer.simulator.engines.server import Server
from xscontainer.simulator.engines.started import Started

MAX_SOCKET_PATH = 100
PODMAN = "Podman Engine"


class EmbeddedEngine(RecordContainers, Started):
    """An engine whose API is at ``<directory>/docker.sock``; a context manager.

    It uses one thread for each connection. With a shared acceptor an idle engine costs one socket.

    :param directory: created if absent; removed by close() if this engine created it.
    :param socket_path: another place for the socket; at most 100 characters.
    :param identity: the product and API versions that it reports.
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
        self._made_directory = not os.path.isdir(self.directory)
        self._own_acceptor = acceptor is None
        self._acceptor = acceptor or Acceptor()
        self._threads = relay.Threads()
        self._listener: Optional[socket.socket] = None
        super().__init__(Lifecycle(self._threads.stopping, self.identity.product == PODMAN))
        self._server = Server(Api(self.life, self.identity, "/var/lib/docker"), self.faults, self._threads)
        self.requests: "Counter[str]" = self._server.requests
        """Requests so far by verb, such as ``GET /containers/json`` and ``POST /containers/{}/stop``."""

    def start(self) -> None:
        """Listen. Containers are as stop() or kill() left them, unless their restart policy starts them.

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
        self._acceptor.add(listener, self._server.accept)
        self.life.resume()

    def stop(self) -> None:
        """End as under a service manager: running containers exit first, then connections close."""
        with self.life.lock:
            for container in self.life.listed():
                if container.up:
                    self.life.force_state(container.id, "exited", 137)
        self._down(unlink=True)

    def kill(self) -> None:
        """Die at once: the socket's file stays without a listener, containers run on."""
        self._down(unlink=False)

    def _down(self, unlink: bool) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            self._acceptor.remove(listener)
            listener.close()
            if unlink and os.path.lexists(self.socket_path):
                os.unlink(self.socket_path)
        self.life.clock.close()
        self.life.events.forget_past()
        self.thaw()
        self._threads.end()

    @property
    def running(self) -> bool:
        return self._listener is not None

    def freeze(self) -> None:
        """Accept connections but answer nothing until thaw()."""
        self._server.freeze()

    def thaw(self) -> None:
        self._server.thaw()

    def close(self) -> None:
        """End, and remove the socket and the directory if this engine made it. May be called twice."""
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
        """Return the number of open connections."""
        return self._threads.sockets
