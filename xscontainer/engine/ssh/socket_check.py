"""Ask the guest why the engine's socket cannot be opened.

sshd answers "connect failed" alike for a socket that is absent, that the user may not open, or on which nothing
listens, and in most releases also if forwarding is switched off.
"""

from typing import List, Optional, Tuple

from xscontainer.engine import failures
from xscontainer.engine.ssh import commands, discovery, stand_in
from xscontainer.engine.ssh.discovery import PIPE
from xscontainer.engine.ssh.transport import GuestTransport, KeyLine
from xscontainer.errors import EngineSocketAbsent, EngineStopped, XSContainerError

# Prints in one word what the socket is to the user.
_STATE = ('if [ -S "$1" ]; then if [ -w "$1" ]; then echo usable; else echo denied; fi; exit; fi; '
          'if [ -e "$1" ]; then echo other; exit; fi; dir=$1; '
          'while dir=${dir%/*}; [ -n "$dir" ]; do if [ -d "$dir" ]; then '
          'if [ -x "$dir" ]; then echo absent; else echo unseen; fi; exit; fi; done; echo absent')
# Prints whether the kernel's table of sockets has the path, as given or with links resolved. The table has the path
# that the server gave. Only whole paths are compared, as another engine's socket may have the same file name.
_LISTED = ('real=$(readlink -f "$1" 2>/dev/null || realpath "$1") && [ -n "$real" ] && [ -r /proc/net/unix ] || exit; '
           'grep -F -e "$1" -e "$real" /proc/net/unix | { while read -r a b c d e f g name; do '
           'case $name in "$1"|"$real") echo listed; exit;; esac; done; echo unlisted; }')


def check_socket(transport: GuestTransport, path: str, guessed: bool, deadline: float) -> None:
    """Raise the reason if there is no such socket, or the user may not open it.

    :param guessed: the path was not configured, and there are others to try.
    :raises EngineSocketAbsent, EngineForbidden: the reason.
    :raises ScriptNotRun, ScriptSilent: if the guest does not answer.
    """
    if path.startswith(PIPE):
        return
    user = str(transport.get_username() or "the user")
    state = commands.run(transport, _STATE, path, deadline=deadline).output.strip()
    if state == b"absent":
        raise EngineSocketAbsent(f"There is no {path} in the VM.")
    if state == b"unseen":
        raise discovery.not_for(user, path, unseen=guessed)
    if state == b"other":
        raise EngineSocketAbsent(f"{path} in the VM is not a socket.")
    if state == b"denied":
        raise discovery.not_for(user, path)


def check_outputs(transport: GuestTransport, outputs: "List[Tuple[str, stand_in.Output]]", path: str,
                  deadline: float) -> None:
    """Raise the reason if a program reported one, or if the kernel knows no listener.

    :param outputs: (method, output) of each program that was tried.
    :raises EngineForbidden, EngineStopped: the reason.
    """
    denied, refused = stand_in.complaint(outputs, path)
    if denied:
        raise discovery.not_for(str(transport.get_username() or "the user"), path)
    if refused or (not path.startswith(PIPE) and commands.run(
            transport, _LISTED, path, deadline=deadline).output.strip() == b"unlisted"):
        raise stopped(path)


def stopped(path: str) -> EngineStopped:
    return EngineStopped(f"No engine listens on {path} in the VM.")


def forwarding_hint(line: Optional[KeyLine]) -> str:
    """Return a hint if the options of the pool's key in authorized_keys forbid channels, else ""."""
    if line is None or ("port-forwarding" in line.allows and "permitopen" not in line.allows):
        return ""
    what = ("remove permitopen=" if "permitopen" in line.allows else
            "add port-forwarding behind restrict, or remove no-port-forwarding")
    return (f"Line {line.number} of {failures.words(line.path)} in the VM allows no channel to a socket: {what}. Or "
            "install the docker CLI, socat or ncat in the VM.")


def without_commands(error: XSContainerError, path: str, refusal: str) -> XSContainerError:
    """Return ``error`` (the guest runs no commands) with the reason why a command is needed."""
    return type(error)(f"The VM's SSH server opens no channel to {path} ({refusal}), and no command there can report "
                       f"the reason or connect instead. {error.message}", error.hint)
