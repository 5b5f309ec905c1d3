"""What clients are shown of a VM: written into its other_config, only on change, and wiped when it ends.

Every write sends the VM's whole record to every client and host of the pool, so
nothing is written twice and a burst of changes costs a few writes
(:class:`Pacer`). Nothing is read either: what XAPI holds is known from our own
writes and from the event stream, which shows each write once it is done
(:meth:`Publication.observe`).
"""

import logging
import threading
import time
from typing import Callable, Dict, List, Mapping, Optional

from xscontainer import keys
from xscontainer.errors import ObjectGone, XapiError
from xscontainer.vmrecord import VMRecord
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session, SessionPool

log = logging.getLogger(__name__)

# Seconds after a write in which the event stream may still show what was there before it.
SETTLED_AFTER = 1.0

# In the order of writing: whose documents they are is said before the documents.
_WRITTEN = (keys.OWNER,) + keys.PUBLISHED


class Pacer:
    """How soon the next write may happen: a few at once, then one each interval. Pure.

    :param burst: writes without a wait after a quiet time.
    :param interval: seconds between writes from then on.
    """

    def __init__(self, burst: int, interval: float) -> None:
        self._burst = float(burst)
        self._interval = interval
        self._tokens = float(burst)
        self._at = float("-inf")

    def delay(self, now: float) -> float:
        """Seconds until a write may happen; 0.0 if at once."""
        return max(0.0, (1.0 - self._filled(now)) * self._interval)

    def spend(self, now: float) -> None:
        """A write happens."""
        self._tokens = max(0.0, self._filled(now) - 1.0)
        self._at = now

    def _filled(self, now: float) -> float:
        if self._interval <= 0:
            return self._burst
        gained = (now - self._at) / self._interval
        # 1.0 less a rounding error is a whole token, or the last write would wait for ever.
        filled = min(self._burst, self._tokens + gained)
        return round(filled, 9)


class Publication:
    """One VM's published keys. Thread-safe.

    :param vm: the VM as the event stream showed it; what it carries is what XAPI holds.
    """

    def __init__(self, vm: VMRecord, sessions: SessionPool,
                 clock: "Callable[[], float]" = time.monotonic) -> None:
        self._sessions = sessions
        self._clock = clock
        self._lock = threading.Lock()
        self._vm = vm
        # Key -> value that XAPI holds; None: there may be one, we cannot tell which.
        self._known: Dict[str, Optional[str]] = dict(_written(vm))
        self._wanted: Dict[str, str] = {}
        self._seen: Dict[str, str] = _written(vm)
        self._repair_at = float("-inf")
        self._repairs = 0
        self._closed = False

    def show(self, documents: "Mapping[str, str]") -> bool:
        """Make ``documents`` (key of keys.PUBLISHED -> text) what clients see; other keys are removed.

        :returns: whether anything had to be written.
        :raises XapiError: not all is written; the next call or :meth:`settle` goes on with it.
        """
        with self._lock:
            if self._closed:
                return False
            self._wanted = dict(documents)
            self._wanted[keys.OWNER] = self._vm.uuid
            return self._write()

    def observe(self, vm: VMRecord) -> None:
        """The event stream shows the VM anew."""
        with self._lock:
            if vm.ref != self._vm.ref:  # joined another pool: the record is a copy
                self._known = dict(_written(vm))
            self._vm = vm
            self._seen = _written(vm)

    def settle(self) -> Optional[float]:
        """Write again what somebody else changed, or what could not be written.

        A snapshot was reverted, an admin tidied up, xapi was killed before it saved
        our write: the stream then shows something else than we wrote. So it does for
        a moment after each write of ours, hence the wait.

        :returns: None if XAPI holds what it should, else seconds after which to call again.
        :raises XapiError: not all is written.
        """
        with self._lock:
            if self._closed or not self._wanted:
                return None
            now = self._clock()
            if None in self._known.values():
                self._write()
            elif self._seen == self._known:
                self._repairs = 0
                return None
            elif now < self._repair_at:
                return self._repair_at - now
            else:
                # Somebody who insists, or an XAPI that stores something else than it is given,
                # must not become a storm of writes.
                self._repairs = min(self._repairs + 1, 8)
                self._known = dict(self._seen)
                self._write()
                self._repair_at = self._clock() + SETTLED_AFTER * 2 ** self._repairs
            return SETTLED_AFTER

    def close(self) -> None:
        """Write nothing from now on; another host may be publishing already."""
        with self._lock:
            self._closed = True

    def wipe(self) -> None:
        """Remove everything published, for good.

        :raises XapiError: not all could be removed.
        """
        with self._lock:
            self._closed = True
            wipe(self._sessions, self._vm,
                 [key for key in keys.PUBLISHED if key in self._known or key in self._seen])

    def _write(self) -> bool:
        changes = [key for key in _WRITTEN if self._known.get(key, "") != self._wanted.get(key, "")]
        if not changes:
            return False
        try:
            self._sessions.run(lambda session: self._write_keys(session, changes))
        except ObjectGone:
            self._closed = True  # the VM is gone; the event that says so is on its way
        finally:
            self._repair_at = max(self._repair_at, self._clock() + SETTLED_AFTER)
        return True

    def _write_keys(self, session: Session, changes: "List[str]") -> None:
        for key in changes:
            present, wanted = key in self._known, self._wanted.get(key)
            if self._known.get(key, "") == (wanted or ""):
                continue  # done before the session was lost
            self._known[key] = None  # until XAPI has confirmed
            if wanted is None:
                xapi_vm.remove_key(session, self._vm.ref, key)
                del self._known[key]
            else:
                xapi_vm.put_key(session, self._vm.ref, key, wanted, present)
                self._known[key] = wanted


def _written(vm: VMRecord) -> Dict[str, str]:
    return {key: vm.other_config[key] for key in _WRITTEN if key in vm.other_config}


def wipe(sessions: SessionPool, vm: VMRecord, published: "Optional[List[str]]" = None) -> None:
    """Remove what is published of a VM that nobody monitors (any more); settings and pins stay.

    :raises XapiError: not all could be removed. A VM that is gone is no error.
    """
    present = list(vm.published) if published is None else published

    def remove(session: Session) -> None:
        for key in present:
            xapi_vm.remove_key(session, vm.ref, key)

    try:
        sessions.run(remove)
    except ObjectGone:
        pass
    except XapiError as exc:
        log.warning("VM %s: its container list could not be removed: %s", vm.label, exc)
        raise
