"""Give a VM a config drive, in place of an older one.

Every step has its counterpart in :class:`~xscontainer.configdrive.undo.Undo`, so that a failure leaves the VM as it was
and no disk behind.
"""

import io
import logging
import time
import uuid
from typing import Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional

from xscontainer import keys
from xscontainer.configdrive import image
from xscontainer.configdrive.site import Site, is_marked
from xscontainer.configdrive.undo import Undo
from xscontainer.core import cloud_config
from xscontainer.core.cloud_config import HostKey, Values
from xscontainer.core.vm_record import VMRecord
from xscontainer.errors import XSContainerError
from xscontainer.xapi import disk, longcall
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.disk import Drive
from xscontainer.xapi.session import Session

# In other_config of a VBD: the disk belongs to this VM alone and is deleted with it.
OWNED = "owner"
NAME = "Config drive"
# In other_config of a VDI: when it was made (s since 1970), and a unique word.
MADE = "xscontainer-made"

UPLOAD_SECONDS = 120.0  # s to write a few hundred KiB to a disk
MOST_SECONDS = 600.0  # s after which no call still works with a disk that it has made

log = logging.getLogger(__name__)


class Content(NamedTuple):
    """The content of a new config drive.

    :ivar template: the configuration with its placeholders.
    :ivar public_key: base64 of the pool's RSA key.
    :ivar new_host_key: makes a host key; called only if the configuration gives the guest one.
    :ivar layout: one of image.LAYOUTS.
    """

    template: str
    public_key: str
    new_host_key: "Callable[[], HostKey]"
    layout: str = image.CONFIG_DRIVE


def place(session: Session, undo: Undo, site: Site, content: Content,
          progress: "Callable[[float], None]" = lambda fraction: None) -> str:
    """Make the config drive, attach it to the VM, detach the old ones and return the uuid of the new disk.

    A running PV or PVH guest sees the new disk at once. XAPI plugs no read-only disk into a running HVM guest, which
    sees it after its next start.

    :param undo: gets each step's counterpart; the caller runs or forgets them.
    :raises XSContainerError: when a step fails.
    """
    vm = xapi_vm.adopt(session, site.vm)
    template = content.template
    mac = site.internal_mac
    if not mac and site.internal_network and site.prefers_internal and cloud_config.wants_internal_network(template):
        mac = _new_interface(session, undo, site)
    # A guest that has run has keys already and accepts no others. cloud-init recognises a new VM by its uuid;
    # Ignition runs once for each disk.
    keeps_key = site.has_run or (site.may_have_booted and cloud_config.is_ignition(template))
    key = content.new_host_key() if cloud_config.wants_host_key(template) and not keeps_key else None
    hostname = cloud_config.hostname(vm.name, f"vm-{vm.uuid[:8]}")
    user_data = cloud_config.substitute(template, Values(hostname, content.public_key, mac, key))
    drive_image = image.make(template, user_data, image.Identity(vm.uuid, hostname, vm.name), content.layout)
    vdi = _new_disk(session, undo, site, drive_image)
    progress(0.6)
    _pin(session, undo, site._replace(vm=vm), key)
    old = list(site.old)
    # Attach the new drive before the old ones are detached: a running guest may not take a detached one back.
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
    """Destroy unused config drives of the VM: those that :func:`place` has detached, and those of killed calls.

    The new drive is in place by now: failures are logged only.
    """
    # A drive that is writable holds more than a configuration.
    _destroy(session, site, lambda: {drive.vdi for drive in site.old if drive.mode == "RO"})
    _destroy(session, site, lambda: _left_over(session, site))


def _destroy(session: Session, site: Site, disks: "Callable[[], Iterable[str]]") -> None:
    try:
        for vdi in disks():
            record = session.xenapi.VDI.get_record(vdi)
            if is_marked(record["other_config"]) and not record["VBDs"]:
                disk.destroy(session, vdi)
    except XSContainerError as error:
        log.warning("VM %s: an old config drive was not removed: %s", site.vm.label, error)


def _left_over(session: Session, site: Site) -> "List[str]":
    """Return the disks made for the VM that were never attached to it, or stayed when they were replaced."""
    return [ref for ref, other_config in _disks_for(session, site).items() if not _is_young(other_config)]


def _is_young(other_config: "Mapping[str, str]") -> bool:
    """Return True if the call that made the disk may still work with it."""
    made = other_config.get(MADE, "").partition(" ")[0]
    return made.isdigit() and len(made) <= 12 and abs(time.time() - int(made)) < MOST_SECONDS


def _disks_for(session: Session, site: Site) -> "Dict[str, Mapping[str, str]]":
    """Return the disks that :func:`place` made for the VM in this storage repository: ref -> other_config."""
    # In queries XAPI names fields as its database does.
    found = session.xenapi.VDI.get_all_records_where(f'field "name__label" = "{NAME}" and field "SR" = "{site.sr}"')
    return {ref: record["other_config"] for ref, record in found.items()
            if record["other_config"].get(keys.OWNER) == site.vm.uuid}


def _new_disk(session: Session, undo: Undo, site: Site, content: bytes) -> str:
    made = f"{time.time():.0f} {uuid.uuid4()}"
    # Found by its mark: the answer with its ref may be lost.
    undo.add("the new disk", lambda session: _remove_disk(session, site, made))
    vdi = disk.create(session, site.sr, len(content), NAME, f"Configuration of {site.vm.name}",
                      {keys.CONFIG_DRIVE: "True", keys.OWNER: site.vm.uuid, MADE: made})
    disk.upload(session, session.xenapi.VDI.get_uuid(vdi), io.BytesIO(content), len(content),
                UPLOAD_SECONDS)
    return vdi


def _remove_disk(session: Session, site: Site, made: str) -> None:
    for vdi, other_config in _disks_for(session, site).items():
        if other_config.get(MADE) == made:
            disk.destroy(session, vdi)


def _pin(session: Session, undo: Undo, site: Site, key: Optional[HostKey]) -> None:
    """Pin the host key that the guest will present, before its first start."""
    vm = site.vm
    if key is not None:
        _set_key(session, undo, vm, keys.HOST_KEY, key.public.split()[1])
        _set_key(session, undo, vm, keys.OWNER, vm.uuid)
    elif keys.HOST_KEY in vm.other_config and site.old and not site.has_run:
        # The pinned key belongs to the drive that is replaced.
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
    """Detach an old config drive and return its device position."""
    undo.add("the old config drive", lambda session: _put_back(session, site, drive))
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
    """Give the VM an interface on the host-internal network and return its MAC address; "" if it has no free device."""
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
