"""HTTP pipelining: write several requests on one connection, then read their answers in the same order."""

import http.client
import socket
from typing import BinaryIO, List, NamedTuple, Sequence, Tuple

from xscontainer.core import memory_budget as memory

MOST_ANSWER = 64 << 20  # bytes; the records of a pool with 1000 VMs take 30 MB
_LARGE = 65536  # bytes of an answer from which on it counts in the memory budget
_PIECE = 262144
_HEAD = "POST /jsonrpc HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"


class Answers(NamedTuple):
    """:ivar bodies: HTTP status and body of each answer. :ivar ending: the server closes the connection now."""

    bodies: List[Tuple[int, bytes]]
    ending: bool


class Lent:
    """A file for http.client, which wants a new one for each answer and closes it.

    All answers are read from one file: its buffer may already hold the beginning of the next answer.
    """

    def __init__(self, file: "BinaryIO") -> None:
        self._file = file
        self.read, self.readline, self.readinto = file.read, file.readline, file.readinto  # type: ignore[attr-defined]

    def makefile(self, mode: str) -> "Lent":
        return self

    def flush(self) -> None:
        pass

    def close(self) -> None:
        """Do nothing: http.client closes the file after each answer."""


def send_all(sock: socket.socket, file: "BinaryIO", host: str, bodies: "Sequence[bytes]") -> Answers:
    """Send all requests on an open connection, then read all answers.

    :param file: to read from the connection.
    :param host: value of HTTP's header Host.
    :raises OSError, http.client.HTTPException: not all answers came; the caller closes the connection.
    """
    sock.sendall(b"".join(_HEAD.format(host, len(body)).encode("ascii") + body for body in bodies))
    answers, ending = [], False
    lent = Lent(file)
    for _ in bodies:
        response = http.client.HTTPResponse(lent, method="POST")  # type: ignore[arg-type]
        response.begin()
        if (response.length or 0) > MOST_ANSWER:
            raise http.client.HTTPException(f"its answer has {response.length} bytes, more than {MOST_ANSWER}")
        if (response.length or 0) > _LARGE:
            # Another host's reply: as text, decoded and encoded again it takes several times its size.
            memory.keep("XAPI", min(4 * (response.length or 0), memory.GUEST_BYTES // 2))
        answers.append((response.status, response.read() if response.length is not None else _unmeasured(response)))
        ending = response.will_close
    return Answers(answers, ending)


def _unmeasured(response: http.client.HTTPResponse) -> bytes:
    """Return a body whose length the server did not announce."""
    body = bytearray()
    while len(body) <= MOST_ANSWER:
        piece = response.read(_PIECE)
        if not piece:
            return bytes(body)
        body += piece
    raise http.client.HTTPException(f"its answer has more than {MOST_ANSWER} bytes")
