"""Test cheaply, without a login, if a server answers at a guest's address."""

import socket
import ssl
import time
from typing import Sequence

from xscontainer.engine.dial import dial
from xscontainer.errors import GuestUnreachable

_SSH = b"SSH-"  # the beginning of an identification string


def answers(addresses: Sequence[str], port: int, tls: bool, seconds: float) -> bool:
    """Return whether an SSH server identifies itself, or a TLS server answers a ClientHello, at one of the numeric IPs.

    Accepting a connection is not enough: the kernel of a machine that hangs still does that.

    :param seconds: for all addresses together.
    """
    deadline = time.monotonic() + seconds
    try:
        connected = dial(addresses, port, seconds, seconds)
    except GuestUnreachable:
        return False
    with connected.sock as sock:
        try:
            if tls:
                sock.settimeout(max(0.001, deadline - time.monotonic()))
                sock.sendall(_hello())
            return _starts(sock, b"" if tls else _SSH, deadline)
        except OSError:
            return False


def _starts(sock: socket.socket, expected: bytes, deadline: float) -> bool:
    received = b""
    while len(received) < max(1, len(expected)):
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        piece = sock.recv(max(1, len(expected)) - len(received))
        if not piece:
            return False
        received += piece
    return received.startswith(expected)


def _hello() -> bytes:
    """Return a TLS ClientHello without a server name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    outgoing = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()
