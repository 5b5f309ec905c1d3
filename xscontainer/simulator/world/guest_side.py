"""The guests' side of a world: they authorize the pool's key and follow the power of their VMs."""

from typing import Any, Dict, List, Tuple

from xscontainer import keys
from xscontainer.simulator.guests import Guest
from xscontainer.simulator.world.parts import GuestSpec
from xscontainer.simulator.world.vm import WorldVM
from xscontainer.simulator.xapi import Pool


class GuestSide:
    """Keeps the guests in step with the pool.

    :param guests: each with what was asked for.
    :param vms: their VMs; filled later.
    """

    def __init__(self, pool: Pool, guests: List[Tuple[GuestSpec, Guest]], vms: List[WorldVM]) -> None:
        self._pool = pool
        self._guests = guests
        self._vms = vms

    def authorize_pool_key(self, _ref: str, pool_record: Dict[str, Any]) -> None:
        """Let the pool's public key into the prepared guests, as their owner would."""
        uuid = pool_record["other_config"].get(keys.PUBLIC_SECRET)
        if uuid:
            secret = self._pool.record("secret", self._pool.uuid_to_ref(uuid, "secret"))
            for spec, guest in self._guests:
                if not spec.prepared:
                    continue
                with open(guest.authorized_keys_path, encoding="utf-8") as file:
                    if secret["value"].strip() not in file.read():
                        guest.authorize(secret["value"])

    def follow_power(self, ref: str, event: str) -> None:
        """Start, stop, freeze or thaw a VM's guest; called in the thread of the power operation."""
        uuid = self._pool.vm(ref)["uuid"]
        vm = next((vm for vm in self._vms if vm.uuid == uuid), None)
        if vm is None:
            return  # a VM that a test made without a guest
        if event in ("suspend", "pause"):
            vm.guest.freeze()
        elif event in ("resume", "unpause"):
            vm.guest.thaw()
        if event in ("stop", "reboot"):
            vm.guest.thaw()
            vm.guest.stop()
            vm.engine.stop()
            # A guest agent reports addresses only after the boot.
            self._pool.guest_networks[ref] = {}
        if event in ("start", "reboot"):
            vm.engine.start()
            vm.guest.start()
            self._pool.set_networks(ref, {"0/ip": vm.guest.address})
