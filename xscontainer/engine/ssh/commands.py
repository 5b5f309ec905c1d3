"""Run commands in a guest: scripts for /bin/sh that print a mark when they begin and when they end.

The guest's sshd starts the user's login shell, which may be csh, fish or rbash. The shell may first run start-up files
that print, read, change PATH, define functions or start another program. So:

* The command line consists of words in single quotes, without any character that is special there in one of the shells.
* The script runs in a shell without the user's environment: functions, aliases and variables have no effect on it.
* It prints a mark when it begins and another when it has ended. Output before the first mark is not the script's.

A script that never prints its first mark did not run. The guest's output says why.
"""

import re
import socket
import time
import uuid
from typing import List, NamedTuple, Optional, Tuple

import paramiko

from xscontainer.engine import failures
from xscontainer.engine.ssh.transport import GuestTransport
from xscontainer.errors import ScriptNotRun, ScriptSilent, TransportLost

# The directories of the system's programs. They precede the user's PATH, so that no program of the user replaces one.
SYSTEM_PATH = ("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin:/opt/bin:"
               "/run/current-system/sw/bin")
# The outer shell has the user's environment and only starts the inner one. In a POSIX shell no function can replace
# `exec`. $0 is the script.
_OUTER = ('exec /usr/bin/env -i "HOME=$HOME" "USERPATH=$PATH" "SSH_CONNECTION=$SSH_CONNECTION" LC_ALL=C '
          f'"PATH={SYSTEM_PATH}:$PATH" /bin/sh -c "$0" sh "$@"')
# A restricted shell (rbash) refuses names with a slash.
_SHELLS = ("/bin/sh", "sh")
# The mark is given in two halves: a program that prints its command line instead of running it prints no mark.
_BEGIN = 'echo "$1$2"; echo "$1$2" >&2; end=$2$1; shift 2; '
_RUN = _BEGIN + '( %s ) </dev/null 2>&1; status=$?; echo; echo "$end $status"'
_RUN_WITH_INPUT = _BEGIN + ("while IFS= read -r go; do case $go in go) break;; esac; done; "
                            '( %s ) 2>&1; status=$?; echo; echo "$end $status"')
# Start-up files may read standard input. Empty lines are for them; the script waits for "go".
_START = _BEGIN + "while IFS= read -r go; do case $go in go) break;; esac; done; %s"
_WORD = re.compile(r"[ -~]*\Z")
# Characters that are special within single quotes in one of the shells.
_SPECIAL = frozenset("'\\!`")

# cloud-init (disable_root) makes root's key print this where only another user may log in.
_LOGIN_AS = re.compile(r'login as the user \W{0,2}([A-Za-z0-9_][A-Za-z0-9_.-]{0,31})\b')

MOST_ANSWER = 65536  # bytes
MOST_NOISE = 1 << 20  # bytes that start-up files may print before the mark
KEPT_NOISE = 8000  # bytes of their output that are kept, the last
NUDGE_SECONDS = 0.5  # after which a script that has not begun gets an empty line, for start-up files that read one
BEGIN_SECONDS = 10.0  # until a script must have begun
LAST_ERRORS_SECONDS = 1.0  # that standard error may take to end after standard output
_SLICE = 0.25  # seconds between two reads of standard error


class Answer(NamedTuple):
    """The result of a script.

    :ivar status: exit status. :ivar output: what the script printed, to either stream.
    """

    status: int
    output: bytes

    @property
    def words(self) -> str:
        """The end of the output, for a message; "" if there is none."""
        return failures.words(self.output[-KEPT_NOISE:]) if self.output.strip() else ""


class Started(NamedTuple):
    """A script that runs.

    :ivar channel: its standard streams.
    :ivar mark: the script's output on standard error begins after this mark.
    :ivar received: its standard output so far.
    """

    channel: paramiko.Channel
    mark: bytes
    received: bytes = b""


def command_line(shell: str, script: str, arguments: "Tuple[str, ...]") -> str:
    """Return a command line, safe for any login shell, that makes ``shell`` run ``script`` with ``arguments``.

    :raises ValueError: if the script or an argument has a character that is special to a shell.
    """
    for word in (script,) + arguments:
        if not _WORD.match(word) or _SPECIAL.intersection(word):
            raise ValueError(f"not allowed in a command line: {word!r}")
    return " ".join([shell, "-c"] + [f"'{word}'" for word in (_OUTER, script) + arguments])


def run(transport: GuestTransport, script: str, *arguments: str, deadline: float, most: int = MOST_ANSWER,
        data: Optional[bytes] = None) -> Answer:
    """Run a short script in the guest and return its exit status and output.

    :param script: for a POSIX shell, on one line, without single quotes, backslashes, backticks and exclamation marks.
    :param arguments: $1 and so on; without the same characters.
    :param deadline: by time.monotonic().
    :param most: bytes that the script may print.
    :param data: standard input; None: empty. Run a script without input first: it finds out sooner if another program
        runs instead.
    :raises ScriptNotRun: if another program ran instead, or the script did not end properly.
    :raises ScriptSilent: if the script did not begin or end in time.
    :raises TransportLost, EngineTimeout: as GuestTransport.open.
    """
    dialog = _begun(transport, (_RUN if data is None else _RUN_WITH_INPUT) % script, arguments, deadline,
                  close_input=data is None)
    try:
        if data is not None:
            dialog.send(b"go\n" + data, deadline)
            dialog.channel.shutdown_write()
        end = dialog.mark_of_end
        while True:
            before, found, after = dialog.output.partition(end)
            printed = before[:-1] if before.endswith(b"\n") else before
            if len(printed) > most + (0 if found else len(end)):
                raise ScriptNotRun(f"A command in the VM printed more than {most} bytes.")
            if found and b"\n" in after:
                return Answer(_number(after.split()[0]), printed)
            if not dialog.listen(deadline):
                raise (ScriptSilent if dialog.late else ScriptNotRun)(
                    f"A command in the VM began but did not end properly: it {dialog.quote()}.")
    finally:
        dialog.channel.close()


def start(transport: GuestTransport, script: str, *arguments: str, deadline: float) -> Started:
    """Start a script whose standard streams the caller uses and closes; for parameters and errors see :func:`run`."""
    dialog = _begun(transport, _START % script, arguments, deadline, close_input=False)
    try:
        dialog.send(b"go\n", deadline)
    except BaseException:
        dialog.channel.close()
        raise
    return Started(dialog.channel, dialog.mark)


class _Dialog:
    """The output of one command, before its mark and after it.

    :ivar output: standard output; after begin() returned True only the part behind the mark.
    :ivar late: whether listen() returned because the time was over.
    """

    def __init__(self, channel: paramiko.Channel, line: str, halves: "Tuple[str, str]",
                 line_end: bytes = b"\n") -> None:
        self.channel = channel
        self._line = line.encode("ascii")
        self.mark = "".join(halves).encode("ascii") + line_end
        self.mark_of_end = b"\n" + "".join(reversed(halves)).encode("ascii") + b" "
        self.output = b""
        self.began = False
        self.late = False
        self._noise: List[bytes] = [b"", b""]  # the end of other output: standard output, standard error
        self._received = 0  # bytes

    def listen(self, deadline: float) -> bool:
        """Read some standard output. Return False at its end, or when the time is over."""
        while True:
            remaining = deadline - time.monotonic()
            self.channel.settimeout(max(0.001, min(_SLICE, remaining)))
            self._read_errors()
            try:
                piece = self.channel.recv(65536)
            except OSError:  # the timeout
                self.late = remaining <= _SLICE
                if self.late:
                    return False
                continue
            self.output += piece
            self._received += len(piece)
            return bool(piece)

    def _read_errors(self) -> None:
        while self.channel.recv_stderr_ready():
            piece = self.channel.recv_stderr(65536)
            self._received += len(piece)
            self._noise[1] = (self._noise[1] + piece)[-KEPT_NOISE:]

    def _read_last_errors(self) -> None:
        """Read the rest of standard error after standard output has ended."""
        while self._received <= MOST_NOISE:
            self.channel.settimeout(LAST_ERRORS_SECONDS)
            try:
                piece = self.channel.recv_stderr(65536)
            except OSError:
                return
            if not piece:
                return
            self._received += len(piece)
            self._noise[1] = (self._noise[1] + piece)[-KEPT_NOISE:]

    def begin(self) -> bool:
        """Return whether the mark has arrived; then ``output`` is only the part behind it."""
        before, found, after = self.output.partition(self.mark)
        if found:
            self.began, self.output = True, after
            return True
        self._noise[0] = before[-KEPT_NOISE:]
        self.output = self.output[-KEPT_NOISE:]
        return False

    @property
    def noisy(self) -> bool:
        """True after so much output that no mark will follow."""
        return self._received > MOST_NOISE

    def send(self, data: bytes, deadline: float) -> None:
        """Send ``data`` to the command's standard input.

        :raises TransportLost: if the channel has ended. :raises ScriptSilent: if the time is over.
        """
        while data:
            self.channel.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                sent = self.channel.send(data)
            except socket.timeout as error:
                raise ScriptSilent("A command in the VM does not read its input in time.") from error
            except OSError as error:
                raise TransportLost("A command in the VM accepts no input.") from error
            data = data[sent:]

    def nudge(self) -> None:
        """Send an empty line."""
        if self.channel.send_ready():
            try:
                self.channel.send(b"\n")
            except OSError:
                pass  # the command has ended; its output says why

    def quote(self) -> str:
        """Return the end of the output, for the message "it says ..."."""
        if not self.late:
            self._read_last_errors()
        text = b" ".join(part for part in (self._noise[1].strip(), (self.output or self._noise[0]).strip()) if part)
        text = text.replace(self._line, b"(the command)")
        if text:
            lines = text.splitlines()
            return "says '" + failures.words(b" ".join(lines[-3:])[-failures.MOST_WORDS:]) + "'"
        if self.late:
            return "says nothing"
        known = self.channel.status_event.wait(1.0) and self.channel.exit_status >= 0
        return "ends without output" + (f" (exit status {self.channel.exit_status})" if known else "")


def _begun(transport: GuestTransport, script: str, arguments: "Tuple[str, ...]", deadline: float,
           close_input: bool) -> _Dialog:
    shells = (transport.shell,) if transport.shell else _SHELLS
    for shell in shells:
        token = uuid.uuid4().hex
        halves = (token[:12], token[12:24])
        line = command_line(shell, script, halves + arguments)
        try:
            channel = transport.execute(line, deadline)
        except paramiko.ChannelException as error:
            raise _not_run(transport, f"its SSH server refuses commands: {failures.words(error.text)}") from error
        dialog = _Dialog(channel, line, halves)
        try:
            if close_input:
                channel.shutdown_write()
            if _announced(dialog, min(deadline, time.monotonic() + BEGIN_SECONDS), nudging=not close_input):
                transport.shell = shell
                return dialog
            quoted = dialog.quote()
        except BaseException:
            channel.close()
            raise
        channel.close()
        if _LOGIN_AS.search(quoted):
            raise _not_run(transport, f"a forced command runs instead and {quoted}")
        if dialog.late:
            raise ScriptSilent(f"The VM accepts commands of the user {transport.get_username()} but does not start "
                               f"them in time: it {quoted}.")
    raise _not_run(transport, f"another program runs instead and {quoted}")


def _announced(dialog: _Dialog, deadline: float, nudging: bool) -> bool:
    """Wait for the mark. Return whether it has arrived."""
    next_nudge = time.monotonic() + NUDGE_SECONDS
    while not dialog.begin():
        if dialog.noisy:
            return False
        until = min(deadline, next_nudge) if nudging else deadline
        if dialog.listen(until):
            continue
        if not dialog.late or time.monotonic() >= deadline:
            dialog.begin()  # keeps the output for the message
            return False
        dialog.late = False
        dialog.nudge()
        next_nudge = time.monotonic() + NUDGE_SECONDS
    return True


def _not_run(transport: GuestTransport, why: str) -> ScriptNotRun:
    line = transport.key_line
    named = _LOGIN_AS.search(why)
    hint = ""
    if named:
        hint = f"Prepare the VM for the user that the message names: 'xscontainer prepare VM --user {named.group(1)}'."
    elif line is not None and "command" in line.allows:
        hint = (f"Line {line.number} of {failures.words(line.path)} in the VM forces another command: remove command= "
                "from the pool's key there.")
    return ScriptNotRun(f"The VM runs no commands for the user {transport.get_username()}: {why}.", hint)


def start_on_windows(transport: GuestTransport, command: str, deadline: float) -> Started:
    """Start ``command`` with cmd.exe; for parameters and errors see :func:`start`.

    ``/d`` ignores AutoRun commands of the registry. cmd.exe knows no functions of a PowerShell profile.
    """
    token = uuid.uuid4().hex
    line = f'cmd.exe /d /c "echo {token[:12]}^{token[12:24]}& {command}"'
    try:
        channel = transport.execute(line, deadline)
    except paramiko.ChannelException as error:
        raise _not_run(transport, f"its SSH server refuses commands: {failures.words(error.text)}") from error
    dialog = _Dialog(channel, line, (token[:12], token[12:24]), b"\r\n")
    try:
        if _announced(dialog, min(deadline, time.monotonic() + BEGIN_SECONDS), nudging=False):
            return Started(channel, dialog.mark, dialog.output)
        quoted = dialog.quote()
    except BaseException:
        channel.close()
        raise
    channel.close()
    raise _not_run(transport, f"another program runs instead and {quoted}")


def _number(word: bytes) -> int:
    return int(word) if word.isdigit() and len(word) < 4 else -1
