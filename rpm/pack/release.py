"""Names, version and targets of a pack. Pure."""

import re
import uuid
from typing import List, NamedTuple, Optional

LABEL = "xscontainer"
# This pack replaces one of the same name whose version is not known.
EPOCH = "1"
TEMPLATES = "xscontainer-guest-templates"
# Do not change it: every released version would get another uuid.
NAMESPACE = uuid.UUID("5f0c1f3e-7a55-5d0b-9c58-7d1f53a0c6b1")
DESCRIPTION = "Lists and controls the containers inside VMs"


class Target(NamedTuple):
    """The Python interpreter of a dom0. docs/support.py says which hosts have it.

    :ivar requirements: file in requirements/ with the pins of the carried libraries.
    :ivar platforms: tags of wheels that the C library of this dom0 can load.
    :ivar platform_version: version that this dom0 provides as platform-version, "" while it is not known.
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
    """A version of the pack for one target.

    :ivar key_file: name of the public key's file.
    :ivar epoch_seconds: time of all files and headers, seconds since the epoch.
    """

    version: str
    target: Target
    platform_version: str
    key_file: str
    epoch_seconds: int

    @property
    def release(self) -> str:
        """RPM's release. It names the target, so that packs for two targets cannot be confused."""
        return f"1.{self.target.tag}"

    @property
    def uuid(self) -> str:
        """The pack's uuid: the same for a rebuild, another one for another version or target."""
        return str(uuid.uuid5(NAMESPACE, f"{LABEL} {self.version}-{self.release}"))

    @property
    def name(self) -> str:
        return f"{LABEL}-{self.version}-{self.target.tag}"


def check_version(version: str) -> Optional[str]:
    """Return the reason why XAPI or RPM cannot use the version; None if they can."""
    if re.match(r"[0-9A-Za-z][0-9A-Za-z.+~]*\Z", version):
        return None
    return f"{version!r} is not a version: only letters, digits, '.', '+' and '~' are allowed"
