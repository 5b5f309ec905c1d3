"""Answering the connections of an embedded engine, with the faults that are switched on."""

import collections
import socket
import threading
from typing import Counter
from urllib.parse import unquote

from xscontainer.simulator.engines import relay
from xscontainer.simulator.engines.api import Api
from xscontainer.simulator.engines.faults import AT_CONNECT, AT_REQUEST, Fault, Faults
from xscontainer.simulator.engines.wire import BadRequest, Connection, Request


class Server:
    """Serves each connection in a thread of its own.

    requests: how many so far by verb, such as ``GET /containers/json`` and ``POST /containers/{}/stop``.
    """

    def __init__(self, api: Api, faults: Faults, threads: relay.Threads) -> None:
        self.requests: "Counter[str]" = collections.Counter()
        self._api = api
        self._faults = faults
        self._threads = threads
        self._headers = api.headers()
        self._gate = threading.Event()
        self._gate.set()

    def freeze(self) -> None:
        """Answer no request until thaw()."""
        self._gate.clear()

    def thaw(self) -> None:
        """Go on after freeze()."""
        self._gate.set()

    def accept(self, sock: socket.socket) -> None:
        """Serve a connection; owns its socket."""
        self._threads.start(self._serve, sock, name="simulator-engine")

    def _serve(self, sock: socket.socket) -> None:
        stopping = self._threads.stopping
        with relay.closing_on_stop(sock, self._threads):
            connection = Connection(sock, self._headers, stopping)
            fault = self._faults.take("connect", AT_CONNECT) if self._faults.at_connect else None
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
        """Answer one request; return False if the connection must end."""
        request = request._replace(path=unquote(request.path))
        self.requests[self._api.verb(request)] += 1
        self._gate.wait()
        fault = self._faults.take(f"{request.method} {request.target}", AT_REQUEST)
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
        """Send a 200 whose JSON string never ends."""
        connection.start_stream()
        connection.send_chunk(b'[{"Id":"')
        while not self._threads.stopping.is_set():
            connection.send_chunk(b"x" * 65536)
