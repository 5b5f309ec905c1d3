"""XAPI secrets: the pool's SSH key pair, which all hosts share, and passwords for a single plugin call."""

import contextlib
from typing import Callable, Iterable, Mapping, NamedTuple, Tuple

from xscontainer import keys
from xscontainer.errors import ArgumentError, KeyPairError, ObjectGone
from xscontainer.xapi import pool
from xscontainer.xapi.session import Session

# In a secret's other_config: the VM that the password in it is for.
PASSWORD_FOR = "xscontainer-password-for"
CERTIFICATE_FOR = "xscontainer-certificate-for"  # the same, for a TLS certificate or its key


class KeyPair(NamedTuple):
    """An SSH key pair."""

    private: str  # PEM or OpenSSH format
    public: str  # as found: "ssh-rsa AAAA..." or the base64 alone

    def __repr__(self) -> str:  # the key must not reach a log by accident
        return "KeyPair(...)"


def value(session: Session, uuid: str) -> str:
    """Read a secret.

    :raises ObjectGone: there is no such secret.
    """
    return session.xenapi.secret.get_value(session.xenapi.secret.get_by_uuid(uuid))


def create(session: Session, text: str, other_config: "Mapping[str, str]" = {}) -> "Tuple[str, str]":  # noqa: B006
    """Create a secret and return (uuid, ref)."""
    ref = session.xenapi.secret.create({"value": text, "other_config": dict(other_config)})
    return str(session.xenapi.secret.get_uuid(ref)), str(ref)


def key_pair(session: Session, pool_ref: str, pool_config: "Mapping[str, str]",
             generate: "Callable[[], KeyPair]") -> KeyPair:
    """Read the pool's key pair; make and store one if the pool has none.

    Guests that were prepared years ago trust the stored key, so it is never replaced here, even if a secret is missing.

    :raises KeyPairError: the pool names secrets that do not exist.
    """
    # While a key pair is being replaced there is a moment without a private key, in which the process may die.
    private_uuid = pool_config.get(keys.PRIVATE_SECRET) or pool_config.get(keys.PREVIOUS_PRIVATE_SECRET, "")
    public_uuid = pool_config.get(keys.PUBLIC_SECRET, "")
    if not private_uuid:
        return _store(session, pool_ref, generate())
    try:
        private = value(session, private_uuid)
    except ObjectGone as exc:
        raise KeyPairError(
            f"The pool's SSH key is missing: the secret {private_uuid}, which {keys.PRIVATE_SECRET} in the pool's "
            "other_config names, does not exist.") from exc
    try:
        public = value(session, public_uuid) if public_uuid else ""
    except ObjectGone:
        public = ""  # it can be computed from the private key
    return KeyPair(private, public)


def _store(session: Session, pool_ref: str, pair: KeyPair) -> KeyPair:
    """Store a new pair; if another host was faster, drop ours and return its pair.

    The call that decides may have to be sent twice (if the connection broke before the answer), and then finds its own
    key.
    """
    private_uuid, private_ref = create(session, pair.private)
    public_uuid, public_ref = create(session, pair.public)
    # If the claim fails, two secrets are left over. That does no harm; a missing key would.
    if not pool.claim(session, pool_ref, keys.PRIVATE_SECRET, private_uuid):
        session.xenapi.secret.destroy(private_ref)
        session.xenapi.secret.destroy(public_ref)
        stored = session.xenapi.pool.get_other_config(pool_ref).get(keys.PRIVATE_SECRET, "")
        return KeyPair(value(session, stored), "")
    # Only the host whose private key was stored comes here, so a public key that exists is a leftover.
    session.xenapi.pool.remove_from_other_config(pool_ref, keys.PUBLIC_SECRET)
    session.xenapi.pool.add_to_other_config(pool_ref, keys.PUBLIC_SECRET, public_uuid)
    return pair


def keep_certificate(session: Session, text: str, vm_uuid: str) -> str:
    """Store a certificate, or its key, for a VM and return the secret's uuid; see :func:`forget_certificates`."""
    return create(session, text, {CERTIFICATE_FOR: vm_uuid})[0]


def forget_certificates(session: Session, uuids: "Iterable[str]", vm_uuid: str) -> None:
    """Destroy the secrets that :func:`keep_certificate` made for this VM and that no VM names any more."""
    ours = {}
    for uuid in uuids:
        with contextlib.suppress(ObjectGone):
            ref = session.xenapi.secret.get_by_uuid(uuid)
            if session.xenapi.secret.get_other_config(ref).get(CERTIFICATE_FOR) == vm_uuid:
                ours[uuid] = ref
    if not ours:
        return
    # A snapshot or clone of the VM names the same secrets.
    named = {record["other_config"].get(key) for record in session.xenapi.VM.get_all_records().values()
             for key in keys.TLS_SECRETS}
    for uuid, ref in ours.items():
        if uuid not in named:
            with contextlib.suppress(ObjectGone):
                session.xenapi.secret.destroy(ref)


def keep_password(session: Session, password: str, vm_uuid: str) -> str:
    """Store a password for one plugin call and return the secret's uuid, which is passed to the plugin instead."""
    return create(session, password, {PASSWORD_FOR: vm_uuid})[0]


def take_password(session: Session, uuid: str, vm_uuid: str) -> str:
    """Return a stored password and destroy its secret.

    :raises ArgumentError: the secret was not made for that. Its content goes to a guest, so a caller who may not read
        secrets must not be able to name any other secret here.
    """
    try:
        ref = session.xenapi.secret.get_by_uuid(uuid)
        if session.xenapi.secret.get_other_config(ref).get(PASSWORD_FOR) != vm_uuid:
            raise ArgumentError(f"The secret {uuid} holds no password for this VM.",
                                f"Create a secret whose other_config has {PASSWORD_FOR} = the VM's uuid.")
        password = str(session.xenapi.secret.get_value(ref))
        session.xenapi.secret.destroy(ref)
    except ObjectGone as exc:
        raise ArgumentError(f"There is no secret {uuid} with a password.", "Enter the password again.") from exc
    return password


def forget_password(session: Session, uuid: str) -> None:
    """Destroy a stored password; no error if it was taken already."""
    try:
        session.xenapi.secret.destroy(session.xenapi.secret.get_by_uuid(uuid))
    except ObjectGone:
        pass
