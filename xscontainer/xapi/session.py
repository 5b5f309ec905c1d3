"""Logged-in XAPI sessions over the host's local socket, with deadlines.

XenAPI (dom0's own, or PyPI's) gives the session object and its call syntax.
Two of its habits do not fit a daemon and are replaced by overriding its one
request method:

* it waits for ever; on a member every call is forwarded to the coordinator,
  and blocks while that is down;
* it logs in again by itself and goes on with refs and tokens of the old login.

The calls travel as JSON-RPC, which xapi serves beside XML-RPC: a container
list is mostly markup, which XML-RPC escapes to twice its size, and decoding a
VM record from JSON costs a tenth of the CPU.
"""

import contextlib
import http.client
import json
import re
import select
import socket
import threading
from typing import Any, Callable, Iterator, List, Tuple, TypeVar

import XenAPI  # type: ignore[import-untyped, import-not-found, unused-ignore]

from xscontainer.errors import ObjectGone, XapiError, XapiSessionLost, XapiUnavailable

API_VERSION = "1.0"

# xapi answers HTTP 500 to a larger body, without a word about why. (xapi: Http_svr)
MOST_BODY_BYTES = 307200

_BY_CODE = {
    "SESSION_INVALID": XapiSessionLost,
    "HANDLE_INVALID": ObjectGone,
    "UUID_INVALID": ObjectGone,
    "HOST_STILL_BOOTING": XapiUnavailable,
    "HOST_HAS_NO_MANAGEMENT_IP": XapiUnavailable,
    "HOST_OFFLINE": XapiUnavailable,
    "HOST_IS_SLAVE": XapiUnavailable,
    "CANNOT_CONTACT_HOST": XapiUnavailable,
}

# Sent again when a connection breaks between request and answer: heard twice they do what they do once. Nothing
# else is, no task in particular: the first one may be under way.
_REPEATABLE = re.compile(r"(\w+\.(get|set|add_to|remove_from)_\w+|event\.from)\Z")

Result = TypeVar("Result")


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout)
            sock.connect(self.path)
        except OSError:
            sock.close()
            raise
        self.sock = sock


def failure(details: "List[str]", method: str) -> XapiError:
    """The exception for an ErrorDescription of XAPI."""
    code, parameters = details[0], [str(detail) for detail in details[1:]]
    text = f"XAPI refused {method}: {code}"
    if parameters:
        text += f" ({', '.join(parameters)})"
    return _BY_CODE.get(code, XapiError)(f"{text}.", details=[code] + parameters)


class Session(XenAPI.Session):
    """One login and one HTTP connection; for one thread at a time.

    ``session.xenapi.VM.get_record(ref)`` and the like, as with XenAPI itself.
    Every call raises only :class:`xscontainer.errors.XapiError` and its subclasses.

    :param socket_path: xapi's Unix socket.
    :param timeout: seconds to wait for an answer; :meth:`patient` changes it for a while.
    """

    def __init__(self, socket_path: str, timeout: float) -> None:
        super().__init__("http://localhost/")
        self._http = UnixConnection(socket_path, timeout)
        self._timeout = timeout
        self._serial = 0
        self._interrupted = False

    @classmethod
    def login(cls, socket_path: str, originator: str, timeout: float, login_timeout: float) -> "Session":
        """Log in as this host's local superuser: on its own socket xapi asks for no password."""
        session = cls(socket_path, login_timeout)
        try:
            session._session = session.call(
                "session.login_with_password", ("root", "", API_VERSION, originator))
        except XapiError:
            session.close()
            raise
        session.set_timeout(timeout)
        return session

    def set_timeout(self, timeout: float) -> None:
        """Seconds that XAPI may be silent during a call, from the next one on."""
        self._timeout = self._http.timeout = timeout
        if self._http.sock is not None:
            self._http.sock.settimeout(timeout)

    @contextlib.contextmanager
    def patient(self, timeout: float) -> "Iterator[None]":
        """Another timeout for some calls, seconds."""
        usual = self._timeout
        self.set_timeout(timeout)
        try:
            yield
        finally:
            self.set_timeout(usual)

    def xenapi_request(self, methodname: str, params: "Tuple[Any, ...]") -> Any:
        return self.call(methodname, (self._session,) + tuple(params))

    def call(self, method: str, params: "Tuple[Any, ...]") -> Any:
        """One request; ``params`` include the session. See the module's text for why not XenAPI's own."""
        self._serial += 1
        body = json.dumps(
            {"jsonrpc": "2.0", "method": method, "params": params, "id": self._serial},
            ensure_ascii=False, separators=(",", ":"),
        ).encode("utf-8", "replace")
        if len(body) > MOST_BODY_BYTES:
            raise XapiError(f"A call of {method} takes {len(body)} bytes; XAPI accepts {MOST_BODY_BYTES}.",
                            details=["REQUEST_TOO_LARGE", method, str(len(body))])
        try:
            status, answer = self._exchange(method, body)
        except (OSError, http.client.HTTPException) as exc:
            self._http.close()
            reason = "it was called off" if self._interrupted else str(exc) or type(exc).__name__
            raise XapiUnavailable(f"XAPI at {self._http.path} did not answer {method}: {reason}.") from exc
        except BaseException:
            self._http.close()  # a signal: the answer that is on its way is not that of the next call
            raise
        return self._decode(method, status, answer)

    def _exchange(self, method: str, body: bytes) -> "Tuple[int, bytes]":
        if self._http.sock is not None and _ended(self._http.sock):
            self._http.close()  # xapi was restarted, or tired of an idle connection: no failure yet
        reused = self._http.sock is not None
        try:
            return self._send(body)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            # It may have ended just now.
            self._http.close()
            if self._interrupted or not reused or not _REPEATABLE.match(method):
                raise
            return self._send(body)

    def _send(self, body: bytes) -> "Tuple[int, bytes]":
        if self._http.sock is None:
            self._http.connect()
        if self._interrupted:  # after connecting: interrupt() looks for a socket after it said so
            raise ConnectionAbortedError()
        self._http.request("POST", "/jsonrpc", body, {"Content-Type": "application/json"})
        response = self._http.getresponse()
        return response.status, response.read()

    @staticmethod
    def _decode(method: str, status: int, answer: bytes) -> Any:
        try:
            decoded = json.loads(answer.decode("utf-8", "replace")) if status == 200 else None
        except ValueError:
            decoded = None
        if not isinstance(decoded, dict) or not ("result" in decoded or "error" in decoded):
            raise XapiUnavailable(f"XAPI answered {method} with HTTP status {status} and no JSON-RPC reply.")
        error = decoded.get("error")
        if isinstance(error, dict):
            data = error.get("data")
            raise failure([str(error.get("message", ""))] + (data if isinstance(data, list) else []), method)
        if error:  # where it fails to read the request at all, xapi forgets the form of JSON-RPC 2.0
            raise failure([str(word) for word in error] if isinstance(error, list) else [str(error)], method)
        return decoded["result"]

    def logout(self) -> None:
        """Give the session back to xapi (it keeps 500 for one originator) and close; never raises."""
        self._interrupted = False
        with contextlib.suppress(XapiError):
            self.set_timeout(2.0)
            self.call("session.logout", (self._session,))
        self.close()

    def close(self) -> None:
        """Close the connection only; for the thread that uses the session."""
        self._http.close()

    def interrupt(self) -> None:
        """From another thread: end the call that waits here, and refuse all others but the logout."""
        self._interrupted = True
        sock = self._http.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def _ended(sock: socket.socket) -> bool:
    """Whether the far side closed an idle connection (or speaks unasked, which is as bad)."""
    waiting = select.poll()  # select() takes no descriptor above 1023
    waiting.register(sock, select.POLLIN)
    return bool(waiting.poll(0))


class SessionPool:
    """A bounded number of logins, lent to one thread at a time.

    A pool because a monitor thread writes a few times an hour: a login of its own
    for each of a thousand VMs would exceed what xapi keeps.

    :param login: makes a :class:`Session`.
    :param most: how many at once; the next borrower waits.
    :param patience: seconds it waits at most.
    """

    def __init__(self, login: "Callable[[], Session]", most: int, patience: float) -> None:
        self._login = login
        self._free = threading.BoundedSemaphore(most)
        self._patience = patience
        self._lock = threading.Lock()
        self._idle: List[Session] = []
        self._closed = False

    @contextlib.contextmanager
    def lease(self, fresh: bool = False) -> "Iterator[Session]":
        """:param fresh: log in anew, whatever there is.
        :raises XapiUnavailable: no session within the deadline, or XAPI is away.
        """
        if not self._free.acquire(timeout=self._patience):
            raise XapiUnavailable("All XAPI sessions are busy.")
        try:
            with self._lock:
                session = self._idle.pop() if self._idle and not fresh else None
            if session is None:
                session = self._login()
            try:
                yield session
            except XapiSessionLost:
                session.close()
                self.forget()
                raise
            except XapiUnavailable:
                session.close()
                raise
            except BaseException:
                self._give_back(session)
                raise
            self._give_back(session)
        finally:
            self._free.release()

    def _give_back(self, session: Session) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(session)
                return
        session.logout()

    def run(self, work: "Callable[[Session], Result]") -> Result:
        """``work(session)``, once more from its start, on a new login, if the old one turns out to be gone."""
        try:
            with self.lease() as session:
                return work(session)
        except XapiSessionLost:
            with self.lease(fresh=True) as session:
                return work(session)

    def forget(self) -> None:
        """Drop idle sessions: logins end together, when xapi restarts or the pool changes."""
        with self._lock:
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()

    def close(self) -> None:
        """Log out of all that are idle; those in use are when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for session in idle:
            session.logout()
