"""From the guest's sshd to the engine's socket: a channel of sshd's own, else a program that stands in.

sshd answers "connect failed" alike for a socket that is absent, closed to the user or dead, and (in most
releases) when forwarding is switched off. So the guest is asked about the socket before a cause is named.
"""

import re
import threading
import time
from typing import Callable, Iterator, List, NamedTuple, Optional, Pattern, Tuple

import paramiko

from xscontainer.engine import failures, sockets
from xscontainer.engine.channel import ChannelStream
from xscontainer.engine.exchange import exchange
from xscontainer.engine.sockets import PIPE
from xscontainer.engine.transport import STREAMLOCAL, GuestTransport
from xscontainer.errors import (
    ArgumentError,
    EngineError,
    EngineGarbage,
    EngineSocketAbsent,
    EngineStopped,
    EngineTimeout,
    ForwardingRefused,
    XSContainerError,
)
from xscontainer.reach import is_socket

DIRECT = "streamlocal"
# In the order in which they are tried. %s is the socket's path, whose characters check_path() has seen.
STAND_INS = (
    ("dial-stdio", "docker -H unix://%s system dial-stdio"),
    ("podman-stdio", "podman --url unix://%s system dial-stdio"),
    ("socat", "socat - UNIX-CONNECT:%s"),
    ("ncat", "ncat -U %s"),
    ("nc", "nc -U %s"),
)
_PROGRAMS = {name: command.split()[0] for name, command in STAND_INS}
METHODS = (DIRECT,) + tuple(name for name, _ in STAND_INS)
DEFAULT_PATHS = ("/var/run/docker.sock", "/run/docker.sock")

STAND_IN_SECONDS = 10.0  # for one program to prove that it reaches the engine
STAND_IN_LEAST = 2.0  # with less than that it is not worth to try one
MOST_OUTPUT = 65536  # of each of a command's two streams; start-up files may say much before it runs
MOST_LINES = 100  # of each, the last
LINES_OF_TEXT = 3  # of each, for people

DEFAULT_PIPE = PIPE + "docker_engine"

_REFUSED = re.compile(r"refused|cannot connect|no such file|is the docker daemon running|docker daemon is not running"
                      r"|cannot find the file", re.IGNORECASE)
_DENIED = re.compile(r"permission denied|access is denied", re.IGNORECASE)
_ABSENT = re.compile(r"No such file")
_NOT_FOUND = (126, 127)


def check_path(path: str) -> str:
    """``path`` if it may name an engine's socket.

    :raises ArgumentError: it may not.
    """
    if not is_socket(path):
        raise ArgumentError(f"{failures.words(path)} is no path of an engine's socket.",
                            "Correct xscontainer-engine-socket in the VM's other_config.")
    return path


class Output(NamedTuple):
    """What a command in the guest did.

    Whatever the user's start-up files say stands before it, on either stream; so causes are read from lines, each
    of which must be the command's own.

    :ivar status: -1 when it is not known.
    :ivar text: how both its streams end, for people.
    :ivar answer: the last line of its standard output.
    :ivar lines: of both its streams.
    """

    status: int
    text: str
    answer: str = ""
    lines: Tuple[str, ...] = ()

    def complains(self, about: "Pattern[str]", path: str, program: str) -> bool:
        """Whether a line that names ``path``, or that ``program`` begins, matches ``about``."""
        return any(about.search(line) and (path in line or line.lower().startswith(program)) for line in self.lines)


class Tunnel:
    """Opens streams to the engine's socket, wherever it is. Thread-safe.

    :param last: the socket that served the last time, "" if that is not known.
    :ivar method: what worked: one of METHODS, "" before anything did.
    """

    def __init__(self, transport: GuestTransport, places: sockets.Places, method: str = "", last: str = "") -> None:
        self.method = method if method in METHODS else ""
        self._transport = transport
        self._places = places
        self._settled = sockets.Settled(last if places.has(last) else "")
        self._proven = False  # ``method`` has worked on this transport, for the settled socket
        self._search = threading.Lock()

    @property
    def socket(self) -> str:
        """The path that served, "" before any did."""
        return self._settled.path

    @property
    def _user(self) -> str:
        return str(self._transport.get_username() or "the user")

    def open(self, deadline: float, on_close: Callable[[], None]) -> ChannelStream:
        """A stream to the engine before ``deadline`` (time.monotonic()); ``on_close`` as for ChannelStream.

        :raises XSContainerError: as Connection.open_stream.
        """
        with failures.translating("Reaching the engine through SSH", failures.SSH_SIDE):
            if self._proven:
                return self._open_proven(self.socket, deadline, on_close)
            if not self._search.acquire(timeout=max(0.0, deadline - time.monotonic())):
                raise EngineTimeout("No way to the engine was found in time.")
            try:
                return self._find(deadline, on_close)
            finally:
                self._search.release()

    def _open_proven(self, path: str, deadline: float, on_close: Callable[[], None]) -> ChannelStream:
        try:
            stream = self._as_before(path, deadline, on_close)
        except sockets.PASSING as error:
            # The engine may be elsewhere by now, or the program gone: look again the next time.
            self._settled.failed(error)
            self._proven = False
            raise
        self._settled.served(path)
        return stream

    def _as_before(self, path: str, deadline: float, on_close: Callable[[], None]) -> ChannelStream:
        if self.method == DIRECT:
            try:
                return self._direct(path, deadline, on_close)
            except paramiko.ChannelException:
                self._judge_socket(path, deadline)
                raise EngineStopped(f"Nobody listens on {path} in the VM.") from None
        stream, output = self._stand_in(self.method, path, deadline, on_close)
        if stream is not None:
            return stream
        self._judge_socket(path, deadline)
        self._judge_outputs([(self.method, output)], path, deadline)
        raise ForwardingRefused(f"{self.method} in the VM does not reach the engine any more: {output.text}.")

    def _find(self, deadline: float, on_close: Callable[[], None]) -> ChannelStream:
        """Ask for channels to all places first, as each costs a round trip only; then look closer at each."""
        refusals: List[Tuple[str, str]] = []  # (path, sshd's words)
        for path in self._paths(deadline):
            refused = ""
            if path.startswith(PIPE):
                refused = "it is a named pipe"
            elif self.method in ("", DIRECT) or (self._places.several and not self._settled.believed):
                try:
                    return self._found(path, DIRECT, self._direct(path, deadline, on_close))
                except paramiko.ChannelException as error:
                    refused = failures.words(error.text)
            refusals.append((path, refused))
        looked: List[Tuple[str, XSContainerError]] = []
        for path, refused in refusals:
            try:
                return self._found_out(path, refused, deadline, on_close)
            except sockets.PASSING as error:
                looked.append((path, error))
        found = sockets.verdict(looked)
        self._settled.failed(found)
        raise found

    def _paths(self, deadline: float) -> Iterator[str]:
        """Where to look now; the guest is asked for the user's number only when that is needed."""
        if self._settled.believed:
            yield self._settled.path
            return
        yield from self._places.fixed
        if self._places.of_user:
            uid = sockets.parse_uid(self._run(sockets.ASK_UID, deadline).answer)
            if uid is not None:
                yield from (path.format(uid=uid) for path in self._places.of_user)

    def _found(self, path: str, method: str, stream: ChannelStream) -> ChannelStream:
        self.method = method
        self._settled.served(path)
        self._proven = True
        return stream

    def _found_out(self, path: str, refusal: str, deadline: float, on_close: Callable[[], None]) -> ChannelStream:
        """A stream by some program, or why there is none.

        :param refusal: why sshd gave no channel; "": it has not been asked.
        """
        order = [self.method] if self.method else []
        order += [name for name in METHODS if name not in order]
        judged = False
        outputs: List[Tuple[str, Output]] = []
        for method in order:
            if method == DIRECT:
                if refusal:
                    continue
                try:
                    stream: Optional[ChannelStream] = self._direct(path, deadline, on_close)
                except paramiko.ChannelException as error:
                    refusal = failures.words(error.text)
                    stream = None
            else:
                if not judged:
                    self._judge_socket(path, deadline)
                    judged = True
                stream, output = self._stand_in(method, path, deadline, on_close)
                outputs.append((method, output))
            if stream is not None:
                return self._found(path, method, stream)
        self._judge_outputs(outputs, path, deadline)
        tried = "; ".join(f"{name}: {output.text}" for name, output in outputs)
        raise ForwardingRefused(f"The VM's SSH server opens no channel to the engine's socket ({refusal}), "
                                f"and no program there does instead ({tried}).")

    # --- ways

    def _direct(self, path: str, deadline: float, on_close: Callable[[], None]) -> ChannelStream:
        return ChannelStream(self._transport, self._transport.open(STREAMLOCAL, deadline, path), on_close)

    def _stand_in(self, method: str, path: str, deadline: float,
                  on_close: Callable[[], None]) -> Tuple[Optional[ChannelStream], Output]:
        """Run a program that joins its standard streams to the socket, and see an HTTP answer come through it."""
        command = dict(STAND_INS)[method] % path
        if path.startswith(PIPE):
            if method != "dial-stdio":
                return None, Output(-1, "it knows no named pipes")
            command = f"docker -H {path} system dial-stdio"
        if method == "dial-stdio" and path in DEFAULT_PATHS + (DEFAULT_PIPE,):
            command = "docker system dial-stdio"
        if method == "socat" and ":" in path:
            return None, Output(-1, "the path has a colon")
        try:
            channel = self._transport.execute(command, deadline)
        except paramiko.ChannelException as error:
            return None, Output(-1, failures.words(error.text))
        proven = False  # until then, the caller's lease of a channel stays with the caller
        stream = ChannelStream(self._transport, channel, lambda: on_close() if proven else None)
        stream.deadline = min(deadline, time.monotonic() + STAND_IN_SECONDS)
        try:
            keep = exchange(stream, "GET", "/_ping", headers={"Host": "engine"}).keep
        except EngineError as error:
            if isinstance(error, EngineTimeout) and time.monotonic() + STAND_IN_LEAST >= deadline:
                stream.close()
                raise  # there is no time left for another program
            output = _finished(channel, error)
            stream.close()
            return None, output
        except XSContainerError:
            stream.close()
            raise
        if not keep:
            stream.close()
            return None, Output(-1, "the engine keeps no connection open")
        proven = True
        stream.deadline = None
        return stream, Output(0, "")

    # --- causes

    def _run(self, command: str, deadline: float) -> Output:
        try:
            channel = self._transport.execute(command, deadline)
        except paramiko.ChannelException as error:
            return Output(-1, failures.words(error.text))
        try:
            return _collect(channel, deadline)
        finally:
            channel.close()

    def _judge_socket(self, path: str, deadline: float) -> None:
        """Name the cause if the guest can tell: no such socket, or not for this user. Else just return."""
        if path.startswith(PIPE):
            return
        listed = self._run("env LC_ALL=C ls -ldnL " + path, deadline)
        if listed.status > 0 and listed.status not in _NOT_FOUND:
            if listed.complains(_ABSENT, path, "ls:"):
                raise EngineSocketAbsent(f"There is no {path} in the VM.")
            if listed.complains(_DENIED, path, "ls:"):
                raise sockets.not_for(self._user, path, unseen=self._places.several)
        if listed.status != 0 or not listed.answer.endswith(path):
            return  # no shell for us, or a strange one
        if not listed.answer.startswith("s"):
            raise EngineSocketAbsent(f"{path} in the VM is no socket.")
        if self._run("test -w " + path, deadline).status == 1:
            raise sockets.not_for(self._user, path)

    def _judge_outputs(self, outputs: List[Tuple[str, Output]], path: str, deadline: float) -> None:
        """Name the cause if a program ran and complained about the socket, or the kernel knows no listener."""
        def complained(about: "Pattern[str]") -> bool:
            return any(output.complains(about, path.replace("npipe://", ""), _PROGRAMS[name])
                       for name, output in outputs if output.status not in _NOT_FOUND)

        if complained(_DENIED):
            raise sockets.not_for(self._user, path)
        if complained(_REFUSED):
            raise EngineStopped(f"Nobody listens on {path} in the VM.")
        if not path.startswith(PIPE) and self._unknown_to_kernel(path, deadline):
            raise EngineStopped(f"Nobody listens on {path} in the VM.")

    def _unknown_to_kernel(self, path: str, deadline: float) -> bool:
        """Whether the kernel's table lists no such socket: neither under this name nor under the one behind links.

        It lists the name that a server gave, and another engine's socket may well have the same last part.
        """
        real = self._run("realpath " + path, deadline)
        if real.status != 0 or not is_socket(real.answer):
            return False
        patterns = "".join(f" -e {name}" for name in sorted({path, real.answer}))
        return self._run(f"grep -c -F{patterns} /proc/net/unix", deadline).answer == "0"


def _collect(channel: paramiko.Channel, deadline: float) -> Output:
    """What a short command says, up to a bound, and its status."""
    streams: List[List[str]] = []
    for source in (channel.recv_stderr, channel.recv):
        said = b""
        while len(said) < MOST_OUTPUT:
            channel.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                piece = source(MOST_OUTPUT - len(said))
            except OSError:
                return Output(-1, "it did not end in time")
            if not piece:
                break
            said += piece
        streams.append([failures.words(line) for line in said.splitlines()[-MOST_LINES:] if line.strip()])
    errors, output = streams
    lines = tuple(errors + output)
    # What the command says itself comes last.
    text = failures.words(" ".join(errors[-LINES_OF_TEXT:] + output[-LINES_OF_TEXT:])) if lines else ""
    return Output(_status(channel, deadline), text, output[-1] if output else "", lines)


def _finished(channel: paramiko.Channel, error: EngineError) -> Output:
    """Why a stand-in gave no answer: its own words, or else ours."""
    output = _collect(channel, time.monotonic() + 1.0)
    if output.text and output.status != -1:
        return output
    if isinstance(error, EngineGarbage) or output.status <= 0:
        return Output(output.status, failures.words(error.message))  # which quotes what stood where an answer should
    return Output(output.status, f"exit status {output.status}")


def _status(channel: paramiko.Channel, deadline: float) -> int:
    if not channel.status_event.wait(max(0.0, min(1.0, deadline - time.monotonic()))):
        return -1
    return channel.exit_status
