"""Loopback addresses for guests: all of 127.0.0.0/8 belongs to this machine, so every guest gets one of its own."""

import errno
import random
import socket
from typing import List, Sequence

from xscontainer.simulator.engines.errors import SimulatorError

_PER_NET = 250


class AddressBlock:
    """127.x.y.1 and up, from a random start, so that runs at the same time do not meet."""

    def __init__(self) -> None:
        chance = random.SystemRandom()
        self._second = chance.randrange(16, 255)
        self._third = chance.randrange(0, 200)

    def addresses(self, count: int) -> List[str]:
        """The first ``count`` addresses.

        :raises ValueError: more than fit.
        """
        if count > _PER_NET * 50:
            raise ValueError(f"at most {_PER_NET * 50} guests")
        return [
            f"127.{self._second}.{self._third + index // _PER_NET}.{1 + index % _PER_NET}" for index in range(count)
        ]


def bind_all(addresses: Sequence[str], port: int = 0, attempts: int = 20) -> List[socket.socket]:
    """Listening TCP sockets on one common port, in the order of ``addresses``.

    :param port: 0 picks one that is free on all of them.
    :raises SimulatorError: the port is taken, or no common one was found.
    """
    last = "no address given"
    for _ in range(1 if port else attempts):
        sockets: List[socket.socket] = []
        try:
            for address in addresses:
                common = port or (sockets[0].getsockname()[1] if sockets else 0)
                sockets.append(listen_on(address, common))
            return sockets
        except OSError as error:
            last = str(error)
            for opened in sockets:
                opened.close()
            if error.errno != errno.EADDRINUSE:
                break
    raise SimulatorError(f"cannot listen on {', '.join(addresses[:3])}: {last}")


def listen_on(address: str, port: int) -> socket.socket:
    """One listening TCP socket; raises OSError."""
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener
