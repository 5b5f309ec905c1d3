"""The pool's sessions and users: the limit per originator, expiry, and the end of sessions."""

import threading
import time
from collections import OrderedDict
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from xscontainer.simulator.xapi.database.clock import now
from xscontainer.simulator.xapi.database.database import Database
from xscontainer.simulator.xapi.database.row import Row
from xscontainer.simulator.xapi.state.host_data import HostData
from xscontainer.simulator.xapi.wire.failures import XapiError
from xscontainer.simulator.xapi.wire.values import NULL

LIMIT_PER_ORIGINATOR = 500


class User(NamedTuple):
    """A user who logs in over TCP; `role` is None for root, the local superuser."""

    name: str
    password: str
    role: Optional[str]
    subject: str
    sid: str


class Session:
    """A logged-in session; `role` is None for a local superuser, who may do everything."""

    __slots__ = ("row", "host", "role", "originator", "used")

    def __init__(self, row: Row, host: HostData, role: Optional[str], originator: str) -> None:
        self.row = row
        self.host = host
        self.role = role
        self.originator = originator
        self.used = time.monotonic()

    @property
    def ref(self) -> str:
        """Return the opaque reference that the client sends."""
        return self.row.ref


class Sessions:
    """All sessions of the pool; they are in the coordinator's memory and end with it."""

    def __init__(self, database: Database, on_end: Callable[[], None]) -> None:
        self._db = database
        self._on_end = on_end
        self._permissions: Dict[str, List[str]] = {}
        self._lock = threading.Lock()
        self._all: "OrderedDict[str, Session]" = OrderedDict()
        self.users: Dict[str, User] = {}
        self.timeout = 24 * 3600.0

    def find(self, ref: Any) -> Session:
        """Return the live session of that reference and mark it as used; raise SESSION_INVALID if there is none."""
        session = self._all.get(ref)
        moment = time.monotonic()
        if session is None or moment - session.used > self.timeout:
            if session is not None:
                self.end([session])
            raise XapiError("SESSION_INVALID", ref)
        session.used = moment
        return session

    def alive(self, session: Session) -> bool:
        """Return whether the session has not ended."""
        return session.ref in self._all

    def open(
        self, host: HostData, user: Optional[User], name: str, originator: str, pool: bool = False, parent: str = NULL
    ) -> Session:
        """Make a session on `host`, of `user` or (None) of a local superuser called `name`."""
        role = user.role if user else None
        moment = now()
        with self._db.lock:
            row = self._db.create(
                "session",
                {
                    "this_host": host.ref,
                    "this_user": NULL,
                    "last_active": moment,
                    "pool": pool,
                    "other_config": {},
                    "is_local_superuser": role is None,
                    "subject": user.subject if user else NULL,
                    "validation_time": moment,
                    "auth_user_sid": user.sid if user else "",
                    "auth_user_name": name,
                    "rbac_permissions": self._permissions_of(role) if role else [],
                    "tasks": [],
                    "parent": parent,
                    "originator": originator,
                    "client_certificate": False,
                },
            )
        session = Session(row, host, role, originator)
        with self._lock:
            same = [s for s in self._all.values() if s.originator == originator]
            self._all[session.ref] = session
        if len(same) >= LIMIT_PER_ORIGINATOR:
            self.end(sorted(same, key=lambda s: s.used)[: len(same) - LIMIT_PER_ORIGINATOR + 1])
        return session

    def _permissions_of(self, role: str) -> List[str]:
        if role not in self._permissions:
            self._permissions[role] = self._db.model.permissions_of(role)
        return self._permissions[role]

    def end(self, sessions: List[Session]) -> None:
        """Destroy sessions; a reader that waits for events in one of them gets SESSION_INVALID."""
        with self._lock:
            gone = [s for s in sessions if self._all.pop(s.ref, None)]
        with self._db.lock:
            for session in gone:
                if self._db.get("session", session.ref):
                    self._db.destroy(session.row)
        if gone:
            self._on_end()

    def end_of_host(self, host: Optional[HostData]) -> None:
        """Destroy the sessions that were opened on `host`, all of them for None."""
        self.end([s for s in list(self._all.values()) if host is None or s.host is host])

    def count(self, originator: Optional[str] = None) -> int:
        """Return the number of live sessions, of one originator or in all."""
        return sum(1 for s in list(self._all.values()) if originator is None or s.originator == originator)
