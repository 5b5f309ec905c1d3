"""Putting a public key into a guest's authorized_keys, and taking it out again, over an SSH login.

The command line is a constant of plain words that every login shell passes on alike, csh and fish too: it has a
POSIX shell read one line, the script below, and run it. What the script works on follows on standard input.
"""

import re
import socket
import time
from typing import Tuple

import paramiko

from xscontainer.engine import failures
from xscontainer.engine.keypair import public_line
from xscontainer.engine.transport import GuestTransport
from xscontainer.errors import EngineTimeout, GuestSilent, KeyInstallFailed

# `read` takes no byte beyond the line's end, so the rest of standard input is the script's.
COMMAND = "exec /bin/sh -c 'IFS= read -r program && eval \"$program\"'"
SECONDS = 20.0  # for all that the guest does about it
MOST_OUTPUT = 16384  # bytes; a guest's shell start-up files may talk, too

# Every line closes itself with a semicolon, for the guest gets it as one.
#
# * The file may be a link, and so may .ssh: the new file is made beside the old one and takes its place, its mode and
#   its owner. Whatever goes wrong before that leaves the old file as it is.
# * A key counts as there only where it counts for sshd: not in a comment.
# * sshd ignores files that others may write to. Nothing else is changed in modes that are there.
# * The label that SELinux wants is given by restorecon, where that is installed.
_SCRIPT = r"""
LC_ALL=C; export LC_ALL; PATH="$PATH:/usr/bin:/bin:/usr/sbin:/sbin"; umask 077; new=;
quit() { test -z "$new" || rm -f "$new"; exit 1; };
IFS= read -r action; IFS= read -r options; IFS= read -r kind; IFS= read -r blob;
cd "$HOME" || quit;
if test "$action" = add; then test -d .ssh || mkdir .ssh || quit; chmod go-w .ssh || quit; fi;
file=$(readlink -f .ssh/authorized_keys 2>/dev/null); test -n "$file" || file=.ssh/authorized_keys;
there=absent;
if test -e "$file"; then
test -r "$file" || { echo "$file cannot be read" >&2; quit; };
sed -e "/^[[:space:]]*#/d" "$file" | grep -F -e "$blob" >/dev/null && there=present;
fi;
if test "$action:$there" = add:present; then chmod go-w "$file"; echo "xscontainer-key: present"; exit 0; fi;
if test "$action:$there" = remove:absent; then echo "xscontainer-key: absent"; exit 0; fi;
new=$(dirname "$file")/.authorized_keys.$$;
if test -e "$file"; then cp -p "$file" "$new" || quit; else : >"$new" || quit; fi;
chmod go-w "$new" || quit;
if test "$action" = add; then
if test -n "$(tail -c 1 "$new")"; then echo >>"$new" || quit; fi;
echo "$options$kind $blob xscontainer" >>"$new" || quit; did=installed;
else
sed -e "/^[[:space:]]*#/b" -e "\|$blob|d" "$file" >"$new" || quit; did=removed;
fi;
mv -f "$new" "$file" || quit;
if command -v restorecon >/dev/null 2>&1; then restorecon -F .ssh "$file" >/dev/null 2>&1; fi;
echo "xscontainer-key: $did";
"""
_PROGRAM = " ".join(_SCRIPT.split("\n")).strip()
_OUTCOME = re.compile(rb"^xscontainer-key: (installed|present|removed|absent)\r?$", re.MULTILINE)

_OPENSSH = re.compile(r"SSH-[0-9.]+-OpenSSH_([0-9]+)\.([0-9]+)")
_BY_HAND = "Put the pool's public key there by hand, then prepare the VM again"


def install(transport: GuestTransport, key: paramiko.PKey) -> bool:
    """Let ``key`` log in as the user whom ``transport`` is logged in as; False if it could already.

    It may open connections and run commands, and nothing else where the guest's sshd knows how to say so.

    :raises KeyInstallFailed: in the guest's words.
    """
    return _run(transport, "add", key) == "installed"


def remove(transport: GuestTransport, key: paramiko.PKey) -> bool:
    """Take ``key`` out again; False if it was not there.

    :raises KeyInstallFailed: in the guest's words.
    """
    return _run(transport, "remove", key) == "removed"


def options(greeting: str) -> str:
    """What to restrict the key with in authorized_keys, for the sshd that greets so.

    :raises KeyInstallFailed: the guest is one where keys are kept in another way.
    """
    if "for_Windows" in greeting:
        raise KeyInstallFailed(
            "The VM runs Windows, whose sshd keeps keys in other places.",
            f"{_BY_HAND}: into C:\\ProgramData\\ssh\\administrators_authorized_keys for an administrator, else into "
            ".ssh\\authorized_keys of the user's profile.")
    version = _OPENSSH.match(greeting)
    if not version:
        return ""  # Dropbear and others; a word that one does not know makes it pass over the line
    if (int(version.group(1)), int(version.group(2))) >= (7, 2):
        return "restrict,port-forwarding "
    return "no-pty,no-X11-forwarding,no-agent-forwarding "


def _run(transport: GuestTransport, action: str, key: paramiko.PKey) -> str:
    kind, blob = public_line(key).split()
    lines = (_PROGRAM, action, options(transport.remote_version), kind, blob)
    data = "".join(line + "\n" for line in lines).encode("ascii")
    with failures.translating("Installing the pool's key", failures.SSH_SIDE):
        try:
            said, complained = _converse(transport, data, time.monotonic() + SECONDS)
        except paramiko.ChannelException as error:
            raise KeyInstallFailed(f"The VM runs no commands for this user ({failures.words(error.text)}).",
                                   f"{_BY_HAND}.") from error
        except (socket.timeout, EngineTimeout) as error:
            raise GuestSilent(f"The VM did not install the pool's key within {SECONDS:g} s.") from error
    outcome = _OUTCOME.search(said)
    if outcome is None:
        words = failures.words((complained.strip() or said.strip())[-600:] or "it says nothing")
        raise KeyInstallFailed(f"The pool's key could not be written to authorized_keys in the VM: {words}.")
    return outcome.group(1).decode("ascii")


def _converse(transport: GuestTransport, data: bytes, deadline: float) -> Tuple[bytes, bytes]:
    """What the script says on standard output and standard error, each up to a bound."""
    channel = transport.execute(COMMAND, deadline)
    try:
        # Not sendall: it begins anew to wait with each byte that the guest deigns to take.
        while data:
            channel.settimeout(max(0.001, deadline - time.monotonic()))
            data = data[channel.send(data):]
        channel.shutdown_write()
        heard = []
        for receive in (channel.recv, channel.recv_stderr):
            said = b""
            while len(said) < MOST_OUTPUT:
                channel.settimeout(max(0.001, deadline - time.monotonic()))
                piece = receive(MOST_OUTPUT)
                if not piece:
                    break
                said += piece
            heard.append(said)
        return heard[0], heard[1]
    finally:
        channel.close()
