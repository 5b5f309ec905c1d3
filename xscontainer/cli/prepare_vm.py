"""The program xscontainer-prepare-vm: make one VM container-managed, with the options that it had in the old pack.

It is a second command line for :func:`xscontainer.cli.prepare_steps.prepare`.
"""

import argparse
import sys
from typing import List, Optional

from xscontainer import settings, version_text
from xscontainer.cli import lookup, plugin_call, prepare_steps, tls_options
from xscontainer.cli.prepare_steps import Request
from xscontainer.cli.program import guarded, orderly_exit
from xscontainer.cli.ui import prompts
from xscontainer.core.target import SSH, TLS
from xscontainer.settings import Settings

PROGRAM = "xscontainer-prepare-vm"


def main(arguments: "Optional[List[str]]" = None) -> int:
    """Run a command line and return its exit code, one of those of ``xscontainer prepare``."""
    with orderly_exit():
        options = parser().parse_args(arguments)
        options.run = _run
        return guarded(PROGRAM, options)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog=PROGRAM, description="Prepare a running VM, so that its containers are listed and controlled. "
                                  "'xscontainer prepare' does the same and has more options.")
    made.add_argument("-v", "--vm", metavar="UUID", required=True, help="uuid or name of the VM")
    made.add_argument("-u", "--username", help="user in the VM to log in as (mode ssh)")
    made.add_argument("--mode", choices=(SSH, TLS), default=SSH, help="how to reach the engine (default: ssh)")
    prompts.add_options(made)
    made.add_argument("--password-fd", metavar="N", type=int, help="read the password from this file descriptor")
    made.add_argument("--address", help="IP address or name of the VM, instead of what the guest tools report")
    tls_options.add_options(made)
    made.add_argument("--config", metavar="FILE", help=f"settings file (default: ${settings.ENVIRONMENT_VARIABLE} "
                                                         f"or {settings.DEFAULT_PATH})")
    made.add_argument("--version", action="version", version=version_text(made.prog),
                      help="print name, version and commit, and exit")
    return made


def _run(options: argparse.Namespace, conf: Settings) -> int:
    tls_options.check(options)
    with plugin_call.logged_in(options, conf) as session:
        arguments = {"mode": options.mode}
        if options.address:
            arguments["address"] = options.address
        if options.mode == SSH and options.username:
            arguments["username"] = options.username
        vm = lookup.vm(session, options.vm)
        with tls_options.arguments(session, options, vm) as certificates:
            return prepare_steps.prepare(session, conf, Request(
                vm, {**arguments, **certificates}, options.fingerprint, options.yes, options.password_fd))


if __name__ == "__main__":
    sys.exit(main())
