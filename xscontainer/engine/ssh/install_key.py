"""Add a public key to a guest's authorized_keys, or remove it, over an SSH login.

:mod:`.authorized_keys` decides what the file is to contain, and :mod:`.keys_file` changes the file in the guest.
"""

import re
from typing import List, Optional

import paramiko

from xscontainer.engine import failures
from xscontainer.engine.ssh import authorized_keys, keys_file
from xscontainer.engine.ssh.keypair import public_line
from xscontainer.engine.ssh.keys_file import INSTALL, REMOVE, SECONDS
from xscontainer.engine.ssh.shell import Shell
from xscontainer.errors import KeyLineRestricted

_OPENSSH = re.compile(r"SSH-[0-9.]+-OpenSSH_([0-9]+)\.([0-9]+)")


def install(shell: Shell, key: paramiko.PKey, replaced: Optional[paramiko.PKey] = None,
            seconds: float = SECONDS) -> bool:
    """Allow ``key`` to log in as the user of ``shell``. Return False if it already could.

    The key may open channels and run commands, and nothing else if the guest's sshd supports the options for that.

    :param replaced: an older key; the new key gets the options and comments of its lines.
    :param seconds: for each command in the guest.
    :raises KeyLineRestricted: if the key is in lines whose options do not let us in.
    :raises KeyInstallFailed: if the guest cannot change the file.
    :raises ScriptNotRun, ScriptSilent: if the user runs no commands.
    """
    allowed = options(shell.server)
    with keys_file.translating(INSTALL, seconds):
        found = keys_file.read(shell, INSTALL, seconds)
        lines = authorized_keys.of_key(found.text, key.asbytes())
        reasons_by_line = [(line, authorized_keys.refusal(line, found.seen)) for line in lines]
        if lines and all(why for _, why in reasons_by_line):
            reasons = "; ".join(f"line {line.number}: {failures.words(why)}" for line, why in reasons_by_line[:3])
            raise KeyLineRestricted(f"The pool's key is in {failures.words(found.path)} of the user "
                                    f"{shell.user} in the VM, but sshd does not accept it ({reasons}).")
        if lines:
            keys_file.mend(shell, seconds)
            return False
        old = replaced.asbytes() if replaced is not None else None
        keys_file.write(shell, INSTALL, found, authorized_keys.added(
            found.text, public_line(key).encode("ascii"), allowed.encode("ascii"), old), seconds)
    return True


def remove(shell: Shell, *given: paramiko.PKey) -> "List[str]":
    """Remove keys from the files that sshd reads by default. Return the paths of the files that had one.

    Other lines stay byte for byte, and so does a file without one of the keys.

    :raises KeyNotRemoved: if the guest cannot change a file.
    :raises ScriptNotRun, ScriptSilent: if the user runs no commands.
    """
    keys_file.refuse_windows(shell.server, REMOVE)
    changed = []
    with keys_file.translating(REMOVE, SECONDS):
        for name in keys_file.FILES:
            found = keys_file.read(shell, REMOVE, SECONDS, name)
            text = authorized_keys.removed(found.text, *(key.asbytes() for key in given))
            if text != found.text:
                keys_file.write(shell, REMOVE, found, text, SECONDS, name)
                changed.append(found.path)
    return changed


def options(greeting: str) -> str:
    """Return the options that restrict the key in authorized_keys, "" if the server may not know them.

    :param greeting: the identification string of the guest's SSH server.
    :raises KeyInstallFailed: if the guest stores keys in another way.
    """
    keys_file.refuse_windows(greeting, INSTALL)
    version = _OPENSSH.match(greeting)
    if not version:
        return ""  # Dropbear and others ignore a line with an unknown option
    if (int(version.group(1)), int(version.group(2))) >= (7, 2):
        return "restrict,port-forwarding "
    return "no-pty,no-X11-forwarding,no-agent-forwarding "


