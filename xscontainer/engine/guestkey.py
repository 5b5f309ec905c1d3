"""A new SSH host key for a guest."""

from typing import Tuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat


def new_host_key() -> "Tuple[str, str]":
    """(public half as ``ssh-ed25519 BASE64``, private key file as ssh-keygen writes it). The second is secret."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return public.decode("ascii"), private.decode("ascii")
