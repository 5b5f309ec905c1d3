"""The pool's SSH key pair: reading the private half, making a new pair."""

import io
from typing import NamedTuple

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.backends import default_backend
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from xscontainer.errors import KeyPairError

MOST_CHARACTERS = 64 * 1024
RSA_BITS = 3072


class KeyPair(NamedTuple):
    """:ivar private: PEM text. Secret: into a XAPI secret and nowhere else.

    :ivar public: "ssh-rsa <base64>", without a comment.
    """

    private: str
    public: str


def load_private_key(text: str) -> paramiko.PKey:
    """The key in a PEM or OpenSSH private key file's text.

    :raises KeyPairError: it is none, or it is protected by a passphrase. No part of the text is quoted.
    """
    text = text.strip() + "\n"
    if len(text) > MOST_CHARACTERS or "PRIVATE KEY-----" not in text:
        raise KeyPairError("The pool's private SSH key is not a private key file.")
    if "-----BEGIN PRIVATE KEY-----" in text:
        return _from_pkcs8(text)
    for kind in (paramiko.RSAKey, paramiko.Ed25519Key, paramiko.ECDSAKey):
        try:
            return kind.from_private_key(io.StringIO(text))
        except paramiko.PasswordRequiredException:
            raise KeyPairError("The pool's private SSH key is protected by a passphrase.") from None
        except Exception:  # noqa: BLE001,S112 - what a malformed key raises differs by kind, release and backend
            continue
    raise KeyPairError("The pool's private SSH key cannot be read.")


def _from_pkcs8(text: str) -> paramiko.PKey:
    try:
        key = load_pem_private_key(text.encode("utf-8"), None, default_backend())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyPairError("The pool's private SSH key cannot be read.") from None
    if not isinstance(key, RSAPrivateKey):
        raise KeyPairError("The pool's private SSH key is not an RSA key.")
    return paramiko.RSAKey(key=key)


def new_key_pair(bits: int = RSA_BITS) -> KeyPair:
    """Make an RSA key pair; takes some tenths of a second."""
    key = paramiko.RSAKey.generate(bits)
    text = io.StringIO()
    key.write_private_key(text)
    return KeyPair(text.getvalue(), public_line(key))


def public_line(key: paramiko.PKey) -> str:
    """The public half as a line of authorized_keys, without a comment."""
    return f"{key.get_name()} {key.get_base64()}"
