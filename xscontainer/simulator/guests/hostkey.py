"""Host keys of a guest, made in this process, since an ssh-keygen for each guest would take longer."""

import os
from typing import Any, NamedTuple, Union

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa


class HostKey(NamedTuple):
    """A host key: its algorithm, the public half in base64 and the private half as an OpenSSH PEM."""

    algorithm: str
    base64: str
    private: bytes


def make_host_key(kind: str = "ed25519") -> HostKey:
    """Return a new key of kind ``ed25519``, ``ecdsa`` (P-256) or ``rsa`` (3072 bits).

    :raises ValueError: the kind is unknown.
    """
    key: Union[ed25519.Ed25519PrivateKey, ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey]
    if kind == "ed25519":
        key = ed25519.Ed25519PrivateKey.generate()
    elif kind == "ecdsa":
        key = ec.generate_private_key(ec.SECP256R1())
    elif kind == "rsa":
        key = rsa.generate_private_key(65537, 3072)
    else:
        raise ValueError(f"no such kind of host key: {kind}")
    return _host_key(key)


def read_host_key(private: bytes) -> HostKey:
    """Return the key in an OpenSSH PEM without a passphrase.

    :raises ValueError: the text is no such key.
    """
    return _host_key(serialization.load_ssh_private_key(private, None))


def _host_key(key: Any) -> HostKey:
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    algorithm, base64 = public.decode("ascii").split()[:2]
    return HostKey(algorithm, base64, private)


def write_private(path: str, data: bytes) -> None:
    """Replace a file that only its owner may read."""
    temporary = path + ".new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    os.replace(temporary, path)
