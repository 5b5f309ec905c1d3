"""The VM and storage that a config drive is for, as they are found before anything is changed."""

from typing import List, Mapping, NamedTuple, Tuple

from xscontainer import keys
from xscontainer.core.vm_record import NULL_REF, VMRecord
from xscontainer.errors import ArgumentError, StorageNotAttached, VMNotRunning
from xscontainer.xapi import disk, pool, storage
from xscontainer.xapi.disk import Drive
from xscontainer.xapi.session import Session

# XAPI writes times from this year for a VM that was never started.
_NEVER = "1970"
_INTERNAL = "is_host_internal_management_network"


class Site(NamedTuple):
    """A VM, and the storage repository for its config drive.

    :ivar sr: ref of the storage repository.
    :ivar has_run: the VM was started before, so its guest has host keys of its own.
    :ivar may_have_booted: the VM has a disk from elsewhere, whose system may have run in another VM.
    :ivar old: config drives that the VM has.
    :ivar internal_network: ref of the host-internal network, "" if the pool has none.
    :ivar internal_mac: MAC address of the VM's interface there, "" if it has none.
    :ivar prefers_internal: the pool reaches its VMs through the host-internal network.
    """

    vm: VMRecord
    sr: str
    has_run: bool
    may_have_booted: bool
    old: List[Drive]
    internal_network: str
    internal_mac: str
    prefers_internal: bool

    @property
    def running(self) -> bool:
        return self.vm.resident_on != NULL_REF


def read(session: Session, vm_uuid: str, sr_uuid: str) -> Site:
    """Read the site from XAPI. Changes nothing.

    :raises ArgumentError: when the VM cannot have a config drive, or the storage repository cannot hold one.
    :raises VMNotRunning: when the VM is suspended.
    :raises StorageNotAttached: when the VM runs on a host that the storage repository is not attached to.
    """
    xapi = session.xenapi
    vm_ref = xapi.VM.get_by_uuid(vm_uuid)
    record = xapi.VM.get_record(vm_ref)
    vm = VMRecord.from_snapshot(vm_ref, record)
    if record["is_control_domain"] or record["is_a_snapshot"] or record.get("is_default_template"):
        raise ArgumentError(f"{vm.label} is a default template, a snapshot or a control domain.",
                            "Make a VM from it first.")
    if vm.power_state == "Suspended":
        raise VMNotRunning(f"The VM {vm.label} is suspended: its guest would find another disk than before.",
                           "Resume the VM or shut it down, and repeat the call.")
    sr_ref = xapi.SR.get_by_uuid(sr_uuid)
    if xapi.SR.get_content_type(sr_ref) == "iso":
        raise ArgumentError(f"The storage repository {storage.label(session, sr_ref)} is a library of ISO images.",
                            "Name a storage repository for disks.")
    if vm.resident_on != NULL_REF and vm.resident_on not in storage.attached_hosts(session, sr_ref):
        raise StorageNotAttached(f"The VM {vm.label} is running on a host that the storage repository "
                                 f"{storage.label(session, sr_ref)} is not attached to.")
    network, mac = _internal(session, vm_ref)
    disks = [drive for drive in disk.drives(session, vm_ref) if drive.kind == "Disk" and drive.vdi != NULL_REF]
    old = [drive for drive in disks if _is_config_drive(session, drive)]
    has_run = vm.resident_on != NULL_REF or _has_run(session, record["metrics"])
    return Site(vm, sr_ref, has_run, len(disks) > len(old), old, network, mac,
                pool.record(session).prefers_internal_network)


def is_marked(other_config: "Mapping[str, str]") -> bool:
    """Return True if the other_config of a VDI or VBD marks it as a config drive."""
    return keys.is_true(other_config.get(keys.CONFIG_DRIVE, ""))


def _has_run(session: Session, metrics: str) -> bool:
    return metrics != NULL_REF and not str(session.xenapi.VM_metrics.get_start_time(metrics)).startswith(_NEVER)


def _is_config_drive(session: Session, drive: Drive) -> bool:
    return is_marked(drive.other_config) or is_marked(session.xenapi.VDI.get_other_config(drive.vdi))


def _internal(session: Session, vm_ref: str) -> "Tuple[str, str]":
    """Return the host-internal network and the MAC address of the VM's interface on it."""
    xapi = session.xenapi
    networks = xapi.network.get_all_records()
    found = (ref for ref, record in networks.items() if keys.is_true(record["other_config"].get(_INTERNAL, "")))
    network = next(found, "")
    for vif in xapi.VM.get_VIFs(vm_ref) if network else ():
        if xapi.VIF.get_network(vif) == network:
            return network, str(xapi.VIF.get_MAC(vif)).lower()
    return network, ""
