"""The base of all errors, the errors of calls and settings, and how foreign exceptions are described."""

import errno
import math
from typing import List, Optional, Sequence, Set

from xscontainer.sanitize import line

MOST_MESSAGE = 4000  # characters of a message, and of a hint

# Error code -> (what happened, what to do). The plugin's own process raises these; it imports no module of ours.
PLUGIN_CODES = {
    "PLUGIN_INCOMPLETE": ("A part of the installation is missing on the host that was called.",
                          "Install the supplemental pack again."),
    "DAEMON_LOST": ("The daemon accepted the call but sent no reply. The action may have been carried out.",
                    "Check xscontainer-monitor and its log on the host that was called."),
}


def cause(error: BaseException) -> str:
    """Return what an exception says, for a message to a person: without a full stop and without the class's name.

    An exception without a text of its own is described by its kind.
    """
    said = str(error).strip().rstrip(".")
    if said and not isinstance(error, (TypeError, LookupError, AttributeError, RecursionError)):
        return said
    return next(words for kinds, words in _DESCRIPTIONS if isinstance(error, kinds))


# The first match counts. Python's own texts of the last ones name its types, which say nothing to a person.
_DESCRIPTIONS = (
    ((EOFError, ConnectionError), "the connection ended"),
    (MemoryError, "there is not enough memory"),
    (OSError, "it took too long"),
    ((KeyboardInterrupt, SystemExit), "it was interrupted"),
    (BaseException, "it has an unexpected form"),
)


class XSContainerError(Exception):
    """Base of all errors of xscontainer.

    :param message: a sentence for a person: what failed, on which VM and address, why.
    :param hint: what to do next, as a sentence; "" for the hint of the class.

    The other class attributes are traits: callers decide by them what to do about an error.

    :cvar transient: the error may clear up by itself within seconds, so a list that was right is kept for
        ``stale_after``. Other errors replace it immediately.
    :cvar during_setup: the error is normal while the VM boots or while somebody sets up its engine. A call that waits
        for the engine tries again.
    :cvar moved: the VM or disk is on another host by now and nothing was changed: the call is routed again.
    """

    code = "XSCONTAINER_ERROR"
    default_hint = ""
    transient = False
    during_setup = False
    moved = False

    def __init__(self, message: str, hint: str = "") -> None:
        # Messages quote guests and other_config: line breaks and invisible characters are removed.
        self.message = line(message, MOST_MESSAGE)
        self.hint = line(hint or self.default_hint, MOST_MESSAGE)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    def description(self) -> List[str]:
        """Return the ErrorDescription of the XAPI failure that carries this error: [code, sentences]."""
        return [self.code, str(self)]


class SettingsError(XSContainerError):
    """The settings file cannot be read, or a value in it is not allowed."""

    code = "SETTINGS_INVALID"


class SocketUnusable(XSContainerError):
    """The daemon cannot listen on its socket: another daemon uses it, or other users may write to its directory."""

    code = "SOCKET_UNUSABLE"


class HostExhausted(XSContainerError):
    """The host gives the daemon no more file descriptors, threads or memory."""

    code = "HOST_EXHAUSTED"
    transient = True
    default_hint = ("Repeat the call in a minute. If this continues, raise LimitNOFILE or TasksMax of "
                    "xscontainer-monitor ('systemctl edit xscontainer-monitor'), or end other programs on the host.")


class ArgumentError(XSContainerError):
    """An argument is missing or malformed or names a template or snapshot, or a key in other_config is invalid."""

    code = "ARGUMENT_INVALID"


class NotFound(ArgumentError):
    """No VM or container of the pool has the name that was given on the command line."""

    code = "NOT_FOUND"


class Ambiguous(ArgumentError):
    """Several VMs or containers of the pool match the name that was given on the command line.

    :ivar candidates: one line for each of them, with its host and uuid.
    """

    code = "AMBIGUOUS"

    def __init__(self, message: str, hint: str = "", candidates: Sequence[str] = ()) -> None:
        super().__init__(message, hint)
        self.candidates = tuple(line(candidate, MOST_MESSAGE) for candidate in candidates)


class NotPermitted(XSContainerError):
    """The caller's role does not allow the function."""

    code = "NOT_PERMITTED"
    default_hint = ("Call it as a user with that role through host.call_plugin, or with the command 'xscontainer' on "
                    "a host.")


class CalledOff(XSContainerError):
    """A client cancelled the task."""

    code = "CALLED_OFF"


class Busy(XSContainerError):
    """Too many calls are being served. Nothing was done.

    :param seconds: after which to repeat the call; a third element of the description.
    """

    code = "BUSY"

    def __init__(self, message: str, hint: str = "", seconds: float = 0.0) -> None:
        self.seconds = math.ceil(seconds)
        super().__init__(message, hint or (f"Repeat the call in {self.seconds} s." if seconds else ""))

    def description(self) -> List[str]:
        return super().description() + ([str(self.seconds)] if self.seconds else [])


class FollowLost(XSContainerError):
    """The log is not followed with this token any more.

    Nobody asked for its lines for 30 s, the VM moved to another host, or xscontainer-monitor was started again.
    """

    code = "FOLLOW_LOST"
    default_hint = "Follow the log again, with the time of the last line as 'since'."


class FollowUnavailable(XSContainerError):
    """A log cannot be followed, because xscontainer-monitor does not run on the VM's host."""

    code = "FOLLOW_UNAVAILABLE"
    default_hint = ("Start xscontainer-monitor on the VM's host ('systemctl start xscontainer-monitor'), or read the "
                    "log without following it.")


def shortage(error: Optional[BaseException]) -> Optional[HostExhausted]:
    """Return a HostExhausted if an exception, or one that it was raised from, means that; else None."""
    seen: Set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, HostExhausted):
            return error
        resource = _RESOURCES.get(error.errno or 0, "") if isinstance(error, OSError) else ""
        if type(error) is RuntimeError and "start new thread" in str(error):
            resource = "threads"
        if resource:
            return HostExhausted(f"The xscontainer daemon on this host cannot get any more {resource}.")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


_RESOURCES = {errno.EMFILE: "file descriptors", errno.ENFILE: "file descriptors", errno.ENOMEM: "memory",
              errno.ENOBUFS: "memory for connections"}
