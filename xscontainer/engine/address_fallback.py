"""Try the addresses of a VM until the VM itself answers.

A reported address may by now belong to another machine. Try the remaining addresses before giving up.
"""

import time
from typing import Callable, List, Sequence, Tuple, TypeVar

from xscontainer.errors import ConnectError, GuestUnreachable

Reached = TypeVar("Reached")

_MOST_QUOTED = 3  # messages of other addresses


def try_each(addresses: Sequence[str], attempt: "Callable[[Tuple[str, ...]], Reached]", deadline: float) -> Reached:
    """Return what ``attempt`` reaches at one of the addresses.

    :param attempt: connects to the first of its addresses that answers. It sets ``suspect_address`` of a ConnectError
        if another machine may have that address, so that the VM may answer at another one.
    :param deadline: by time.monotonic(): no attempt begins after it. Each attempt observes it by itself.
    :raises ConnectError: if all addresses fail: the error that says most about the VM, with the other messages.
    """
    remaining = tuple(addresses)
    errors: List[ConnectError] = []
    while not errors or (remaining and time.monotonic() < deadline):
        try:
            return attempt(remaining)
        except ConnectError as error:
            if not error.suspect_address and not isinstance(error, GuestUnreachable):
                raise  # the VM itself answered
            errors.append(error)
            remaining = tuple(address for address in remaining
                              if error.suspect_address and address != error.suspect_address)
    raise _summary(errors)


def _summary(errors: "List[ConnectError]") -> ConnectError:
    best = max(errors, key=lambda error: error.rank)
    others = [error.message for error in errors if error is not best]
    if others:
        more = f" And {len(others) - _MOST_QUOTED} more." if len(others) > _MOST_QUOTED else ""
        best.message += " The VM's other addresses fail, too: " + " ".join(others[:_MOST_QUOTED]) + more
    return best
