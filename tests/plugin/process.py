"""Runs the plugin's executable the way XAPI does."""

import os
import subprocess
import tempfile
import time
import xmlrpc.client
from typing import Any, Dict, List, NamedTuple, Optional, Union

ENVIRONMENT = {"PATH": "/sbin:/usr/sbin:/bin:/usr/bin"}
DEADLINE = 30.0  # s


class Answer(NamedTuple):
    stdout: bytes
    stderr: bytes
    code: int

    @property
    def reply(self) -> Dict[str, Any]:
        """The struct in the methodResponse, which has to be all there is on standard output."""
        assert self.code == 0, self.stderr
        return decode(self.stdout)


def decode(reply: bytes) -> Dict[str, Any]:
    (value,), method = xmlrpc.client.loads(reply.decode("utf-8"))
    assert method is None
    assert isinstance(value, dict)
    if value["Status"] == "Success":
        assert set(value) == {"Status", "Value"} and isinstance(value["Value"], str)
    else:
        assert value["Status"] == "Failure" and set(value) == {"Status", "ErrorDescription"}
        assert value["ErrorDescription"] and all(isinstance(part, str) for part in value["ErrorDescription"])
        assert value["ErrorDescription"][0].strip()
    return value


def call(function: str, **arguments: str) -> bytes:
    """Make the one argument that XAPI passes."""
    return xmlrpc.client.dumps(("OpaqueRef:session", arguments), function).encode("utf-8")


class Process:
    """One running plugin; ``wait`` ends it."""

    def __init__(self, executable: str, *arguments: Union[str, bytes]) -> None:
        # Files, as XAPI has them: no pipe that could fill up or report that its reader is gone.
        self._files = [_unnamed(), _unnamed()]
        self.process = subprocess.Popen(
            [executable, *arguments], env=ENVIRONMENT, cwd="/", stdin=subprocess.DEVNULL,
            stdout=self._files[0], stderr=self._files[1], close_fds=True)

    def wait(self, deadline: float = DEADLINE) -> Answer:
        try:
            code = self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = -9
        texts: List[bytes] = []
        for file in self._files:
            os.lseek(file, 0, os.SEEK_SET)
            with os.fdopen(file, "rb") as source:
                texts.append(source.read())
        return Answer(texts[0], texts[1], code)


def _unnamed() -> int:
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def run(executable: str, *arguments: Union[str, bytes]) -> Answer:
    return Process(executable, *arguments).wait()


def wait_until(condition: Any, what: str, deadline: float = 10.0) -> Any:
    """The first true value of ``condition()``."""
    end = time.monotonic() + deadline
    while True:
        value: Optional[Any] = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {deadline} s: {what}"
        time.sleep(0.005)
