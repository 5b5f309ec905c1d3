"""A simulated world whose new VMs boot an image that applies its config drive."""

import base64
import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple

import yaml

from tests.configdrive.guest_side import cloud_init_reads, extract
from xscontainer.simulator.engines import EmbeddedEngine
from xscontainer.simulator.guests.base import Guest, own_user
from xscontainer.simulator.guests.embedded import EmbeddedSSHGuest
from xscontainer.simulator.guests.openssh import OpenSSHGuest
from xscontainer.simulator.world import Parts, World

IMAGE, SYSTEM = "image.raw", b"a system"
BOOT_SECTORS = 4096

HOST_KEY_FILE = "/etc/ssh/ssh_host_ed25519_key"


class Wanted(NamedTuple):
    """The users, keys and names that a configuration sets in a guest."""

    hostname: str
    keys: Dict[str, List[str]]  # user -> public keys
    private: str  # host key; "": the guest makes its own


def understood(user_data: bytes) -> Wanted:
    """Read a configuration.

    :param user_data: a cloud-config or an Ignition configuration.
    """
    if user_data.startswith(b"#cloud-config\n"):
        content = yaml.safe_load(user_data)
        users = [user for user in content.get("users", []) if isinstance(user, dict)]
        return Wanted(content["hostname"], {user["name"]: user.get("ssh_authorized_keys", []) for user in users},
                      content.get("ssh_keys", {}).get("ed25519_private", ""))
    content = json.loads(str(user_data, "utf-8"))
    users = content["passwd"]["users"]
    files = {file["path"]: _data(file["contents"]["source"]) for file in content["storage"]["files"]}
    return Wanted(str(files["/etc/hostname"], "utf-8"), {user["name"]: user["sshAuthorizedKeys"] for user in users},
                  str(files.get(HOST_KEY_FILE, b""), "utf-8"))


def _data(url: str) -> bytes:
    head, _, body = url.partition(",")
    return base64.b64decode(body) if head.endswith(";base64") else body.encode()


class Cloud(World):
    """See the module.

    :param real: guests are real sshds, which know no other user than the one who runs this; else they know all.
    """

    def __init__(self, directory: str, real: bool = False) -> None:
        with contextlib.closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.real = real
        self.user = own_user() if real else "core"
        self.socket = os.path.join(directory, "e", "d")
        super().__init__(directory, hosts=2, parts=Parts(daemons=False, settings={
            "ssh": {"port": self.port, "user": self.user}, "engine": {"socket": self.socket},
            "monitor": {"resync_interval": 2}}))
        self._more = contextlib.ExitStack()
        self.booted: Dict[str, Guest] = {}
        self.wanted: Dict[str, Wanted] = {}
        self.boot_fails = False
        self.image = ""
        self.at_start: Callable[[], object] = lambda: None
        self._boots = 0

    def __enter__(self) -> "Cloud":
        super().__enter__()
        self.storage = self.pool.add_storage()
        self.network = self.pool.create_network("guests")
        self.pool.on_power(self._boot)
        self.start_daemons()
        return self

    def close(self) -> None:
        super().close()
        self._more.close()

    def uuid(self, kind: str, ref: str) -> str:
        return str(self.pool.record(kind, ref)["uuid"])

    def disks(self, vm: str) -> List[Dict[str, Any]]:
        """Return the drives of a VM by position."""
        found = [record for record in self.pool.records("VBD").values() if record["VM"] == vm]
        return sorted(found, key=lambda record: str(record["userdevice"]))

    def _boot(self, vm: str, event: str) -> None:
        """Act as the first boot of an image, in the thread of the operation."""
        if event == "start":
            self.at_start()
        if event != "start" or self.boot_fails or not self._has_system(vm):
            return
        for drive in self.disks(vm):
            if drive["other_config"].get("config-drive") == "True":
                self._first_boot(vm, Path(self.pool.disk_path(drive["VDI"])))

    def _has_system(self, vm: str) -> bool:
        """Return True if the disk that the VM boots from is not empty."""
        first = next((drive for drive in self.disks(vm) if drive["bootable"] or drive["userdevice"] == "0"), None)
        if first is None:
            return False
        with open(self.pool.disk_path(first["VDI"]), "rb") as stream:
            return bool(stream.read(BOOT_SECTORS).strip(b"\0"))

    def add_image(self) -> str:
        """Make a disk with a system to boot, in the shared storage."""
        return self.pool.create_disk(self.storage["Shared storage"], SYSTEM, name=IMAGE)

    def _first_boot(self, vm: str, drive: Path) -> None:
        self._boots += 1
        name = f"b{self._boots}"
        user_data = cloud_init_reads(extract(drive, Path(self.directory) / (name + "x"))).user_data
        wanted = self.wanted[vm] = understood(user_data)
        kind = OpenSSHGuest if self.real else EmbeddedSSHGuest
        guest: Guest = kind(os.path.join(self.directory, name), port=self.port, engine_socket=self.socket)
        self._more.callback(guest.close)
        guest.user = self.user
        if wanted.private:
            guest.set_host_key(wanted.private)
        for line in wanted.keys.get(self.user, []):
            guest.authorize(line)
        engine = self._more.enter_context(EmbeddedEngine(os.path.dirname(self.socket), self.socket))
        engine.run("hello")
        guest.start()
        self.booted[vm] = guest
        self.pool.set_networks(vm, {"0/ip": guest.address})
