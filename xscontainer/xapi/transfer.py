"""A disk's content over xapi's local socket: PUT /import_raw_vdi, GET /export_raw_vdi.

xapi answers 200 before it has looked at the content, so what tells how an import ended is a task that is
made for it. On the local socket it asks for no credentials.
"""

import contextlib
import http.client
import select
import socket
import time
from typing import IO, Any, Callable, Iterator, List, Optional
from urllib.parse import urlencode, urlsplit

from xscontainer.errors import StorageElsewhere, TransferFailed, XapiError, XSContainerError
from xscontainer.xapi.session import Session, UnixConnection, failure
from xscontainer.xapi.task import ended

CHUNK = 262144

Progress = Callable[[float], None]


def _unseen(_fraction: float) -> None:
    pass


class _Deadline:
    """The moment after which nothing is waited for."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds, more than none.

        :raises TransferFailed: it has passed.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise TransferFailed(f"The disk's content was not transferred within {self._seconds:g} seconds.")
        return left


def upload(session: Session, socket_path: str, vdi_uuid: str, content: "IO[bytes]", length: int, seconds: float,
           progress: Progress = _unseen) -> None:
    """Fill a disk from its beginning; returns when xapi has written all of it.

    :param socket_path: xapi's, on this host.
    :param content: gives ``length`` bytes.
    :param seconds: deadline for the whole.
    :raises StorageElsewhere: this host does not reach the disk.
    :raises TransferFailed: it did not arrive whole, or not in time. XapiError: XAPI says why.
    """
    deadline = _Deadline(seconds)
    with _task(session, "Import of a disk's content") as task, _connection(socket_path, deadline) as sock:
        answer = http.client.HTTPResponse(sock, method="PUT")
        try:
            _ask(sock, "PUT", "/import_raw_vdi", vdi_uuid, task, f"Content-Length: {length}\r\n")
            broken = _send(sock, answer, content, length, deadline, progress)
            sock.settimeout(deadline.left())
            if not _has_begun(answer):
                answer.begin()
            _check(session, task, answer)
            if broken is not None:
                raise broken
            _wait(session, task, deadline)
        except (OSError, http.client.HTTPException) as error:
            raise _broken(session, task, error) from error
        finally:
            answer.close()


def download(session: Session, socket_path: str, vdi_uuid: str, size: int, seconds: float) -> bytes:
    """The content of a disk.

    :param size: in bytes: its virtual size, for which the caller has set a bound.
    :raises StorageElsewhere, TransferFailed, XapiError: as for :func:`upload`.
    """
    deadline = _Deadline(seconds)
    with _task(session, "Export of a disk's content") as task, _connection(socket_path, deadline) as sock:
        answer = http.client.HTTPResponse(sock, method="GET")
        try:
            _ask(sock, "GET", "/export_raw_vdi", vdi_uuid, task, "")
            answer.begin()
            _check(session, task, answer)
            content = bytearray()
            while len(content) < size:
                sock.settimeout(deadline.left())
                piece = answer.read(min(CHUNK, size - len(content)))
                if not piece:
                    raise EOFError(f"it ended after {len(content)} of {size} bytes")
                content += piece
        except (OSError, EOFError, http.client.HTTPException) as error:
            raise _broken(session, task, error) from error
        finally:
            answer.close()
    return bytes(content)


@contextlib.contextmanager
def _connection(path: str, deadline: _Deadline) -> "Iterator[socket.socket]":
    connection = UnixConnection(path, deadline.left())
    try:
        connection.connect()
    except OSError as error:
        raise TransferFailed(f"XAPI at {path} cannot be reached: {error.strerror or error}.") from error
    try:
        yield connection.sock
    finally:
        connection.close()


@contextlib.contextmanager
def _task(session: Session, name: str) -> "Iterator[str]":
    """A task that xapi ends; it is removed here, and called off first if it is still running."""
    task = session.xenapi.task.create(name, "")
    try:
        yield task
    finally:
        with contextlib.suppress(XapiError):
            if session.xenapi.task.get_status(task) == "pending":
                with contextlib.suppress(XapiError):
                    session.xenapi.task.cancel(task)
                # Where nothing was begun nobody else ends it, and what is pending is not removed.
                session.xenapi.task.set_status(task, "cancelled")
            session.xenapi.task.destroy(task)


def _ask(sock: socket.socket, method: str, path: str, vdi_uuid: str, task: str, more: str) -> None:
    query = urlencode({"vdi": vdi_uuid, "format": "raw", "task_id": task})
    head = f"{method} {path}?{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n"
    sock.sendall(head.encode("ascii"))


def _has_begun(answer: http.client.HTTPResponse) -> bool:
    # http.client's own word for "not yet".
    return isinstance(getattr(answer, "status", None), int)


def _send(sock: socket.socket, answer: http.client.HTTPResponse, content: "IO[bytes]", length: int, deadline: _Deadline,
          progress: Progress) -> "Optional[OSError]":
    """Send all of it, or until an answer says that it is not wanted.

    :returns: why nobody took it: whoever does not want it may answer and hang up, and the answer is still to be read.
    """
    sent = 0
    while sent < length:
        if not _has_begun(answer) and _ready(sock):
            answer.begin()
        if _has_begun(answer) and answer.status != 200:
            return None
        piece = content.read(min(CHUNK, length - sent))
        if not piece:
            raise TransferFailed(f"The content ended after {sent} of {length} bytes.")
        sock.settimeout(deadline.left())
        try:
            sock.sendall(piece)
        except (BrokenPipeError, ConnectionResetError) as error:
            return error
        sent += len(piece)
        progress(sent / length)
    return None


def _ready(sock: socket.socket) -> bool:
    waiting = select.poll()
    waiting.register(sock, select.POLLIN)
    return bool(waiting.poll(0))


def _check(session: Session, task: str, answer: http.client.HTTPResponse) -> None:
    if answer.status == 200:
        return
    if answer.status in (301, 302, 303, 307):
        other = urlsplit(answer.getheader("Location") or "").hostname or "another host"
        raise StorageElsewhere(f"This host does not reach the disk; XAPI names {other} instead.")
    # The answer is a page for a browser; the task says it in XAPI's words.
    _raise_failure(session, task)
    raise TransferFailed(f"XAPI answered with HTTP status {answer.status}.")


def _wait(session: Session, task: str, deadline: _Deadline) -> None:
    """Until the task has ended well."""
    status = ended(session, task, lambda seconds: time.sleep(min(seconds, deadline.left())))
    if status != "success":
        _raise_failure(session, task)
        raise TransferFailed(f"XAPI's task for the disk's content ended as {status!r}.")


def _raise_failure(session: Session, task: str) -> None:
    """Raise what the task failed with, if it did."""
    if session.xenapi.task.get_status(task) == "failure":
        details: List[Any] = session.xenapi.task.get_error_info(task)
        if details:
            raise failure([str(detail) for detail in details], "the transfer of a disk's content")


def _broken(session: Session, task: str, error: Exception) -> XSContainerError:
    """The error for a connection that broke: what the task tells, if it does."""
    try:
        _raise_failure(session, task)
    except XapiError as told:
        return told
    reason = str(error) or type(error).__name__
    return TransferFailed(f"The connection to XAPI broke while a disk's content was transferred: {reason}.")
