"""A TLS server with a behaviour of the test's choice, and the trust in it."""

import contextlib
import socket
import ssl
import threading
from pathlib import Path
from typing import Callable, Iterator, List, NamedTuple

from xscontainer.simulator.xapi.wire import certificate
from xscontainer.xapi.address import Address
from xscontainer.xapi.known_servers import KnownServers
from xscontainer.xapi.trust import ByFingerprint, Trust, fingerprint_of

DEADLINE = 30.0
Serve = Callable[[ssl.SSLSocket], None]


class Served(NamedTuple):
    """:ivar pem: the server's certificate. :ivar requests: heads of requests, as far as the server has read them."""

    address: Address
    pem: str
    requests: List[bytes]

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(ssl.PEM_cert_to_DER_cert(self.pem))


def trusting(*fingerprints: str) -> Trust:
    """Return a trust in these certificates; without any nothing is trusted."""
    def never(address: Address, fingerprint: str) -> None:
        raise AssertionError(f"{address} was to be confirmed")

    return ByFingerprint(fingerprints, KnownServers("/nonexistent"), never)


@contextlib.contextmanager
def serving(directory: Path, answer: Serve, encrypted: bool = True, host: str = "127.0.0.1",
            key: str = "") -> "Iterator[Served]":
    """Serve each connection with ``answer``, after its request was read.

    :param encrypted: False: without TLS, and without reading.
    :param key: file with certificate and key; "": make one.
    """
    path = key or str(directory / "server.pem")
    pem = certificate.make(path, host, "localhost") if not key else Path(key).read_text().partition("KEY-----\n")[2]
    context = certificate.context(path)
    requests: List[bytes] = []

    def serve(sock: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), contextlib.closing(sock):
            sock.settimeout(DEADLINE)
            if not encrypted:
                answer(sock)  # type: ignore[arg-type]
                return
            with context.wrap_socket(sock, server_side=True) as stream:
                requests.append(stream.recv(65536))
                answer(stream)

    def accept(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                thread = threading.Thread(target=serve, args=(listener.accept()[0],))
                threads.append(thread)
                thread.start()

    threads: List[threading.Thread] = []
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.closing(socket.socket(family)) as listener:
        listener.bind((host, 0))
        listener.listen(5)
        accepting = threading.Thread(target=accept, args=(listener,))
        accepting.start()
        try:
            yield Served(Address(host, listener.getsockname()[1]), pem, requests)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join(DEADLINE)
            for thread in threads:
                thread.join(DEADLINE)
