"""xscontainer-prepare-vm: makes one VM managed, as it has always been called.

With SSH it does what ``xscontainer prepare`` does. With TLS, which engines on Windows are reached by, it takes
certificates that are given, or has some made and hands them to the guest on a CD.
"""

import argparse
import sys
from typing import List, Optional

from xscontainer import __version__, settings
from xscontainer.cli import calling, finding, guarded, handing, preparing
from xscontainer.cli.preparing import Wanted
from xscontainer.reach import SSH, TLS
from xscontainer.settings import Settings

PROGRAM = "xscontainer-prepare-vm"


def main(arguments: "Optional[List[str]]" = None) -> int:
    """Entry point; returns the exit code, as those of ``xscontainer prepare``."""
    options = _parser().parse_args(arguments)
    options.run = _run
    return guarded(PROGRAM, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Prepares a running VM so that its containers are shown and steered. "
                                  "'xscontainer prepare' does the same by the VM's name, and knows more options.")
    parser.add_argument("-v", "--vm", metavar="UUID", required=True, help="uuid (or name) of the VM")
    parser.add_argument("-u", "--username", help="whom to log in as in the VM (mode ssh)")
    parser.add_argument("--mode", choices=(SSH, TLS), default=SSH, help="how its engine is reached (default: ssh)")
    parser.add_argument("--yes", action="store_true", help="ask nothing; trust the SSH host key that is shown")
    parser.add_argument("--fingerprint", metavar="SHA256:...", help="of the VM's SSH host key, instead of being asked")
    parser.add_argument("--password-fd", metavar="N", type=int, help="read the password from this file descriptor")
    parser.add_argument("--address", help="IP address or name, instead of what the guest tools report")
    handing.add_options(parser)
    parser.add_argument("--config", metavar="FILE", help=f"settings file (default: ${settings.ENVIRONMENT_VARIABLE} "
                                                         f"or {settings.DEFAULT_PATH})")
    parser.add_argument("--version", action="version", version=__version__)
    return parser


def _run(options: argparse.Namespace, conf: Settings) -> int:
    handing.check(options)
    with calling.logged_in(conf) as session:
        wishes = {"mode": options.mode}
        if options.address:
            wishes["address"] = options.address
        if options.mode == SSH and options.username:
            wishes["username"] = options.username
        vm = finding.vm(session, options.vm)
        with handing.wishes(session, options, vm) as more:
            return preparing.prepare(session, conf, Wanted(vm, {**wishes, **more}, options.fingerprint, options.yes,
                                                           options.password_fd))


if __name__ == "__main__":
    sys.exit(main())
