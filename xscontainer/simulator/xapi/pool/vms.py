"""VMs of a pool, as tests and the demo make them."""

from typing import Any, Dict, Optional

from xscontainer.simulator.xapi.database.clock import now
from xscontainer.simulator.xapi.objects import lifecycle, operations, vms
from xscontainer.simulator.xapi.objects.placement import choose_host
from xscontainer.simulator.xapi.pool.records import Records
from xscontainer.simulator.xapi.state.host_data import HostData


class VMs(Records):
    """The methods that make VMs and play their guest agents."""

    def create_vm(
        self,
        name: str,
        host: Optional[HostData] = None,
        power_state: str = "Running",
        other_config: Optional[Dict[str, str]] = None,
        networks: Optional[Dict[str, str]] = None,
        template: bool = False,
        **fields: Any,
    ) -> str:
        """Make a VM; return its reference.

        :param host: where it runs; None: where there is most room.
        :param networks: what its guest agent reports while it runs ({"0/ip": "127.7.0.2"}).
        :param fields: further fields of the record.
        """
        values = self._new_values(name)
        values.update(is_a_template=template, other_config=dict(other_config or {}))
        operations.no_operations(values)
        values.update(fields)
        with self.db.lock:
            vm = vms.new_vm(self, values)
            self.guest_networks[vm.ref] = dict(networks or {})
            if power_state in ("Running", "Paused"):
                target = self.db.find("host", host.ref) if host else choose_host(self, vm)
                lifecycle.boot(self, vm, target, _no_step)
            if power_state != "Running":
                self.db.set(vm, "power_state", power_state)
            operations.refresh(self, vm)
        return vm.ref

    def _new_values(self, name: str) -> Dict[str, Any]:
        values: Dict[str, Any] = {
            k: v
            for k, v in self.model.records["VM"].items()
            if k in ("memory_static_max", "memory_dynamic_max", "memory_dynamic_min", "memory_static_min")
        }
        values = {k: int(v) for k, v in values.items()}
        values.update(
            name_label=name,
            user_version=1,
            VCPUs_max=1,
            VCPUs_at_startup=1,
            memory_overhead=11534336,
            has_vendor_device=True,
            hardware_platform_version=2,
            HVM_boot_policy="BIOS order",
            HVM_boot_params={"order": "cdn"},
            generation_id="0:0",
            actions_after_shutdown="destroy",
            actions_after_reboot="restart",
            actions_after_crash="restart",
            domain_type="hvm",
            HVM_shadow_multiplier=1.0,
        )
        return values

    def remove_agent(self, ref: str) -> None:
        """Let the VM have no guest agent: it can be neither shut down cleanly, suspended nor migrated."""
        with self.db.lock:
            self.agentless.add(ref)
            operations.refresh(self, self.db.find("VM", ref))

    def set_networks(self, ref: str, networks: Dict[str, str]) -> None:
        """Let the VM's guest agent report these addresses; {} withdraws all."""
        with self.db.lock:
            self.guest_networks[ref] = dict(networks)
            metrics = self.db.get("VM_guest_metrics", self.db.find("VM", ref)["guest_metrics"])
            if metrics is not None:
                self.db.set(metrics, "networks", dict(networks))
                self.db.set(metrics, "last_updated", now())


def _no_step() -> None:
    """Let VMs made by create_vm appear at once."""
