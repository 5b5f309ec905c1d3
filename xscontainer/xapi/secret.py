"""XAPI secrets: the pool's SSH key pair, which every host shares that way, and passwords on their way to us."""

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
    private: str  # PEM or OpenSSH format
    public: str  # as found: "ssh-rsa AAAA..." or the base64 alone

    def __repr__(self) -> str:  # it must not reach a log by accident
        return "KeyPair(...)"


def value(session: Session, uuid: str) -> str:
    """:raises ObjectGone: no such secret."""
    return session.xenapi.secret.get_value(session.xenapi.secret.get_by_uuid(uuid))


def create(session: Session, text: str, other_config: "Mapping[str, str]" = {}) -> "Tuple[str, str]":  # noqa: B006
    """A new secret: (uuid, ref)."""
    ref = session.xenapi.secret.create({"value": text, "other_config": dict(other_config)})
    return str(session.xenapi.secret.get_uuid(ref)), str(ref)


def key_pair(session: Session, pool_ref: str, pool_config: "Mapping[str, str]",
             generate: "Callable[[], KeyPair]") -> KeyPair:
    """The pool's key pair; made and stored if the pool has none.

    Guests prepared years ago trust the stored key, so one that is there is never
    replaced: not even when a secret it names is missing.

    :raises KeyPairError: the pool names secrets that do not exist.
    """
    # While one is replaced by another there is a moment without, and whoever replaces it may die in it.
    private_uuid = pool_config.get(keys.PRIVATE_SECRET) or pool_config.get(keys.PREVIOUS_PRIVATE_SECRET, "")
    public_uuid = pool_config.get(keys.PUBLIC_SECRET, "")
    if not private_uuid:
        return _store(session, pool_ref, generate())
    try:
        private = value(session, private_uuid)
    except ObjectGone as exc:
        raise KeyPairError(
            f"The pool's SSH key is missing: there is no secret {private_uuid}, "
            f"which {keys.PRIVATE_SECRET} of the pool names.") from exc
    try:
        public = value(session, public_uuid) if public_uuid else ""
    except ObjectGone:
        public = ""  # it can be had from the private half
    return KeyPair(private, public)


def _store(session: Session, pool_ref: str, pair: KeyPair) -> KeyPair:
    """Store a new pair; if another host was faster, drop ours and take its pair.

    The call that decides may have to be sent twice (the connection broke before the
    answer), and then finds its own key there.
    """
    private_uuid, private_ref = create(session, pair.private)
    public_uuid, public_ref = create(session, pair.public)
    # Should the claim fail, two secrets are left over: they do no harm, a missing key does.
    if not pool.claim(session, pool_ref, keys.PRIVATE_SECRET, private_uuid):
        session.xenapi.secret.destroy(private_ref)
        session.xenapi.secret.destroy(public_ref)
        stored = session.xenapi.pool.get_other_config(pool_ref).get(keys.PRIVATE_SECRET, "")
        return KeyPair(value(session, stored), "")
    # Only the winner of the private key comes here, so a public key that is there is a leftover.
    session.xenapi.pool.remove_from_other_config(pool_ref, keys.PUBLIC_SECRET)
    session.xenapi.pool.add_to_other_config(pool_ref, keys.PUBLIC_SECRET, public_uuid)
    return pair


def keep_certificate(session: Session, text: str, vm_uuid: str) -> str:
    """A new secret for :func:`forget_certificates` to know: a certificate, or the key to one, for this VM; its uuid."""
    return create(session, text, {CERTIFICATE_FOR: vm_uuid})[0]


def forget_certificates(session: Session, uuids: "Iterable[str]", vm_uuid: str) -> None:
    """Destroy those of the secrets that were made for this VM, and that no VM names any more."""
    ours = {}
    for uuid in uuids:
        with contextlib.suppress(ObjectGone):
            ref = session.xenapi.secret.get_by_uuid(uuid)
            if session.xenapi.secret.get_other_config(ref).get(CERTIFICATE_FOR) == vm_uuid:
                ours[uuid] = ref
    if not ours:
        return
    # A snapshot or a clone of the VM names what the VM did.
    named = {record["other_config"].get(key) for record in session.xenapi.VM.get_all_records().values()
             for key in keys.TLS_SECRETS}
    for uuid, ref in ours.items():
        if uuid not in named:
            with contextlib.suppress(ObjectGone):
                session.xenapi.secret.destroy(ref)


def keep_password(session: Session, password: str, vm_uuid: str) -> str:
    """Hand a password over to the plugin; the new secret's uuid, which is all that the plugin is told."""
    return create(session, password, {PASSWORD_FOR: vm_uuid})[0]


def take_password(session: Session, uuid: str, vm_uuid: str) -> str:
    """The password that was handed over; gone from XAPI afterwards.

    :raises ArgumentError: it is no secret for this. A caller who may read no secrets must not have us read them: what
        is in one goes to a guest.
    """
    try:
        ref = session.xenapi.secret.get_by_uuid(uuid)
        if session.xenapi.secret.get_other_config(ref).get(PASSWORD_FOR) != vm_uuid:
            raise ArgumentError(f"The secret {uuid} holds no password for this VM.",
                                f"Make one with {PASSWORD_FOR} = the VM's uuid in its other_config.")
        password = str(session.xenapi.secret.get_value(ref))
        session.xenapi.secret.destroy(ref)
    except ObjectGone as exc:
        raise ArgumentError(f"There is no secret {uuid} with a password.", "Give the password again.") from exc
    return password


def forget_password(session: Session, uuid: str) -> None:
    """Destroy a password that nobody took; no error if somebody did."""
    try:
        session.xenapi.secret.destroy(session.xenapi.secret.get_by_uuid(uuid))
    except ObjectGone:
        pass
