"""Read and replace a guest's authorized_keys over an SSH login.

The file is read, checked and changed here (:mod:`.authorized_keys`), and replaced in the guest in one step.
"""

import contextlib
import re
import time
from typing import Iterator, NamedTuple, Type

from xscontainer.engine import failures
from xscontainer.engine.ssh import commands
from xscontainer.engine.ssh.authorized_keys import Circumstances
from xscontainer.engine.ssh.shell import Shell
from xscontainer.errors import (
    ConnectError,
    EngineTimeout,
    GuestSilent,
    KeyInstallFailed,
    KeyNotRemoved,
    ScriptNotRun,
    ScriptSilent,
)

SECONDS = 20.0  # for each command in the guest
FILES = ("authorized_keys", "authorized_keys2")  # of .ssh, where sshd looks for keys if nobody configures it
_WINDOWS_FILES = ("C:\\ProgramData\\ssh\\administrators_authorized_keys for an administrator, else "
                  ".ssh\\authorized_keys of the user's profile")
MOST_FILE = 512 * 1024  # bytes

# Start-up files may have set HOME; sshd uses the home directory of the user's account.
_HOME = ('umask 077; if [ -d "$HOME" ]; then :; else uid=$(id -u); '
         'HOME=$(getent passwd "$uid" 2>/dev/null | cut -d: -f6); '
         'if [ -z "$HOME" ]; then while IFS=: read -r name word number group comment home shell; do '
         'if [ "$number" = "$uid" ]; then HOME=$home; fi; done </etc/passwd; fi; fi; cd "$HOME" || exit 1; ')
# The file may be a link, and so may .ssh.
_FILE = _HOME + ('file=$(readlink -f .ssh/authorized_keys 2>/dev/null); '
                 '[ -n "$file" ] || file=$HOME/.ssh/authorized_keys; ')
# Not every guest has every program.
_SUM = ('sum() { sha256sum <"$file" 2>/dev/null || md5sum <"$file" 2>/dev/null || cksum <"$file"; }; '
        'before=none; if [ -e "$file" ]; then before=$(sum) || exit 1; fi; ')
# The final "." protects line ends at the end of the file.
_READ = _FILE + (
    'if [ -e "$file" ]; then '
    '[ -r "$file" ] || { echo "$file cannot be read by the user $(id -un)"; exit 1; }; '
    f'[ "$(wc -c <"$file")" -le {MOST_FILE} ] || {{ echo "$file has more than {MOST_FILE} bytes"; exit 1; }}; fi; '
    + _SUM + 'echo "$file"; echo "$(date +%Y%m%d%H%M%S) $(date -u +%Y%m%d%H%M%S)"; echo "x $SSH_CONNECTION"; '
    'echo "$before"; if [ -e "$file" ]; then cat "$file" || exit 1; fi; echo .')
# sshd ignores files that others may write to. No other mode bits change.
_MEND = _FILE + 'chmod go-w .ssh "$file"'
# $1: checksum of the file when it was read. $2: size of the new content, which arrives on standard input.
# The new file is made beside the old one, with its mode and owner, and replaces it by a rename. A failure before that
# leaves the old file unchanged. restorecon, where it is installed, sets the SELinux label.
_WRITE = _FILE + (
    'want=$1; size=$2; new=; set -f; quit() { [ -z "$new" ] || rm -f "$new"; exit 1; }; '
    '[ -d .ssh ] || mkdir .ssh || quit; chmod go-w .ssh || quit; '
    + _SUM + '[ "$want" = "$before" ] || { echo "$file changed in the meantime: try again"; quit; }; '
    'new=$(dirname "$file")/.authorized_keys.$$; lock=; '
    'if [ -e "$file" ]; then cp -p "$file" "$new" || quit; '
    'set -- $(ls -ldn "$file"); owner="$3:$4"; case $1 in ??-*) lock=u-w; chmod u+w "$new" || quit;; esac; '
    'set -- $(ls -ldn "$new"); [ "$owner" = "$3:$4" ] || '
    '{ echo "$file belongs to another user or group ($owner), and would not any more"; quit; }; '
    'else : >"$new" || quit; fi; '
    'cat >"$new" || quit; '
    '[ "$(wc -c <"$new")" -eq "$size" ] || { echo "its new content did not arrive whole"; quit; }; '
    'chmod go-w${lock:+,$lock} "$new" || quit; mv -f "$new" "$file" || quit; '
    'if command -v restorecon >/dev/null 2>&1; then restorecon -F .ssh "$file" >/dev/null 2>&1; fi; exit 0')

_CHECKSUM = re.compile(rb"[0-9a-f]+ [ 0-9-]+\Z|none\Z")


class Purpose(NamedTuple):
    """The reason why the file is changed, for messages.

    :ivar failed: class of the error if the guest cannot change the file.
    :ivar operation: as "Installing the pool's key".
    :ivar failure: begins the sentence that says why, before the name of the file.
    :ivar silent: begins the sentence about a guest that does not answer.
    :ivar by_hand: what a person can do instead.
    """

    failed: Type[ConnectError]
    operation: str
    failure: str
    silent: str
    by_hand: str


INSTALL = Purpose(KeyInstallFailed, "Installing the pool's key", "The pool's key could not be written to",
                  "The VM did not install the pool's key",
                  "Put the pool's public key there by hand, then prepare the VM again")
REMOVE = Purpose(KeyNotRemoved, "Removing the pool's key", "The pool's key could not be removed from",
                 "The VM did not remove the pool's key", "Remove the line with the pool's public key by hand")


class KeysFile(NamedTuple):
    """The content of one of the FILES.

    :ivar path: path of the file, with links resolved. :ivar checksum: "none" if there is no file.
    """

    path: str
    checksum: str
    text: bytes
    seen: Circumstances


def refuse_windows(server: str, purpose: Purpose) -> None:
    """Refuse a guest that runs Windows, whose sshd keeps keys in other places.

    :param server: the identification string of the guest's SSH server.
    :raises KeyInstallFailed, KeyNotRemoved: if it is one.
    """
    if "for_Windows" in server:
        raise purpose.failed("The VM runs Windows, whose sshd keeps keys in other places.",
                             f"{purpose.by_hand}: the file is {_WINDOWS_FILES}.")


def read(shell: Shell, purpose: Purpose, seconds: float, name: str = FILES[0]) -> KeysFile:
    """Read a file of .ssh. Errors are those of :func:`translating`."""
    answer = _checked(shell.run(_about(name, _READ), deadline=time.monotonic() + seconds, most=MOST_FILE + 8192),
                      purpose, name)
    try:
        path, clock, connection, checksum, text = answer.output.split(b"\n", 4)
        if not text.endswith(b"."):
            raise ValueError("it is incomplete")
        now, utc = clock.decode("ascii").split()
        client = connection.decode("ascii").split()[1:2] or [shell.own_address]
        if not _CHECKSUM.match(checksum):
            raise ValueError(failures.words(checksum))
        return KeysFile(path.decode("utf-8", "replace"), checksum.decode("ascii"), text[:-1],
                        Circumstances(client[0], now, utc))
    except ValueError as error:
        raise purpose.failed(f"The VM's answer about its {name} cannot be read: {failures.words(error)}.",
                             f"{purpose.by_hand}.") from error


def write(shell: Shell, purpose: Purpose, found: KeysFile, text: bytes, seconds: float, name: str = FILES[0]) -> None:
    """Replace the file that :func:`read` found. Errors are those of :func:`translating`."""
    _checked(shell.run(_about(name, _WRITE), found.checksum, str(len(text)), deadline=time.monotonic() + seconds,
                       data=text), purpose, name)


def mend(shell: Shell, seconds: float) -> None:
    """Remove the mode bits for which sshd ignores the file, as far as the user may."""
    shell.run(_MEND, deadline=time.monotonic() + seconds)


@contextlib.contextmanager
def translating(purpose: Purpose, seconds: float) -> "Iterator[None]":
    """Translate what goes wrong within the block.

    :raises KeyInstallFailed, KeyNotRemoved: if the guest cannot change the file.
    :raises ScriptNotRun, ScriptSilent: if the user runs no commands.
    :raises GuestSilent: if the guest does not answer in time.
    """
    with failures.translating(purpose.operation, failures.SSH_SIDE):
        try:
            yield
        except (ScriptNotRun, ScriptSilent) as error:
            # Once the key is there, no commands are needed if sshd opens channels to the engine's socket.
            by_hand = purpose.by_hand[0].lower() + purpose.by_hand[1:]
            raise type(error)(error.message, f"{error.hint} Or: {by_hand}.") from error
        except EngineTimeout as error:
            raise GuestSilent(f"{purpose.silent} within {seconds:g} s: {error.message}") from error


def _about(name: str, script: str) -> str:
    """Return the script for another file of .ssh than authorized_keys."""
    return script.replace(".ssh/" + FILES[0], ".ssh/" + name)


def _checked(answer: commands.Answer, purpose: Purpose, name: str) -> commands.Answer:
    if answer.status != 0:
        raise purpose.failed(f"{purpose.failure} {name} in the VM: {answer.words or 'the VM gives no reason'}.")
    return answer
