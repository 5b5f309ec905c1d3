"""The other side for tests of the engine room: a real sshd, and scripted servers."""

import os
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from xscontainer.engine import api
from xscontainer.engine.calls import DEFAULT_LIMITS
from xscontainer.engine.connection import Connection, EngineStream
from xscontainer.errors import EngineLost, EngineTimeout, EngineTooMuch, EngineUnavailable, TransportLost
from xscontainer.settings import EngineSettings
from xscontainer.simulator.guests.base import own_user

Serve = Callable[[socket.socket], Any]

OK_PING = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nOK"
VERSION_BODY = b'{"ApiVersion": "1.41", "MinAPIVersion": "1.12", "Version": "20.10.0"}'


def http_answer(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nContent-Type: application/json\r\n\r\n".encode() + body


def program(name: str) -> Optional[str]:
    return shutil.which(name, path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin" + os.pathsep + "/sbin")


class Server:
    """A server that calls ``serve`` in a thread for each connection, at a Unix path, or over TCP if that is None."""

    def __init__(self, serve: Serve, path: Optional[str] = None, at: Tuple[str, int] = ("127.0.0.1", 0)) -> None:
        """:param at: address and port, 0 for any."""
        self.path = path
        self.connections = 0
        if path is None:
            self._listener = socket.socket()
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(at)
            self.port = self._listener.getsockname()[1]
        else:
            if os.path.exists(path):
                os.unlink(path)
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(path)
        self._listener.listen(64)
        self._serve = serve
        self._open: List[socket.socket] = []
        self._lock = threading.Lock()
        self._stopping = False
        self._threads = [threading.Thread(target=self._accept, name="server")]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._stopping:
                    peer.close()
                    return
                self.connections += 1
                self._open.append(peer)
                thread = threading.Thread(target=self._run, args=(peer,), name="serve")
                self._threads.append(thread)
                thread.start()

    def _run(self, peer: socket.socket) -> None:
        try:
            self._serve(peer)
        except OSError:
            pass
        finally:
            with self._lock:
                if peer in self._open:
                    self._open.remove(peer)
            peer.close()

    def hang_up(self) -> None:
        """End all open connections."""
        with self._lock:
            for peer in self._open:
                try:
                    peer.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def close(self) -> None:
        with self._lock:
            self._stopping = True
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        if self.path is not None and os.path.exists(self.path):
            os.unlink(self.path)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def read_head(peer: socket.socket) -> str:
    """Read one request without a body; return "" at the end."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = peer.recv(65536)
        if not piece:
            return ""
        data += piece
    return data.decode("latin-1")


class Script:
    """A scripted engine: ``answers`` maps the end of a path to bytes, or to a function."""

    def __init__(self, answers: Optional[Dict[str, Any]] = None) -> None:
        self.answers: Dict[str, Any] = {"/_ping": OK_PING, "/version": http_answer(VERSION_BODY)}
        self.answers.update(answers or {})
        self.asked: List[str] = []

    def __call__(self, peer: socket.socket) -> None:
        while True:
            head = read_head(peer)
            if not head:
                return
            words = head.split()
            self.asked.append(f"{words[0]} {words[1]}")
            path = words[1].split("?")[0]
            for end, answer in self.answers.items():
                if path.endswith(end):
                    if callable(answer):
                        answer(peer, head)
                    else:
                        peer.sendall(answer)
                    break
            else:
                peer.sendall(http_answer(b'{"message": "page not found"}', "404 Not Found"))


class Sshd:
    """A real sshd on a loopback port, for the user who runs the tests."""

    def __init__(self, directory: str, key_line: str, options: str = "", host_keys: str = "ed25519",
                 before: Sequence[str] = ()) -> None:
        """:param before: a program and its arguments that start sshd, instead of starting it directly."""
        self.before = list(before)
        self.directory = directory
        self.options = options
        self.user = own_user()
        self._process: Optional["subprocess.Popen[bytes]"] = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        with open(self._path("authorized_keys"), "w") as out:
            out.write(key_line + "\n")
        self.new_host_keys(host_keys)

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def new_host_keys(self, kinds: str) -> None:
        self.host_keys = kinds.split()
        for kind in self.host_keys:
            for name in (f"host_{kind}", f"host_{kind}.pub"):
                if os.path.exists(self._path(name)):
                    os.unlink(self._path(name))
            subprocess.check_call(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", self._path(f"host_{kind}")])

    def host_key(self, kind: str) -> str:
        with open(self._path(f"host_{kind}.pub")) as source:
            return source.read()

    def start(self) -> "Sshd":
        sshd = program("sshd")
        assert sshd is not None
        options = self.options.splitlines()
        # sshd accepts only one line of these. The home is empty, because the start-up files of the user who runs the
        # tests may take seconds when many run at once.
        environment = [f"HOME={self._path('home')}"] + [line[7:] for line in options if line.startswith("SetEnv ")]
        os.makedirs(self._path("home"), exist_ok=True)
        with open(self._path("sshd_config"), "w") as out:
            out.write("\n".join(
                [line for line in options if not line.startswith("SetEnv ")]
                + ["SetEnv " + " ".join(environment), f"Port {self.port}", "ListenAddress 127.0.0.1",
                 "StrictModes no", "UsePAM no", "PidFile none", f"AuthorizedKeysFile {self._path('authorized_keys')}",
                 "PasswordAuthentication no", "KbdInteractiveAuthentication no",
                 "LogLevel VERBOSE", "PermitRootLogin yes"]
                # For this directive sshd uses the last line, not the first.
                + ([] if "MaxStartups" in self.options else ["MaxStartups 200:30:300"])
                + [f"HostKey {self._path('host_' + kind)}" for kind in self.host_keys]) + "\n")
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        with open(self._path("log"), "ab") as log:
            self._process = subprocess.Popen(self.before + [sshd, "-D", "-e", "-f", self._path("sshd_config")],
                                             stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                assert self._process.poll() is None and time.monotonic() < deadline, self.log()
                time.sleep(0.01)

    def log(self) -> str:
        with open(self._path("log")) as source:
            return source.read()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def children(self) -> List[int]:
        """Return the processes of sessions, at any depth."""
        found: List[int] = []
        parents = [self.pid]
        while parents:
            parent = parents.pop()
            for entry in os.listdir("/proc"):
                if entry.isdigit() and int(entry) not in found:
                    try:
                        with open(f"/proc/{entry}/stat") as source:
                            fields = source.read().rpartition(")")[2].split()
                    except OSError:
                        continue
                    if int(fields[1]) == parent:
                        found.append(int(entry))
                        parents.append(int(entry))
        return found

    def freeze(self) -> None:
        """Stop the processes of sessions, as if the guest hung."""
        self._signal(self.children(), signal.SIGSTOP)

    @staticmethod
    def _signal(pids: Sequence[int], number: int) -> None:
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def stop(self) -> None:
        """End sshd and its sessions."""
        if self._process is not None:
            # A stopped process forks no more. A session of another user than root forks right after its login.
            sessions: List[int] = []
            while len(sessions) < len(self.children()):
                sessions = self.children()
                self._signal(sessions, signal.SIGSTOP)
            self._process.terminate()
            self._process.wait(10)
            self._process = None
            self._signal(sessions, signal.SIGKILL)

    def __enter__(self) -> "Sshd":
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


class SocketStream(EngineStream):
    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._closed = False
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise

    def sendall(self, data: bytes) -> None:
        self._socket.settimeout(self.remaining())
        try:
            self._socket.sendall(data)
        except socket.timeout:
            raise EngineTimeout("not sent in time") from None
        except OSError as error:
            raise EngineLost(str(error)) from error

    def receive(self, limit: int, timeout: Optional[float]) -> Optional[bytes]:
        if self.budget <= 0:
            raise EngineTooMuch("too much")
        try:
            if not select.select([self._socket], [], [], timeout)[0]:
                return None
            data = self._socket.recv(min(limit, self.budget))
        except (OSError, ValueError) as error:
            if self._closed:
                return b""
            raise EngineLost(str(error)) from error
        self.budget -= len(data)
        self.received += len(data)
        return data

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self._socket.close()

    @property
    def stale(self) -> bool:
        return self._closed or bool(select.select([self._socket], [], [], 0)[0])


class SocketConnection(Connection):
    """A connection to an engine's socket on this machine, without SSH."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._streams: List[SocketStream] = []
        self._closed = False
        self.opened = 0

    def open_stream(self, timeout: float) -> SocketStream:
        if self._closed:
            raise TransportLost("It was closed.")
        try:
            self._streams.append(SocketStream(self._path))
        except OSError as error:
            raise EngineUnavailable(str(error)) from error
        self.opened += 1
        return self._streams[-1]

    def open_extra(self, timeout: float) -> Optional[SocketStream]:
        return None if self.room else self.open_stream(timeout)

    def close(self) -> None:
        self._closed = True
        for stream in self._streams:
            stream.close()

    @property
    def closed(self) -> bool:
        return self._closed

    def describe(self) -> str:
        return self._path


@contextmanager
def engine_at(socket_path: str, settings: EngineSettings, limits: api.Limits = DEFAULT_LIMITS) -> Iterator[api.Engine]:
    """Yield an engine that is reached at its socket, without SSH, and close it and the connection."""
    connection = SocketConnection(socket_path)
    engine = api.Engine(connection, settings, limits=limits)
    try:
        yield engine
    finally:
        engine.close()
        connection.close()
