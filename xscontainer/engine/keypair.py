"""The pool's SSH key pair: reading the private half, making a new pair."""

import io
from typing import NamedTuple

import paramiko
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.backends import default_backend
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
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
    if "-----BEGIN PRIVATE KEY-----" in text or ("-----BEGIN RSA PRIVATE KEY-----" in text and "ENCRYPTED" not in text):
        return _rsa_from_pem(text)
    for kind in (paramiko.RSAKey, paramiko.Ed25519Key, paramiko.ECDSAKey):
        try:
            return kind.from_private_key(io.StringIO(text))
        except paramiko.PasswordRequiredException:
            raise KeyPairError("The pool's private SSH key is protected by a passphrase.") from None
        except Exception:  # noqa: BLE001,S112 - what a malformed key raises differs by kind, release and backend
            continue
    raise KeyPairError("The pool's private SSH key cannot be read.")


def _rsa_from_pem(text: str) -> paramiko.PKey:
    """Without OpenSSL's proof that the factors are primes: it takes 100 ms, a quarter of a plugin call in a process
    of its own. That the key works is seen by trying it."""
    try:
        key = load_pem_private_key(text.encode("utf-8"), None, default_backend(), unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyPairError("The pool's private SSH key cannot be read.") from None
    if not isinstance(key, RSAPrivateKey):
        raise KeyPairError("The pool's private SSH key is not an RSA key.")
    try:
        key.public_key().verify(key.sign(b"", PKCS1v15(), SHA256()), b"", PKCS1v15(), SHA256())
    except (InternalError, InvalidSignature, ValueError):
        raise KeyPairError("The pool's private SSH key is damaged.") from None
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
