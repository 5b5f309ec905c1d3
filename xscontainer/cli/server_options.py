"""The options that name a server: with them a command works from another machine, over HTTPS."""

import argparse
from typing import Any, Mapping, NamedTuple, Optional, Tuple

SERVER, USER, CA_FILE = "XSCONTAINER_SERVER", "XSCONTAINER_USER", "XSCONTAINER_CA_FILE"  # environment variables
DEFAULT_USER = "root"


class _Option(NamedTuple):
    name: str
    dest: str
    metavar: str
    help: str
    more: Mapping[str, Any] = {}


_OPTIONS: Tuple[_Option, ...] = (
    _Option("--server", "server", "HOST[:PORT]",
            f"a host of the pool, to work from another machine (default: ${SERVER}, else XAPI of this host)"),
    _Option("--user", "server_user", "NAME", f"user to log in as there (default: ${USER}, else {DEFAULT_USER})"),
    _Option("--password-fd", "server_password_fd", "N",
            "read that user's password from this file descriptor (default: ask)", {"type": int}),
    _Option("--password-file", "server_password_file", "FILE",
            "read that user's password from this file, which only you may read"),
    _Option("--ca-file", "server_ca_file", "FILE",
            f"check the server's certificate against this file of CA certificates (default: ${CA_FILE}, else its "
            "fingerprint is confirmed once)"),
    _Option("--fingerprint", "server_fingerprint", "SHA256",
            "SHA-256 fingerprint of the server's certificate, instead of the question; may be repeated",
            {"action": "append"}),
)


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options to the parser of the whole command line."""
    group = parser.add_argument_group("from another machine")
    for option in _OPTIONS:
        group.add_argument(option.name, dest=option.dest, metavar=option.metavar, help=option.help, **option.more)


def add_again(parser: argparse.ArgumentParser) -> None:
    """Let a subcommand take the options after its name, unless it has others of these names."""
    for option in _OPTIONS:
        try:
            parser.add_argument(option.name, dest=option.dest, default=argparse.SUPPRESS, help=argparse.SUPPRESS,
                                **option.more)
        except argparse.ArgumentError:
            pass  # for example --user of ``prepare``, which is a user in the VM


def named(options: argparse.Namespace, environ: "Mapping[str, str]") -> "Optional[str]":
    """Return the server that a command line or the environment names; None: XAPI of this host."""
    if not hasattr(options, "server"):  # xscontainer-prepare-vm has no such option
        return None
    return (environ.get(SERVER) if options.server is None else options.server) or None
