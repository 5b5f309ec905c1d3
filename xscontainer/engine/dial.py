"""One TCP connection out of several addresses: staggered, in parallel, the first that answers wins."""

import errno
import os
import selectors
import socket
import time
from typing import Dict, List, NamedTuple, Sequence, Set

from xscontainer.errors import GuestFiltered, GuestNoRoute, GuestRefused, GuestUnreachable

STAGGER = 0.25  # seconds an address has for itself before the next one is tried beside it


# What a machine says that is there, and what the network says of one that is not (or a firewall for it).
_REFUSED = {errno.ECONNREFUSED, errno.ECONNRESET}
_NO_ROUTE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.EADDRNOTAVAIL,
             errno.EACCES, errno.EPERM, errno.EINVAL}


class Answered(NamedTuple):
    """:ivar sock: connected, blocking, TCP_NODELAY set; the caller's."""

    sock: socket.socket
    address: str


class _Race:
    """The attempts under way; everything but the winner is closed at the end."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._selector = selectors.DefaultSelector()
        self._running: Dict[socket.socket, str] = {}
        self.failed: List[str] = []
        self.numbers: Set[int] = set()  # errnos among them

    def start(self, address: str) -> None:
        sock = None
        try:
            family, kind, protocol, _, where = socket.getaddrinfo(
                address, self._port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0]
            sock = socket.socket(family, kind, protocol)
            sock.setblocking(False)
            outcome = sock.connect_ex(where)
            if outcome not in (0, errno.EINPROGRESS):
                raise OSError(outcome, os.strerror(outcome))
        except OSError as error:
            if sock is not None:
                sock.close()
            self._fail(address, error.errno or 0, str(error.strerror or error))
            return
        self._running[sock] = address
        self._selector.register(sock, selectors.EVENT_WRITE)

    def wait(self, seconds: float) -> Sequence[Answered]:
        """The winner, if one answered within ``seconds``; attempts that failed are dropped."""
        for key, _ in self._selector.select(seconds):
            sock: socket.socket = key.fileobj  # type: ignore[assignment]
            self._selector.unregister(sock)
            address = self._running.pop(sock)
            outcome = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if outcome == 0:
                return (Answered(sock, address),)
            sock.close()
            self._fail(address, outcome, os.strerror(outcome))
        return ()

    def _fail(self, address: str, number: int, why: str) -> None:
        self.failed.append(f"{address}: {why}")
        self.numbers.add(number)

    @property
    def running(self) -> Sequence[str]:
        return tuple(self._running.values())

    def close(self) -> None:
        for sock in self._running:
            sock.close()
        self._selector.close()


def dial(addresses: Sequence[str], port: int, timeout: float, dead_after: float) -> Answered:
    """Connect to the first of ``addresses`` (numeric IPs, in order of preference) that answers on ``port``.

    :param timeout: seconds for all of them together.
    :param dead_after: seconds after which the kernel gives up data that nobody acknowledges.
    :raises GuestUnreachable: none answered; GuestRefused, GuestFiltered or GuestNoRoute where that is known.
    """
    deadline = time.monotonic() + timeout
    waiting = list(addresses)
    race = _Race(port)
    try:
        while waiting or race.running:
            if waiting:
                race.start(waiting.pop(0))
            next_start = min(deadline, time.monotonic() + STAGGER) if waiting else deadline
            # A failure starts the next address at once; the last ones have all the time that is left.
            while race.running:
                left = next_start - time.monotonic()
                if left <= 0:
                    break
                before = len(race.failed)
                for answered in race.wait(left):
                    _tune(answered.sock, dead_after)
                    return answered
                if waiting and len(race.failed) > before:
                    break
            if time.monotonic() >= deadline:
                break
        silent = [f"{address}: no answer within {timeout:g} s" for address in race.running]
        silent += [f"{address}: not reached within {timeout:g} s" for address in waiting]
        reasons = "; ".join(race.failed + silent) or "no address given"
        raise _judged(race.numbers, bool(silent), f"TCP port {port} of the VM ({reasons})")
    finally:
        race.close()


def _judged(numbers: Set[int], silent: bool, where: str) -> GuestUnreachable:
    """What several attempts come to: the one that got furthest tells most."""
    if numbers & _REFUSED:
        return GuestRefused(f"Nothing listens on {where}.")
    if silent or errno.ETIMEDOUT in numbers:
        return GuestFiltered(f"Nothing answers on {where}.")
    if numbers & _NO_ROUTE:
        return GuestNoRoute(f"There is no way to {where}.")
    return GuestUnreachable(f"Nothing answers on {where}.")


def _tune(sock: socket.socket, dead_after: float) -> None:
    sock.setblocking(True)
    # Without it, the first request on a channel waits for the guest's delayed acknowledgement.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(dead_after * 1000))
