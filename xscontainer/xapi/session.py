"""Logged-in XAPI sessions with deadlines, over the host's local socket or from another machine.

Calls are written as with the library XenAPI: ``session.xenapi.VM.get_record(ref)``. Two habits of that library do not
suit a daemon: it waits without a limit, and it logs in again by itself and goes on with the refs and tokens of the old
login. On a member every call is forwarded to the coordinator and blocks while that host is down.

The calls travel as JSON-RPC (xapi.jsonrpc), which xapi serves beside XML-RPC. A container list is mostly markup, which
XML-RPC escapes to twice its size. Decoding a VM record from JSON costs a tenth of the CPU.
"""

import contextlib
import http.client
import re
import select
import socket
import threading
from typing import Any, Callable, Iterator, List, Optional, Tuple, Type, TypeVar, Union

from xscontainer.core import current_call
from xscontainer.errors import XapiError, XapiSessionLost, XapiUnavailable, cause
from xscontainer.xapi import jsonrpc
from xscontainer.xapi.endpoint import Endpoint, LocalSocket
from xscontainer.xapi.pipeline import send_all

API_VERSION = "1.0"

# Idempotent methods: they are sent again when the connection breaks between request and answer. No other method is:
# the first request may still be running, as a task for example.
_REPEATABLE = re.compile(r"(\w+\.(get|set|add_to|remove_from)_\w+|event\.from)\Z")

_REF = re.compile(r"[A-Za-z0-9:_-]{1,200}\Z")

Result = TypeVar("Result")
Own = TypeVar("Own", bound="Session")


class Methods:
    """XAPI's methods as attributes: ``methods.VM.start(...)`` sends "VM.start"."""

    def __init__(self, send: "Callable[[str, Tuple[Any, ...]], Any]", name: str = "") -> None:
        self._send = send
        self._name = name

    def __getattr__(self, name: str) -> "Methods":
        if name.startswith("__"):
            raise AttributeError(name)
        return Methods(self._send, f"{self._name}.{name}" if self._name else name)

    def __call__(self, *params: Any) -> Any:
        return self._send(self._name, params)


class Session:
    """One login and one HTTP connection, for one thread at a time.

    Calls raise only :class:`xscontainer.errors.XapiError` and its subclasses.

    :ivar endpoint: where XAPI listens.
    :ivar timeout: seconds that XAPI may be silent during a call; :meth:`patient` changes it for a block.
    :ivar ref: XAPI's name for the login. It is as good as a password.
    """

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        self.endpoint = endpoint
        self.timeout = timeout
        self.ref = ""
        self._sock: Optional[socket.socket] = None
        self._serial = 0
        self._interrupted = False

    @classmethod
    def login(cls: "Type[Own]", where: "Union[str, Endpoint]", originator: str, timeout: float, login_timeout: float,
              user: str = "root", password: str = "") -> "Own":
        """Log in, by default as the local superuser: on its Unix socket xapi asks for no password.

        :param where: path of that socket, or another endpoint.
        :raises XapiError: XAPI refuses the login, or does not answer.
        """
        session = cls(LocalSocket(where) if isinstance(where, str) else where, login_timeout)
        try:
            ref = session.call("session.login_with_password", (user, password, API_VERSION, originator))
            if not isinstance(ref, str) or not _REF.match(ref):  # it becomes a line of an HTTP request
                raise XapiUnavailable(f"XAPI at {session.endpoint.name} answered the login with no session.")
            session.ref = ref
        except BaseException:
            session.close()
            raise
        session.timeout = timeout
        return session

    @contextlib.contextmanager
    def patient(self, timeout: float) -> "Iterator[None]":
        """Use another timeout for the calls in the block, seconds."""
        usual, self.timeout = self.timeout, timeout
        try:
            yield
        finally:
            self.timeout = usual

    @property
    def xenapi(self) -> Methods:
        """XAPI's methods, as in ``session.xenapi.VM.get_record(ref)``."""
        return Methods(self.xenapi_request)

    def xenapi_request(self, methodname: str, params: "Tuple[Any, ...]") -> Any:
        return self.call(methodname, (self.ref,) + tuple(params))

    def call(self, method: str, params: "Tuple[Any, ...]") -> Any:
        """Send one request and return its result; ``params`` include the session."""
        self._serial += 1
        (status, answer), = self._exchange(method, [jsonrpc.encode(method, params, self._serial)])
        return jsonrpc.decode(method, status, answer)

    def together(self, *calls: "Tuple[str, Tuple[Any, ...]]") -> "List[Any]":
        """Send several requests back to back; XAPI serves them one after the other, in this order.

        :param calls: idempotent methods, each with its parameters except the session.
        :returns: for each call its result, or the XapiError with which XAPI refused it.
        :raises XapiUnavailable: it is unknown which calls were served. XapiError: one is too large; none was sent.
        """
        bodies = [jsonrpc.encode(method, (self.ref,) + params, self._serial + 1 + number)
                  for number, (method, params) in enumerate(calls)]
        self._serial += len(calls)
        found: List[Any] = []
        for (method, _), (status, answer) in zip(calls, self._exchange(calls[0][0], bodies)):
            try:
                found.append(jsonrpc.decode(method, status, answer))
            except (XapiSessionLost, XapiUnavailable):
                raise
            except XapiError as error:
                found.append(error)
        return found

    def _exchange(self, method: str, bodies: "List[bytes]") -> "List[Tuple[int, bytes]]":
        try:
            return self._exchange_again(method, bodies)
        except (OSError, http.client.HTTPException) as exc:
            self.close()
            reason = "the call was cancelled" if self._interrupted else cause(exc)
            raise XapiUnavailable(f"XAPI at {self.endpoint.name} did not answer {method}: {reason}.",
                                  self.endpoint.hint) from exc
        except BaseException:
            self.close()  # a signal: the next call must not read the answer to this one
            raise

    def _exchange_again(self, method: str, bodies: "List[bytes]") -> "List[Tuple[int, bytes]]":
        if self._sock is not None and _ended(self._sock):
            self.close()  # xapi restarted, or closed the idle connection: no failure yet
        reused = self._sock is not None
        try:
            return self._send(bodies)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            # An idle connection that xapi closed in this moment.
            self.close()
            if self._interrupted or not reused or not _REPEATABLE.match(method):
                raise
            return self._send(bodies)

    def _send(self, bodies: "List[bytes]") -> "List[Tuple[int, bytes]]":
        timeout = current_call.remaining(self.timeout)
        if self._sock is not None:
            self._sock.settimeout(timeout)
        else:
            self._sock = self.endpoint.connect(timeout)
        if self._interrupted:  # checked after connecting: interrupt() sets the flag first and then looks for a socket
            raise ConnectionAbortedError()
        with self.endpoint.answers(self._sock) as file:
            answers = send_all(self._sock, file, self.endpoint.host, bodies)
        if answers.ending:
            self.close()
        return answers.bodies

    def logout(self) -> None:
        """Log out and close; never raises. xapi keeps at most 500 sessions of one originator."""
        self._interrupted = False
        with contextlib.suppress(XapiError):
            self.timeout = 2.0
            self.call("session.logout", (self.ref,))
        self.close()

    def close(self) -> None:
        """Close the connection without logging out; for the thread that uses the session."""
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    def interrupt(self) -> None:
        """End the call under way, from another thread, and refuse all later calls except the logout."""
        self._interrupted = True
        sock = self._sock
        if sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # also of TLS: its own method drops the encryption


def _ended(sock: socket.socket) -> bool:
    """Return whether the server closed an idle connection, or sent something unasked, which is as bad."""
    waiting = select.poll()  # select() takes no descriptor above 1023
    waiting.register(sock, select.POLLIN)
    return bool(waiting.poll(0))


class SessionPool:
    """A bounded number of logins, each leased to one thread at a time.

    A monitor writes a few times an hour. A login of its own for each of a thousand VMs would exceed what xapi keeps.

    :param login: makes a :class:`Session`.
    :param most: how many sessions are leased at once; the next caller waits.
    :param patience: seconds that a caller waits at most.
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
        """Lease a session for the duration of the block.

        :param fresh: log in again, even if a session is idle.
        :raises XapiUnavailable: no session became free in time, or XAPI does not answer.
        """
        if not self._free.acquire(timeout=current_call.remaining(self._patience)):
            raise XapiUnavailable("All XAPI sessions of xscontainer are in use.")
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
        """Return ``work(session)``; if the login turns out to be lost, run it again from its start on a new login."""
        try:
            with self.lease() as session:
                return work(session)
        except XapiSessionLost:
            with self.lease(fresh=True) as session:
                return work(session)

    def forget(self) -> None:
        """Drop the idle sessions: all logins end together, when xapi restarts or the pool changes."""
        with self._lock:
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()

    def close(self) -> None:
        """Log out of the idle sessions now, and of the others when they are given back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for session in idle:
            session.logout()
