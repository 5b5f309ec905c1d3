"""Storage, networks and templates of a pool, as tests and the demo add them."""

from typing import Any, Dict, Optional, Sequence

from xscontainer.simulator.xapi.objects import drives, networks, storage, templates, vdis
from xscontainer.simulator.xapi.pool.records import Records
from xscontainer.simulator.xapi.state.host_data import HostData


class Equipment(Records):
    """The methods that add and change storage, networks and templates."""

    # Storage

    def add_storage(self) -> Dict[str, str]:
        """Add the storage of a usual pool: a local SR on every host, a shared one (the default), one for ISOs.

        :returns: name -> reference: "Local storage on host1" ..., "Shared storage", "ISOs".
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
        self, name: str, hosts: Optional[Sequence[HostData]] = None, shared: bool = False, content_type: str = "user",
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
        return storage.new_sr(self, values, [host.ref for host in chosen], plugged).ref

    def attach_sr(self, sr: str, host: HostData, attached: bool = True) -> None:
        """Plug or unplug an SR's PBD on a host."""
        for ref in self.record("SR", sr)["PBDs"]:
            pbd = self.db.find("PBD", ref)
            if pbd["host"] == host.ref:
                storage.set_plugged(self, pbd, attached)

    def create_disk(self, sr: str, content: bytes = b"", size: int = 0, name: str = "disk", **fields: Any) -> str:
        """Make a VDI with `content`, of at least `size` bytes; `fields`: further fields of the record."""
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
        row = vdis.new_vdi(self, values)
        with open(vdis.path_of(self, row), "r+b") as stream:
            stream.write(content)
        return row.ref

    def add_drive(
        self, vm: str, vdi: str = "", kind: str = "Disk", mode: str = "", userdevice: str = "autodetect", **fields: Any
    ) -> str:
        """Give a VM a "Disk" or "CD" drive, attached if the VM runs. Without `vdi` it is an empty CD drive."""
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
        row = drives.new_vbd(self, values)
        if self.record("VM", vm)["power_state"] == "Running":
            drives.attach(self, row)
        return row.ref

    def disk_path(self, vdi: str) -> str:
        """Return the file with a VDI's raw content."""
        return vdis.path_of(self, self.db.find("VDI", vdi))

    def refuse_detach(self, vm: str, refuse: bool = True) -> None:
        """Let VBD.unplug of a VM's disks fail with DEVICE_DETACH_REJECTED, or no longer."""
        identity = self.record("VM", vm)["uuid"]
        if refuse:
            self.refusing_detach.add(identity)
        else:
            self.refusing_detach.discard(identity)

    # Networks and templates

    def add_management_network(self) -> str:
        """Make the network of the hosts' management interfaces."""
        return networks.new_network(self, "Pool-wide network associated with eth0", management=True).ref

    def create_network(self, name: str) -> str:
        """Make a network between VMs."""
        return networks.new_network(self, name).ref

    @property
    def internal_network(self) -> str:
        """Return the host-internal management network, where VMs get 169.254.* addresses."""
        return next(
            row.ref for row in self.db.rows("network") if row["other_config"].get(networks.INTERNAL) == "true"
        )

    def add_templates_from(self, directory: str) -> Dict[str, str]:
        """Make default templates of the JSON files in a directory, as a host does; return name -> reference.

        :raises ValueError: a file is invalid; no template is made then.
        """
        return templates.add_all(self, directory)
