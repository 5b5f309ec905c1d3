import os
from typing import Callable, Iterator, List

import pytest

from xscontainer.service.server import Server
from xscontainer.simulator.install import install_plugin


class Dom0:
    """A directory with what the plugin needs of its host: settings, the executable, a place for the socket."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.socket = os.path.join(directory, "run", "daemon.sock")
        self.settings_path = os.path.join(directory, "xscontainer.conf")
        self._servers: List[Server] = []
        self.write_settings("")
        self.plugin = install_plugin(directory, self.settings_path)

    def write_settings(self, more: str) -> None:
        with open(self.settings_path, "w", encoding="utf-8") as conf:
            conf.write(f"[daemon]\nsocket = {self.socket}\n[xapi]\nsocket = {self.directory}/no-xapi\n{more}")

    def serve(self, handler: Callable[[bytes], bytes], workers: int = 16) -> Server:
        server = Server(self.socket, handler, workers)
        server.start()
        self._servers.append(server)
        return server

    def close(self) -> None:
        for server in self._servers:
            server.stop()


@pytest.fixture
def dom0(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dom0]:
    # The kernel allows a socket's path 107 bytes, and a test's own directory is named after it.
    host = Dom0(str(tmp_path_factory.mktemp("d")))
    yield host
    host.close()
