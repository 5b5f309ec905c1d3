"""A lease in pool.other_config: it lets one process at a time do something in the whole pool.

XAPI has no compare-and-swap, and a map's key can only be removed and added again. So each process that wants the
lease adds a claim, a key of its own, and then reads all claims. XAPI's database serializes writes: of two processes
that claim at once, at least one sees the other and withdraws. A claim is valid until a time by the coordinator's clock,
which is the same for all hosts. Its holder renews it by adding the next key before it removes the last one, so that one
key is always visible.
"""

import calendar
import contextlib
import logging
import random
import re
import threading
import time
import uuid
from functools import partial
from typing import Callable, Iterator, List

from xscontainer.errors import XapiError, XSContainerError
from xscontainer.xapi import pool
from xscontainer.xapi.session import Session, SessionPool

SECONDS = 90.0  # that a claim is valid; a process that was killed blocks the others no longer than that
RENEWED = 20.0  # s between two renewals
MARGIN = 15.0  # s before the end of a claim at which its holder stops relying on it
TRIES, PAUSE = 3, 0.3  # attempts if several processes claim at once, and at most so many s between two of them

log = logging.getLogger(__name__)


class Lease:
    """A claim that this process holds; see :func:`held`."""

    def __init__(self, sessions: SessionPool, pool_ref: str, prefix: str,
                 lost: "Callable[[], XSContainerError]") -> None:
        self._sessions = sessions
        self._pool = pool_ref
        self._prefix = prefix
        self._lost = lost
        self._key = ""
        self._ends = 0.0  # time.monotonic()
        self._lock = threading.Lock()
        self._released = threading.Event()

    def claim(self) -> bool:
        """Claim the lease; return False, and withdraw, if another process holds it."""
        self._add()
        if not self._sessions.run(self._others):
            return True
        self.release()
        return False

    def _add(self) -> None:
        began = time.monotonic()
        key = self._prefix + uuid.uuid4().hex
        until = int(self._sessions.run(clock) + SECONDS)
        # In a run of its own: a call that has to be sent twice finds its own key.
        self._sessions.run(lambda session: pool.claim(session, self._pool, key, str(until)))
        with self._lock:
            self._key, self._ends = key, began + SECONDS - MARGIN

    def _others(self, session: Session) -> "List[str]":
        """Return the valid claims of other processes; remove the expired ones."""
        now, found = clock(session), []
        for key, value in session.xenapi.pool.get_other_config(self._pool).items():
            if not key.startswith(self._prefix) or key == self._key:
                continue
            # A claim that ends far in the future is malformed: no process claims for longer.
            if re.match(r"[0-9]{1,12}\Z", value) and now < int(value) <= now + 2 * SECONDS:
                found.append(key)
            else:
                session.xenapi.pool.remove_from_other_config(self._pool, key)
        return found

    def check(self, session: Session) -> None:
        """Check before each protected write that the lease is still held.

        :raises XSContainerError: the error that ``lost`` returns: the claim has expired or was removed.
        """
        with self._lock:
            there = self._key in session.xenapi.pool.get_other_config(self._pool)
            if not there or time.monotonic() > self._ends:
                raise self._lost()

    def renew_until_released(self) -> None:
        """Renew the claim until :meth:`stop_renewing`; the body of a thread."""
        while not self._released.wait(RENEWED):
            before = self._key
            try:
                self._sessions.run(self.check)
                self._add()
                self._sessions.run(partial(self._remove, key=before))
            except XSContainerError as error:
                log.warning("the lease %s was not renewed: %s", self._prefix.rstrip("-"), error)

    def stop_renewing(self) -> None:
        self._released.set()

    def release(self) -> None:
        """Let other processes claim the lease. No error if XAPI does not answer: the claim expires by itself."""
        with contextlib.suppress(XapiError):
            self._sessions.run(partial(self._remove, key=self._key))

    def _remove(self, session: Session, key: str) -> None:
        session.xenapi.pool.remove_from_other_config(self._pool, key)


def clock(session: Session) -> float:
    """Return the coordinator's time, seconds since the epoch."""
    coordinator = session.xenapi.pool.get_master(session.xenapi.pool.get_all()[0])
    text = str(session.xenapi.host.get_servertime(coordinator))
    return float(calendar.timegm(time.strptime(text.replace("-", ""), "%Y%m%dT%H:%M:%SZ")))


@contextlib.contextmanager
def held(sessions: SessionPool, pool_ref: str, prefix: str, busy: "Callable[[], XSContainerError]",
         lost: "Callable[[], XSContainerError]") -> "Iterator[Lease]":
    """Hold a lease for the duration of the block.

    :param prefix: of the keys in pool.other_config.
    :param busy: returns the error to raise if another process holds the lease.
    :param lost: returns the error that :meth:`Lease.check` raises.
    """
    for number in range(TRIES):
        lease = Lease(sessions, pool_ref, prefix, lost)
        if lease.claim():
            break
        if number + 1 == TRIES:
            raise busy()
        time.sleep(random.uniform(0.0, PAUSE))
    renewer = threading.Thread(target=lease.renew_until_released, name="lease", daemon=True)
    renewer.start()
    try:
        yield lease
    finally:
        lease.stop_renewing()
        renewer.join()  # before the release: a renewal under way would leave a claim behind
        lease.release()
