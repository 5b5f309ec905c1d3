"""One VM of a world: its record, its guest and its engine."""

from typing import Any, Dict, Optional

from xscontainer import keys
from xscontainer.clients import xmlform
from xscontainer.core.container import Container
from xscontainer.simulator.guests import Guest
from xscontainer.simulator.world.parts import GuestSpec
from xscontainer.simulator.xapi import Pool, SimHost


class WorldVM:
    """A VM with the guest that stands for it."""

    def __init__(self, pool: Pool, spec: GuestSpec, uuid: str, guest: Guest) -> None:
        self._pool = pool
        self.spec, self.name, self.uuid, self.guest = spec, spec.name, uuid, guest
        self.engine: Any = guest.engine

    @property
    def ref(self) -> str:
        """Return the VM's present reference: a pool join changes all references."""
        return self._pool.uuid_to_ref(self.uuid)

    @property
    def host(self) -> Optional[SimHost]:
        """Return the host on which the VM is resident; None if it is halted or suspended."""
        return self._pool.host_of(str(self._pool.vm(self.ref)["resident_on"]))

    @property
    def other_config(self) -> Dict[str, str]:
        return self._pool.other_config(self.ref)

    @property
    def containers(self) -> Optional[Dict[str, Container]]:
        """Return the published list by container name; None if no list is published."""
        text = self.other_config.get(keys.PS)
        return None if text is None else by_name(text)


def by_name(docker_ps: str) -> Dict[str, Container]:
    """Return the containers of a published list by name.

    :raises ValueError: the text is no such document.
    """
    return {container.name: container for container in xmlform.read_docker_ps(docker_ps).containers}
