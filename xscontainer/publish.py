"""Publish a VM's documents: write them into its other_config, only on change, and wipe them when the VM ends.

Documents come from the VM's monitor (monitoring.vm.publisher) and go to XAPI by xapi.vm. XAPI sends the VM's whole
record to every client and host of the pool after each write. So nothing is written twice, and a burst of changes costs
a few writes (:class:`xscontainer.core.pacing.Pacer`). Nothing is read either: our own writes and the event stream,
which shows each write once it is done (:meth:`Publication.observe`), tell what XAPI holds.
"""

import logging
import threading
import time
from typing import Callable, Dict, Iterable, List, Mapping, Optional

from xscontainer import keys
from xscontainer.core.vm_record import VMRecord, digest
from xscontainer.errors import ObjectGone, XapiUnavailable
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session, SessionPool

log = logging.getLogger(__name__)

# Seconds after a write in which the event stream may still show the value before it.
SETTLED_AFTER = 1.0
# A key that nobody else changed for this long is repaired without delay again, seconds.
FORGIVEN_AFTER = 600.0

# In the order of writing: the owner before the documents.
_WRITTEN = (keys.OWNER,) + keys.PUBLISHED


class _Key:
    """The state of one key of one VM. Values are digests of documents; None: the key is absent.

    :ivar held: the value that XAPI holds as far as we know.
    :ivar sure: False after a write of ours that XAPI has not confirmed: ``held`` may be wrong.
    :ivar seen: the value that the event stream showed last.
    :ivar settled_at: from when on a difference between ``held`` and ``seen`` was made by another writer.
    :ivar repairs: how often such a difference was repaired lately.
    """

    __slots__ = ("held", "sure", "seen", "settled_at", "repairs")

    def __init__(self, value: Optional[str]) -> None:
        self.held = self.seen = value
        self.sure = True
        self.settled_at = float("-inf")
        self.repairs = 0


class Publication:
    """One VM's published keys. Thread-safe; only :meth:`show`, :meth:`settle` and :meth:`wipe` wait for XAPI.

    :param vm: the VM as the event stream showed it.
    :param wrote: called with the bytes of each write.
    :param before: called before keys are replaced; may wait (:mod:`xscontainer.xapi.wake`).
    """

    def __init__(self, vm: VMRecord, sessions: SessionPool,
                 clock: "Callable[[], float]" = time.monotonic,
                 wrote: "Callable[[int], None]" = lambda size: None,
                 before: "Callable[[], None]" = lambda: None) -> None:
        self._sessions = sessions
        self._clock = clock
        self._wrote = wrote
        self._before = before
        self._writing = threading.Lock()  # held while waiting for XAPI; taken before the other lock
        self._lock = threading.Lock()  # over the fields below
        self._vm = vm
        self._keys = _keys_of(vm)
        self._wanted: Dict[str, str] = {}
        self._digests: Dict[str, str] = {}  # of what is wanted
        self._closed = False

    def show(self, documents: "Mapping[str, str]") -> bool:
        """Publish ``documents`` (key of keys.PUBLISHED -> text), and remove the other keys.

        :returns: whether anything had to be written.
        :raises XapiError: not all is written; the next call or :meth:`settle` writes the rest.
        """
        with self._writing:
            self.want(documents)
            return self._write()

    def want(self, documents: "Mapping[str, str]") -> None:
        """Take ``documents`` as :meth:`show` does, but leave the writing to the next :meth:`settle`."""
        wanted = {**documents, keys.OWNER: self._vm.uuid}
        digests = {name: digest(text) for name, text in wanted.items()}
        with self._lock:
            self._wanted, self._digests = wanted, digests

    def observe(self, vm: VMRecord) -> bool:
        """Take the VM as the event stream shows it now.

        :returns: whether it differs from what we wrote, so that :meth:`settle` has something to do.
        """
        with self._lock:
            if vm.ref != self._vm.ref:  # its host joined another pool: the record is a copy
                self._keys = _keys_of(vm)
            self._vm = vm
            for name, key in self._keys.items():
                key.seen = _digest(vm.other_config.get(name))
            return any(key.seen != key.held or not key.sure or key.held != self._digests.get(name)
                       for name, key in self._keys.items())

    def settle(self) -> Optional[float]:
        """Repair keys that another writer changed, and write what could not be written before.

        The event stream shows another value than we wrote when a snapshot was reverted, an admin removed a key, or
        xapi was killed before it saved our write. For a moment after each write of ours it shows the old value, too:
        hence the wait.

        :returns: None if XAPI holds our documents, else the seconds after which to call again.
        :raises XapiError: not all is written.
        """
        if not self._writing.acquire(blocking=False):
            return SETTLED_AFTER  # show() is writing
        try:
            with self._lock:
                if self._closed or not self._wanted:
                    return None
                now = self._clock()
                wrong = [key for key in self._keys.values() if key.sure and key.seen != key.held]
                for key in wrong:
                    if key.settled_at <= now:
                        self._accept_seen(key, now)
                pending = [key.settled_at for key in wrong if key.settled_at > now and key.seen != key.held]
            if self._write():
                return SETTLED_AFTER
            return min(pending) - now if pending else None
        finally:
            self._writing.release()

    @staticmethod
    def _accept_seen(key: _Key, now: float) -> None:
        """Take the value that the stream shows as held, so that it is overwritten; wait longer each time.

        Another writer that insists, or a XAPI that stores other values than it is given, must not cause a storm of
        writes.
        """
        key.repairs = 1 if now > key.settled_at + FORGIVEN_AFTER else min(key.repairs + 1, 9)
        key.held = key.seen

    def close(self) -> None:
        """Write nothing from now on: another host may be publishing already.

        Does not wait for XAPI, which may still carry out one call that is under way.
        """
        with self._lock:
            self._closed = True

    def wipe(self, vm: VMRecord) -> None:
        """Remove all published keys for good, once a write that is under way has ended.

        :param vm: the VM as it is now.
        :raises XapiError: not all keys could be removed.
        """
        self.close()
        if not self._writing.acquire(timeout=SETTLED_AFTER):
            raise XapiUnavailable(f"VM {vm.label}: an earlier write to XAPI is still under way.")
        try:
            with self._lock:
                present = [name for name in keys.PUBLISHED if name in vm.other_config
                           or self._keys[name].held is not None or not self._keys[name].sure]
            wipe(self._sessions, vm, present)
        finally:
            self._writing.release()

    # --- with self._writing held ---------------------------------------------

    def _write(self) -> bool:
        names = self._changes()
        if not names:
            return False
        self._wrote(sum(len(self._wanted.get(name, "").encode("utf-8", "replace")) for name in names))
        if any(self._keys[name].held is not None for name in names):
            self._before()
        try:
            self._sessions.run(self._write_changes)
        except ObjectGone:
            # The VM is gone, or has another ref by now; the event that shows it is on its way.
            log.debug("VM %s: its keys cannot be written, because XAPI has no such VM any more", self._vm.label)
        return True

    def _changes(self) -> List[str]:
        with self._lock:
            if self._closed:
                return []
            return [name for name in _WRITTEN
                    if not self._keys[name].sure or self._keys[name].held != self._digests.get(name)]

    def _write_changes(self, session: Session) -> None:
        for name in self._changes():
            with self._lock:
                if self._closed:
                    return
                ref, key = self._vm.ref, self._keys[name]
                wanted, wanted_digest = self._wanted.get(name), self._digests.get(name)
                present, key.sure = not key.sure or key.held is not None, False
            try:
                if wanted is None:
                    xapi_vm.remove_key(session, ref, name)
                else:
                    xapi_vm.put_key(session, ref, name, wanted, present)
                key.held, key.sure = wanted_digest, True
            finally:
                key.settled_at = self._clock() + SETTLED_AFTER * 2 ** key.repairs


def _keys_of(vm: VMRecord) -> "Dict[str, _Key]":
    return {name: _Key(_digest(vm.other_config.get(name))) for name in _WRITTEN}


def _digest(text: Optional[str]) -> Optional[str]:
    return None if text is None else digest(text)


def wipe(sessions: SessionPool, vm: VMRecord, published: "Optional[Iterable[str]]" = None) -> None:
    """Remove the published keys of a VM that no host monitors. Settings and pinned host keys stay.

    :param published: the keys; None: those that the record shows.
    :raises XapiError: not all keys could be removed. It is no error if the VM is gone.
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
