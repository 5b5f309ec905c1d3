"""The SSH algorithms that we offer, and the advice if a guest has none of them.

Weak algorithms are off. paramiko 3.5.1 offers all of them and accepts an RSA signature with SHA-1 where SHA-2 was
negotiated (CVE-2026-44405); paramiko 5 has dropped DSS and SHA-1 keys. A VM's xscontainer-ssh-weak allows the weak
algorithms that an old guest needs.
"""

import re
import sys
from typing import Dict, FrozenSet, Iterable, List, NamedTuple, Sequence, Tuple

import paramiko

from xscontainer.engine import failures
from xscontainer.errors import SSHIncompatible, SSHWeak
from xscontainer.keys import SSH_WEAK

# Key exchanges without parameters of the guest's choice: a Diffie-Hellman group that the guest chooses could keep
# paramiko busy forever. Those that only newer releases of paramiko know come first.
_KEX = ("mlkem768x25519-sha256", "sntrup761x25519-sha512", "sntrup761x25519-sha512@openssh.com",
        "curve25519-sha256", "curve25519-sha256@libssh.org",
        "ecdh-sha2-nistp256", "ecdh-sha2-nistp384", "ecdh-sha2-nistp521",
        "diffie-hellman-group16-sha512", "diffie-hellman-group14-sha256")
# The algorithms that each word of xscontainer-ssh-weak allows. No word allows key exchanges with a group of the guest's
# choice.
WEAK: Dict[str, Tuple[str, ...]] = {
    "sha1": ("diffie-hellman-group14-sha1", "diffie-hellman-group1-sha1", "hmac-sha1", "hmac-sha1-96", "ssh-rsa"),
    "cbc": ("aes128-cbc", "aes192-cbc", "aes256-cbc"),
    "3des": ("3des-cbc",),
    "md5": ("hmac-md5", "hmac-md5-96"),
    "dss": ("ssh-dss",),
    "rsa1024": (),
}
_ALL_WEAK = frozenset(name for names in WEAK.values() for name in names)
RSA_BITS, WEAK_RSA_BITS = 2048, 1024
# The fields of a negotiation: attribute of Algorithms, name for people, directive of sshd_config.
_FIELDS = (("kex", "key exchange", "KexAlgorithms"), ("host_keys", "kind of host key", "HostKeyAlgorithms"),
           ("ciphers", "cipher", "Ciphers"), ("macs", "MAC", "MACs"))
# Algorithms that OpenSSH switched off by 2021.
_OLD = re.compile(r"sha1\b|-sha1-|md5|-cbc|arcfour|blowfish|cast128|ripemd|ssh-dss|ssh-rsa\Z|3des")
# Entries in the list of key exchanges that are no key exchanges.
_MARKS = ("ext-info-", "kex-strict-")
_MOST_NAMES, _MOST_NAME = 64, 80
_MOST_QUOTED = 4  # names of each list in a message: a status is short and must not lose the advice behind them


class Algorithms(NamedTuple):
    """The algorithms of one side, in order of preference."""

    kex: Tuple[str, ...]
    host_keys: Tuple[str, ...]
    ciphers: Tuple[str, ...]
    macs: Tuple[str, ...]


def ours(known: Algorithms, weak: "Iterable[str]" = ()) -> Algorithms:
    """Return the algorithms that we offer, of all that paramiko knows.

    :param weak: words of WEAK that are allowed.
    """
    off = _ALL_WEAK.difference(*(WEAK[word] for word in weak))
    kex = [name for name in _KEX + WEAK["sha1"] if name in known.kex and name not in off]
    rest = [tuple(name for name in names if name not in off) for names in known[1:]]
    return Algorithms(tuple(kex), *rest)


def signatures_off(weak: "Iterable[str]", old_server: bool = False) -> "List[str]":
    """Return the signature algorithms that our own key does not use.

    :param old_server: the server does not report its algorithms. If SHA-1 is allowed, assume that it knows no others.
    """
    if old_server and "sha1" in weak:
        return ["rsa-sha2-512", "rsa-sha2-256"]
    return [name for word, name in (("sha1", "ssh-rsa"), ("dss", "ssh-dss")) if word not in weak]


def offered(message: paramiko.Message) -> Algorithms:
    """Return the algorithms that a server offers in its KEXINIT message, which is read from its beginning."""
    message.get_bytes(16)
    fields = [names(message.get_binary()) for _ in range(6)]
    return Algorithms(fields[0], fields[1], fields[3], fields[5])


def names(field: bytes) -> "Tuple[str, ...]":
    """Return the names in an SSH name-list, up to a limit."""
    found = field[:_MOST_NAMES * _MOST_NAME].decode("ascii", "replace").split(",")[:_MOST_NAMES]
    # Most guests offer the same names: one string for all of them.
    return tuple(sys.intern(name[:_MOST_NAME]) for name in found if name and not name.startswith(_MARKS))


def incompatible(we: Algorithms, they: Algorithms, known: Algorithms, where: str) -> SSHIncompatible:
    """Return the error that says which algorithms do not match, and what to do.

    :param we: the algorithms that we offered. :param they: those of the server. :param known: all of paramiko's.
    :param where: address and port, for the message.
    """
    missing = [field for field in _FIELDS if not set(getattr(we, field[0])) & set(getattr(they, field[0]))]
    words = [_needed(getattr(they, field), getattr(known, field)) for field, _, _ in missing]
    if missing and all(words):
        weak = "; ".join(f"{what}: {_listed(getattr(they, field))}" for field, what, _ in missing)
        return SSHWeak(f"The SSH server at {where} offers weak algorithms only ({weak}).",
                       weak_hint(sorted(set(words))))
    reasons = "; ".join(f"no {what} in common (the SSH server offers {_listed(getattr(they, field))}, this host "
                        f"{_listed(getattr(we, field))})" for field, what, _ in missing)
    message = f"The SSH server at {where} and this host do not match: {reasons or 'no algorithm in common'}."
    old = [directive for field, _, directive in missing
           if all(_OLD.search(name) for name in getattr(they, field))]
    wanting = ", ".join(directive for _, _, directive in missing if directive not in old)
    hints = ["Update sshd in the VM."] if old else []
    if wanting:
        hints.append(f"Add an algorithm of this host to {wanting} in the VM's sshd_config.")
    return SSHIncompatible(message, " ".join(hints))


def _needed(they: "Sequence[str]", known: "Sequence[str]") -> str:
    """Return the word of WEAK that allows one of the server's algorithms, "" if none does."""
    return next((word for word, names in WEAK.items() for name in they if name in names and name in known), "")


def weak_hint(words: "Sequence[str]") -> str:
    """Return the hint to allow these words of WEAK."""
    return (f"{SSHWeak.default_hint} Or allow what this guest needs: set {SSH_WEAK} in the VM's other_config to "
            f"{','.join(words)}.")


def _listed(names: "Sequence[str]") -> str:
    more = f" and {len(names) - _MOST_QUOTED} more" if len(names) > _MOST_QUOTED else ""
    return failures.words(", ".join(names[:_MOST_QUOTED]) or "nothing") + more


class WeakKey(paramiko.SSHException):
    """The guest's host key, or its signature, is too weak.

    :ivar word: the word of WEAK that would allow it; "" if none does.
    """

    def __init__(self, message: str, word: str) -> None:
        super().__init__(message)
        self.word = word


def check_host_key(key: paramiko.PKey, negotiated: str, signature: bytes, weak: "FrozenSet[str]") -> None:
    """Check the host key's strength and signature.

    :param negotiated: the algorithm that both sides agreed on. :param signature: as the guest sent it.
    :raises WeakKey: if the signature uses another algorithm, or the key is too short.
    """
    used = paramiko.Message(signature).get_binary()[:_MOST_NAME].decode("ascii", "replace")
    if used != negotiated:
        raise WeakKey(f"its host key signs with {failures.words(used)}, but {negotiated} was negotiated",
                      "sha1" if used == "ssh-rsa" else "")
    if key.get_name() != "ssh-rsa":
        return
    bits = key.get_bits()
    if bits < (WEAK_RSA_BITS if "rsa1024" in weak else RSA_BITS):
        raise WeakKey(f"its RSA host key has {bits} bits; at least {RSA_BITS} are required",
                      "rsa1024" if bits >= WEAK_RSA_BITS else "")


def used_weak(transport: "paramiko.Transport") -> List[str]:
    """Return the weak algorithms that a connection uses."""
    used = [getattr(transport, name, "") for name in (
        "kex_name", "host_key_type", "local_cipher", "remote_cipher", "local_mac", "remote_mac")]
    found = [name for name in dict.fromkeys(used) if name in _ALL_WEAK]
    key = transport.host_key  # get_remote_server_key() would raise if the connection ended just now
    if key is not None and key.get_name() == "ssh-rsa" and key.get_bits() < RSA_BITS:
        found.append(f"RSA host key of {key.get_bits()} bits")
    return found
