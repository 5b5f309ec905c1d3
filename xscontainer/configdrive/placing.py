"""A config drive for a VM: made, filled, and put in the place of an older one.

Every step has its counterpart, so that a failure leaves the VM as it was and no disk behind.
"""

import contextlib
import io
import logging
import time
import uuid
from typing import Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

from xscontainer import cloudconfig, keys
from xscontainer.cloudconfig import HostKey, Values
from xscontainer.configdrive import image
from xscontainer.errors import ArgumentError, StorageNotAttached, VMNotRunning, XSContainerError
from xscontainer.vmrecord import NULL_REF, VMRecord
from xscontainer.xapi import disk, longcall, pool, storage
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.disk import Drive
from xscontainer.xapi.session import Session, SessionPool

# In other_config of a drive: the disk is nobody else's, and goes when the VM is deleted.
OWNED = "owner"
NAME = "Config drive"
# In other_config of a disk: when it was made (s since 1970), and a word that no other has.
MADE = "xscontainer-made"

# s in which a few hundred KiB are written to a disk.
UPLOAD_SECONDS = 120.0

# s after which no call is at work with a disk that it has made.
MOST_SECONDS = 600.0

# XAPI's beginning of time: no VM has started then.
_NEVER = "1970"
_INTERNAL = "is_host_internal_management_network"

log = logging.getLogger(__name__)


class Site(NamedTuple):
    """The VM as it is found.

    :ivar sr: where the disk is to be (ref).
    :ivar has_run: its guest has host keys of its own.
    :ivar may_have_booted: it has a disk from elsewhere: what is on it may have run, in another VM.
    :ivar old: its config drives.
    :ivar internal_network: ref, "" if the pool has none.
    :ivar internal_mac: of its interface there, "" if it has none.
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


class Undo:
    """What takes back the steps so far, the last first; on a login of its own: ours may be what failed."""

    def __init__(self, sessions: SessionPool) -> None:
        self._sessions = sessions
        self._steps = contextlib.ExitStack()

    def add(self, what: str, step: "Callable[[Session], object]") -> None:
        def run() -> None:
            try:
                self._sessions.run(step)
            except XSContainerError as error:
                # What failed first is what the caller is told.
                log.error("%s was left undone: %s", what, error)

        self._steps.callback(run)

    def all(self) -> None:
        self._steps.close()

    def forget(self) -> None:
        self._steps.pop_all()


# --- looking ------------------------------------------------------------------------------------


def look(session: Session, vm_uuid: str, sr_uuid: str) -> Site:
    """Changes nothing.

    :raises ArgumentError: it is not a VM that a config drive is for, or no storage for one.
    :raises VMNotRunning: it is suspended.
    :raises StorageNotAttached: the VM runs where the storage is not attached.
    """
    xapi = session.xenapi
    vm_ref = xapi.VM.get_by_uuid(vm_uuid)
    record = xapi.VM.get_record(vm_ref)
    vm = VMRecord.from_snapshot(vm_ref, record)
    if record["is_control_domain"] or record["is_a_snapshot"] or record.get("is_default_template"):
        raise ArgumentError(f"{vm.label} is a default template, a snapshot or a control domain.",
                            "Make a VM from it first.")
    if vm.power_state == "Suspended":
        raise VMNotRunning(f"The VM {vm.label} is suspended: its guest would find another disk than it left.",
                           "Resume it, or shut it down, and repeat the call.")
    sr_ref = xapi.SR.get_by_uuid(sr_uuid)
    if xapi.SR.get_content_type(sr_ref) == "iso":
        raise ArgumentError(f"The storage repository {storage.label(session, sr_ref)} is a library of ISO images.",
                            "Name one for disks.")
    if vm.resident_on != NULL_REF and vm.resident_on not in storage.attached_hosts(session, sr_ref):
        raise StorageNotAttached(f"The VM {vm.label} is running on a host that the storage repository "
                                 f"{storage.label(session, sr_ref)} is not attached to.")
    network, mac = _internal(session, vm_ref)
    disks = [drive for drive in disk.drives(session, vm_ref) if drive.kind == "Disk" and drive.vdi != NULL_REF]
    old = [drive for drive in disks if _is_config_drive(session, drive)]
    has_run = vm.resident_on != NULL_REF or _has_run(session, record["metrics"])
    return Site(vm, sr_ref, has_run, len(disks) > len(old), old, network, mac,
                pool.record(session).prefers_internal_network)


def _has_run(session: Session, metrics: str) -> bool:
    return metrics != NULL_REF and not str(session.xenapi.VM_metrics.get_start_time(metrics)).startswith(_NEVER)


def _is_config_drive(session: Session, drive: Drive) -> bool:
    return is_marked(drive.other_config) or is_marked(session.xenapi.VDI.get_other_config(drive.vdi))


def is_marked(other_config: "Mapping[str, str]") -> bool:
    """Whether a disk or drive says that it is a config drive."""
    return keys.is_true(other_config.get(keys.CONFIG_DRIVE, ""))


def _internal(session: Session, vm_ref: str) -> "Tuple[str, str]":
    """The host-internal network, and the MAC address of the VM's interface on it."""
    xapi = session.xenapi
    networks = xapi.network.get_all_records()
    found = (ref for ref, record in networks.items() if keys.is_true(record["other_config"].get(_INTERNAL, "")))
    network = next(found, "")
    for vif in xapi.VM.get_VIFs(vm_ref) if network else ():
        if xapi.VIF.get_network(vif) == network:
            return network, str(xapi.VIF.get_MAC(vif)).lower()
    return network, ""


# --- acting -------------------------------------------------------------------------------------


def place(session: Session, undo: Undo, site: Site, template: str, public_key: str,
          new_host_key: "Callable[[], HostKey]", socket_path: str, layout: str = image.CONFIG_DRIVE,
          progress: "Callable[[float], None]" = lambda fraction: None) -> str:
    """The uuid of the new disk. Old ones of the VM are detached.

    A guest that runs sees it at once where XAPI plugs such a disk, which it does not where the VM's hardware is
    emulated (HVM): then at its next start.

    :param undo: takes each step's counterpart; the caller runs or forgets it.
    :param template: the configuration with its placeholders.
    :param public_key: base64 of the pool's RSA key.
    :param new_host_key: makes one; called only if the configuration gives the guest a key of its own.
    :param socket_path: xapi's, on a host that the storage is attached to.
    :raises XSContainerError:
    """
    vm = xapi_vm.adopt(session, site.vm)
    mac = site.internal_mac
    if not mac and site.internal_network and site.prefers_internal and cloudconfig.wants_internal_network(template):
        mac = _new_interface(session, undo, site)
    # A guest that has run has keys already, and does not take others. cloud-init knows by the VM's uuid that it is
    # in a new one; Ignition runs once for a disk.
    keeps_key = site.has_run or (site.may_have_booted and cloudconfig.is_ignition(template))
    key = new_host_key() if cloudconfig.wants_host_key(template) and not keeps_key else None
    hostname = cloudconfig.hostname(vm.name, f"vm-{vm.uuid[:8]}")
    user_data = cloudconfig.substitute(template, Values(hostname, public_key, mac, key))
    content = image.make(template, user_data, image.Identity(vm.uuid, hostname, vm.name), layout)
    vdi = _new_disk(session, undo, site, content, socket_path)
    progress(0.6)
    _pin(session, undo, site._replace(vm=vm), key)
    old = list(site.old)
    # The new one comes before the old ones go, for what has gone may not come back while the guest runs.
    device = disk.free_device(session, vm.ref)
    if not device and old:
        device = _take_away(session, undo, site, old.pop(0))
    undo.add("the new config drive", lambda session: _detach(session, vm.ref, vdi))
    disk.attach(session, vm.ref, vdi, device, True, site.running, {keys.CONFIG_DRIVE: "True", OWNED: ""})
    progress(0.8)
    for drive in old:
        _take_away(session, undo, site, drive)
    return str(session.xenapi.VDI.get_uuid(vdi))


def clear(session: Session, site: Site) -> None:
    """Destroy the disks that :func:`place` has taken from the VM, if they are nobody else's, and what calls that
    were killed half-way have left of theirs.

    The new drive is in place by now: what goes wrong here is logged and no failure.
    """
    # A drive that can be written to is more than a config drive.
    _destroy(session, site, lambda: {drive.vdi for drive in site.old if drive.mode == "RO"})
    _destroy(session, site, lambda: _left_over(session, site))


def _destroy(session: Session, site: Site, disks: "Callable[[], Iterable[str]]") -> None:
    try:
        for vdi in disks():
            record = session.xenapi.VDI.get_record(vdi)
            if is_marked(record["other_config"]) and not record["VBDs"]:
                disk.destroy(session, vdi)
    except XSContainerError as error:
        log.warning("VM %s: a former config drive was not removed: %s", site.vm.label, error)


def _left_over(session: Session, site: Site) -> "List[str]":
    """Disks made for the VM that were never attached to it, or stayed when they were replaced."""
    return [ref for ref, other_config in _disks_for(session, site).items() if not _is_young(other_config)]


def _is_young(other_config: "Mapping[str, str]") -> bool:
    """Whether a call may still be at work with the disk."""
    made = other_config.get(MADE, "").partition(" ")[0]
    return made.isdigit() and len(made) <= 12 and abs(time.time() - int(made)) < MOST_SECONDS


def _disks_for(session: Session, site: Site) -> "Dict[str, Mapping[str, str]]":
    """What :func:`place` has made for the VM in this repository, with its other_config."""
    # In its queries XAPI calls fields as its database does.
    found = session.xenapi.VDI.get_all_records_where(f'field "name__label" = "{NAME}" and field "SR" = "{site.sr}"')
    return {ref: record["other_config"] for ref, record in found.items()
            if record["other_config"].get(keys.OWNER) == site.vm.uuid}


def _new_disk(session: Session, undo: Undo, site: Site, content: bytes, socket_path: str) -> str:
    made = f"{time.time():.0f} {uuid.uuid4()}"
    # By its mark, for the answer that names it may be lost.
    undo.add("the new disk", lambda session: _remove_disk(session, site, made))
    vdi = disk.create(session, site.sr, len(content), NAME, f"Configuration of {site.vm.name}",
                      {keys.CONFIG_DRIVE: "True", keys.OWNER: site.vm.uuid, MADE: made})
    disk.upload(session, socket_path, session.xenapi.VDI.get_uuid(vdi), io.BytesIO(content), len(content),
                UPLOAD_SECONDS)
    return vdi


def _remove_disk(session: Session, site: Site, made: str) -> None:
    for vdi, other_config in _disks_for(session, site).items():
        if other_config.get(MADE) == made:
            disk.destroy(session, vdi)


def _pin(session: Session, undo: Undo, site: Site, key: Optional[HostKey]) -> None:
    """Record what the guest will show, before it first runs."""
    vm = site.vm
    if key is not None:
        _set_key(session, undo, vm, keys.HOST_KEY, key.public.split()[1])
        _set_key(session, undo, vm, keys.OWNER, vm.uuid)
    elif keys.HOST_KEY in vm.other_config and site.old and not site.has_run:
        # It came with a drive that goes.
        _set_key(session, undo, vm, keys.HOST_KEY, None)


def _set_key(session: Session, undo: Undo, vm: VMRecord, name: str, value: Optional[str]) -> None:
    before = vm.other_config.get(name)
    if value == before:
        return
    undo.add(f"{name} of VM {vm.label}", lambda session: _write(session, vm.ref, name, before))
    _write(session, vm.ref, name, value)


def _write(session: Session, vm_ref: str, name: str, value: Optional[str]) -> None:
    if value is None:
        xapi_vm.remove_key(session, vm_ref, name)
    else:
        xapi_vm.put_key(session, vm_ref, name, value, present=True)


def _take_away(session: Session, undo: Undo, site: Site, drive: Drive) -> str:
    """Detach an old config drive; its position."""
    undo.add("the former config drive", lambda session: _put_back(session, site, drive))
    disk.detach(session, drive)
    return drive.device


def _put_back(session: Session, site: Site, drive: Drive) -> None:
    now = next((found for found in disk.settled_drives(session, site.vm.ref) if found.ref == drive.ref), None)
    if now is None:
        disk.attach(session, site.vm.ref, drive.vdi, drive.device, drive.mode == "RO", drive.attached,
                    drive.other_config)
    elif drive.attached and not now.attached:
        disk.plug(session, drive.ref)


def _detach(session: Session, vm_ref: str, vdi_ref: str) -> None:
    for drive in disk.settled_drives(session, vm_ref):
        if drive.vdi == vdi_ref:
            disk.detach(session, drive)


def _new_interface(session: Session, undo: Undo, site: Site) -> str:
    """An interface on the host-internal network, by which the pool wants to reach its VMs; its MAC address."""
    xapi = session.xenapi
    free = xapi.VM.get_allowed_VIF_devices(site.vm.ref)
    if not free:
        return ""
    record: Dict[str, object] = {
        "VM": site.vm.ref, "network": site.internal_network, "device": free[-1], "MAC": "", "MTU": "1500",
        "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}}
    vif = xapi.VIF.create(record)
    undo.add("the interface on the host-internal network", lambda session: _remove_interface(session, vif))
    if site.running:
        longcall.run(session, "VIF.plug", vif, until=time.monotonic() + disk.PLUGGED_WITHIN)
    return str(xapi.VIF.get_MAC(vif)).lower()


def _remove_interface(session: Session, vif: str) -> None:
    if session.xenapi.VIF.get_currently_attached(vif):
        longcall.run(session, "VIF.unplug", vif, until=time.monotonic() + disk.LET_GO_WITHIN)
    session.xenapi.VIF.destroy(vif)
