"""What the plugin's process does: hand its one argument to the daemon as it came, print the reply as it comes.

XAPI starts a process for every call, so all of this is start-up time: the module imports what the
interpreter holds already, and the rest only where it is needed. Without a daemon the call is served
in this process.

One exchange on the daemon's Unix socket (server.py is its other end)::

    daemon   XSCONTAINER/1 ready\\n              a worker is free; before this nothing is said to it
    plugin   XSCONTAINER/1 <length>\\n<bytes>    and end of file
    daemon   XSCONTAINER/1 <length>\\n<bytes>    and end of file

A daemon that has not received the whole call cannot have acted on it, so the call may then be served
here. One that has may have acted: whatever is missing of its reply, the call is not made again.
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
LONGEST_HEADER = 64  # bytes
LONGEST_CALL = 200 * 1024  # bytes; the kernel passes no argument above 128 KiB
LONGEST_REPLY = 256 * 1024 * 1024  # bytes

READY_TIMEOUT = 3.0  # s until a daemon with its workers busy, or stopped, is given up
CALL_TIMEOUT = 30.0  # s for the daemon to take the call in
REPLY_TIMEOUT = 2700.0  # s; the daemon has shorter deadlines of its own for all it does

# As in settings.py, which takes 15 ms to import; a test compares them.
DEFAULT_SETTINGS = "/etc/xscontainer/xscontainer.conf"
DEFAULT_SOCKET = "/run/xscontainer/daemon.sock"
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-")


class NotTaken(Exception):
    """No daemon has the whole call: it may be served elsewhere."""


class Lost(Exception):
    """A daemon has the call and its reply did not come, or not whole."""


def main() -> None:
    """Answer the call in sys.argv[1] on standard output."""
    answer = os.dup(1)
    # Nothing but the reply may reach XAPI: what any library prints goes to standard error.
    os.dup2(2, 1)
    reply = serve(os.fsencode(sys.argv[1]) if len(sys.argv) > 1 else b"")
    while reply:
        reply = reply[os.write(answer, reply):]


def serve(argument: bytes) -> bytes:
    """The reply to a call, by the daemon or without it. Always one that XAPI can read."""
    try:
        try:
            return ask_daemon(socket_path(), argument, READY_TIMEOUT)
        except NotTaken:
            return _in_process(argument)
    except Lost as error:
        return failure(["DAEMON_LOST", f"The xscontainer daemon of this host took the call, and {error}. "
                        "What it asked for may have happened. Check xscontainer-monitor and its log."])
    except BaseException as error:  # noqa: BLE001 - whatever happened, XAPI needs an answer
        if hasattr(error, "description"):  # an error of xscontainer.errors
            return failure(error.description())
        return failure(["XENAPI_PLUGIN_FAILURE", "xscontainer", type(error).__name__, str(error) or repr(error)])


def _in_process(argument: bytes) -> bytes:
    try:
        if sys.flags.no_site and not _carried():
            # Left out to start faster; the dependencies are in site-packages.
            import site
            site.main()
        from xscontainer import plugin, settings
        return plugin.main_in_process(argument, settings.load().settings)
    except ImportError as error:
        return failure(["PLUGIN_INCOMPLETE", "The xscontainer daemon of this host does not run, and without it a part "
                        f"is missing: {type(error).__name__}: {error}. Install the supplemental pack again."])


def _carried() -> bool:
    """Whether all that is needed lies beside the package, as in the supplemental pack: then dom0's copies stay away."""
    return os.path.isdir(os.path.join(os.path.dirname(os.path.dirname(__file__)), "paramiko"))


def failure(description: "List[str]") -> bytes:
    """A Failure without the help of plugin.py, which may be what is broken."""
    from xmlrpc.client import dumps
    # Printable and ASCII: XML takes every character that is left.
    safe = [ascii(text)[1:-1][:4096] for text in description]
    return dumps(({"Status": "Failure", "ErrorDescription": safe},), methodresponse=True).encode("ascii")


# --- the daemon's socket ------------------------------------------------------------------------


def socket_path() -> str:
    """Where the daemon listens, by the settings file.

    :raises xscontainer.errors.SettingsError: it cannot be read.
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
    """The key ``socket`` of section ``daemon``, if the text is too plain to be read in two ways.

    None: there is more to it than sections, whole-line comments and ``key = value`` at the start of
    a line. settings.py must read it then; wherever both read a text, they agree.
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
    """:raises NotTaken, Lost:"""
    if len(argument) > LONGEST_CALL:
        raise NotTaken("the call is too long for it")
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _take_up(channel, path, ready_timeout)
        try:
            channel.settimeout(CALL_TIMEOUT)
            channel.sendall(MAGIC + b"%d\n" % len(argument) + argument)
        except OSError as error:
            # Short of its announced length the daemon drops it.
            raise NotTaken(str(error)) from error
        try:
            channel.shutdown(socket.SHUT_WR)
            return _reply(channel)
        except OSError as error:
            raise Lost(f"its reply did not come ({error})") from error
    finally:
        channel.close()


def _take_up(channel: "socket.socket", path: str, timeout: float) -> None:
    try:
        file = os.lstat(path)
        if not stat.S_ISSOCK(file.st_mode) or file.st_uid not in (0, os.geteuid()):
            raise NotTaken(_distrust(path))
        deadline = time.monotonic() + timeout
        channel.settimeout(timeout)
        channel.connect(path)
        # Who listens, whatever the file has become since.
        credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        if int.from_bytes(credentials[4:8], sys.byteorder) not in (0, os.geteuid()):
            raise NotTaken(_distrust(path))
        said = b""
        while len(said) < len(READY):
            channel.settimeout(max(0.001, deadline - time.monotonic()))
            more = channel.recv(len(READY) - len(said))
            if not more:
                break
            said += more
    except OSError as error:
        raise NotTaken(str(error)) from error
    if said != READY:
        raise NotTaken("it is not ready")


def _distrust(path: str) -> str:
    text = f"{path} is no socket of root's daemon; not used"
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
