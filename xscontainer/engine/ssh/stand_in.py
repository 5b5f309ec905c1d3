"""Programs in a guest that connect to the engine's socket, for an sshd that opens no channels to sockets."""

import re
import time
from typing import Callable, List, NamedTuple, Optional, Pattern, Tuple

import paramiko

from xscontainer.engine import failures
from xscontainer.engine.http import exchange
from xscontainer.engine.ssh import commands
from xscontainer.engine.ssh.channel import ChannelStream
from xscontainer.engine.ssh.discovery import PIPE
from xscontainer.engine.ssh.transport import GuestTransport
from xscontainer.errors import EngineError, EngineGarbage, EngineTimeout, XSContainerError

# (method, program, options), in the order in which they are tried. Each program is given the socket ($sock) and reads
# no configuration of the user that could name another socket.
STAND_INS = (
    ("dial-stdio", "docker", '--config /nonexistent -H "unix://$sock" system dial-stdio'),
    ("podman-stdio", "podman", '--url "unix://$sock" system dial-stdio'),
    ("socat", "socat", '- "UNIX-CONNECT:$sock"'),
    ("ncat", "ncat", '-U "$sock"'),
    ("nc", "nc", '-U "$sock"'),
)
PROGRAMS = {method: program for method, program, _ in STAND_INS}
_OPTIONS = {method: options for method, _, options in STAND_INS}
# Outside the system's directories only a binary is started: a script of the program's name may connect elsewhere.
_SCRIPT = (
    'sock=$1; prog=; set -f; IFS=:; '
    f'for dir in {commands.SYSTEM_PATH.replace(":", " ")}; do '
    'if [ -f "$dir/NAME" ] && [ -x "$dir/NAME" ]; then prog=$dir/NAME; break; fi; done; '
    'if [ -z "$prog" ]; then for dir in $USERPATH; do case $dir in /*) '
    'if [ -f "$dir/NAME" ] && [ -x "$dir/NAME" ]; then IFS= read -r head <"$dir/NAME"; '
    'case $head in ?ELF*) prog=$dir/NAME; break;; esac; fi;; esac; done; fi; unset IFS; '
    '[ -n "$prog" ] || { echo "NAME is not installed" >&2; exit 127; }; '
    'unset USERPATH SSH_CONNECTION; CONTAINERS_CONF=/dev/null; export CONTAINERS_CONF; exec "$prog" OPTIONS')
_PIPE_COMMAND = "docker.exe -H %s system dial-stdio"  # %s: a pipe whose characters bridge.check_path() has checked

PROOF_SECONDS = 10.0  # that a program may take until an answer of the engine arrives through it
LEAST_SECONDS = 2.0  # with less time than this no program is tried
MOST_OUTPUT = 65536  # bytes of a program's last output
MOST_LINES = 100
QUOTED_LINES = 3  # lines of output in a message


class Output(NamedTuple):
    """The output of a program that did not connect, without the output of start-up files.

    :ivar status: exit status, -1 if unknown.
    :ivar text: the end of the output, for a message.
    :ivar lines: the last lines.
    """

    status: int
    text: str
    lines: Tuple[str, ...] = ()

    def complains(self, about: "Pattern[str]", path: str, program: str) -> bool:
        """Return whether a line that names ``path``, or that begins with ``program``, matches ``about``."""
        return any(about.search(line) and (path in line or line.lower().startswith(program)) for line in self.lines)


def connect(transport: GuestTransport, method: str, path: str, deadline: float,
            on_close: Callable[[], None]) -> Tuple[Optional[ChannelStream], Output]:
    """Run a program that connects its standard streams to the socket, and get an HTTP answer through it.

    :param method: of STAND_INS.
    :param on_close: as for ChannelStream; not called if there is no stream.
    :return: the stream, or None and the program's output.
    """
    if path.startswith(PIPE) and method != "dial-stdio":
        return None, Output(-1, "it does not support named pipes")
    if method == "socat" and ":" in path:
        return None, Output(-1, "the path has a colon")
    started = _start(transport, method, path, deadline)
    proven = False  # until then the caller releases the channel itself
    stream = ChannelStream(transport, started.channel, lambda: on_close() if proven else None, started.received)
    stream.deadline = min(deadline, time.monotonic() + PROOF_SECONDS)
    try:
        keep = exchange(stream, "GET", "/_ping", headers={"Host": "engine"}).keep
    except EngineError as error:
        if isinstance(error, EngineTimeout) and time.monotonic() + LEAST_SECONDS >= deadline:
            stream.close()
            raise  # there is no time left for another program
        output = _failed(started, error)
        stream.close()
        return None, output
    except XSContainerError:
        stream.close()
        raise
    if not keep:
        stream.close()
        return None, Output(-1, "the engine keeps no connection open")
    try:
        transport.sessions.learn(lambda: transport.open("session", deadline))
    except BaseException:
        stream.close()
        raise
    proven = True
    stream.deadline = None
    return stream, Output(0, "")


def _start(transport: GuestTransport, method: str, path: str, deadline: float) -> commands.Started:
    if path.startswith(PIPE):
        return commands.start_on_windows(transport, _PIPE_COMMAND % path, deadline)
    script = _SCRIPT.replace("NAME", PROGRAMS[method]).replace("OPTIONS", _OPTIONS[method])
    return commands.start(transport, script, path, deadline=deadline)


def _failed(started: commands.Started, error: EngineError) -> Output:
    """Return the program's output, or ``error`` as text if it printed nothing."""
    output = _collect(started, time.monotonic() + 1.0)
    if output.text and output.status != -1:
        return output
    if isinstance(error, EngineGarbage) or output.status <= 0:
        return Output(output.status, failures.words(error.message))  # which quotes what arrived instead of an answer
    return Output(output.status, f"exit status {output.status}")


def _collect(started: commands.Started, deadline: float) -> Output:
    """Read the rest of a program's output, up to a limit, and its exit status."""
    channel, streams = started.channel, []
    for receive in (channel.recv_stderr, channel.recv):
        output = b""
        while len(output) < 4 * MOST_OUTPUT:
            channel.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                piece = receive(MOST_OUTPUT)
            except OSError:
                break
            if not piece:
                break
            output += piece
        output = output.rpartition(started.mark)[2][-MOST_OUTPUT:]
        streams.append([failures.words(line) for line in output.splitlines()[-MOST_LINES:] if line.strip()])
    errors, printed = streams
    text = " ".join(errors[-QUOTED_LINES:] + printed[-QUOTED_LINES:])
    return Output(_status(channel, deadline), failures.words(text) if text else "", tuple(errors + printed))


def _status(channel: paramiko.Channel, deadline: float) -> int:
    if not channel.status_event.wait(max(0.0, min(1.0, deadline - time.monotonic()))):
        return -1
    return channel.exit_status


_REFUSED = re.compile(r"refused|cannot connect|no such file|is the docker daemon running|docker daemon is not running"
                      r"|cannot find the file", re.IGNORECASE)
_DENIED = re.compile(r"permission denied|access is denied", re.IGNORECASE)
_NOT_FOUND = (126, 127)


def complaint(outputs: "List[Tuple[str, Output]]", path: str) -> "Tuple[bool, bool]":
    """Return whether a program reports that it may not open the socket, and whether it reports that nothing listens.

    :param outputs: (method, output) of each program that was tried.
    """
    def any_complains(about: "Pattern[str]") -> bool:
        return any(output.complains(about, path.replace("npipe://", ""), PROGRAMS[method])
                   for method, output in outputs if output.status not in _NOT_FOUND)

    return any_complains(_DENIED), any_complains(_REFUSED)
