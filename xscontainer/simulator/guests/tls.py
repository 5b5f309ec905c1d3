"""Options that make dockerd listen on a TCP port with certificates on both sides."""

import os
import socket
from typing import List, NamedTuple

from xscontainer.simulator.guests.hostkey import write_private


class Certificates(NamedTuple):
    """Paths of the engine's PEM files: the CA of its clients' certificates, its own certificate and key."""

    ca: str
    certificate: str
    key: str


def flags(directory: str, certificates: Certificates, address: str, port: int) -> List[str]:
    """Write the files to ``directory`` (created if absent); return dockerd's arguments."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    host = f"[{address}]" if ":" in address else address
    found = ["--tlsverify", f"--host=tcp://{host}:{port}"]
    for option, text in (("tlscacert", certificates.ca), ("tlscert", certificates.certificate),
                         ("tlskey", certificates.key)):
        path = os.path.join(directory, option + ".pem")
        write_private(path, text.encode("ascii"))
        found.append(f"--{option}={path}")
    return found


def free_port(address: str) -> int:
    """Return a port that is free at that address now."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port
