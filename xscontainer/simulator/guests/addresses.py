"""Loopback addresses for guests: all of 127.0.0.0/8 belongs to this machine, so every guest gets one of its own."""

import errno
import random
import socket
import threading
from typing import List, Sequence, Set, Tuple

from xscontainer.simulator.engines.errors import SimulatorError

_PER_NET = 250
_MAX_NETWORKS = 50000  # of 239 * 250, so that a free network is found soon


class AddressBlock:
    """Loopback addresses from 127.x.y.1 upwards.

    The start is random, so that processes do not meet. No other block of this process shares one of its networks: two
    VMs that report one address are a conflict (ADDRESS_CONFLICT).
    """

    _lock = threading.Lock()
    _used: Set[Tuple[int, int]] = set()  # x and y of every block of this process

    def __init__(self) -> None:
        self._networks: List[Tuple[int, int]] = []

    def addresses(self, count: int) -> List[str]:
        """Return the first ``count`` addresses, the same ones each time.

        :raises ValueError: ``count`` is too large.
        """
        if count > _PER_NET * 50:
            raise ValueError(f"at most {_PER_NET * 50} guests")
        missing = -(-count // _PER_NET) - len(self._networks)
        if missing > 0:
            self._networks += self._reserve(missing)
        return ["127.{}.{}.{}".format(*self._networks[index // _PER_NET], 1 + index % _PER_NET)
                for index in range(count)]

    @classmethod
    def _reserve(cls, count: int) -> "List[Tuple[int, int]]":
        chance = random.SystemRandom()
        chosen: List[Tuple[int, int]] = []
        with cls._lock:
            if len(cls._used) + count > _MAX_NETWORKS:
                raise SimulatorError("this process has used up its loopback addresses for guests")
            while len(chosen) < count:
                network = (chance.randrange(16, 255), chance.randrange(250))
                if network not in cls._used:
                    cls._used.add(network)
                    chosen.append(network)
        return chosen


def bind_all(addresses: Sequence[str], port: int = 0, attempts: int = 20) -> List[socket.socket]:
    """Return listening TCP sockets on one common port, in the order of ``addresses``.

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
    """Return a listening TCP socket.

    :raises OSError: the address or port cannot be used.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener
