"""One TCP connection to one of several addresses: staggered attempts in parallel; the first that connects wins."""

import errno
import os
import selectors
import socket
import time
from typing import Dict, List, NamedTuple, Sequence, Set

from xscontainer.errors import GuestFiltered, GuestNoRoute, GuestRefused, GuestUnreachable, shortage

STAGGER = 0.25  # seconds between the starts of two attempts


# Errors from a machine that exists, and errors from the network (or a firewall) about one that does not.
_REFUSED = {errno.ECONNREFUSED, errno.ECONNRESET}
_NO_ROUTE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.EADDRNOTAVAIL,
             errno.EACCES, errno.EPERM, errno.EINVAL}


class Connected(NamedTuple):
    """A connection that the caller closes. ``sock``: blocking, with TCP_NODELAY."""

    sock: socket.socket
    address: str


class _Race:
    """The running attempts. close() closes all sockets but the winner's."""

    def __init__(self, port: int, dead_after: float) -> None:
        self._port = port
        self._dead_after = dead_after
        self._selector = selectors.DefaultSelector()
        self._running: Dict[socket.socket, str] = {}
        self.failed: List[str] = []
        self.numbers: Set[int] = set()  # errnos of the failures

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
            short = shortage(error)
            if short is not None:
                raise short from error
            self._fail(address, error.errno or 0, str(error.strerror or error))
            return
        self._running[sock] = address
        self._selector.register(sock, selectors.EVENT_WRITE)

    def wait(self, seconds: float) -> Sequence[Connected]:
        """Return the winner, if an attempt succeeds within ``seconds``. Drop attempts that failed."""
        for key, _ in self._selector.select(seconds):
            sock: socket.socket = key.fileobj  # type: ignore[assignment]
            address = self._running[sock]
            self._selector.unregister(sock)
            try:
                outcome = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if outcome == 0:
                    _tune(sock, self._dead_after)
            except OSError as error:  # the connection ended again
                outcome = error.errno or errno.ECONNRESET
            # Until here close() closes the socket in case of an error.
            del self._running[sock]
            if outcome == 0:
                return (Connected(sock, address),)
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


def dial(addresses: Sequence[str], port: int, timeout: float, dead_after: float) -> Connected:
    """Connect to the first of ``addresses`` (numeric IPs, in order of preference) that accepts on ``port``.

    :param timeout: seconds for all addresses together.
    :param dead_after: seconds after which the kernel ends the connection if sent data is not acknowledged.
    :raises GuestUnreachable: if no address accepts: GuestRefused, GuestFiltered or GuestNoRoute where that is known.
    """
    deadline = time.monotonic() + timeout
    waiting = list(addresses)
    race = _Race(port, dead_after)
    try:
        while waiting or race.running:
            if waiting:
                race.start(waiting.pop(0))
            next_start = min(deadline, time.monotonic() + STAGGER) if waiting else deadline
            # A failure starts the next attempt at once. The last attempts have all the remaining time.
            while race.running:
                remaining = next_start - time.monotonic()
                if remaining <= 0:
                    break
                before = len(race.failed)
                for connected in race.wait(remaining):
                    return connected
                if waiting and len(race.failed) > before:
                    break
            if time.monotonic() >= deadline:
                break
        silent = [f"{address}: no answer within {timeout:g} s" for address in race.running]
        silent += [f"{address}: not tried within {timeout:g} s" for address in waiting]
        reasons = "; ".join(race.failed + silent) or "no address given"
        raise _error(race.numbers, bool(silent), f"TCP port {port} of the VM ({reasons})")
    finally:
        race.close()


def _error(numbers: Set[int], silent: bool, where: str) -> GuestUnreachable:
    """Return one error for several attempts, by the attempt that got furthest."""
    if numbers & _REFUSED:
        return GuestRefused(f"Nothing listens on {where}.")
    if silent or errno.ETIMEDOUT in numbers:
        return GuestFiltered(f"Nothing answers on {where}.")
    if numbers & _NO_ROUTE:
        return GuestNoRoute(f"There is no route to {where}.")
    return GuestUnreachable(f"Nothing answers on {where}.")


def _tune(sock: socket.socket, dead_after: float) -> None:
    sock.setblocking(True)
    # Without TCP_NODELAY the first request on a channel waits 43 ms for the guest's delayed acknowledgement.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(dead_after * 1000))
