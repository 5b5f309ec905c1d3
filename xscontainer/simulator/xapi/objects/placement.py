"""The choice of the host on which a VM starts."""

from xscontainer.simulator.xapi.database.row import Row
from xscontainer.simulator.xapi.objects import drives
from xscontainer.simulator.xapi.state.pool_data import PoolData
from xscontainer.simulator.xapi.wire.failures import XapiError


def choose_host(pool: PoolData, vm: Row) -> Row:
    """Return the VM's affinity host, else of the hosts that are up and have its storage the one with the fewest VMs."""
    if pool.placement is not None:
        return pool.placement(vm)
    wanted = pool.host_of(vm["affinity"])
    up = [host for host in pool.hosts if host.up and not drives.missing_sr(pool, vm, host.ref)]
    if wanted in up:
        up = [host for host in up if host is wanted]
    if not up:
        raise XapiError("NO_HOSTS_AVAILABLE")
    rows = [pool.db.find("host", host.ref) for host in up]
    return min(rows, key=lambda row: len(row["resident_VMs"]))
