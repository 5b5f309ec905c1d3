"""What is known of the pool and of this host."""

from typing import FrozenSet, NamedTuple

from xscontainer.xapi import pool
from xscontainer.xapi.session import Session


class Facts(NamedTuple):
    """Read at each subscription; the event stream tells what changes.

    :ivar this_host: its ref.
    """

    pool: pool.PoolRecord
    this_host: str
    host_addresses: FrozenSet[str]

    @property
    def is_coordinator(self) -> bool:
        return self.pool.coordinator == self.this_host


def read_facts(session: Session, inventory: str) -> Facts:
    """:param inventory: path of the file that says which host this is."""
    ref, _ = pool.this_host(session, inventory)
    return Facts(pool.record(session), ref, pool.host_addresses(session))
