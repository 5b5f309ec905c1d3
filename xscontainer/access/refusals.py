"""Rate limit for logins after guests refused them, so that no guest locks this host out.

Banning tools count refused logins, and newer SSH servers do so themselves: 5 within 10 minutes are enough for fail2ban
with its defaults. A refusal is no outage: it ends when somebody changes something.
"""

import copy
import threading
import time
from typing import Callable, Dict, List, NamedTuple, Tuple, TypeVar

from xscontainer.core.pacing import Pacer
from xscontainer.errors import ConnectError

_FORGOTTEN_AFTER = 86400.0  # s without an attempt after which a refusal is forgotten

Error = TypeVar("Error", bound=ConnectError)
Circumstances = Tuple[object, ...]


class Limits(NamedTuple):
    """Limits of logins to a guest that refuses them; times are in seconds.

    :ivar first_waits: until the next login after the first refusals in a row. A guest that boots may accept connections
        before its keys are in place.
    :ivar wait: after each later refusal.
    :ivar most: refused logins within an hour.
    :ivar banning: fail2ban, with its defaults, bans a client that is refused 5 times within this time.
    :ivar changes: a change of the VM allows a login at once, so many times. A guest can change its addresses all the
        time, so after that one change counts in each ``changes_interval``.
    """

    first_waits: Tuple[float, ...] = (20.0, 60.0)
    wait: float = 900.0
    most: int = 4
    hour: float = 3600.0
    banning: float = 600.0
    changes: int = 2
    changes_interval: float = 300.0


LIMITS = Limits()


class _Refusal(NamedTuple):
    """:ivar row: refused attempts in a row. :ivar logins: how many logins the last attempt took."""

    error: ConnectError
    circumstances: Circumstances
    at: float
    row: int
    logins: int


class Refusals:
    """The refused logins by VM. Thread-safe.

    :param clock: monotonic. :param wall: seconds since the epoch.
    """

    def __init__(self, clock: "Callable[[], float]" = time.monotonic, wall: "Callable[[], float]" = time.time,
                 limits: Limits = LIMITS) -> None:
        self.limits = limits
        self._clock = clock
        self._wall = wall
        self._lock = threading.Lock()
        self._last: Dict[str, _Refusal] = {}
        self._logins: Dict[str, List[float]] = {}  # when logins were refused, within the last hour
        self._changes: Dict[str, Pacer] = {}

    def check(self, vm_uuid: str, circumstances: Circumstances) -> None:
        """Check that a login may be tried now.

        :param circumstances: all that the refusal may depend on.
        :raises ConnectError: the last refusal, with the time of the next attempt; ``retry_in`` holds it in seconds.
        """
        with self._lock:
            last = self._last.get(vm_uuid)
            if last is None:
                return
            now = self._clock()
            wait = self._wait(vm_uuid, last, now)
            if last.circumstances != circumstances:
                limits = self.limits
                changes = self._changes.setdefault(vm_uuid, Pacer(limits.changes, limits.changes_interval))
                wait = self._change_wait(vm_uuid, now)
                if wait <= 0.0:
                    changes.spend(now)
                    del self._last[vm_uuid]
                    return
            if wait > 0.0:
                raise self._with_next_attempt(last.error, wait)

    def held(self, vm_uuid: str, circumstances: Circumstances) -> bool:
        """Return whether :meth:`check` would raise."""
        with self._lock:
            last = self._last.get(vm_uuid)
            if last is None:
                return False
            now = self._clock()
            if last.circumstances != circumstances:
                return self._change_wait(vm_uuid, now) > 0.0
            return self._wait(vm_uuid, last, now) > 0.0

    def refused(self, vm_uuid: str, circumstances: Circumstances, error: Error, logins: int = 1) -> Error:
        """Record a refusal and return the error to raise, with the time of the next attempt.

        :param logins: how many logins were refused; the guest counts each of them.
        """
        with self._lock:
            now = self._clock()
            self._count(vm_uuid, now, logins)
            before = self._last.get(vm_uuid)
            row = before.row + 1 if before else 1
            self._last = {uuid: last for uuid, last in self._last.items() if now - last.at < _FORGOTTEN_AFTER}
            self._last[vm_uuid] = last = _Refusal(error, circumstances, now, row, logins)
            return self._with_next_attempt(error, self._wait(vm_uuid, last, now))

    def count(self, vm_uuid: str, logins: int) -> None:
        """Count refused logins of a caller that does not wait for the next attempt, such as ``diagnose``."""
        with self._lock:
            self._count(vm_uuid, self._clock(), logins)

    def recent(self, vm_uuid: str, seconds: float) -> int:
        """Return how many logins were refused within the last ``seconds``."""
        with self._lock:
            now = self._clock()
            return sum(now - at < seconds for at in self._logins.get(vm_uuid, ()))

    def forget(self, vm_uuid: str) -> None:
        """Forget the refusals of a VM: its guest accepted a login, or the VM does not exist any more."""
        with self._lock:
            for known in (self._last, self._logins, self._changes):
                known.pop(vm_uuid, None)

    def unreachable(self, vm_uuid: str, error: Error) -> Error:
        """Add to the error of an unreachable guest that the guest refused logins before, if it did within an hour."""
        with self._lock:
            at = self._logins.get(vm_uuid, [])[-1:]
            ago = self._clock() - at[0] if at else self.limits.hour
        if ago < self.limits.hour:
            error.message += (f" The VM refused a login {ago / 60:.0f} min ago: it may have locked this host out for a "
                              "time, as banning tools and newer SSH servers do.")
        return error

    def _count(self, vm_uuid: str, now: float, logins: int) -> None:
        hour = self.limits.hour
        self._logins = {uuid: times for uuid, times in self._logins.items() if now - times[-1] < hour}
        known = [at for at in self._logins.get(vm_uuid, ()) if now - at < hour]
        self._logins[vm_uuid] = (known + [now] * logins)[-10 * self.limits.most:]

    def _wait(self, vm_uuid: str, last: _Refusal, now: float) -> float:
        """Return the seconds until the next attempt."""
        limits = self.limits
        gap = limits.first_waits[last.row - 1] if last.row <= len(limits.first_waits) else limits.wait
        until = last.at + gap
        # So many refused logins may lie within the hour before the next attempt.
        allowed = max(0, limits.most - last.logins)
        counted = self._logins.get(vm_uuid, [])
        if len(counted) > allowed:
            until = max(until, counted[-allowed - 1] + limits.hour)
        return max(0.0, until - now)

    def _change_wait(self, vm_uuid: str, now: float) -> float:
        """Return the seconds until the next attempt after a change of the VM, which banning tools do not know of."""
        changes = self._changes.get(vm_uuid)
        wait = changes.delay(now) if changes is not None else 0.0
        counted, limits = self._logins.get(vm_uuid, []), self.limits
        return max(wait, counted[-limits.most] + limits.banning - now) if len(counted) >= limits.most else wait

    def _with_next_attempt(self, error: Error, wait: float) -> Error:
        # A copy: an error that is raised repeatedly would keep every traceback it ever got.
        copied = copy.copy(error)
        copied.__traceback__ = copied.__cause__ = copied.__context__ = None
        at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self._wall() + wait + 59.0))
        copied.message = f"{error.message} The next login is tried at {at}, or when the VM's keys or address change."
        copied.hint = f"{error.hint} Run 'xscontainer diagnose VM' to try at once.".strip()
        copied.retry_in = wait
        return copied
