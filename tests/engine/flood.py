"""Ask an engine that answers with ``[{},{},{}...`` of 31 MiB: ``python -m tests.engine.flood VERB``.

Prints the result, and how many bytes of memory it took at most.
"""

import resource
import sys
from typing import Optional

from xscontainer.engine.api import Engine
from xscontainer.engine.connection import Connection, EngineStream
from xscontainer.errors import XSContainerError
from xscontainer.settings import EngineSettings

LIST = b"[" + b"{}," * ((31 << 20) // 3) + b"{}]"
ANSWERS = {
    "/version": b'{"ApiVersion": "1.41", "MinAPIVersion": "1.24"}',
    "/containers/json": LIST,
    "/c/json": b'{"Mounts": ' + LIST + b"}",
    "/c/top": b'{"Titles": ["PID"], "Processes": ' + LIST + b"}",
}


class Flood(EngineStream):
    stale = False

    def __init__(self) -> None:
        self._left = memoryview(b"")

    def sendall(self, data: bytes) -> None:
        path = data.split()[1].decode().split("?")[0]
        body = next(answer for end, answer in ANSWERS.items() if path.endswith(end))
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._left = memoryview(head.encode() + body)

    def receive(self, limit: int, timeout: Optional[float]) -> bytes:
        data, self._left = bytes(self._left[:limit]), self._left[limit:]
        return data

    def close(self) -> None:
        self._left = memoryview(b"")


class FloodConnection(Connection):
    closed = False

    def open_stream(self, timeout: float) -> EngineStream:
        return Flood()

    def close(self) -> None:
        pass

    def describe(self) -> str:
        return "a flood"


def main(verb: str) -> str:
    engine = Engine(FloodConnection(), EngineSettings(max_response_bytes=32 << 20))
    engine.version()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        engine.containers() if verb == "containers" else getattr(engine, verb)("c")
        found = "taken"
    except XSContainerError as error:
        found = error.code
    return f"{found} {(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024}"


if __name__ == "__main__":
    print(main(sys.argv[1]))
