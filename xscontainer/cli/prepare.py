"""``xscontainer prepare``: make VMs container-managed that only their owners can log in to."""

import argparse
from typing import Any

from xscontainer.cli import lookup, plugin_call, prepare_several, prepare_steps, tls_options
from xscontainer.cli.prepare_steps import NOT_LISTED, Request
from xscontainer.cli.ui import prompts
from xscontainer.core.target import DOCKER, PODMAN, SSH, TLS
from xscontainer.settings import Settings


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "prepare",
        description="Log in to running VMs once, by password or SSH agent, and install the pool's SSH key. Then check "
                    "that the engine answers and turn on container management. It is safe to repeat the command. "
                    "Several VMs are prepared at once, after all questions; one that fails does not stop the others.",
        epilog=f"Exit codes: 0 the containers are listed, {NOT_LISTED} the VM is prepared but no list is published "
               "yet; the others as for every command.")
    parser.add_argument("vms", metavar="VM", nargs="+", help="name, uuid, or unique beginning of either")
    parser.add_argument("-u", "--user", help="user in the VM to log in as")
    parser.add_argument("--mode", choices=(SSH, TLS),
                        help="how to reach the engine (default: the VM's xscontainer-mode, else ssh)")
    parser.add_argument("--address", help="IP address or name of the VM, instead of what the guest tools report")
    parser.add_argument("--port", help="TCP port of the VM's SSH server, or of its engine with --mode tls")
    parser.add_argument("--engine", choices=(DOCKER, PODMAN), help="engine to use if the VM has both")
    parser.add_argument("--engine-socket", metavar="PATH",
                        help="path of the engine's socket in the VM, if it is not one of the usual ones")
    prompts.add_options(parser)
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--password-fd", metavar="N", type=int, help="read the password from this file descriptor")
    ways.add_argument("--agent", action="store_true",
                      help="log in with the keys of your SSH agent; only on the host where the VM runs")
    tls_options.add_options(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    tls_options.check(options)
    given = prepare_steps.given(options)
    prepare_steps.check_arguments(given, settings)
    with plugin_call.logged_in(options, settings) as session:
        if options.agent:
            plugin_call.only_here(session, "--agent", "Use a password, or log in to the VM's host with ssh -A and run "
                                                      "the command there.")
        if len(options.vms) > 1:
            vms = lookup.vms(session, options.vms)
            if len(vms) > 1:
                return prepare_several.run(session, options, settings, vms)
        vm = lookup.vm(session, options.vms[0])
        with tls_options.arguments(session, options, vm) as certificates:
            return prepare_steps.prepare(session, settings, Request(
                vm, {**given, **certificates}, options.fingerprint, options.yes, options.password_fd, options.agent))
