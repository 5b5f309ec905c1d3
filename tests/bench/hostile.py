"""Run an engine or SSH server that keeps xscontainer busy: ``python -m tests.bench.hostile MODE WHERE [KEY]``.

``blank`` and ``flap`` listen at a Unix socket, ``bytes`` is an SSH server at ADDRESS:PORT. It says a line when somebody
follows its events.
"""

import json
import socket
import sys
import threading
import time
from typing import Any, Callable, Dict, List

import paramiko
from paramiko.common import cMSG_CHANNEL_DATA, cMSG_CHANNEL_OPEN_SUCCESS

Send = Callable[[bytes], None]
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
FLAPPING = 900  # containers
VERSION = {"Version": "20.10", "ApiVersion": "1.41", "MinAPIVersion": "1.12", "Os": "linux", "Arch": "amd64"}


class Hostile:
    def __init__(self, mode: str) -> None:
        self._mode = mode
        self._lists = 0

    def answer(self, path: str, send: Send) -> None:
        if "/events" in path:
            send(OK + b"Transfer-Encoding: chunked\r\n\r\n")
            print("followed", flush=True)
            {"blank": self._blank, "flap": self._flap, "bytes": self._bytes}[self._mode](send)
        body: Any = {"ID": "x", "Name": "hostile", "Containers": 1}
        if "/version" in path:
            body = VERSION
        elif "/containers/json" in path:
            self._lists += 1
            body = self._list()
        text = json.dumps(body).encode()
        send(OK + b"Content-Length: %d\r\n\r\n" % len(text) + text)

    def _list(self) -> "List[Dict[str, Any]]":
        count = FLAPPING if self._mode == "flap" else 1
        return [{"Id": f"{number:064x}", "Names": [f"/c{number}"], "Image": "image", "Command": "command", "Created": 1,
                 "State": "running" if (number + self._lists) % 2 else "paused", "Status": "Up 3 days"}
                for number in range(count)]

    @staticmethod
    def _blank(send: Send) -> None:
        lines = b"%x\r\n" % 60000 + b"\n" * 60000 + b"\r\n"
        while True:
            send(lines)

    @staticmethod
    def _bytes(send: Send) -> None:
        while True:
            send(b"ea60\r\n")
            for _ in range(60000):
                send(b"\n")
            send(b"\r\n")

    @staticmethod
    def _flap(send: Send) -> None:
        event = json.dumps({"Type": "container", "Action": "pause", "Actor": {"ID": f"{0:064x}"}, "time": 1}).encode()
        while True:
            send(b"%x\r\n" % (len(event) + 1) + event + b"\n\r\n")
            time.sleep(0.01)


def _serve_http(hostile: Hostile, connection: socket.socket) -> None:
    with connection, connection.makefile("rb") as lines:
        try:
            while True:
                words = lines.readline().split()
                while words and lines.readline().strip():
                    pass
                if not words:
                    return
                hostile.answer(words[1].decode(), connection.sendall)
        except OSError:
            return


class _Server(paramiko.ServerInterface):
    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.common.AUTH_SUCCESSFUL


_Base: Any = paramiko.Transport


class _Transport(_Base):
    """A transport that opens any channel, also one to a socket, which paramiko's own does not support."""

    hostile: Hostile

    def _parse_channel_open(self, message: paramiko.Message) -> None:
        message.get_text()
        theirs = message.get_int()
        reply = paramiko.Message()
        reply.add_byte(cMSG_CHANNEL_OPEN_SUCCESS)
        for number in (theirs, theirs, 1 << 21, 32768):
            reply.add_int(number)
        self._send_message(reply)

    def data(self, message: paramiko.Message) -> None:
        channel, request = message.get_int(), message.get_binary()

        def send(data: bytes) -> None:
            packet = paramiko.Message()
            packet.add_byte(cMSG_CHANNEL_DATA)
            packet.add_int(channel)
            packet.add_string(data)
            self._send_message(packet)

        threading.Thread(target=self.hostile.answer, args=(request.split()[1].decode(), send), daemon=True).start()

    def nothing(self, message: paramiko.Message) -> None:
        pass


def main(mode: str, where: str, key: str = "") -> None:
    hostile = Hostile(mode)
    if mode == "bytes":
        address, _, port = where.rpartition(":")
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, int(port)))
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(where)
    listener.listen(16)
    while True:
        connection, _peer = listener.accept()
        if mode == "bytes":
            transport = _Transport(connection)
            transport.hostile = hostile
            # Messages about channels: data, and all others.
            transport._handler_table.update({kind: transport.data if kind == 94 else transport.nothing
                                             for kind in range(93, 99)})
            transport._handler_table[90] = transport._parse_channel_open
            transport.add_server_key(_host_key(key))
            threading.Thread(target=transport.start_server, kwargs={"server": _Server()}, daemon=True).start()
        else:
            threading.Thread(target=_serve_http, args=(hostile, connection), daemon=True).start()


def _host_key(path: str) -> paramiko.PKey:
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            return kind.from_private_key_file(path)
        except paramiko.SSHException:
            continue
    raise ValueError(f"{path} is no key")


if __name__ == "__main__":
    main(*sys.argv[1:])
