"""The addresses that a VM reports may be somebody else's, too: what answers first need not be the VM."""

import time
from typing import Callable, List, Sequence, Tuple, TypeVar

from xscontainer.errors import (
    ConnectError,
    GuestNotSSH,
    GuestSilent,
    GuestUnreachable,
    HostKeyChanged,
    KeyNotAccepted,
    TLSCertificateInvalid,
    TLSProtocol,
    TransportLost,
)

Reached = TypeVar("Reached")

# From what tells least of the VM to what tells most: where nothing serves, the last of these is the one to raise.
_TELLING = (GuestUnreachable, GuestNotSSH, TLSProtocol, GuestSilent, TransportLost, TLSCertificateInvalid,
            HostKeyChanged, KeyNotAccepted)
_MOST_TOLD = 3


def past(addresses: Sequence[str], attempt: "Callable[[Tuple[str, ...]], Reached]", deadline: float) -> Reached:
    """What ``attempt`` reaches at one of the addresses, without those at which it met somebody else.

    :param attempt: takes the first of the addresses given that answers. It sets ``stranger`` of a ConnectError to that
        address where another one may still be the VM's.
    :param deadline: by time.monotonic(): when no other attempt is begun; each keeps to it by itself.
    :raises ConnectError: none serves. The one that tells most, with what was met at the others.
    """
    left = tuple(addresses)
    met: List[ConnectError] = []
    while not met or (left and time.monotonic() < deadline):
        try:
            return attempt(left)
        except ConnectError as error:
            if not error.stranger and not isinstance(error, GuestUnreachable):
                raise  # it is the VM, and this is what it has to say
            met.append(error)
            left = tuple(address for address in left if error.stranger and address != error.stranger)
    raise _summed_up(met)


def _summed_up(met: "List[ConnectError]") -> ConnectError:
    telling = max(met, key=_rank)
    others = [error.message for error in met if error is not telling]
    if others:
        more = f" And {len(others) - _MOST_TOLD} more." if len(others) > _MOST_TOLD else ""
        telling.message += " The VM's other addresses do not serve either: " + " ".join(others[:_MOST_TOLD]) + more
    return telling


def _rank(error: ConnectError) -> int:
    return next((rank for rank, kind in enumerate(_TELLING) if isinstance(error, kind)), len(_TELLING))
