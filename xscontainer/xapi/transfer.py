"""Transfer a disk's content over HTTP: PUT /import_raw_vdi, GET /export_raw_vdi.

xapi answers 200 before it has read the content, so the result of an import comes from a task that is created for it. On
its Unix socket xapi asks for no credentials; elsewhere the session is the credential.
"""

import contextlib
import http.client
import select
import socket
import time
from typing import IO, Any, Callable, Dict, Iterator, List, Mapping, Optional
from urllib.parse import urlencode, urlsplit

from xscontainer.errors import StorageElsewhere, TransferFailed, XapiError, XSContainerError, cause
from xscontainer.xapi.endpoint import Endpoint
from xscontainer.xapi.jsonrpc import failure
from xscontainer.xapi.pipeline import Lent
from xscontainer.xapi.session import Session
from xscontainer.xapi.task import ended, is_over

CHUNK = 262144

Progress = Callable[[float], None]


def _unseen(_fraction: float) -> None:
    pass


class _Deadline:
    """The time by which a transfer must be complete."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds left, more than 0.

        :raises TransferFailed: the deadline has passed.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise TransferFailed(f"The disk's content was not transferred within {self._seconds:g} seconds.")
        return left


def upload(session: Session, vdi_uuid: str, content: "IO[bytes]", length: int, seconds: float,
           progress: Progress = _unseen, endpoint: Optional[Endpoint] = None) -> None:
    """Write a disk from its beginning, and return when xapi has written all of the content.

    :param content: a stream of ``length`` bytes.
    :param seconds: deadline for the whole transfer.
    :param endpoint: XAPI of a host that reaches the disk; None: that of the session.
    :raises StorageElsewhere: the disk cannot be reached from that host.
    :raises TransferFailed: the content was not written completely, or not in time. XapiError: XAPI refused it.
    """
    deadline = _Deadline(seconds)
    endpoint = endpoint or session.endpoint
    with _task(session, "Import of a disk's content") as task, _connection(endpoint, deadline) as sock, \
            endpoint.answers(sock) as file:
        answer = http.client.HTTPResponse(Lent(file), method="PUT")  # type: ignore[arg-type]
        try:
            _ask(sock, "PUT /import_raw_vdi", _query(vdi_uuid, task),
                 {**_headers(session, endpoint), "Content-Length": str(length)})
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


def download(session: Session, vdi_uuid: str, size: int, seconds: float,
             endpoint: Optional[Endpoint] = None) -> bytes:
    """Read the content of a disk.

    :param size: its virtual size in bytes, which the caller has checked against a limit.
    :raises StorageElsewhere, TransferFailed, XapiError: as for :func:`upload`.
    """
    deadline = _Deadline(seconds)
    endpoint = endpoint or session.endpoint
    with _task(session, "Export of a disk's content") as task, _connection(endpoint, deadline) as sock, \
            endpoint.answers(sock) as file:
        answer = http.client.HTTPResponse(Lent(file), method="GET")  # type: ignore[arg-type]
        try:
            _ask(sock, "GET /export_raw_vdi", _query(vdi_uuid, task), _headers(session, endpoint))
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
def _connection(endpoint: Endpoint, deadline: _Deadline) -> "Iterator[socket.socket]":
    try:
        sock = endpoint.connect(deadline.left())
    except OSError as error:
        raise TransferFailed(f"XAPI at {endpoint.name} cannot be reached: {error.strerror or error}.") from error
    try:
        yield sock
    finally:
        sock.close()


@contextlib.contextmanager
def _task(session: Session, name: str) -> "Iterator[str]":
    """Create a task that xapi ends. It is destroyed after the block, and cancelled first if it is still running."""
    task = session.xenapi.task.create(name, "")
    try:
        yield task
    finally:
        with contextlib.suppress(XapiError):
            if not is_over(session.xenapi.task.get_status(task)):
                with contextlib.suppress(XapiError):
                    session.xenapi.task.cancel(task)
                # If no transfer was started, xapi does not end the task, and a pending task cannot be destroyed.
                session.xenapi.task.set_status(task, "cancelled")
            session.xenapi.task.destroy(task)


def _query(vdi_uuid: str, task: str) -> str:
    return urlencode({"vdi": vdi_uuid, "format": "raw", "task_id": task})


def _headers(session: Session, endpoint: Endpoint) -> "Dict[str, str]":
    headers = {"Host": endpoint.host, "Connection": "close"}
    # Not in the query, which xapi may write to its log.
    return headers if endpoint.is_local else {**headers, "Cookie": f"session_id={session.ref}"}


def _ask(sock: socket.socket, what: str, query: str, headers: "Mapping[str, str]") -> None:
    lines = [f"{what}?{query} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    sock.sendall("\r\n".join(lines).encode("ascii"))


def _has_begun(answer: http.client.HTTPResponse) -> bool:
    # http.client sets another status, no number, until the answer has begun.
    return isinstance(getattr(answer, "status", None), int)


def _send(sock: socket.socket, answer: http.client.HTTPResponse, content: "IO[bytes]", length: int, deadline: _Deadline,
          progress: Progress) -> "Optional[OSError]":
    """Send the content, until an answer refuses it.

    :returns: the error if xapi closed the connection. It may have answered before, so the answer is still to be read.
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
        raise StorageElsewhere(f"The disk cannot be reached from this host; XAPI names {other} instead.")
    # The answer is an HTML page; the task holds XAPI's error.
    _raise_failure(session, task)
    raise TransferFailed(f"XAPI answered with HTTP status {answer.status}.")


def _wait(session: Session, task: str, deadline: _Deadline) -> None:
    """Wait until the task has succeeded."""
    status = ended(session, task, lambda seconds: time.sleep(min(seconds, deadline.left())))
    if status != "success":
        _raise_failure(session, task)
        raise TransferFailed(f"XAPI's task for the disk's content ended as {status!r}.")


def _raise_failure(session: Session, task: str) -> None:
    """Raise the task's error, if the task failed."""
    if session.xenapi.task.get_status(task) == "failure":
        details: List[Any] = session.xenapi.task.get_error_info(task)
        if details:
            raise failure([str(detail) for detail in details], "the transfer of a disk's content")


def _broken(session: Session, task: str, error: Exception) -> XSContainerError:
    """Return the error for a broken connection: the task's error, if it has one."""
    try:
        _raise_failure(session, task)
    except XapiError as told:
        return told
    return TransferFailed(f"The connection to XAPI broke while a disk's content was transferred: {cause(error)}.")
