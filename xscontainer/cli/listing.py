"""``xscontainer list``: pool -> host -> VM -> container, as a table or as JSON."""

import argparse
import json
import shutil
import sys
from typing import Any, Dict, Iterator, Optional

from xscontainer import xmlform
from xscontainer.cli import calling
from xscontainer.cli.columns import Line, Note, Row, lay_out
from xscontainer.cli.inventory import VM, Host, Pool, read
from xscontainer.errors import ArgumentError
from xscontainer.settings import Settings

HEADER = ("POOL / HOST / VM / CONTAINER", "STATUS", "IMAGE", "ACTIONS", "REMARK")


def add(commands: Any) -> None:
    """The subcommand's part of the command line; ``commands`` are argparse's subparsers."""
    parser = commands.add_parser(
        "list", help="pool, hosts, VMs and their containers",
        description="Shows what is published of the pool's containers, from any host of the pool.")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--host", metavar="HOST", help="this host only (name or uuid)")
    parser.add_argument("--vm", metavar="VM", help="this VM only (name or uuid), whether it is registered or not")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Print the list; raises XapiError, and ArgumentError for a host or VM that does not exist."""
    with calling.logged_in(settings) as session:
        pool = narrow(read(session, every_vm=options.vm is not None), options.host, options.vm)
    if options.json:
        text = json.dumps(as_json(pool), indent=2) + "\n"
    else:
        text = as_table(pool, shutil.get_terminal_size().columns if sys.stdout.isatty() else None)
    # A terminal that cannot show a letter gets a question mark: a name is no reason to fail.
    encoding = sys.stdout.encoding or "ascii"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    return 0


def narrow(pool: Pool, host: Optional[str], vm: Optional[str]) -> Pool:
    """Only that host and that VM, by name or uuid; several may share a name.

    :raises ArgumentError: there is none.
    """
    def named(item: Any, wanted: str) -> bool:
        return bool(item.name == wanted or item.uuid == wanted.lower())

    if host is not None:
        hosts = tuple(item for item in pool.hosts if named(item, host))
        if not hosts:
            raise ArgumentError(f"The pool has no host {host!r}.", "Give its name or its uuid.")
        pool = pool._replace(hosts=hosts, vms=())
    if vm is not None:
        hosts = tuple(item._replace(vms=tuple(one for one in item.vms if named(one, vm))) for item in pool.hosts)
        pool = pool._replace(hosts=tuple(item for item in hosts if item.vms),
                             vms=tuple(one for one in pool.vms if named(one, vm)))
        if not pool.hosts and not pool.vms:
            where = "the pool" if host is None else f"host {host!r}"
            raise ArgumentError(f"There is no VM {vm!r} on {where}.", "Give its name or its uuid.")
    return pool


# --- for people --------------------------------------------------------------


def as_table(pool: Pool, width: Optional[int] = None) -> str:
    """:param width: columns of the terminal; None: as wide as it takes."""
    return lay_out(list(_lines(pool)), width)


def _lines(pool: Pool) -> "Iterator[Line]":
    yield Row(0, HEADER)
    yield Row(0, (pool.name or pool.uuid,))
    for host in pool.hosts:
        yield Row(2, (host.name, "coordinator" if host.is_coordinator else ""))
        for vm in host.vms:
            yield from _vm_lines(vm)
    if pool.vms:
        yield Row(2, ("(on no host)",))
        for vm in pool.vms:
            yield from _vm_lines(vm)
    if not pool.vms and not any(host.vms for host in pool.hosts):
        yield Note(2, "No VM here is registered for container management.")


def _vm_lines(vm: VM) -> "Iterator[Line]":
    yield Row(4, (vm.name or vm.uuid, vm.power_state, f"Engine {vm.engine}" if vm.engine else ""))
    if vm.problem is not None:
        yield Note(6, f"{vm.problem.code}: {vm.problem.message}")
    for container in vm.containers:
        remark = ", ".join(dict.fromkeys(filter(None, (container.health, container.reason))))
        yield Row(6, (container.name, container.status, container.image, " ".join(container.actions), remark))
    if vm.left_out:
        yield Note(6, f"and {vm.left_out} more, for which there was no room")


# --- for programs ------------------------------------------------------------


def as_json(pool: Pool) -> "Dict[str, Any]":
    """Plain dicts and lists. The names in it are part of the interface: scripts read them."""
    return {"pool": {
        "uuid": pool.uuid,
        "name": pool.name,
        "hosts": [_host_json(host) for host in pool.hosts],
        "vms_on_no_host": [_vm_json(vm) for vm in pool.vms],
    }}


def _host_json(host: Host) -> "Dict[str, Any]":
    return {
        "uuid": host.uuid,
        "name": host.name,
        "address": host.address,
        "coordinator": host.is_coordinator,
        "vms": [_vm_json(vm) for vm in host.vms],
    }


def _vm_json(vm: VM) -> "Dict[str, Any]":
    return {
        "uuid": vm.uuid,
        "name": vm.name,
        "power_state": vm.power_state,
        "monitored": vm.monitored,
        "engine": {"version": vm.engine, "api_version": vm.api_version} if vm.engine else None,
        "problem": dict(vm.problem._asdict()) if vm.problem else None,
        "containers": xmlform.as_json(vm.containers),
        "left_out": vm.left_out,
    }
