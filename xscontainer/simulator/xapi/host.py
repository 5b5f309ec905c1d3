"""A simulated host: its xapi's doors, its files, and how that xapi dies and comes back."""

import os
import socket
import tempfile
import threading
from typing import TYPE_CHECKING, List, Optional

from . import transfer
from .decode import invalid_utf8, json_call, xml_call
from .dispatch import BareList
from .encode import json_failure, json_success, xml_bare, xml_failure, xml_success
from .exchange import Exchange
from .failures import XapiError
from .wire import Answer, HttpRequest, Server

if TYPE_CHECKING:
    from .pool import Pool

_SOCKET_PATH_LIMIT = 100


class SimHost:
    """One host of a pool; made by Pool."""

    def __init__(self, pool: "Pool", number: int, directory: str, tcp: bool) -> None:
        self.pool = pool
        self.name_label = "host{}".format(number)
        self.address = "10.77.{}.{}".format((number - 1) // 250, (number - 1) % 250 + 1)
        self.ref = ""
        self.uuid = ""
        self.up = False
        self.life = 0
        self.tcp_port = 0
        self._tcp = tcp
        self._server = Server(self._respond, {name: self._transfer for name in transfer.PERMISSIONS})
        self._restarter: Optional[threading.Timer] = None
        self.directory = os.path.join(directory, self.name_label)
        self.plugin_dir = os.path.join(self.directory, "plugins")
        os.makedirs(self.plugin_dir, exist_ok=True)
        self.inventory_path = os.path.join(self.directory, "xensource-inventory")
        self.pool_conf_path = os.path.join(self.directory, "pool.conf")
        self.socket_path = os.path.join(self.directory, "xapi")
        self._short: Optional[str] = None
        if len(self.socket_path) > _SOCKET_PATH_LIMIT:
            self._short = tempfile.mkdtemp(prefix="xapi")
            self.socket_path = os.path.join(self._short, "xapi")

    @property
    def is_coordinator(self) -> bool:
        """True on the pool's coordinator."""
        return self.pool.coordinator is self

    def write_files(self) -> None:
        """(Re)write the inventory and pool.conf."""
        with open(self.inventory_path, "w") as stream:
            stream.write(
                "PRODUCT_BRAND='XCP-ng'\nPRODUCT_VERSION='8.3.0'\nINSTALLATION_UUID='{}'\n"
                "CONTROL_DOMAIN_UUID='{}'\nMANAGEMENT_INTERFACE='xenbr0'\n".format(
                    self.uuid, self.pool.control_domain_uuid(self)
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
        self._server.start(listeners)
        self.pool.changed_state()

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
        """stop(), and remove what lies outside the pool's directory."""
        self.stop()
        if self._short is not None:
            os.rmdir(self._short)
            self._short = None

    def crash(self, lose_writes_since: Optional[float] = None) -> None:
        """xapi of this host dies: connections break, its sessions are gone (the coordinator's: all sessions).

        lose_writes_since: a time.monotonic(); the database forgets what was written after it (coordinator only).
        """
        self.stop(reset=True, timeout=2.0)
        self.pool.sessions.end_of_host(None if self.is_coordinator else self)
        if lose_writes_since is not None and self.is_coordinator:
            self.pool.db.forget_since(lose_writes_since)

    def restart(self, after: float = 0.0, lose_writes_since: Optional[float] = None) -> None:
        """crash() if it is up, and come back `after` seconds later (in the background if that is not at once)."""
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

    def _transfer(self, exchange: Exchange) -> None:
        transfer.serve(self.pool, self, exchange)

    def _respond(self, request: HttpRequest) -> Answer:
        if request.path == "/jsonrpc":
            return self._json(request)
        call = xml_call(request.body)
        try:
            value = self.pool.serve(self, call, request.local, len(request.body))
        except XapiError as failed:
            return Answer(200, "text/xml", xml_failure(failed.description))
        return Answer(200, "text/xml", xml_bare(list(value)) if isinstance(value, BareList) else xml_success(value))

    def _json(self, request: HttpRequest) -> Answer:
        call = json_call(request.body)
        bad = invalid_utf8(call.params)
        if bad is not None:
            body = '{{"jsonrpc":"2.0","error":["INVALID_VALUE","Invalid UTF-8 string in parameter","S({})"],"id":0}}'
            return Answer(200, "application/json", body.format(bad).encode("utf-8", "surrogateescape"))
        try:
            value = self.pool.serve(self, call, request.local, len(request.body))
        except XapiError as failed:
            return Answer(200, "application/json", json_failure(call.version, call.identity, failed.description))
        if isinstance(value, BareList):
            value = list(value)
        return Answer(200, "application/json", json_success(call.version, call.identity, value))
