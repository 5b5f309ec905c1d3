"""Replace the placeholders of guest-config/README.md word by word, independently of the product.

Written from that text alone, so that it tells whether the text and the configurations agree.
"""

import base64
import json
import re
import subprocess
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

from tests.need import need_program

ROOT = Path(__file__).resolve().parent.parent.parent
GUEST_CONFIG = ROOT / "guest-config"
CLOUD_CONFIGS: List[str] = sorted(path.name for path in (GUEST_CONFIG / "cloud-config").iterdir())
IGNITIONS: List[str] = sorted(path.name for path in (GUEST_CONFIG / "ignition").iterdir())

HOSTNAME = "web-01"
MAC = "5e:aa:0b:c1:d2:e3"
POOL_KEY = "AAAAB3NzaC1yc2EAAAADAQABAAABgQC7+Kx/zQ=="
PARTS = ("HIN", "HOSTKEY")


class HostKey(NamedTuple):
    """``private`` as ssh-keygen wrote it, final newline included; ``public`` as in authorized_keys, no comment."""

    private: str
    public: str


class Case(NamedTuple):
    internal_network: bool
    host_key: bool


CASES = [Case(True, True), Case(True, False), Case(False, True), Case(False, False)]


def read(name: str) -> str:
    return (GUEST_CONFIG / name).read_text(encoding="ascii")


def make_host_key(directory: Path) -> HostKey:
    path = directory / "host_key"
    command = [need_program("ssh-keygen", "openssh-client"), "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)]
    subprocess.run(command, check=True, timeout=30)
    return HostKey(path.read_text(), " ".join((directory / "host_key.pub").read_text().split()[:2]))


def fill(text: str, case: Case, host_key: Optional[HostKey] = None) -> str:
    """Return ``text`` with every placeholder replaced. ``host_key`` is needed if ``case`` has one."""
    for part, kept in (("HIN", case.internal_network), ("HOSTKEY", case.host_key)):
        whole = "%XS{0}EXISTS%(.*?)%XSEND{0}EXISTS%".format(part)
        text = re.sub(whole, r"\1" if kept else "", text, flags=re.DOTALL)
    values = {"XSVMNAMETOHOSTNAME": HOSTNAME, "XSCONTAINERRSAPUB": POOL_KEY}
    values["XSHIN"] = MAC if case.internal_network else ""
    if case.host_key:
        assert host_key is not None
        values.update(host_key_values(host_key))
    return re.sub("%({})%".format("|".join(values)), lambda found: values[found.group(1)], text)


def host_key_values(host_key: HostKey) -> Dict[str, str]:
    return {
        "XSHOSTKEYPUBLIC": host_key.public,
        "XSHOSTKEYPRIVATEBASE64": base64.b64encode(host_key.private.encode()).decode(),
        "XSHOSTKEYPRIVATEJSON": json.dumps(host_key.private)[1:-1],
    }


def placeholders(text: str) -> "List[Tuple[str, str]]":
    """Return every placeholder with the rest of its line."""
    return re.findall(r"%([A-Z][A-Z0-9]*)%(.*)", text)
