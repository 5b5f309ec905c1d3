"""One API call while it is served."""

from typing import Optional

from xscontainer.simulator.xapi.state.host_data import HostData
from xscontainer.simulator.xapi.state.pool_data import PoolData
from xscontainer.simulator.xapi.state.session_store import Session


class Call:
    """The caller's session, the host and socket where the call came in, and the pool that it works on.

    local: it came in on the Unix socket. task: reference of the task of an Async call, else "".
    """

    __slots__ = ("pool", "host", "local", "method", "task", "life", "_session")

    def __init__(self, pool: PoolData, host: HostData, local: bool, method: str) -> None:
        self.pool = pool
        self.host = host
        self.local = local
        self.method = method
        self.task = ""
        self.life = host.life
        self._session: Optional[Session] = None

    def enter(self, session: Session) -> None:
        """Set the caller's session."""
        self._session = session

    @property
    def anonymous(self) -> bool:
        """Return whether the method takes no session, as a login does."""
        return self._session is None

    @property
    def session(self) -> Session:
        """Return the caller's session; an anonymous call has none."""
        assert self._session is not None, self.method
        return self._session

    @property
    def originator(self) -> str:
        """Return the originator of the caller's session, "" without a session."""
        return self._session.originator if self._session else ""

    def accepted(self) -> bool:
        """Return whether the xapi that took the call still runs."""
        return self.host.up and self.host.life == self.life

    def serving(self) -> bool:
        """Return whether the xapi that took the call and the coordinator's still run."""
        return self.accepted() and self.pool.coordinator.up
