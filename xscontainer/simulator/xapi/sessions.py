"""Sessions: logging in over either door, the limit per originator, expiry, and their end."""

import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional

from .clock import now
from .database import Row
from .failures import XapiError
from .values import NULL

if TYPE_CHECKING:
    from .dispatch import Call
    from .host import SimHost
    from .pool import Pool

LIMIT_PER_ORIGINATOR = 500


class User(NamedTuple):
    """Somebody who logs in over TCP; `role` is None for root, the local superuser."""

    name: str
    password: str
    role: Optional[str]
    subject: str
    sid: str


class Session:
    """A logged-in session; `role` is None for a local superuser, who may do everything."""

    __slots__ = ("row", "host", "role", "originator", "used")

    def __init__(self, row: Row, host: "SimHost", role: Optional[str], originator: str) -> None:
        self.row = row
        self.host = host
        self.role = role
        self.originator = originator
        self.used = time.monotonic()

    @property
    def ref(self) -> str:
        """The opaque reference that the client sends."""
        return self.row.ref


class Sessions:
    """All sessions of the pool; they live in the coordinator's memory and die with it."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._all: "OrderedDict[str, Session]" = OrderedDict()
        self.users: Dict[str, User] = {}
        self.timeout = 24 * 3600.0

    def find(self, ref: Any) -> Session:
        """The live session of that reference, marked as used; SESSION_INVALID if there is none."""
        session = self._all.get(ref)
        moment = time.monotonic()
        if session is None or moment - session.used > self.timeout:
            if session is not None:
                self.end([session])
            raise XapiError("SESSION_INVALID", ref)
        session.used = moment
        return session

    def alive(self, session: Session) -> bool:
        """True until the session has ended."""
        return session.ref in self._all

    def open(
        self, host: "SimHost", user: Optional[User], name: str, originator: str, pool: bool = False, parent: str = NULL
    ) -> Session:
        """Make a session on `host`, of `user` or (None) of a local superuser called `name`."""
        role = user.role if user else None
        moment = now()
        with self._pool.db.lock:
            row = self._pool.db.create(
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
                    "rbac_permissions": self._pool.permissions_of(role) if role else [],
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

    def end(self, sessions: List[Session]) -> None:
        """Destroy sessions; whoever waits for events in one of them gets SESSION_INVALID."""
        with self._lock:
            gone = [s for s in sessions if self._all.pop(s.ref, None)]
        with self._pool.db.lock:
            for session in gone:
                if self._pool.db.get("session", session.ref):
                    self._pool.db.destroy(session.row)
        if gone:
            self._pool.events.wake_all()

    def end_of_host(self, host: "Optional[SimHost]") -> None:
        """Destroy the sessions that were opened on `host`, all of them for None."""
        self.end([s for s in list(self._all.values()) if host is None or s.host is host])

    def count(self, originator: Optional[str] = None) -> int:
        """How many live sessions there are, of one originator or in all."""
        return sum(1 for s in list(self._all.values()) if originator is None or s.originator == originator)


def login_with_password(call: "Call", name: str, password: str, _version: str = "1.0", originator: str = "") -> str:
    """session.login_with_password: anybody is root on the local socket, users and root have passwords over TCP."""
    sessions = call.pool.sessions
    if call.local:
        return sessions.open(call.host, None, name, originator).ref
    if not call.host.is_coordinator:
        raise XapiError("HOST_IS_SLAVE", call.pool.coordinator.address)
    user = sessions.users.get(name)
    if user is None:
        raise XapiError("SESSION_AUTHENTICATION_FAILED", name, "User not known to the underlying authentication module")
    if password != user.password:
        raise XapiError("SESSION_AUTHENTICATION_FAILED", name, "Authentication failure")
    return sessions.open(call.host, user, name, originator).ref


def slave_local_login_with_password(call: "Call", name: str, password: str) -> str:
    """session.slave_local_login_with_password: root only, on the host itself."""
    user = call.pool.sessions.users.get(name)
    if user is None or user.role is not None or password != user.password:
        raise XapiError("SESSION_AUTHENTICATION_FAILED", name, "Authentication failure")
    return call.pool.sessions.open(call.host, None, name, "").ref


def logout(call: "Call") -> str:
    """session.logout: end the caller's session."""
    call.pool.sessions.end([call.session])
    return ""


HANDLERS = {
    "session.login_with_password": login_with_password,
    "session.slave_local_login_with_password": slave_local_login_with_password,
    "session.logout": logout,
    "session.local_logout": logout,
}
