"""Storage, a network and a template for the demo's pool, and guests that follow their config drive."""

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any, Dict, Mapping

from xscontainer import keys
from xscontainer.configdrive import isoread
from xscontainer.simulator.engines import EmbeddedEngine
from xscontainer.simulator.guests.embedded import EmbeddedSSHGuest
from xscontainer.simulator.world import World
from xscontainer.simulator.xapi.objects.templates import provision_xml

TEMPLATE = "Docker on Debian"
NETWORK = "Guests"
IMAGE = "debian.raw"
_SYSTEM = b"a system"
USER = "core"  # of the default configurations
CONTAINER = "hello"
_USER_DATA = "openstack/latest/user_data"
_PUBLIC = re.compile(r"ssh-rsa [A-Za-z0-9+/=]+")
_PRIVATE = re.compile(r'ed25519_private: ("(?:[^"\\]|\\.)*")')


class Cloud:
    """Adds equipment to a world's pool, and boots new VMs with a cloud-init config drive. A context manager."""

    def __init__(self, world: World) -> None:
        self._pool = world.pool
        self._directory = os.path.join(world.directory, "c")
        self._running: Dict[str, contextlib.ExitStack] = {}  # by the VM's reference
        storage = self._pool.add_storage()
        self._pool.create_disk(storage["Shared storage"], _SYSTEM, name=IMAGE)
        self._pool.create_network(NETWORK)
        self._pool.create_vm(TEMPLATE, template=True, power_state="Halted", other_config={
            "disks": provision_xml([{"size": "20G"}])})
        self._pool.on_power(self._follow)

    def __enter__(self) -> "Cloud":
        return self

    def __exit__(self, *_: object) -> None:
        for ref in list(self._running):
            self._running.pop(ref).close()

    def _follow(self, ref: str, event: str) -> None:
        """Boot or end the guest of a VM. It is called in the thread of the operation."""
        if event in ("stop", "reboot") and ref in self._running:
            self._running.pop(ref).close()
            self._pool.guest_networks[ref] = {}
        drives = [drive for drive in self._pool.records("VBD").values() if drive["VM"] == ref]
        if event in ("start", "reboot") and any(self._is_system(drive) for drive in drives):
            for drive in drives:
                if drive["other_config"].get("config-drive") == "True":
                    image = Path(self._pool.disk_path(drive["VDI"])).read_bytes()
                    self._boot(ref, (isoread.file_in(image, _USER_DATA) or b"").decode("utf-8"))

    def _is_system(self, drive: Mapping[str, Any]) -> bool:
        """Return whether the disk holds a system to boot."""
        if not drive["bootable"]:
            return False
        with open(self._pool.disk_path(drive["VDI"]), "rb") as stream:
            return stream.read(len(_SYSTEM)) == _SYSTEM

    def _boot(self, ref: str, user_data: str) -> None:
        """Play the part of a first boot that a login needs: authorized keys, the host key, an engine."""
        stack = self._running[ref] = contextlib.ExitStack()
        guest = EmbeddedSSHGuest(os.path.join(self._directory, str(self._pool.vm(ref)["uuid"])[:8]))
        stack.callback(guest.close)
        guest.user = USER
        for line in _PUBLIC.findall(user_data):
            guest.authorize(line)
        private = _PRIVATE.search(user_data)
        if private:
            guest.set_host_key(json.loads(private.group(1)))
        stack.enter_context(EmbeddedEngine(guest.directory, guest.engine_socket)).run(CONTAINER, image="hello:1")
        guest.start()
        # On a machine of its own the guest would use the default port and socket.
        self._pool.set_key(ref, keys.SSH_PORT, str(guest.port))
        self._pool.set_key(ref, keys.ENGINE_SOCKET, guest.engine_socket)
        self._pool.set_networks(ref, {"0/ip": guest.address})
