"""``xscontainer wipe``: remove the published data of this host's VMs.

The removal of the package runs it, because the lists would become stale. The settings of the VMs and the pool's key
pair stay.
"""

import argparse
from typing import Any

from xscontainer.cli import lookup, plugin_call
from xscontainer.core.vm_record import NULL_REF, VMRecord
from xscontainer.errors import ObjectGone
from xscontainer.settings import Settings
from xscontainer.xapi import pool
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "wipe",
        description="Remove the published data (docker_ps, docker_info, docker_version, xscontainer-status) of this "
                    "host's VMs. Stop xscontainer-monitor first, or it publishes the data again.")
    parser.add_argument("--host", metavar="HOST", help="name or uuid of another host of the pool; needed with --server")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    with plugin_call.logged_in(options, settings) as session:
        if options.host is None:
            plugin_call.only_here(session, "'wipe' without --host", "Name the host with --host.")
            host, _ = pool.this_host(session, settings.daemon.inventory)
        else:
            host = session.xenapi.host.get_by_uuid(lookup.uuid(session, "host", options.host, "host"))
        count = wipe(session, host)
    print(f"Removed the published data of {count} {'VM' if count == 1 else 'VMs'}.")
    return 0


def wipe(session: Session, host: str) -> int:
    """Remove the published keys of a host's VMs; return the number of VMs that had any.

    :param host: its ref.
    :raises XapiError: when XAPI does not answer, or refuses.
    """
    is_coordinator = pool.record(session).coordinator == host
    count = 0
    for vm in VMRecord.all_of(session.xenapi.VM.get_all_records()):
        if not vm.published or not _ours(vm, host, is_coordinator):
            continue
        count += 1
        for key in vm.published:
            try:
                xapi_vm.remove_key(session, vm.ref, key)
            except ObjectGone:
                break
    return count


def _ours(vm: VMRecord, host: str, is_coordinator: bool) -> bool:
    """Return True for a VM that the host is responsible for.

    As in monitoring, a running VM belongs to its host, and a VM that runs on no host to the coordinator.
    """
    return vm.is_guest and (vm.resident_on == host or (vm.resident_on == NULL_REF and is_coordinator))
