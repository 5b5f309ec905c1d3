"""The plugin's process: hand the argument to the daemon unchanged, print the reply unchanged.

Input: the methodCall that XAPI passes in sys.argv[1]. Output: the methodResponse on standard output.

XAPI starts a process for every call, so every import here is latency: the module imports what the interpreter holds
already, and everything else only where it is needed. Without a daemon the call is served in this process.

One exchange on the daemon's Unix socket (service/server.py is its other end)::

    daemon   XSCONTAINER/1 ready\n              a thread is free; before this the plugin sends nothing
    plugin   XSCONTAINER/1 <length>\n<bytes>    and end of file
    daemon   XSCONTAINER/1 <length>\n<bytes>    and end of file

or, if all threads of the daemon are taken::

    daemon   XSCONTAINER/1 busy\n               and end of file

A daemon that has not received the whole call cannot have acted on it, so the call may be served here. A daemon that
has received it may have acted: even if its reply is missing, the call is not made again.

=========================================  ==================================================================
busy: the line above                       the caller gets BUSY, as from a daemon that has free threads but no
                                           free workers
absent: no socket, or nobody listens       the call is served here
hung: no line within READY_TIMEOUT         the call is served here. A daemon of an earlier release is silent
                                           while it is busy
=========================================  ==================================================================

Serving a call here takes 30 MB and half a second of CPU. So at most MOST_ALONE processes of a host do that at once,
MOST_WAITING wait, and all others answer BUSY. They hold file locks, which the kernel frees when a process dies.
"""

import os
import stat
import sys
import time

try:
    # The module `socket` wraps this one. Its import takes 8 ms, as long as starting the interpreter.
    import _socket as socket
except ImportError:  # pragma: no cover - another Python than CPython
    import socket  # type: ignore[no-redef]

TYPE_CHECKING = False  # typing itself takes 11 ms to import on CPython 3.6
if TYPE_CHECKING:
    from typing import List, Optional

MAGIC = b"XSCONTAINER/1 "
READY = MAGIC + b"ready\n"
BUSY = MAGIC + b"busy\n"
LONGEST_HEADER = 64  # bytes
LONGEST_CALL = 200 * 1024  # bytes; the kernel passes no argument above 128 KiB
LONGEST_REPLY = 256 * 1024 * 1024  # bytes

READY_TIMEOUT = 3.0  # s after which a silent daemon counts as hung
FULL_QUEUE_RETRY = 0.05  # s until a full socket queue is tried again: no call of the kernel waits for room in it
CALL_TIMEOUT = 30.0  # s for the daemon to receive the call
REPLY_TIMEOUT = 2700.0  # s; all deadlines of the daemon are shorter

MOST_ALONE = 4  # processes of a host that serve calls without the daemon at once
MOST_LONG_ALONE = 2  # of them for calls that may take minutes, so that quick calls get through
MOST_WAITING = 8  # processes that wait for one of these to end
WAITING_SECONDS = 5.0  # that they wait at most
BUSY_SECONDS = 5  # after which a caller who gets BUSY is to call again
# The verbs of the lane LONG. The table of verbs takes 0.1 s to import; a test compares them.
LONG_CALLS = (b"prepare", b"create", b"create_config_drive", b"get_config_drive_configuration", b"key_rotate")

# The same as in settings.py, which takes 15 ms to import; a test compares them.
DEFAULT_SETTINGS = "/etc/xscontainer/xscontainer.conf"
DEFAULT_SOCKET = "/run/xscontainer/daemon.sock"
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-")


class NotTaken(Exception):
    """No daemon has received the whole call, so it may be served here."""


class Hung(NotTaken):
    """A daemon takes connections and sends nothing."""


class Busy(Exception):
    """Too many calls are at work; args[0] is a sentence."""


class Lost(Exception):
    """A daemon has received the call, and its reply did not come, or not completely."""


def main() -> None:
    """Answer the call in sys.argv[1] on standard output."""
    answer = os.dup(1)
    # Only the reply may reach XAPI: output of libraries goes to standard error.
    os.dup2(2, 1)
    reply = serve(os.fsencode(sys.argv[1]) if len(sys.argv) > 1 else b"")
    while reply:
        reply = reply[os.write(answer, reply):]


def serve(argument: bytes) -> bytes:
    """Have the call served by the daemon or without it; returns a reply that XAPI can read, whatever happens."""
    try:
        try:
            path = socket_path()
            return ask_daemon(path, argument, READY_TIMEOUT)
        except NotTaken as error:
            with_daemon = "does not answer" if isinstance(error, Hung) else "does not run"
            with _Alone(os.path.dirname(path), argument, with_daemon):
                return _in_process(argument)
    except Busy as error:
        return failure(["BUSY", f"{error} Repeat the call in {BUSY_SECONDS} s.", str(BUSY_SECONDS)])
    except Lost as error:
        return failure(["DAEMON_LOST", f"The xscontainer daemon of this host took the call, and {error}. "
                        "The requested action may have happened. Check xscontainer-monitor and its log."])
    except BaseException as error:  # noqa: BLE001 - whatever happened, XAPI needs an answer
        if hasattr(error, "description"):  # an error of xscontainer.errors
            return failure(error.description())
        sys.stderr.write(f"xscontainer: {error!r}\n")
        return failure(["XENAPI_PLUGIN_FAILURE", "xscontainer", "XSCONTAINER_ERROR",
                        "xscontainer failed because of an error of its own. The requested action may have happened."])


def _in_process(argument: bytes) -> bytes:
    try:
        if sys.flags.no_site and not _carried():
            # Left out to start faster; the dependencies are in site-packages.
            import site
            site.main()
        from xscontainer import settings
        from xscontainer.plugin import context, dispatch
        with context.local_context(settings.load().settings) as local:
            return dispatch.handle(argument, local)
    except ImportError as error:
        return failure(["PLUGIN_INCOMPLETE", "The xscontainer daemon of this host does not run, and without it a part "
                        f"is missing: {error}. Install the supplemental pack again."])


def _carried() -> bool:
    """Tell whether the dependencies lie beside the package, as in the pack; then dom0's own copies are not used."""
    return os.path.isdir(os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(__file__))), "paramiko"))


def failure(description: "List[str]") -> bytes:
    """Make a Failure without the help of dispatch.py, which may itself be broken."""
    from xmlrpc.client import dumps
    # Printable ASCII only: XML takes all of these characters.
    safe = [ascii(text)[1:-1][:4096] for text in description]
    return dumps(({"Status": "Failure", "ErrorDescription": safe},), methodresponse=True).encode("ascii")


# --- without the daemon -------------------------------------------------------------------------


class _Alone:
    """Permission to serve a call in this process, for the duration of the block.

    :param daemon: "does not run" or "does not answer", for the message.
    :raises Busy: on entering, if enough other processes serve calls.
    """

    def __init__(self, directory: str, argument: bytes, daemon: str) -> None:
        self._directory = directory
        self._daemon = daemon
        begin = argument[:1024]
        long = any(b"<methodName>" + name + b"</methodName>" in begin for name in LONG_CALLS)
        self._most = MOST_LONG_ALONE if long else MOST_ALONE
        self._held = -1

    def __enter__(self) -> "_Alone":
        try:
            self._held = self._taken()
        except OSError as error:
            # The call can be served without a lock, for example if the run directory is not writable.
            sys.stderr.write(f"xscontainer: calls without the daemon are not counted: {error}\n")
        return self

    def __exit__(self, *_: object) -> None:
        if self._held >= 0:
            os.close(self._held)

    def _taken(self) -> int:
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        held = self._lock("serving", self._most)
        if held < 0:
            queue = self._lock("waiting", MOST_WAITING)
            if queue >= 0:
                try:
                    deadline = time.monotonic() + WAITING_SECONDS
                    while held < 0 and time.monotonic() < deadline:
                        time.sleep(0.05)  # no call of the kernel waits for one of several locks
                        held = self._lock("serving", self._most)
                finally:
                    os.close(queue)
        if held < 0:
            raise Busy(f"The xscontainer daemon of this host {self._daemon}, and {self._most} calls are being served "
                       "without it already. Check xscontainer-monitor.")
        return held

    def _lock(self, name: str, most: int) -> int:
        """Take one of so many locks; returns its descriptor, or -1 if all are taken."""
        import fcntl
        for number in reversed(range(most)):  # the first ones are the only ones for long calls
            path = os.path.join(self._directory, f"{name}-{number}.lock")
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except OSError as error:
                os.close(lock)
                if not isinstance(error, BlockingIOError):  # which says that another process holds it
                    raise
        return -1


# --- the daemon's socket ------------------------------------------------------------------------


def socket_path() -> str:
    """Read the path of the daemon's socket from the settings file.

    :raises xscontainer.errors.SettingsError: the file cannot be read.
    """
    named = os.environ.get("XSCONTAINER_CONF")
    try:
        with open(named or DEFAULT_SETTINGS, encoding="utf-8") as source:
            plain = plain_socket(source.read())
    except FileNotFoundError:
        if not named:
            return DEFAULT_SOCKET
        plain = None
    except (OSError, ValueError):
        plain = None
    if plain is not None:
        return plain
    from xscontainer import settings
    return settings.load().settings.daemon.socket


def plain_socket(text: str) -> "Optional[str]":
    """Read the key ``socket`` of section ``daemon`` from a plain settings file; None if the file is not plain.

    A plain file has only sections, whole-line comments and ``key = value`` at the start of a line. settings.py reads
    every other file. A test compares both readers.
    """
    section, found = "", DEFAULT_SOCKET
    for line in text.split("\n"):
        stripped = line.strip()
        if not stripped or stripped[0] in "#;":
            continue
        name, equals, value = (part.strip() for part in stripped.partition("="))
        if line[0] == "[":
            section = stripped[1:-1]
            if stripped[-1] != "]" or not _PLAIN.issuperset(section):
                return None
        elif line[0] != stripped[0] or not equals or not section:
            return None
        elif section == "daemon" and name.lower() == "socket":
            if value[:1] != "/" or not 1 < len(value) <= 107 or not _PLAIN.issuperset(value):
                return None
            found = value
    return found


def ask_daemon(path: str, argument: bytes, ready_timeout: float) -> bytes:
    """Have the daemon serve the call.

    :raises NotTaken: the daemon has not received the call.
    :raises Busy: it has no thread free.
    :raises Lost: it has received the call, and its reply is missing.
    """
    if len(argument) > LONGEST_CALL:
        raise NotTaken("the call is too long for the daemon")
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _take_up(channel, path, ready_timeout)
        try:
            channel.settimeout(CALL_TIMEOUT)
            channel.sendall(MAGIC + b"%d\n" % len(argument) + argument)
        except OSError as error:
            # The daemon drops a call that is shorter than announced.
            raise NotTaken(str(error)) from error
        try:
            channel.shutdown(socket.SHUT_WR)
            return _reply(channel)
        except OSError as error:
            raise Lost(f"its reply did not come ({error})") from error
    finally:
        channel.close()


def _take_up(channel: "socket.socket", path: str, timeout: float) -> None:
    """Connect and wait for READY.

    :raises NotTaken: there is no daemon, or it is not root's.
    :raises Hung: the daemon sends nothing.
    :raises Busy: the daemon has no thread free.
    """
    try:
        file = os.lstat(path)
        if not stat.S_ISSOCK(file.st_mode) or file.st_uid not in (0, os.geteuid()):
            raise NotTaken(_distrust(path))
        deadline = time.monotonic() + timeout
        channel.settimeout(timeout)
        _connect(channel, path, deadline)
        # The kernel tells who listens, even if the file was replaced meanwhile.
        credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        if int.from_bytes(credentials[4:8], sys.byteorder) not in (0, os.geteuid()):
            raise NotTaken(_distrust(path))
        received = b""
        while len(received) < len(READY):
            channel.settimeout(max(0.001, deadline - time.monotonic()))
            more = channel.recv(len(READY) - len(received))
            if not more:
                break
            received += more
    except socket.timeout as error:
        raise Hung(str(error)) from error
    except OSError as error:
        raise NotTaken(str(error)) from error
    if received == BUSY:
        raise Busy("The xscontainer daemon of this host has no thread free for the call.")
    if received != READY:
        raise NotTaken("it is not ready")


def _connect(channel: "socket.socket", path: str, deadline: float) -> None:
    """Connect the socket.

    :raises OSError: nobody listens.
    :raises Hung: the queue of the socket stays full.
    """
    while True:
        try:
            channel.connect(path)
            return
        except BlockingIOError as error:  # more callers than the socket's queue holds
            if time.monotonic() > deadline:
                raise Hung(str(error)) from error
        time.sleep(FULL_QUEUE_RETRY)


def _distrust(path: str) -> str:
    text = f"{path} is not a socket of root's daemon and is not used"
    sys.stderr.write(f"xscontainer: {text}\n")
    return text


def _reply(channel: "socket.socket") -> bytes:
    deadline = time.monotonic() + REPLY_TIMEOUT
    received = bytearray()
    while True:
        channel.settimeout(max(0.001, deadline - time.monotonic()))
        more = channel.recv(1 << 18)
        if not more:
            break
        received += more
        if len(received) > LONGEST_REPLY:
            raise Lost("its reply has no end")
    head, newline, body = received.partition(b"\n")
    length = head[len(MAGIC):]
    if not received:
        raise Lost("ended without a reply")
    if not newline or not head.startswith(MAGIC) or not length.isdigit() or len(head) > LONGEST_HEADER:
        raise Lost("its reply is garbled")
    if int(length) != len(body):
        raise Lost("ended in the middle of its reply")
    return bytes(body)
