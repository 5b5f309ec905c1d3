"""Reading from a server that may misbehave."""

import socket


def read_some(sock: socket.socket, size: int) -> bytes:
    """Return ``size`` bytes or a few more; or fewer with <end> or, after the socket's timeout, <silence>."""
    data = b""
    while len(data) < size:
        try:
            more = sock.recv(65536)
        except socket.timeout:
            return data + b"<silence>"
        if not more:
            return data + b"<end>"
        data += more
    return data
