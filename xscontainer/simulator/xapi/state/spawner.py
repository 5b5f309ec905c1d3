"""A small helper process that starts programs for a large one.

Before CPython 3.10 starting a program copies the page tables of the whole process, which stops all its threads
for 10 ms per 100 MB: too long where a plugin call is measured. This file is the helper's program as well.
"""

import array
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import Dict, List

_FDS = 3
_LIMIT = 131072 * 2


class Spawner:
    """The helper process; run() may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            ours.setsockopt(socket.SOL_SOCKET, option, 2 * _LIMIT)
            theirs.setsockopt(socket.SOL_SOCKET, option, 2 * _LIMIT)
        command = [sys.executable, "-E", "-S", os.path.abspath(__file__), str(theirs.fileno())]
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        finally:
            theirs.close()
        self._socket = ours

    def run(self, command: List[bytes], environment: Dict[str, str], out: int, err: int) -> int:
        """Run a program with its output on two descriptors; return the exit code (negative: a signal).

        :raises OSError: it could not be started, or the helper has ended.
        """
        settings = "\n".join("{}={}".format(k, v) for k, v in environment.items()).encode()
        reader, writer = os.pipe()
        try:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [out, err, writer]).tobytes())]
            with self._lock:
                self._socket.sendmsg([b"\0".join([settings] + command)], rights)
        finally:
            os.close(writer)
        with os.fdopen(reader, "rb") as answer:
            text = answer.read()
        if not text:
            raise OSError("not started")
        return int(text)

    def stop(self) -> None:
        """Kill all programs and end the helper."""
        self._socket.close()
        self._process.wait()


def _wait(process: "subprocess.Popen[bytes]", running: "Dict[int, subprocess.Popen[bytes]]", answer: int) -> None:
    code = process.wait()
    running.pop(process.pid, None)
    os.write(answer, str(code).encode())
    os.close(answer)


def _start(message: bytes, fds: List[int], running: "Dict[int, subprocess.Popen[bytes]]") -> None:
    settings, *command = message.split(b"\0")
    environment = dict(line.split("=", 1) for line in settings.decode().split("\n"))
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=fds[0], stderr=fds[1], env=environment, cwd="/", close_fds=True
        )
    except OSError:
        os.close(fds[2])
        return
    finally:
        os.close(fds[0])
        os.close(fds[1])
    running[process.pid] = process
    threading.Thread(target=_wait, args=(process, running, fds[2]), daemon=True).start()


def main() -> None:
    """Start the requested programs until the other side closes; then kill those that run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=int(sys.argv[1]))
    running: "Dict[int, subprocess.Popen[bytes]]" = {}
    while True:
        message, ancillary, _flags, _address = connection.recvmsg(_LIMIT, socket.CMSG_SPACE(_FDS * 4))
        if not message:
            break
        numbers = array.array("i")
        for _level, _kind, data in ancillary:
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
        _start(message, list(numbers), running)
    for process in list(running.values()):
        process.kill()
    for process in list(running.values()):
        process.wait()


if __name__ == "__main__":
    main()
