"""Vates' xen-api in a node process, which tells what it sees a line of JSON at a time."""

import json
import os
import select
import subprocess
import time
from typing import Any, Dict, List

from tests.clients import node_packages
from tests.need import need_program

DEADLINE = 30.0


class Follower:
    """:param script: is given the path of xen-api and the ``words``; ends when its standard input does."""

    def __init__(self, script: str, *words: str) -> None:
        library = str(node_packages() / "node_modules" / "xen-api" / "index.mjs")
        self._process = subprocess.Popen([need_program("node", "nodejs"), script, library, *words],
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._lines: List[bytes] = []
        self._rest = b""

    def order(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def next(self) -> Dict[str, Any]:
        """Return the next message of the client."""
        assert self._process.stdout
        deadline = time.monotonic() + DEADLINE
        while not self._lines:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "node says nothing"
            data = os.read(self._process.stdout.fileno(), 65536)
            assert data, "node has ended"
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._lines += lines
        told: Dict[str, Any] = json.loads(self._lines.pop(0).decode())
        return told

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
