"""Where in a guest the engine's socket may be, and what it means that it is nowhere.

A socket that has served is believed in: while its engine restarts or is stopped, another engine of the guest
must not take its place, and its containers that of the others.
"""

import re
import time
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple

from xscontainer.errors import (
    EngineForbidden,
    EngineSocketAbsent,
    EngineStopped,
    EngineUnavailable,
    ForwardingRefused,
    XSContainerError,
)
from xscontainer.reach import DOCKER, PODMAN

DEFAULT = "/var/run/docker.sock"
# What Windows has instead of sockets; sshd there opens no channel to one.
PIPE = "npipe:////./pipe/"
_FIXED = ((PODMAN, "/run/podman/podman.sock"),)
# Of engines that run as the user who logs in.
_OF_USER = ((PODMAN, "/run/user/{uid}/podman/podman.sock"), (DOCKER, "/run/user/{uid}/docker.sock"))

ASK_UID = "id -u"
FAITH_SECONDS = 30.0  # a socket that has served may be absent for so long before others are looked at

_UID = re.compile(r"[0-9]{1,10}\Z")

# Causes at one place that leave hope for another, the most telling first.
PASSING = (ForwardingRefused, EngineForbidden, EngineUnavailable)
_RANKS = (ForwardingRefused, EngineForbidden, EngineStopped, EngineUnavailable)


class Places(NamedTuple):
    """Paths in the guest, in the order in which they are tried.

    :ivar of_user: the same with {uid} for the number of the user who logs in; tried after the others.
    """

    fixed: Tuple[str, ...]
    of_user: Tuple[str, ...] = ()

    @property
    def several(self) -> bool:
        """Whether there is more than one to look at."""
        return len(self.fixed) + len(self.of_user) > 1

    def has(self, path: str) -> bool:
        """Whether it is one of them, for whatever user."""
        patterns = (re.escape(place).replace(re.escape("{uid}"), "[0-9]{1,10}") for place in self.of_user)
        return path in self.fixed or any(re.match(pattern + r"\Z", path) for pattern in patterns)


def places(named: str, engine: str = "", default: str = DEFAULT) -> Places:
    """Where to look.

    :param named: the path that the VM's settings name; "": none.
    :param engine: DOCKER or PODMAN: only this one is wanted; "": either.
    :param default: the path that our own settings name.
    """
    if named:
        return Places((named,))
    # A path that our settings name on purpose may be of either.
    fixed = [default] if engine != PODMAN or default != DEFAULT else []
    fixed += [path for kind, path in _FIXED if engine in ("", kind) and path not in fixed]
    return Places(tuple(fixed), tuple(path for kind, path in _OF_USER if engine in ("", kind)))


def parse_uid(said: str) -> Optional[int]:
    """What ASK_UID printed; None if that is no user's number."""
    # The last word: the user's own start-up files may greet before.
    word = (said.split() or [""])[-1]
    return int(word) if _UID.match(word) and int(word) < 1 << 32 else None


class Unseen(EngineSocketAbsent):
    """Where nobody said that one is, the user may not even look: where podman is installed, that is so, used or not."""


def not_for(user: str, path: str, unseen: bool = False) -> XSContainerError:
    """The user may not open the socket, with what would let this user in.

    :param unseen: nor see whether there is one, and it is a guess of ours that there is.
    """
    if path.startswith(PIPE):
        hint = f"Add {user} to the group 'docker-users' in the VM, or to its administrators."
    elif PODMAN in path:
        hint = (f"Use podman of the user itself: run in the VM, as {user}, 'systemctl --user enable --now "
                f"podman.socket' and 'sudo loginctl enable-linger {user}', then repeat it.")
    else:
        hint = f"Run in the VM: sudo usermod -aG docker {user}. Then repeat it."
    if unseen:
        return Unseen(f"The SSH user may not even look at {path} in the VM.", hint)
    return EngineForbidden(f"The SSH user may not open {path} in the VM.", hint)


class Settled:
    """The socket that has served, and how long it has been absent since. Not thread-safe.

    :ivar path: "" before any has served.
    """

    def __init__(self, path: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._clock = clock
        self._absent_since: Optional[float] = None

    def served(self, path: str) -> None:
        """The engine answered at ``path``."""
        self.path = path
        self._absent_since = None

    def failed(self, error: XSContainerError) -> None:
        """The engine was not reached there; only its socket's absence, if it lasts, ends the belief in it."""
        if not isinstance(error, EngineSocketAbsent):
            self._absent_since = None
        elif self._absent_since is None:
            self._absent_since = self._clock()

    @property
    def believed(self) -> bool:
        """Whether to look nowhere else."""
        since = self._absent_since
        return bool(self.path) and (since is None or self._clock() - since < FAITH_SECONDS)


def verdict(looked: Sequence[Tuple[str, XSContainerError]]) -> XSContainerError:
    """What the causes found at several places (path, error of PASSING) come to."""
    if len(looked) == 1:
        return looked[0][1]
    paths = ", ".join(path for path, _ in looked)
    if all(isinstance(error, EngineSocketAbsent) for _, error in looked):
        message, hint = f"There is no engine's socket in the VM; looked for: {paths}.", ""
        for unseen in [error for _, error in looked if isinstance(error, Unseen)][:1]:
            message, hint = f"{message} {unseen.message}", unseen.hint
        return EngineSocketAbsent(message, hint)
    told: List[XSContainerError] = [error for _, error in looked]
    told.sort(key=lambda error: next(rank for rank, kind in enumerate(_RANKS) if isinstance(error, kind)))
    worst = told[0]
    return type(worst)(f"{worst.message} Looked for: {paths}.", worst.hint)
