"""The paths of an engine's socket in a guest, and the error to report if none of them works.

Once a socket has worked, keep using it: while its engine restarts or is stopped, another engine of the same guest must
not take its place in the VM's list.
"""

import re
import time
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple

from xscontainer.core.target import DOCKER, PODMAN
from xscontainer.errors import (
    EngineForbidden,
    EngineSocketAbsent,
    EngineStopped,
    EngineUnavailable,
    ForwardingRefused,
    XSContainerError,
)

DEFAULT = "/var/run/docker.sock"
# The prefix of named pipes, which Windows has instead of sockets. sshd there opens no channels to them.
PIPE = "npipe:////./pipe/"
_FIXED = ((PODMAN, "/run/podman/podman.sock"),)
# Sockets of engines that run as the user who logs in.
_OF_USER = ((PODMAN, "/run/user/{uid}/podman/podman.sock"), (DOCKER, "/run/user/{uid}/docker.sock"))

UID_SCRIPT = "id -u"
KEEP_SECONDS = 30.0  # how long a socket that has worked may be absent before other sockets are tried

_UID = re.compile(rb"\s*([0-9]{1,10})\s*\Z")

# Errors at one socket after which the next socket is tried; the one to report if all fail comes first.
TRY_NEXT = (ForwardingRefused, EngineForbidden, EngineUnavailable)
_RANKS = (ForwardingRefused, EngineForbidden, EngineStopped, EngineUnavailable)


class Places(NamedTuple):
    """Paths in the guest, in the order in which they are tried.

    :ivar of_user: paths with {uid} for the uid of the user who logs in; tried after the others.
    """

    fixed: Tuple[str, ...]
    of_user: Tuple[str, ...] = ()

    @property
    def several(self) -> bool:
        """True if there is more than one path."""
        return len(self.fixed) + len(self.of_user) > 1

    def has(self, path: str) -> bool:
        """Return whether ``path`` is one of the paths, for any uid."""
        patterns = (re.escape(place).replace(re.escape("{uid}"), "[0-9]{1,10}") for place in self.of_user)
        return path in self.fixed or any(re.match(pattern + r"\Z", path) for pattern in patterns)


def places(named: str, engine: str = "", default: str = DEFAULT) -> Places:
    """Return where to look for the engine's socket.

    :param named: the path that the VM's other_config names; "": none.
    :param engine: DOCKER or PODMAN if only that engine is wanted; "": either.
    :param default: the path in the settings file.
    """
    if named:
        return Places((named,))
    # If the settings file names another path than DEFAULT, either engine may use it.
    fixed = [default] if engine != PODMAN or default != DEFAULT else []
    fixed += [path for kind, path in _FIXED if engine in ("", kind) and path not in fixed]
    return Places(tuple(fixed), tuple(path for kind, path in _OF_USER if engine in ("", kind)))


def parse_uid(output: bytes) -> Optional[int]:
    """Return the uid that UID_SCRIPT printed; None if it printed something else."""
    found = _UID.match(output)
    return int(found.group(1)) if found and int(found.group(1)) < 1 << 32 else None


class Unseen(EngineSocketAbsent):
    """The user may not look into the directory of a socket that nobody configured.

    The directory exists wherever podman is installed, whether it is used or not.
    """


def not_for(user: str, path: str, unseen: bool = False) -> XSContainerError:
    """Return the error for a socket that the user may not open, with what would allow it.

    :param unseen: the user cannot see either whether the socket exists, and its path is our guess.
    """
    if path.startswith(PIPE):
        hint = f"Add {user} to the group 'docker-users' in the VM, or to its administrators."
    elif PODMAN in path:
        hint = (f"Use a Podman of the user: run in the VM, as {user}, 'systemctl --user enable --now "
                f"podman.socket' and 'sudo loginctl enable-linger {user}', then try again.")
    else:
        hint = f"Run in the VM: sudo usermod -aG docker {user}. Then try again."
    if unseen:
        return Unseen(f"The SSH user {user} may not look into the directory of {path} in the VM.", hint)
    return EngineForbidden(f"The SSH user {user} may not open {path} in the VM.", hint)


class KnownSocket:
    """The socket that worked last, and how long it has been absent since. Not thread-safe.

    :param keep_seconds: how long it may be absent before other sockets are tried.
    :ivar path: "" before any socket worked.
    """

    def __init__(self, path: str = "", clock: Callable[[], float] = time.monotonic,
                 keep_seconds: float = KEEP_SECONDS) -> None:
        self.path = path
        self.keep_seconds = keep_seconds
        self._clock = clock
        self._absent_since: Optional[float] = None

    def worked(self, path: str) -> None:
        """Remember that the engine answered at ``path``."""
        self.path = path
        self._absent_since = None

    def failed(self, error: XSContainerError) -> None:
        """Note an error at the socket. Only an absent socket is given up, after ``keep_seconds``."""
        if not isinstance(error, EngineSocketAbsent):
            self._absent_since = None
        elif self._absent_since is None:
            self._absent_since = self._clock()

    @property
    def kept(self) -> bool:
        """True if no other socket must be tried."""
        since = self._absent_since
        return bool(self.path) and (since is None or self._clock() - since < self.keep_seconds)


def summary(failures: Sequence[Tuple[str, XSContainerError]]) -> XSContainerError:
    """Return one error for the errors (of TRY_NEXT) at several paths.

    :param failures: (path, error) of each.
    """
    if len(failures) == 1:
        return failures[0][1]
    paths = ", ".join(path for path, _ in failures)
    if all(isinstance(error, EngineSocketAbsent) for _, error in failures):
        message, hint = f"There is no engine's socket in the VM. Looked for: {paths}.", ""
        for unseen in [error for _, error in failures if isinstance(error, Unseen)][:1]:
            message, hint = f"{message} {unseen.message}", unseen.hint
        return EngineSocketAbsent(message, hint)
    ranked: List[XSContainerError] = [error for _, error in failures]
    ranked.sort(key=lambda error: next(rank for rank, kind in enumerate(_RANKS) if isinstance(error, kind)))
    worst = ranked[0]
    return type(worst)(f"{worst.message} Looked for: {paths}.", worst.hint)
