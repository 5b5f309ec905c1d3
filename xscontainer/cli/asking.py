"""What a person is asked: whether a host key is the VM's, and a password. Neither is ever an argument."""

import getpass
import os
import sys
from typing import Any, Dict, Optional

from xscontainer.cli.columns import neutral
from xscontainer.errors import ArgumentError, HostKeyChanged
from xscontainer.fingerprint import compare_hint

MOST_PASSWORD = 4096  # bytes


def add_options(parser: Any) -> None:
    parser.add_argument("--fingerprint", metavar="SHA256:...",
                        help="of the VM's SSH host key, as its console shows it (ssh-keygen -l); no question is asked")
    parser.add_argument("--yes", action="store_true", help="ask nothing: the host key that is shown is the VM's")


def confirmed(shown: "Dict[str, Any]", fingerprint: Optional[str], yes: bool) -> str:
    """The fingerprint of the key shown, when it is known to be the VM's or a person says so.

    :param shown: what hostkey_show answers.
    :raises ArgumentError: nobody says so. HostKeyChanged: it is not the one expected.
    """
    told, kind = str(shown["fingerprint"]), str(shown["type"])
    where = neutral(str(shown["address"]))
    print(f"The SSH server at {where} shows the host key {neutral(kind)} {neutral(told)}.")
    if fingerprint is not None:
        if fingerprint.rstrip("=") != told:
            raise HostKeyChanged(f"That is not the key with the fingerprint {fingerprint}.", f"{compare_hint(kind)}.")
        return told
    if yes:
        return told
    if not sys.stdin.isatty():
        raise ArgumentError("Nobody is there to confirm the host key.", "Give --fingerprint, or --yes to trust it.")
    print(compare_hint(kind))
    if input("Is this the VM's key? [y/N] ").strip().lower() not in ("y", "yes"):
        raise ArgumentError("The host key was not confirmed; nothing was changed.")
    return told


def password(user: str, descriptor: Optional[int]) -> str:
    """From a file descriptor up to its first newline, or from the terminal.

    :raises ArgumentError: there is neither.
    """
    if descriptor is None:
        if not sys.stdin.isatty():
            raise ArgumentError("A password is needed, and nobody is there to ask.",
                                "Give one with --password-fd, or use 'xscontainer prepare --agent'.")
        return getpass.getpass(f"Password of {neutral(user)} in the VM: ")
    given = b""
    try:
        while len(given) <= MOST_PASSWORD and b"\n" not in given:
            piece = os.read(descriptor, MOST_PASSWORD)
            if not piece:
                break
            given += piece
    except OSError as error:
        raise ArgumentError(f"The file descriptor {descriptor} cannot be read: {error.strerror}.") from error
    try:
        return given.split(b"\n")[0].rstrip(b"\r").decode("utf-8")
    except UnicodeDecodeError as error:
        raise ArgumentError("The password is not in UTF-8.") from error
