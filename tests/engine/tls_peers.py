"""The other side for tests of TLS: a real dockerd that requires certificates, and scripted servers."""

import os
import socket
import ssl
import time
import warnings
from typing import Any, NamedTuple, Optional

from tests.engine.peers import Serve
from xscontainer.certificates import making
from xscontainer.certificates.making import Pair
from xscontainer.engine.tls import certs
from xscontainer.engine.tls import connection as tls
from xscontainer.settings import EngineSettings, GuestSettings
from xscontainer.simulator.engines.real import RealEngine
from xscontainer.simulator.guests.tls import Certificates, flags, free_port

ADDRESS = "127.0.0.1"
NAME = "engine.example"
NOW = time.time()
YEAR = 365 * 86400.0
QUICK = GuestSettings(connect_timeout=3.0, handshake_timeout=3.0, login_timeout=3.0)
ENGINE = EngineSettings(request_timeout=10.0)


class Authority(NamedTuple):
    """A CA, and certificates that it has signed."""

    ca: Pair
    server: Pair
    client: Pair

    @classmethod
    def new(cls, label: str = "a CA") -> "Authority":
        ca = making.new_ca(label, NOW)
        return cls(ca, making.new_server(ca, "an engine", [ADDRESS, "::1", NAME], NOW),
                   making.new_client(ca, "a host", NOW))

    @property
    def credentials(self) -> certs.Credentials:
        return certs.Credentials(self.ca.certificate, self.client.certificate, self.client.key)

    @property
    def engine_side(self) -> Certificates:
        return Certificates(self.ca.certificate, self.server.certificate, self.server.key)


def dockerd(directory: str, certificates: Certificates) -> Any:
    """Return a real engine, not started, with an attribute ``tls_port``."""
    port = free_port(ADDRESS)
    engine: Any = RealEngine(directory, flags=flags(directory, certificates, ADDRESS, port))
    engine.tls_port = port
    return engine


def server_context(directory: str, authority: Authority, pair: Optional[Pair] = None,
                   version: str = "") -> ssl.SSLContext:
    """Return the context of a server that requires a client certificate.

    :param pair: instead of the authority's own. :param version: the only one: "1.2" or "1.3".
    """
    pair = pair or authority.server
    path = os.path.join(directory, "server.pem")
    with open(path, "w") as out:
        out.write(pair.certificate + pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    context.load_verify_locations(cadata=authority.ca.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    only(context, version)
    return context


def only(context: ssl.SSLContext, version: str) -> None:
    """Allow only version "1.2" or "1.3"; "" changes nothing."""
    with warnings.catch_warnings():
        # The newer API exists since CPython 3.7.
        warnings.simplefilter("ignore", DeprecationWarning)
        if version:
            context.options |= {"1.2": ssl.OP_NO_TLSv1_3, "1.3": ssl.OP_NO_TLSv1_2}[version]  # novm: 3.6 has both


def over_tls(context: ssl.SSLContext, serve: Serve) -> Serve:
    def run(peer: socket.socket) -> None:
        # A copy, because the server closes the accepted socket, and wrapping detaches it.
        with peer.dup() as copy, context.wrap_socket(copy, server_side=True) as sock:
            serve(sock)
    return run


def connect(credentials: certs.Credentials, port: int, ssh: GuestSettings = QUICK, engine: EngineSettings = ENGINE,
            name: str = "", address: str = ADDRESS, vm: str = "") -> tls.TLSConnection:
    return tls.connect(tls.Target((address,), port, name, vm), credentials, ssh, engine)
