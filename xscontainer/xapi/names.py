"""Read the names of VMs and containers from XAPI within a short time, for the completion of command lines.

A shell waits for the answer. Without http.client and the parsers of the other modules this takes 20 ms less on CPython
3.6. Names come from guests and from users: the caller decides which ones are safe to show.
"""

import json
import re
import socket
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Tuple

from xscontainer import keys

_MOST_ANSWER = 64 << 20  # bytes
_PIECE = 262144
_HEAD = "POST /jsonrpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,12})\r\n", re.IGNORECASE)
# Templates and snapshots are many, and no command takes them but ``create``.
_VMS = 'field "is_a_template" = "false" and field "is_a_snapshot" = "false" and field "is_control_domain" = "false"'
_CONTAINER = re.compile(r"<entry>(.*?)</entry>", re.DOTALL)
_FIELD = re.compile(r"<(names|status|image)>([^<]{0,300})</")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}\Z")


class Container(NamedTuple):
    """:ivar status: as published: "Up", "Up (Paused)", "Exited (1)"."""

    name: str
    status: str
    image: str


class VM(NamedTuple):
    """:ivar document: the published list; "" if there is none. It is large: read only what is needed of it."""

    uuid: str
    name: str
    power_state: str
    managed: bool
    document: str


class Xapi:
    """A connection to XAPI's Unix socket for a few calls: ``with Xapi(path, seconds) as xapi``.

    :param seconds: that all calls together may take.
    :raises OSError, ValueError, KeyError: when XAPI does not answer in time, or not as expected; so do the methods.
    """

    def __init__(self, path: str, originator: str, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._originator = originator
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(seconds)
        self._path = path
        self._session = ""

    def __enter__(self) -> "Xapi":
        try:
            self._socket.connect(self._path)
            self._session = self._call("session.login_with_password", "root", "", "1.0", self._originator)
        except BaseException:
            self._socket.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._call("session.logout", self._session)
        except (OSError, ValueError, KeyError):
            pass
        finally:
            self._socket.close()

    def records(self, kind: str, where: str = "true") -> List[Mapping[str, Any]]:
        """Return the records of all objects of a class that match a query."""
        return list(self._call(f"{kind}.get_all_records_where", self._session, where).values())

    def vms(self) -> List[VM]:
        """Return the VMs, with their published lists."""
        return [_vm(record) for record in self.records("VM", _VMS)]

    def _call(self, method: str, *params: str) -> Any:
        body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}).encode("ascii")
        self._socket.sendall(_HEAD.format(len(body)).encode("ascii") + body)
        return json.loads(self._answer().decode("utf-8"))["result"]

    def _answer(self) -> bytes:
        received = bytearray()
        while b"\r\n\r\n" not in received:
            received += self._receive()
        head, _, body = bytes(received).partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        if length is None or int(length.group(1)) > _MOST_ANSWER:
            raise ValueError("the length of the answer is unknown or too large")
        pieces, missing = [body], int(length.group(1)) - len(body)
        while missing > 0:
            pieces.append(self._receive())
            missing -= len(pieces[-1])
        return b"".join(pieces)

    def _receive(self) -> bytes:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise OSError("XAPI did not answer in time")
        self._socket.settimeout(left)
        piece = self._socket.recv(_PIECE)
        if not piece:
            raise OSError("XAPI closed the connection")
        return piece


def _vm(record: "Mapping[str, Any]") -> VM:
    other_config = record["other_config"]
    return VM(record["uuid"], record["name_label"], record["power_state"], keys.MONITOR in other_config,
              other_config.get(keys.PS, ""))


def has_container(document: str, status: str, not_status: str) -> bool:
    """Return whether a list has a container whose status begins with ``status`` and not with ``not_status``. Pure."""
    others = document.count("<status>" + not_status) if not_status else 0
    return document.count("<status>" + status) > others


def named(document: str, begun: str) -> "Tuple[str, ...]":
    """Return the names in a list that begin so, also those of entries that are not usable. Pure."""
    return tuple(re.findall(f"<names>({re.escape(begun)}[^<]*)<", document))


def containers(document: str) -> "Tuple[Container, ...]":
    """Return the containers in a published list that have a usable name. Pure."""
    found = []
    for entry in _CONTAINER.findall(document):
        fields: Dict[str, str] = dict(_FIELD.findall(entry))
        if _NAME.match(fields.get("names", "")):
            found.append(Container(fields["names"], fields.get("status", ""), fields.get("image", "")))
    return tuple(found)
