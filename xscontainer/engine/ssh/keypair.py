"""SSH key pairs: read and make the pool's, make a guest's host key."""

import io
from typing import NamedTuple, Tuple

import paramiko
from cryptography.hazmat.backends import default_backend
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from xscontainer.engine.failures import decoding
from xscontainer.errors import KeyPairError

MOST_CHARACTERS = 64 * 1024
RSA_BITS = 3072


class KeyPair(NamedTuple):
    """A key pair as text.

    :ivar private: PEM. Secret: only a XAPI secret may hold it.
    :ivar public: "ssh-rsa BASE64", without a comment.
    """

    private: str
    public: str


def load_private_key(text: str) -> paramiko.PKey:
    """Return the key in the text of a PEM or OpenSSH private key file.

    :raises KeyPairError: if the text holds no key, or the key has a passphrase. The message does not quote the text.
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
        except Exception:  # noqa: BLE001,S112 - the exceptions for a malformed key differ by kind, release and backend
            continue
    raise KeyPairError("The pool's private SSH key cannot be read.")


def _rsa_from_pem(text: str) -> paramiko.PKey:
    """Return an RSA key after one trial signature.

    OpenSSL's check that the factors are primes is skipped: it takes 100 ms, a quarter of a plugin call without a
    daemon.
    """
    try:
        with decoding("the key"):
            key = load_pem_private_key(text.encode("utf-8"), None, default_backend(),
                                       unsafe_skip_rsa_key_validation=True)
    except ValueError:
        raise KeyPairError("The pool's private SSH key cannot be read.") from None
    if not isinstance(key, RSAPrivateKey):
        raise KeyPairError("The pool's private SSH key is not an RSA key.")
    try:
        with decoding("the key"):
            key.public_key().verify(key.sign(b"", PKCS1v15(), SHA256()), b"", PKCS1v15(), SHA256())
    except ValueError:
        raise KeyPairError("The pool's private SSH key is damaged.") from None
    return paramiko.RSAKey(key=key)


def new_key_pair(bits: int = RSA_BITS) -> KeyPair:
    """Return a new RSA key pair. Takes some tenths of a second."""
    key = paramiko.RSAKey.generate(bits)
    text = io.StringIO()
    key.write_private_key(text)
    return KeyPair(text.getvalue(), public_line(key))


def public_line(key: paramiko.PKey) -> str:
    """Return the public half as a line of authorized_keys, without a comment."""
    return f"{key.get_name()} {key.get_base64()}"


def new_host_key() -> "Tuple[str, str]":
    """Return a new SSH host key: public half as "ssh-ed25519 BASE64", private key file as ssh-keygen writes it.

    The private key file is secret.
    """
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return public.decode("ascii"), private.decode("ascii")
