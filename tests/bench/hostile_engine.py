"""Run an engine that consumes as much as it can: ``python -m tests.bench.hostile_engine SOCKET MODE``."""

import json
import os
import socket
import sys
import threading
from typing import Any, Dict

MOST = (16 << 20) - 4096  # bytes of an answer that the settings allow
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


def container(number: int, **fields: Any) -> "Dict[str, Any]":
    return dict({"Id": f"{number:064x}", "Names": [f"/c{number}"], "Image": "img", "Command": "cmd", "Created": 1,
                 "State": "running", "Status": "Up 3 days"}, **fields)


def escapes() -> bytes:
    """Return JSON with many small objects, then one string with very many escapes."""
    begin = b"[" + b",".join(b'{"a%06d":1}' % number for number in range(60000)) + b',"'
    return begin + b"aa\\n" * ((MOST - len(begin)) // 4 - 10) + b'"]'


def large() -> bytes:
    """Return as many containers as fit, each with every field that is kept, in wide characters."""
    ports = [{"IP": "255.255.255.255", "PrivatePort": number, "PublicPort": number, "Type": "tcp"}
             for number in range(1, 17)]
    one = len(json.dumps(container(0, Names=["/" + "n" * 250], Image="\U0001f600" * 250, Ports=ports)))
    return json.dumps([container(number, Names=["/" + "n" * 250], Image="\U0001f600" * 250, Ports=ports)
                       for number in range(MOST // one - 1)]).encode()


def document() -> bytes:
    """Return JSON that is just small enough to be decoded, and becomes as much XML as possible."""
    return b'{"Id":"x","k":[' + b",".join(b'{"a<%d":"&\xf0\x9f\x98\x80"}' % number for number in range(40000)) + b"]}"


LISTS = {"escapes": escapes, "large": large, "stall": large, "inspect": lambda: json.dumps([container(1)]).encode()}


def serve(peer: socket.socket, mode: str, body: bytes, inspected: bytes) -> None:
    answers = {"/version": b'{"Version":"20.10","ApiVersion":"1.41","MinAPIVersion":"1.12"}',
               "/info": b'{"ID":"x","Name":"hostile"}', "/containers/json": body}
    lines = peer.makefile("rb")
    while True:
        asked = lines.readline().split()
        if not asked:
            return
        while lines.readline().strip():
            pass
        path = asked[1].decode().partition("?")[0]
        if path.endswith("/events"):
            peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            lines.read(1)
        answer = next((found for end, found in answers.items() if path.endswith(end)), inspected)
        if mode == "stall" and answer is body:
            peer.sendall(HEAD % MOST + body[:-1])
            lines.read(1)
        peer.sendall(HEAD % len(answer) + answer)


def main(path: str, mode: str) -> None:
    body, inspected = LISTS[mode](), document()
    listener = socket.socket(socket.AF_UNIX)
    if os.path.exists(path):
        os.unlink(path)
    listener.bind(path)
    os.chmod(path, 0o777)
    listener.listen(64)
    print("ready", flush=True)
    while True:
        peer, _ = listener.accept()
        threading.Thread(target=guarded, args=(peer, mode, body, inspected), daemon=True).start()


def guarded(peer: socket.socket, mode: str, body: bytes, inspected: bytes) -> None:
    try:
        serve(peer, mode, body, inspected)
    except OSError:
        pass  # the client closed the connection
    finally:
        peer.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
