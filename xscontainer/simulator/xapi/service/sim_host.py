"""A simulated host: the sockets of its xapi, its files, crashes and restarts."""

import datetime
import os
import socket
import ssl
import tempfile
import threading
from typing import List, Optional, Tuple

from xscontainer.simulator.xapi.service import routes
from xscontainer.simulator.xapi.service.dispatch import Dispatcher
from xscontainer.simulator.xapi.service.rpc import respond
from xscontainer.simulator.xapi.state.host_data import HostData
from xscontainer.simulator.xapi.state.pool_data import PoolData
from xscontainer.simulator.xapi.wire import certificate
from xscontainer.simulator.xapi.wire.exchange import Exchange
from xscontainer.simulator.xapi.wire.http_server import Server, Streamer

_SOCKET_PATH_LIMIT = 100
_LOOPBACK = "127.15"  # guests have addresses from 127.16 on


class SimHost(HostData):
    """One host of a pool; made by Pool.

    :param number: from 1; gives name and address.
    :param tcp: whether it serves on 127.0.0.1, too.
    :param https: whether it serves over HTTPS at its address, which is a loopback address then.
    """

    def __init__(self, pool: PoolData, dispatcher: Dispatcher, number: int, tcp: bool, https: bool) -> None:
        super().__init__(number, pool.directory, _LOOPBACK if https else "10.77")
        self._https = https
        self.certificate_path = os.path.join(self.directory, "xapi-ssl.pem")
        self.pool = pool
        self._tcp = tcp
        self._server = Server(lambda request: respond(dispatcher, self, request), self._streamer, pool.web_dir)
        self._restarter: Optional[threading.Timer] = None
        self.socket_path = os.path.join(self.directory, "xapi")
        self._short: Optional[str] = None
        if len(self.socket_path) > _SOCKET_PATH_LIMIT:
            self._short = tempfile.mkdtemp(prefix="xapi")
            self.socket_path = os.path.join(self._short, "xapi")

    def _streamer(self, name: str) -> Optional[Streamer]:
        handler = routes.find(name)
        if handler is None:
            return None
        found = handler

        def stream(exchange: Exchange) -> None:
            found(self.pool, self, exchange)

        return stream

    @property
    def is_coordinator(self) -> bool:
        """Return whether this host is the pool's coordinator."""
        return self.pool.coordinator is self

    @property
    def control_domain_uuid(self) -> str:
        """Return the uuid of the host's domain 0."""
        database = self.pool.db
        return str(database.find("VM", database.find("host", self.ref)["control_domain"])["uuid"])

    def write_files(self) -> None:
        """(Re)write the inventory and pool.conf."""
        with open(self.inventory_path, "w") as stream:
            stream.write(
                "PRODUCT_BRAND='XCP-ng'\nPRODUCT_VERSION='8.3.0'\nINSTALLATION_UUID='{}'\n"
                "CONTROL_DOMAIN_UUID='{}'\nMANAGEMENT_INTERFACE='xenbr0'\n".format(
                    self.uuid, self.control_domain_uuid
                )
            )
        with open(self.pool_conf_path, "w") as stream:
            stream.write("master" if self.is_coordinator else "slave:" + self.pool.coordinator.address)

    def start(self) -> None:
        """Open the sockets and serve."""
        if os.path.exists(self.socket_path):
            os.unlink(self.socket_path)
        local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        local.bind(self.socket_path)
        local.listen(128)
        listeners: List[socket.socket] = [local]
        if self._tcp:
            remote = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            remote.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            remote.bind(("127.0.0.1", self.tcp_port))
            remote.listen(128)
            self.tcp_port = remote.getsockname()[1]
            listeners.append(remote)
        self.life += 1
        self.up = True
        self._server.start(listeners, self._encrypted() if self._https else None)
        self.pool.changed_state()

    def _encrypted(self) -> "Tuple[socket.socket, ssl.SSLContext]":
        """Return the listening socket for HTTPS. The pool's hosts have one port: HOST_IS_SLAVE names none."""
        if not self.certificate:
            self.new_certificate()
        port = self.https_port or max(host.https_port for host in self.pool.hosts)
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.address, port))
        listener.listen(128)
        self.https_port = listener.getsockname()[1]
        return listener, certificate.context(self.certificate_path)

    def new_certificate(self, ends: "Optional[datetime.datetime]" = None) -> None:
        """Make a certificate, which the host presents from its next start on.

        :param ends: UTC; default: in ten years.
        """
        self.certificate = certificate.make(self.certificate_path, self.address, self.name_label, ends)

    def stop(self, reset: bool = False, timeout: float = 10.0) -> None:
        """Close the sockets; calls in progress lose their answers."""
        if self._restarter is not None:
            self._restarter.cancel()
            if self._restarter is not threading.current_thread():
                self._restarter.join(timeout)
            self._restarter = None
        self.up = False
        self.pool.changed_state()
        self._server.stop(reset, timeout)
        if os.path.exists(self.socket_path):
            os.unlink(self.socket_path)

    def close(self) -> None:
        """Call stop() and remove the directory outside the pool's own."""
        self.stop()
        if self._short is not None:
            os.rmdir(self._short)
            self._short = None

    def crash(self, lose_writes_since: Optional[float] = None) -> None:
        """Crash this host's xapi: connections break and its sessions end, all sessions on the coordinator.

        :param lose_writes_since: a time.monotonic() after which writes are lost (coordinator only).
        """
        self.stop(reset=True, timeout=2.0)
        self.pool.sessions.end_of_host(None if self.is_coordinator else self)
        if lose_writes_since is not None and self.is_coordinator:
            self.pool.db.forget_since(lose_writes_since)

    def restart(self, after: float = 0.0, lose_writes_since: Optional[float] = None) -> None:
        """Call crash() if xapi is up, and start it `after` seconds later, in the background if that is not 0."""
        if self.up:
            self.crash(lose_writes_since)
        elif lose_writes_since is not None:
            self.pool.db.forget_since(lose_writes_since)
        if after <= 0:
            self.start()
            return
        self._restarter = threading.Timer(after, self._come_back)
        self._restarter.daemon = True
        self._restarter.start()

    def _come_back(self) -> None:
        self.start()
