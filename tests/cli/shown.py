"""The command line on a simulated pool: in this process, or as a program."""

import signal
import subprocess
import sys
import threading
from typing import Any, List, NamedTuple

import pytest

from docs.blocks import ROOT
from tests.waiting import until
from xscontainer import cli
from xscontainer.simulator.world import World


class Shown(NamedTuple):
    """:ivar out, err: as on a pipe."""

    code: int
    out: str
    err: str


class Commands:
    """Calls commands on the hosts of a world.

    :param capture: pytest's fixture capsys.
    """

    def __init__(self, world: World, capture: "pytest.CaptureFixture[str]") -> None:
        self._world, self._capture = world, capture

    def __call__(self, *words: Any, host: int = 0) -> Shown:
        self._capture.readouterr()
        code = cli.main(["--config", self._world.daemons[host].config_path, *map(str, words)])
        return Shown(code, *self._capture.readouterr())


class Running:
    """A command as a program, whose output is read line by line; a context manager, which ends it.

    :param host: number of the host whose settings it has.
    """

    def __init__(self, world: World, *words: Any, host: int = 0, **more: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "xscontainer.cli", "--config", world.daemons[host].config_path,
             *map(str, words)], cwd=str(ROOT), stdin=subprocess.DEVNULL,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more})
        self.lines: List[str] = []
        self.errors: List[str] = []
        self._threads = [threading.Thread(target=self._read, args=(stream, lines)) for stream, lines in (
            (self._process.stdout, self.lines), (self._process.stderr, self.errors)) if stream is not None]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _read(stream: Any, lines: List[str]) -> None:
        with stream:
            for line in stream:
                lines.append(line.decode("utf-8").rstrip("\n"))

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGKILL)

    def until(self, *lines: str) -> None:
        """Wait until the output consists of these lines, at the end of those so far."""
        until(lambda: self.lines[-len(lines):] == list(lines), lambda: f"{self.lines} {self.errors}", 20.0)

    def end(self, how: int = signal.SIGINT) -> int:
        """Send a signal, and return the exit code."""
        self._process.send_signal(how)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end of the program, and return its exit code."""
        try:
            return self._process.wait(20)
        finally:
            self._process.kill()
            self._process.wait()
            for thread in self._threads:
                thread.join()
