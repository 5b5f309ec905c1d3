"""What clients are shown of a VM: written into its other_config, only on change, and wiped when it ends.

Every write sends the VM's whole record to every client and host of the pool, so
nothing is written twice and a burst of changes costs a few writes
(:class:`xscontainer.pacing.Pacer`). Nothing is read either: what XAPI holds is known from our own
writes and from the event stream, which shows each write once it is done
(:meth:`Publication.observe`).
"""

import logging
import threading
import time
from typing import Callable, Dict, Iterable, List, Mapping, Optional

from xscontainer import keys
from xscontainer.errors import ObjectGone, XapiUnavailable
from xscontainer.vmrecord import VMRecord, digest
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session, SessionPool

log = logging.getLogger(__name__)

# Seconds after a write in which the event stream may still show what was there before it.
SETTLED_AFTER = 1.0
# A key that nobody else touched for this long is repaired at once again, seconds.
FORGIVEN_AFTER = 600.0

# In the order of writing: whose documents they are is said before the documents.
_WRITTEN = (keys.OWNER,) + keys.PUBLISHED


class _Key:
    """One key of one VM, between us and XAPI.

    :ivar held: (a digest of) what XAPI holds as far as we know; None: nothing.
    :ivar sure: False while that is in doubt: a write of ours began and was not confirmed.
    :ivar seen: the same of what the event stream showed last.
    :ivar settled_at: from when on a difference between the two is somebody else's doing.
    :ivar repairs: how often that was set right of late.
    """

    __slots__ = ("held", "sure", "seen", "settled_at", "repairs")

    def __init__(self, value: Optional[str]) -> None:
        self.held = self.seen = value
        self.sure = True
        self.settled_at = float("-inf")
        self.repairs = 0


class Publication:
    """One VM's published keys. Thread-safe; only :meth:`show`, :meth:`settle` and :meth:`wipe` wait for XAPI.

    :param vm: the VM as the event stream showed it; what it carries is what XAPI holds.
    """

    def __init__(self, vm: VMRecord, sessions: SessionPool,
                 clock: "Callable[[], float]" = time.monotonic) -> None:
        self._sessions = sessions
        self._clock = clock
        self._writing = threading.Lock()  # held while XAPI is waited for; taken before the other
        self._lock = threading.Lock()  # over the fields below
        self._vm = vm
        self._keys = _keys_of(vm)
        self._wanted: Dict[str, str] = {}
        self._closed = False

    def show(self, documents: "Mapping[str, str]") -> bool:
        """Make ``documents`` (key of keys.PUBLISHED -> text) what clients see; other keys are removed.

        :returns: whether anything had to be written.
        :raises XapiError: not all is written; the next call or :meth:`settle` goes on with it.
        """
        with self._writing:
            with self._lock:
                self._wanted = dict(documents)
                self._wanted[keys.OWNER] = self._vm.uuid
            return self._write()

    def observe(self, vm: VMRecord) -> None:
        """The event stream shows the VM anew."""
        with self._lock:
            if vm.ref != self._vm.ref:  # joined another pool: the record is a copy
                self._keys = _keys_of(vm)
            self._vm = vm
            for name, key in self._keys.items():
                key.seen = _digest(vm.other_config.get(name))

    def settle(self) -> Optional[float]:
        """Write again what somebody else changed, or what could not be written.

        A snapshot was reverted, an admin tidied up, xapi was killed before it saved
        our write: the stream then shows something else than we wrote. So it does for
        a moment after each write of ours, hence the wait.

        :returns: None if XAPI holds what it should, else seconds after which to call again.
        :raises XapiError: not all is written.
        """
        if not self._writing.acquire(blocking=False):
            return SETTLED_AFTER  # show() is at it
        try:
            with self._lock:
                if self._closed or not self._wanted:
                    return None
                now = self._clock()
                wrong = [key for key in self._keys.values() if key.sure and key.seen != key.held]
                for key in wrong:
                    if key.settled_at <= now:
                        self._give_in(key, now)
                pending = [key.settled_at for key in wrong if key.settled_at > now and key.seen != key.held]
            if self._write():
                return SETTLED_AFTER
            return min(pending) - now if pending else None
        finally:
            self._writing.release()

    @staticmethod
    def _give_in(key: _Key, now: float) -> None:
        """Believe what the stream shows, so that it is written over; less soon each time.

        Somebody who insists, or an XAPI that stores something else than it is given,
        must not become a storm of writes.
        """
        key.repairs = 1 if now > key.settled_at + FORGIVEN_AFTER else min(key.repairs + 1, 9)
        key.held = key.seen

    def close(self) -> None:
        """Write nothing from now on; another host may be publishing already. Does not wait for XAPI: a
        single call that is under way may still be heard."""
        with self._lock:
            self._closed = True

    def wipe(self, vm: VMRecord) -> None:
        """Remove everything published, for good, after what is being written.

        :param vm: the VM as it is now.
        :raises XapiError: not all could be removed.
        """
        self.close()
        if not self._writing.acquire(timeout=SETTLED_AFTER):
            raise XapiUnavailable("A write to XAPI is still under way.")
        try:
            with self._lock:
                present = [name for name in keys.PUBLISHED if name in vm.other_config
                           or self._keys[name].held is not None or not self._keys[name].sure]
            wipe(self._sessions, vm, present)
        finally:
            self._writing.release()

    # --- with self._writing held ---------------------------------------------

    def _write(self) -> bool:
        if not self._changes():
            return False
        try:
            self._sessions.run(self._write_changes)
        except ObjectGone:
            # The VM is gone, or has another ref by now; the event that says so is on its way.
            log.debug("VM %s: is not there to be written to", self._vm.label)
        return True

    def _changes(self) -> List[str]:
        with self._lock:
            if self._closed:
                return []
            return [name for name in _WRITTEN
                    if not self._keys[name].sure or self._keys[name].held != _digest(self._wanted.get(name))]

    def _write_changes(self, session: Session) -> None:
        for name in self._changes():
            with self._lock:
                if self._closed:
                    return
                ref, key, wanted = self._vm.ref, self._keys[name], self._wanted.get(name)
                present, key.sure = not key.sure or key.held is not None, False
            try:
                if wanted is None:
                    xapi_vm.remove_key(session, ref, name)
                else:
                    xapi_vm.put_key(session, ref, name, wanted, present)
                key.held, key.sure = _digest(wanted), True
            finally:
                key.settled_at = self._clock() + SETTLED_AFTER * 2 ** key.repairs


def _keys_of(vm: VMRecord) -> "Dict[str, _Key]":
    return {name: _Key(_digest(vm.other_config.get(name))) for name in _WRITTEN}


def _digest(text: Optional[str]) -> Optional[str]:
    return None if text is None else digest(text)


def wipe(sessions: SessionPool, vm: VMRecord, published: "Optional[Iterable[str]]" = None) -> None:
    """Remove what is published of a VM that nobody monitors (any more); settings and pins stay.

    :param published: the keys; those that the record shows if None.
    :raises XapiError: not all could be removed. A VM that is gone is no error.
    """
    present = list(vm.published if published is None else published)

    def remove(session: Session) -> None:
        for key in present:
            xapi_vm.remove_key(session, vm.ref, key)

    if not present:
        return
    try:
        sessions.run(remove)
    except ObjectGone:
        pass
