"""Questions to a person: whether a host key is the VM's, and a password. Neither is ever an argument in argv."""

import getpass
import os
import sys
from typing import Any, Dict, Optional

from xscontainer.cli.ui.columns import neutral
from xscontainer.core.fingerprint import compare_hint
from xscontainer.errors import ArgumentError, HostKeyChanged

MOST_PASSWORD = 4096  # bytes


def add_options(parser: Any) -> None:
    parser.add_argument("--fingerprint", metavar="SHA256:...",
                        help="fingerprint of the VM's SSH host key, instead of the question; 'ssh-keygen -l' on the "
                             "VM's console prints it")
    parser.add_argument("--yes", action="store_true", help="do not ask: trust the SSH host key that the VM presents")


def confirmed(shown: "Dict[str, Any]", fingerprint: Optional[str], yes: bool) -> str:
    """Print the presented host key, have it confirmed and return its fingerprint.

    :param shown: answer of hostkey_show.
    :param fingerprint: the expected one; None: ask.
    :param yes: confirm without a question.
    :raises ArgumentError: when nobody confirms the key.
    :raises HostKeyChanged: when it is not the expected key.
    """
    presented, kind = str(shown["fingerprint"]), str(shown["type"])
    where = neutral(str(shown["address"]))
    print(f"The SSH server at {where} presents the host key {neutral(kind)} {neutral(presented)}.")
    for other in shown.get("claimed_by", ()):
        claim = "has the same host key" if other["pinned"] else "reports the same address"
        print(f"The running VM {neutral(repr(other['name']))} ({neutral(str(other['uuid']))}) {claim}.")
    if fingerprint is not None:
        if fingerprint.rstrip("=") != presented:
            raise HostKeyChanged(f"The SSH server at {where} presents another host key than {fingerprint}.",
                                 f"{compare_hint(kind)}.")
        return presented
    if yes:
        return presented
    if not sys.stdin.isatty():
        raise ArgumentError("The host key cannot be confirmed: standard input is not a terminal.",
                            "Give --fingerprint, or --yes to trust the key.")
    print(compare_hint(kind))
    try:
        answer = input("Is this the VM's key? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise ArgumentError("The host key was not confirmed. Nothing was changed.")
    return presented


def password(user: str, descriptor: Optional[int], where: str = "the VM") -> str:
    """Read a password from a file descriptor up to its first newline, or from the terminal.

    :param user: user in the VM.
    :param where: names of the VMs.
    :raises ArgumentError: when there is no terminal, or the descriptor cannot be read.
    """
    if descriptor is None:
        if not sys.stdin.isatty():
            raise ArgumentError("The password cannot be asked for: standard input is not a terminal.",
                                "Give it with --password-fd, or use 'xscontainer prepare --agent'.")
        return getpass.getpass(f"Password of {neutral(user)} in {neutral(where)}: ")
    return first_line(descriptor)


def first_line(descriptor: int) -> str:
    """Read a password from a file descriptor, up to its first newline.

    :raises ArgumentError: the descriptor cannot be read, or has no UTF-8 text.
    """
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
        raise ArgumentError("The password is not UTF-8 text.") from error
