"""Running plugin files as XAPI runs them: one argument, a bare environment, output in files."""

import errno
import subprocess
import sys
import tempfile
import threading
from typing import IO, Any, List, Optional, Set

from xscontainer.simulator.xapi.state.spawner import Spawner

ARGUMENT_LIMIT = 131072
ENVIRONMENT = {"PATH": "/sbin:/usr/sbin:/bin:/usr/bin"}


class Runner:
    """The plugin processes of a pool; stop() ends those that still run."""

    def __init__(self, scratch: str) -> None:
        self._scratch = scratch
        self._lock = threading.Lock()
        self._running: "Set[subprocess.Popen[bytes]]" = set()
        self._calls = 0
        self._stopped = False
        self._spawner: Optional[Spawner] = None

    @property
    def running(self) -> int:
        """Number of plugins that run now."""
        return self._calls

    def start(self) -> None:
        """Start the helper process while this process is still small."""
        self._stopped = False
        if sys.version_info < (3, 10):
            self._spawner = Spawner()

    def run(self, path: str, argument: str) -> List[Any]:
        """Return [exit code, stdout, stderr] of the plugin at `path`, called with one argument."""
        with tempfile.TemporaryFile(dir=self._scratch) as out, tempfile.TemporaryFile(dir=self._scratch) as err:
            with self._lock:
                self._calls += 1
            try:
                code = self._run([path.encode(), argument.encode("utf-8", "surrogateescape")], out, err)
            except OSError:
                # The file is not executable, its interpreter is missing, or the argument is too long for the kernel.
                return [1, "", ""]
            finally:
                with self._lock:
                    self._calls -= 1
            texts = []
            for stream in (out, err):
                stream.seek(0)
                texts.append(stream.read().decode("utf-8", "surrogateescape"))
        return [code] + texts

    def _run(self, command: List[bytes], out: IO[bytes], err: IO[bytes]) -> int:
        if self._spawner is not None:
            if len(command[1]) >= ARGUMENT_LIMIT:
                raise OSError(errno.E2BIG, "argument too long")
            return self._spawner.run(command, ENVIRONMENT, out.fileno(), err.fileno())
        process = subprocess.Popen(
            command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=ENVIRONMENT, cwd="/", close_fds=True
        )
        with self._lock:
            self._running.add(process)
            if self._stopped:
                process.kill()
        try:
            return process.wait()
        finally:
            with self._lock:
                self._running.discard(process)

    def stop(self) -> None:
        """Kill all plugins that run now and later."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()
        if self._spawner is not None:
            self._spawner.stop()
            self._spawner = None
