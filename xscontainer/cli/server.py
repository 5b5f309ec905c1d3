"""Log in to XAPI of another machine: its address, its certificate, and the password."""

import argparse
import functools
import os
import stat
import sys
from typing import Callable, Mapping, Optional

from xscontainer.cli import server_options
from xscontainer.cli.ui import prompts
from xscontainer.cli.ui.columns import neutral
from xscontainer.cli.ui.output import MOST_ERROR, say
from xscontainer.errors import ArgumentError, XapiNotTrusted
from xscontainer.settings import Settings
from xscontainer.xapi import address, known_servers, remote, trust
from xscontainer.xapi.address import Address
from xscontainer.xapi.https import HttpsServer
from xscontainer.xapi.session import Session

Door = Callable[[], Session]


def login(server: str, options: argparse.Namespace, settings: Settings, environ: "Mapping[str, str]") -> Session:
    """Log in at a server as the options and the environment say. Only the first login of a command asks anything.

    :raises ArgumentError: an option is wrong, or a question cannot be asked.
    :raises NotPermitted, XapiUnavailable, XapiError: see :func:`xscontainer.xapi.remote.login`.
    """
    door: Optional[Door] = getattr(options, "server_door", None)
    if door is None:
        user = options.server_user or environ.get(server_options.USER) or server_options.DEFAULT_USER
        endpoint = HttpsServer(address.parse(server), _trust(options, environ))
        door = functools.partial(remote.login, endpoint, user, _password(options, user, server), settings.xapi,
                                 functools.lru_cache(maxsize=None)(_moved))
        options.server_door = door
    return door()


def _moved(member: str, coordinator: str) -> None:
    say(f"xscontainer: The host {member} is not the coordinator of its pool. Going on at {coordinator}.", MOST_ERROR)


# --- the certificate -------------------------------------------------------------------------------


def _trust(options: argparse.Namespace, environ: "Mapping[str, str]") -> trust.Trust:
    if options.server_fingerprint and options.server_ca_file:
        raise ArgumentError("--fingerprint and --ca-file exclude each other.")
    ca_file = options.server_ca_file or environ.get(server_options.CA_FILE)
    if ca_file and not options.server_fingerprint:
        return trust.ByAuthority(ca_file)
    known = known_servers.KnownServers(known_servers.default_path(environ))
    return trust.ByFingerprint(options.server_fingerprint or (), known, confirm)


def confirm(server: Address, fingerprint: str) -> None:
    """Ask a person whether a certificate is that of the server.

    :raises ArgumentError: there is nobody to ask. XapiNotTrusted: the person says no.
    """
    presented = f"XAPI at {server} presents a certificate that is not confirmed yet. Its SHA-256 fingerprint is " \
                f"{fingerprint}."
    if not _can_ask():
        raise ArgumentError(f"{presented} It cannot be confirmed: standard input is not a terminal.",
                            f"{trust.COMPARE}. If they are equal, give it with --fingerprint.")
    # On standard error: standard output is for the command's result.
    say(presented, MOST_ERROR)
    say(f"{trust.COMPARE}.", MOST_ERROR)
    sys.stderr.write("Is this the certificate of the host? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise XapiNotTrusted(f"The certificate of XAPI at {server} was not confirmed. Nothing was sent.",
                             f"{trust.COMPARE}.")


def _can_ask() -> bool:
    # A shell that completes a word runs the command, too, and would hang.
    return sys.stdin.isatty() and "_ARGCOMPLETE" not in os.environ


# --- the password ----------------------------------------------------------------------------------


def _password(options: argparse.Namespace, user: str, server: str) -> remote.Password:
    """Return the password; it is read or asked for only once, also if ``ps --watch`` logs in again."""
    if not hasattr(options, "server_password"):
        options.server_password = _read_password(options, user, server)
    password: remote.Password = options.server_password
    return password


def _read_password(options: argparse.Namespace, user: str, server: str) -> remote.Password:
    if options.server_password_fd is not None and options.server_password_file is not None:
        raise ArgumentError("--password-fd and --password-file exclude each other.")
    if options.server_password_fd is not None:
        return prompts.first_line(options.server_password_fd)
    if options.server_password_file is not None:
        return password_in(options.server_password_file)
    return functools.lru_cache(maxsize=None)(lambda: _asked(user, server))


def _asked(user: str, server: str) -> str:
    import getpass  # here for start-up time, see cli/__init__.py

    if not _can_ask():
        raise ArgumentError(f"The password of {neutral(user)} cannot be asked for: standard input is not a terminal.",
                            "Give it with --password-file or --password-fd, before the command.")
    return getpass.getpass(f"Password of {neutral(user)} at {neutral(server)}: ")


def password_in(path: str) -> str:
    """Return the first line of a file that only its owner may read.

    :raises ArgumentError: other users may read it, or it cannot be read.
    """
    try:
        # O_NONBLOCK: opening a FIFO would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise ArgumentError(f"The password file {path} is not a regular file.")
            if found.st_mode & 0o077 or found.st_uid != os.geteuid():
                raise ArgumentError(f"The password file {path} is not yours alone: its mode is "
                                    f"{stat.S_IMODE(found.st_mode):o}, its owner has the id {found.st_uid}.",
                                    f"Make it yours: chmod 600 {path}. Change the password if others may have read it.")
            return prompts.first_line(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ArgumentError(f"The password file {path} cannot be read: {error.strerror or error}.") from error
