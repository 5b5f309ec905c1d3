"""A scene whose engines listen on a TCP port and are reached over TLS."""

import os
from typing import Any, List

from tests.bench.scene import VM, Scene
from xscontainer import certificates, keys
from xscontainer.simulator.engines.real import RealEngine
from xscontainer.simulator.guests.addresses import AddressBlock
from xscontainer.simulator.guests.tls import Certificates, flags, free_port
from xscontainer.xapi import vm as xapi_vm


class TLSGuest:
    """A guest without an SSH server."""

    def __init__(self, directory: str, address: str, port: int) -> None:
        self.directory, self.address, self.port = directory, address, port

    def close(self) -> None:
        """Do nothing: only the engine runs."""

    def certify(self, issued: certificates.Issued) -> List[str]:
        """Return dockerd's arguments for these files."""
        found = Certificates(*(issued.files[name].decode("ascii") for name in (
            "ca.pem", "server-cert.pem", "server-key.pem")))
        return flags(self.directory, found, self.address, self.port)


class OverTLS(Scene):
    """A scene in which every VM has a dockerd and issued certificates."""

    def _make_vm(self, number: int) -> VM:
        name = f"vm{number:03}"
        address = AddressBlock().addresses(1)[0]
        guest: Any = TLSGuest(os.path.join(self.directory, name), address, free_port(address))
        ref = self.pool.create_vm(name, host=self.pool.hosts[1], networks={"0/ip": address},
                                  other_config={keys.MONITOR: "True", keys.TLS_PORT: str(guest.port)})
        uuid = self.pool.vm(ref)["uuid"]
        issued = certificates.issue(self.session, xapi_vm.record(self.session, uuid), [address])
        for key, value in issued.other_config.items():
            xapi_vm.put_key(self.session, ref, key, value, present=False)
        engine = RealEngine(os.path.join(self.directory, name + "e"), flags=guest.certify(issued))
        vm = VM(name, ref, uuid, guest, engine)
        engine.start()
        for index in range(self._containers):
            engine.run(f"container-{index:04}", ("sleep", "1000000"))
        return vm
