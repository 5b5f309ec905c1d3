"""Guests' host keys: what other_config pins, what a guest shows, and whether it is the same."""

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, List, NamedTuple, Optional, Sequence

from xscontainer.errors import HostKeyChanged, HostKeyUnreadable

if TYPE_CHECKING:
    import paramiko

MOST_PIN_CHARACTERS = 16384

# One key, several signatures: an RSA key goes by these names in a negotiation.
_RSA_NAMES = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")


class HostKey(NamedTuple):
    """:ivar blob: the public key as SSH sends it."""

    kind: str
    blob: bytes

    @property
    def base64(self) -> str:
        """As it is pinned."""
        return base64.b64encode(self.blob).decode("ascii")

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen -l prints it: "SHA256:..."."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode("ascii")
        return "SHA256:" + digest.rstrip("=")

    def __str__(self) -> str:
        return f"{self.kind} {self.fingerprint}"


def of_key(key: "paramiko.PKey") -> HostKey:
    """The public half of any key, for its fingerprint."""
    return HostKey(key.get_name(), key.asbytes())


def _from_base64(word: str) -> Optional[HostKey]:
    try:
        blob = base64.b64decode(word.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
    length = int.from_bytes(blob[:4], "big")
    if len(blob) <= 4 + length or not 0 < length <= 64:
        return None
    try:
        kind = blob[4:4 + length].decode("ascii")
    except UnicodeDecodeError:
        return None
    return HostKey(kind, blob) if kind.isprintable() and " " not in kind else None


def parse_pin(text: str) -> HostKey:
    """The key in a pin: its base64, or a line of a public key or known_hosts file.

    :raises HostKeyUnreadable: it is none of these.
    """
    if len(text) <= MOST_PIN_CHARACTERS:
        for word in text.split()[:4]:
            key = _from_base64(word)
            if key is not None:
                return key
    raise HostKeyUnreadable("The host key pinned for the VM is not an SSH public key in base64.")


def preference(supported: Sequence[str], pinned: Optional[HostKey]) -> List[str]:
    """``supported`` key algorithms in the order to offer: those of the pinned key first.

    A guest has keys of several kinds and shows the first we name that it has; without this it would
    show another than the pinned one after an update of either side changed the default order.

    :raises HostKeyUnreadable: nobody here can check a key of the pinned kind.
    """
    if pinned is None:
        return list(supported)
    wanted = _RSA_NAMES if pinned.kind == "ssh-rsa" else (pinned.kind,)
    first = [name for name in supported if name in wanted]
    if not first:
        raise HostKeyUnreadable(f"The host key pinned for the VM is of the kind {pinned.kind}, which is not supported.")
    return first + [name for name in supported if name not in wanted]


def check(shown: HostKey, pinned: Optional[HostKey], where: str) -> None:
    """:raises HostKeyChanged: there is a pin, and the guest shows another key."""
    if pinned is not None and shown.blob != pinned.blob:
        raise HostKeyChanged(
            f"The SSH server at {where} shows the host key {shown}, but {pinned} is pinned for this VM.",
            shown=shown.fingerprint, pinned=pinned.fingerprint)
