"""What a pool has beside hosts and VMs: storage, networks, templates; the levers by which tests and the demo add it."""

from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence, Set

from . import networks, storage, templates, vbds, vdis
from .objects import Objects

if TYPE_CHECKING:
    from .host import SimHost
    from .pool import Pool

DiskCallback = Callable[[str, str, str], None]


class Equipment(Objects):
    """A part of Pool.

    transfer_delay: seconds between the last byte of an upload and the end of its task.
    """

    hosts: "List[SimHost]"

    def __init__(self) -> None:
        self.transfer_delay = 0.0
        self.transfers: Dict[str, List[str]] = {}
        self.refusing_detach: Set[str] = set()
        self._disk_callbacks: List[DiskCallback] = []

    def _pool(self) -> "Pool":
        return self  # type: ignore[return-value]

    # Storage

    def add_storage(self) -> Dict[str, str]:
        """Give the pool what a usual one has: a local SR on every host, a shared one (the default), one for ISOs.

        Returns name -> reference: "Local storage on host1" ..., "Shared storage", "ISOs".
        """
        made = {}
        for host in self.hosts:
            name = "Local storage on " + host.name_label
            made[name] = self.create_sr(name, [host])
        made["Shared storage"] = self.create_sr("Shared storage", shared=True, kind="nfs")
        made["ISOs"] = self.create_sr("ISOs", shared=True, content_type="iso", kind="iso")
        self.set_field("pool", next(iter(self.records("pool"))), "default_SR", made["Shared storage"])
        return made

    def create_sr(
        self, name: str, hosts: "Optional[Sequence[SimHost]]" = None, shared: bool = False, content_type: str = "user",
        kind: str = "ext", plugged: bool = True, physical_size: int = 100 * storage.GIB,
    ) -> str:
        """Make an SR with a PBD on each of `hosts` (None: on all if it is shared, else on the first)."""
        chosen = hosts if hosts is not None else self.hosts if shared else self.hosts[:1]
        values = {
            "name_label": name,
            "type": kind,
            "content_type": content_type,
            "shared": shared,
            "physical_size": physical_size,
        }
        return storage.new_sr(self._pool(), values, [host.ref for host in chosen], plugged).ref

    def attach_sr(self, sr: str, host: "SimHost", attached: bool = True) -> None:
        """Plug or unplug an SR's PBD on a host."""
        for ref in self.record("SR", sr)["PBDs"]:
            pbd = self.db.find("PBD", ref)
            if pbd["host"] == host.ref:
                storage.set_plugged(self._pool(), pbd, attached)

    def create_disk(self, sr: str, content: bytes = b"", size: int = 0, name: str = "disk", **fields: Any) -> str:
        """Make a VDI that holds `content`, of at least `size` bytes; `fields`: further fields of the record."""
        values: Dict[str, Any] = {
            "name_label": name,
            "SR": sr,
            "virtual_size": max(size, len(content), 1),
            "type": "user",
            "sharable": False,
            "read_only": False,
            "other_config": {},
        }
        values.update(fields)
        row = vdis.new_vdi(self._pool(), values)
        with open(vdis.path_of(self._pool(), row), "r+b") as stream:
            stream.write(content)
        return row.ref

    def add_drive(
        self, vm: str, vdi: str = "", kind: str = "Disk", mode: str = "", userdevice: str = "autodetect", **fields: Any
    ) -> str:
        """Give a VM a drive ("Disk" or "CD"; with no `vdi` an empty CD drive), attached if the VM runs."""
        kind = kind if vdi else "CD"
        values: Dict[str, Any] = {
            "VM": vm,
            "VDI": vdi,
            "userdevice": userdevice,
            "bootable": False,
            "mode": mode or ("RO" if kind == "CD" else "RW"),
            "type": kind,
            "empty": not vdi,
            "other_config": {},
        }
        values.update(fields)
        row = vbds.new_vbd(self._pool(), values)
        if self.record("VM", vm)["power_state"] == "Running":
            vbds.attach(self._pool(), row)
        return row.ref

    def disk_path(self, vdi: str) -> str:
        """The file that holds a VDI's raw content."""
        return vdis.path_of(self._pool(), self.db.find("VDI", vdi))

    def refuse_detach(self, vm: str, refuse: bool = True) -> None:
        """Whether a VM's guest holds on to its disks: VBD.unplug fails with DEVICE_DETACH_REJECTED."""
        identity = self.record("VM", vm)["uuid"]
        if refuse:
            self.refusing_detach.add(identity)
        else:
            self.refusing_detach.discard(identity)

    def on_disk(self, callback: DiskCallback) -> None:
        """Have callback(vm_ref, event, vbd_ref) called as a running VM's drives change.

        Events: "attach" and "insert" after the guest can read the disk, "detach" and "eject" just before it is gone
        (the VBD still names it). Starting and ending a VM attach and detach what is in its drives. Called in the
        thread of the operation.
        """
        self._disk_callbacks.append(callback)

    def disk_event(self, vm: str, event: str, vbd: str) -> None:
        """Tell the callbacks."""
        for callback in list(self._disk_callbacks):
            callback(vm, event, vbd)

    def begin_transfer(self, vdi: str, mode: str) -> None:
        """A VDI (uuid) is read ("RO") or written ("RW") from now on; VDI_IN_USE if that cannot be."""
        with self.db.lock:
            row = self.db.by_uuid("VDI", vdi)
            vdis.check_free(self._pool(), row, "attach", reading=mode == "RO")
            self.transfers[vdi] = self.transfers.get(vdi, []) + [mode]
            vdis.refresh(self._pool(), row)

    def end_transfer(self, vdi: str, mode: str) -> None:
        """The counterpart of begin_transfer()."""
        with self.db.lock:
            left = list(self.transfers.pop(vdi))
            left.remove(mode)
            if left:
                self.transfers[vdi] = left
            row = self.db.tables["VDI"].by_uuid.get(vdi)
            if row is not None:
                vdis.refresh(self._pool(), row)

    def transfer_url(self, host: "SimHost") -> str:
        """Where clients are sent that want a disk which only `host` reaches; tests may replace it."""
        return "http://127.0.0.1:{}".format(host.tcp_port)

    # Networks and templates

    def add_management_network(self) -> str:
        """The network that the hosts' management interfaces are on."""
        return networks.new_network(self._pool(), "Pool-wide network associated with eth0", management=True).ref

    def create_network(self, name: str) -> str:
        """Make a network between VMs."""
        return networks.new_network(self._pool(), name).ref

    @property
    def internal_network(self) -> str:
        """The host-internal management network, where VMs get 169.254.* addresses."""
        return next(
            row.ref for row in self.db.rows("network") if row["other_config"].get(networks.INTERNAL) == "true"
        )

    def add_templates_from(self, directory: str) -> Dict[str, str]:
        """Make default templates of the JSON files in a directory, as a host does; returns name -> reference.

        :raises ValueError: a file is not as the host wants it; none of the templates is made then.
        """
        return templates.add_all(self._pool(), directory)
