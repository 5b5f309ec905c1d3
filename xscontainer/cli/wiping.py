"""``xscontainer wipe``: remove what is published of this host's VMs.

For the moment when the package is removed: nobody would keep the lists true any more. The VMs' settings
and the pool's key pair stay.
"""

import argparse
from typing import Any

from xscontainer.cli import calling
from xscontainer.errors import ObjectGone
from xscontainer.settings import Settings
from xscontainer.vmrecord import NULL_REF, VMRecord
from xscontainer.xapi import pool
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "wipe", help="remove the published lists of this host's VMs",
        description="Removes what the monitor published of the VMs of this host (docker_ps, docker_info, "
                    "docker_version, xscontainer-status). Stop xscontainer-monitor first, or it publishes them again.")
    parser.set_defaults(run=_run)


def _run(_options: argparse.Namespace, settings: Settings) -> int:
    with calling.logged_in(settings) as session:
        count = wipe(session, settings.daemon.inventory)
    print(f"The lists of {count} VMs were removed.")
    return 0


def wipe(session: Session, inventory: str) -> int:
    """Number of VMs from which something was removed.

    :raises XapiError: XAPI does not answer, or refuses.
    """
    this_host, _ = pool.this_host(session, inventory)
    is_coordinator = pool.record(session).coordinator == this_host
    count = 0
    for ref, snapshot in session.xenapi.VM.get_all_records().items():
        vm = VMRecord.from_snapshot(ref, snapshot)
        if not vm.published or not _ours(vm, this_host, is_coordinator):
            continue
        count += 1
        for key in vm.published:
            try:
                xapi_vm.remove_key(session, ref, key)
            except ObjectGone:
                break
    return count


def _ours(vm: VMRecord, this_host: str, is_coordinator: bool) -> bool:
    """As while monitoring: a VM that runs is its host's, one that runs nowhere the coordinator's."""
    return vm.is_guest and (vm.resident_on == this_host or (vm.resident_on == NULL_REF and is_coordinator))
