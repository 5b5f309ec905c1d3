"""Host keys of guests: the key that other_config pins, the key that a guest shows, and whether they match."""

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, List, NamedTuple, Optional, Sequence

from xscontainer.errors import HostKeyChanged, HostKeyUnreadable

if TYPE_CHECKING:
    import paramiko

MOST_PIN_CHARACTERS = 16384

# One RSA key can sign with several algorithms, which have these names in a negotiation.
_RSA_NAMES = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")


class HostKey(NamedTuple):
    """A public key. ``blob``: the key as SSH sends it."""

    kind: str
    blob: bytes

    @property
    def base64(self) -> str:
        """The form in which the key is pinned."""
        return base64.b64encode(self.blob).decode("ascii")

    @property
    def fingerprint(self) -> str:
        """The fingerprint as ssh-keygen -l prints it: "SHA256:..."."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode("ascii")
        return "SHA256:" + digest.rstrip("=")

    def __str__(self) -> str:
        return f"{self.kind} {self.fingerprint}"


def of_key(key: "paramiko.PKey") -> HostKey:
    """Return the public half of any key, for its fingerprint."""
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
    """Return the key in a pin: base64, or a line of a public key file or of known_hosts.

    :raises HostKeyUnreadable: if the text has none of these forms.
    """
    if len(text) <= MOST_PIN_CHARACTERS:
        for word in text.split()[:4]:
            key = _from_base64(word)
            if key is not None:
                return key
    raise HostKeyUnreadable("The host key pinned for the VM is not an SSH public key in base64.")


def preference(supported: Sequence[str], pinned: Optional[HostKey]) -> List[str]:
    """Return the ``supported`` host key algorithms in the order to offer: those of the pinned key first.

    A guest has keys of several kinds and shows the first that we name. Otherwise it would show another key than the
    pinned one after an update changes the default order on either side.

    :raises HostKeyUnreadable: if no supported algorithm can verify the pinned key.
    """
    if pinned is None:
        return list(supported)
    wanted = _RSA_NAMES if pinned.kind == "ssh-rsa" else (pinned.kind,)
    first = [name for name in supported if name in wanted]
    if not first:
        raise HostKeyUnreadable(f"The host key pinned for the VM is of the kind {pinned.kind}, which is not supported.")
    return first + [name for name in supported if name not in wanted]


def check(shown: HostKey, pinned: Optional[HostKey], where: str) -> None:
    """Compare the host key that a guest shows with the pinned one, if there is one.

    :raises HostKeyChanged: if they differ.
    """
    if pinned is not None and shown.blob != pinned.blob:
        raise HostKeyChanged(
            f"The SSH server at {where} shows the host key {shown}, but {pinned} is pinned for this VM.",
            shown=shown.fingerprint, pinned=pinned.fingerprint)
