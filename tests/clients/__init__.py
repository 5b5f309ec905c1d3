"""Real clients as checkers: the parsers of Xen Orchestra and of XenCenter, and Vates' xen-api.

A reader is one process for as long as it is open, because starting one for each document would take longer
than all property tests together::

    with FastXmlParser() as reader:
        reader.read("docker_ps", text)   # {"value": what Xen Orchestra gets} or {"error": why it gets nothing}
    with MonoXml() as reader:
        reader.read("get_top", text)     # {"root": tree, "Process": [...], ...} or {"error": ...}

Kinds that start with "get_" are plugin results, "True" in front included.
"""

import fcntl
import json
import os
import pathlib
import select
import shutil
import subprocess
import tempfile
import time
from typing import Any, Dict, List, Optional

from tests.need import need, need_program

NODE_DIRECTORY = pathlib.Path(__file__).parent / "node"
READ_SECONDS = 30.0
INSTALL_SECONDS = 300.0


def node_packages() -> pathlib.Path:
    """The directory with node_modules beside the scripts in it, installed by the lock file if need be.

    Skips the test (fails it under CI) where node, npm or the registry is missing.
    """
    need_program("node", "nodejs")
    npm = need_program("npm", "npm")
    lock = NODE_DIRECTORY / "package-lock.json"
    stamp = NODE_DIRECTORY / "node_modules" / ".package-lock.json"
    with open(lock) as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # two runs in one work tree would install over each other
        if not stamp.exists() or stamp.stat().st_mtime < lock.stat().st_mtime:
            command = [npm, "ci", "--no-audit", "--no-fund"]
            done = subprocess.run(
                command,
                cwd=str(NODE_DIRECTORY),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=INSTALL_SECONDS,
            )
            output = done.stdout.decode(errors="replace")[-500:]
            need(done.returncode == 0, f"the npm packages of tests/clients/node: {output}")
            stamp.touch()
    return NODE_DIRECTORY


class Reader:
    """A child process that answers each document with a JSON value."""

    def __init__(self) -> None:
        self._process: Optional["subprocess.Popen[bytes]"] = None
        self._buffer = b""

    def _command(self) -> List[str]:
        raise NotImplementedError

    def __enter__(self) -> "Reader":
        self._process = subprocess.Popen(self._command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        return self

    def __exit__(self, *_: object) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def read(self, kind: str, text: str) -> Dict[str, Any]:
        """Return a document as the client parses it.

        :raises TimeoutError: when it has not answered after READ_SECONDS.
        :raises EOFError: when it ended instead.
        """
        assert self._process is not None and self._process.stdin is not None
        deadline = time.monotonic() + READ_SECONDS
        body = text.encode("utf-8")
        unsent = memoryview(f"{kind} {len(body)}\n".encode() + body)
        while unsent:
            unsent = unsent[self._process.stdin.write(unsent) :]
        while b"\n" not in self._buffer:
            self._receive(deadline)
        length, _, self._buffer = self._buffer.partition(b"\n")
        pieces = [self._buffer]
        missing = int(length) - len(self._buffer)
        while missing > 0:
            self._buffer = b""
            self._receive(deadline)
            pieces.append(self._buffer)
            missing -= len(self._buffer)
        whole = b"".join(pieces)
        self._buffer = whole[int(length) :]
        answer: Dict[str, Any] = json.loads(whole[: int(length)].decode("utf-8"))
        return answer

    def _receive(self, deadline: float) -> None:
        assert self._process is not None and self._process.stdout is not None
        output = self._process.stdout
        if not select.select([output], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError(f"no answer from {self._process.args!r} within {READ_SECONDS:g} s")
        received = os.read(output.fileno(), 1 << 20)
        if not received:
            raise EOFError(f"{self._process.args!r} ended")
        self._buffer += received


class FastXmlParser(Reader):
    """fast-xml-parser with the options of Xen Orchestra.

    :param package: the release, by its name in package.json: Xen Orchestra's own, or a newer one.
    """

    def __init__(self, package: str = "fast-xml-parser") -> None:
        super().__init__()
        self._package = package

    def _command(self) -> List[str]:
        return [need_program("node", "nodejs"), str(node_packages() / "read_xml.js"), self._package]


class MonoXml(Reader):
    """.NET's XmlDocument, which XenCenter reads with; compiled for each run, in a directory of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = ""

    def _command(self) -> List[str]:
        mono = need_program("mono", "mono-runtime")
        compiler = need_program("mcs", "mono-mcs")
        source = pathlib.Path(__file__).parent / "mono" / "ReadXml.cs"
        self._directory = tempfile.mkdtemp(prefix="xscontainer-mono-")
        program = os.path.join(self._directory, "ReadXml.exe")
        done = subprocess.run(
            [compiler, "-nologo", "-warnaserror", "-r:System.Xml.dll", f"-out:{program}", str(source)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
        )
        output = done.stdout.decode(errors="replace")
        if "could not be found" in output:
            self._remove()
            need(False, f"mono's System.Xml (Debian: libmono-system-xml4.0-cil): {output[-300:]}")
        assert done.returncode == 0, output
        return [mono, program]

    def __exit__(self, *_: object) -> None:
        super().__exit__(*_)
        self._remove()

    def _remove(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)
