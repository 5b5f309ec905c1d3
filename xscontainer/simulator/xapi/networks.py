"""Networks, hosts' interfaces (PIFs) and VMs' interfaces (VIFs)."""

from typing import TYPE_CHECKING, List

from .database import Row
from .failures import XapiError

if TYPE_CHECKING:
    from .dispatch import Call
    from .pool import Pool

_MOST = 7
_LIVE = ("Running", "Paused")
INTERNAL = "is_host_internal_management_network"


def new_network(pool: "Pool", name: str, management: bool = False) -> Row:
    """A network; with `management` every host has its address on it."""
    database = pool.db
    with database.lock:
        bridge = "xenbr{}".format(len(database.rows("network")))
        network = database.create("network", {"name_label": name, "bridge": bridge})
        for host in pool.hosts if management else []:
            metrics = database.create("PIF_metrics", {"carrier": True})
            database.create(
                "PIF",
                {
                    "device": "eth0",
                    "network": network.ref,
                    "host": host.ref,
                    "VLAN": -1,
                    "metrics": metrics.ref,
                    "physical": True,
                    "currently_attached": True,
                    "management": True,
                    "ip_configuration_mode": "Static",
                    "IP": host.address,
                    "netmask": "255.255.0.0",
                },
            )
    return network


def interfaces(pool: "Pool", vm: Row) -> List[Row]:
    """A VM's VIFs."""
    rows = [pool.db.get("VIF", ref) for ref in vm["VIFs"]]
    return [row for row in rows if row is not None]


def set_attached(pool: "Pool", vif: Row, attached: bool) -> None:
    """Attach a VIF, or detach it; on the host-internal network it gets an address of that network."""
    database = pool.db
    with database.lock:
        database.set(vif, "currently_attached", attached)
        database.set(vif, "allowed_operations", ["attach", "unplug"] if attached else ["attach", "plug"])
        network = database.get("network", vif["network"])
        if network is None or network["other_config"].get(INTERNAL) != "true":
            return
        leases = {ref: address for ref, address in network["assigned_ips"].items() if ref != vif.ref}
        if attached:
            addresses = ("169.254.{}.{}".format(n // 250, n % 250 + 2) for n in range(60000))
            leases[vif.ref] = next(address for address in addresses if address not in leases.values())
        database.set(network, "assigned_ips", leases)


def attach_all(pool: "Pool", vm: Row) -> None:
    """The interfaces of a VM that starts."""
    for vif in interfaces(pool, vm):
        set_attached(pool, vif, True)


def detach_all(pool: "Pool", vm: Row) -> None:
    """The interfaces of a VM that ends."""
    for vif in interfaces(pool, vm):
        if vif["currently_attached"]:
            set_attached(pool, vif, False)


def _owner(pool: "Pool", vif: Row) -> Row:
    vm = pool.db.find("VM", vif["VM"])
    if vm["power_state"] not in _LIVE:
        raise XapiError("VM_BAD_POWER_STATE", vm.ref, "running", vm["power_state"].lower())
    return vm


def plug(call: "Call", ref: str) -> str:
    """VIF.plug: of a running VM."""
    pool = call.pool
    with pool.db.lock:
        vif = pool.db.find("VIF", ref)
        _owner(pool, vif)
        if vif["currently_attached"]:
            raise XapiError("DEVICE_ALREADY_ATTACHED", ref)
        set_attached(pool, vif, True)
    return ""


def unplug(call: "Call", ref: str) -> str:
    """VIF.unplug: of a running VM."""
    pool = call.pool
    with pool.db.lock:
        vif = pool.db.find("VIF", ref)
        _owner(pool, vif)
        if not vif["currently_attached"]:
            raise XapiError("DEVICE_ALREADY_DETACHED", ref)
        set_attached(pool, vif, False)
    return ""


def destroy(call: "Call", ref: str) -> str:
    """VIF.destroy: not while it is attached."""
    pool = call.pool
    with pool.db.lock:
        vif = pool.db.find("VIF", ref)
        if vif["currently_attached"]:
            owner = pool.db.find("VM", vif["VM"])["uuid"]
            raise XapiError("OPERATION_NOT_ALLOWED", "VIF '{}' still attached to '{}'".format(vif["uuid"], owner))
        pool.db.destroy(vif)
    return ""


def move(call: "Call", ref: str, network: str) -> str:
    """VIF.move: to another network."""
    pool = call.pool
    with pool.db.lock:
        vif = pool.db.find("VIF", ref)
        attached = vif["currently_attached"]
        target = pool.db.find("network", network)
        if attached:
            set_attached(pool, vif, False)
        pool.db.set(vif, "network", target.ref)
        if attached:
            set_attached(pool, vif, True)
    return ""


def get_allowed_devices(call: "Call", ref: str) -> List[str]:
    """VM.get_allowed_VIF_devices."""
    pool = call.pool
    taken = {vif["device"] for vif in interfaces(pool, pool.db.find("VM", ref))}
    return [str(n) for n in range(_MOST) if str(n) not in taken]


HANDLERS = {
    "VIF.plug": plug,
    "VIF.unplug": unplug,
    "VIF.unplug_force": unplug,
    "VIF.destroy": destroy,
    "VIF.move": move,
    "VM.get_allowed_VIF_devices": get_allowed_devices,
}
