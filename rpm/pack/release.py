"""What is built. Pure."""

import re
import uuid
from typing import List, NamedTuple, Optional

LABEL = "xscontainer"
# Ours follows a package of the same name whose version we cannot know.
EPOCH = "1"
TEMPLATES = "xscontainer-guest-templates"
# Changing it would give every released version a second uuid.
NAMESPACE = uuid.UUID("5f0c1f3e-7a55-5d0b-9c58-7d1f53a0c6b1")
DESCRIPTION = "Shows and steers the Docker containers inside VMs"


class Target(NamedTuple):
    """An interpreter of a dom0.

    :ivar requirements: file in requirements/ with what is carried for it.
    :ivar platforms: tags of wheels that its C library can load.
    :ivar platform_version: what its dom0 provides, "" where nobody knows yet.
    """

    python: str
    requirements: str
    abis: "List[str]"
    platforms: "List[str]"
    platform_version: str

    @property
    def tag(self) -> str:
        return "cp" + self.python.replace(".", "")


_OLD = ["manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux2010_x86_64", "manylinux_2_12_x86_64",
        "manylinux1_x86_64", "manylinux_2_5_x86_64"]
_NEW = _OLD[:2] + ["manylinux_2_28_x86_64"]
TARGETS = {
    "3.6": Target("3.6", "pack-py36.txt", ["cp36m", "abi3", "none"], _OLD, "3.4.0"),
    "3.11": Target("3.11", "pack-current.txt", ["cp311", "abi3", "none"], _NEW, ""),
    "3.12": Target("3.12", "pack-current.txt", ["cp312", "abi3", "none"], _NEW, ""),
}


class Release(NamedTuple):
    """``epoch_seconds``: the time that every file and header of it bears."""

    version: str
    target: Target
    platform_version: str
    key_file: str
    epoch_seconds: int

    @property
    def release(self) -> str:
        """RPM's; with the target in it, for packs of two targets must not pass for one another."""
        return f"1.{self.target.tag}"

    @property
    def uuid(self) -> str:
        """A rebuild keeps it, another version or target has another one."""
        return str(uuid.uuid5(NAMESPACE, f"{LABEL} {self.version}-{self.release}"))

    @property
    def name(self) -> str:
        return f"{LABEL}-{self.version}-{self.target.tag}"


def check_version(version: str) -> Optional[str]:
    """What is wrong with it, for XAPI and for RPM; None if nothing is."""
    if re.match(r"[0-9A-Za-z][0-9A-Za-z.+~]*\Z", version):
        return None
    return f"{version!r} is no version of letters, digits, '.', '+' and '~'"
