"""The state of the pool and of this host: read once from XAPI, kept up to date by its events, passed to all who decide.
"""

import threading
from typing import FrozenSet, NamedTuple, Optional

from xscontainer.xapi import pool
from xscontainer.xapi.pool import PoolRecord
from xscontainer.xapi.session import Session, SessionPool


class PoolState(NamedTuple):
    """The pool and this host, as known at one moment.

    :ivar record: the pool's coordinator and our keys in its other_config.
    :ivar this_host: the ref of the host that this process runs on.
    :ivar host_addresses: the IP addresses of all hosts, in canonical form.
    """

    record: PoolRecord
    this_host: str
    host_addresses: FrozenSet[str]

    @property
    def is_coordinator(self) -> bool:
        return self.record.coordinator == self.this_host


def read(session: Session, inventory: str) -> PoolState:
    """Read the state from XAPI.

    :param inventory: path of the file that says which host this is.
    """
    ref, _ = pool.this_host(session, inventory)
    return PoolState(pool.record(session), ref, pool.host_addresses(session))


class CurrentPool:
    """The newest PoolState of this process. Thread-safe.

    :param inventory: path of the file that says which host this is.
    """

    def __init__(self, sessions: SessionPool, inventory: str) -> None:
        self._sessions = sessions
        self._inventory = inventory
        self._state: Optional[PoolState] = None
        self._lock = threading.Lock()  # never held while waiting for XAPI

    @property
    def state(self) -> PoolState:
        """The newest state; read from XAPI if none is known yet.

        :raises XapiError: it cannot be read.
        """
        with self._lock:
            known = self._state
        if known is not None:
            return known
        found = self._sessions.run(lambda session: read(session, self._inventory))
        with self._lock:
            if self._state is None:  # else an event has brought a newer state in the meantime
                self._state = found
            return self._state

    def set(self, state: PoolState) -> None:
        """Replace the state. Open connections stay open."""
        with self._lock:
            self._state = state

    def change(self, record: Optional[PoolRecord] = None, host_addresses: Optional[FrozenSet[str]] = None) -> bool:
        """Replace parts of the state; None and an empty set leave a part as it is.

        :returns: whether this host became the pool's coordinator, or ceased to be it.
        """
        before = self.state
        after = before._replace(record=record or before.record, host_addresses=host_addresses or before.host_addresses)
        self.set(after)
        return after.is_coordinator != before.is_coordinator
