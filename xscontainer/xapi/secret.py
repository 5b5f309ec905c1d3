"""The pool's SSH key pair, kept in XAPI secrets so that every host of the pool shares it."""

from typing import Callable, Mapping, NamedTuple

from xscontainer import keys
from xscontainer.errors import KeyPairError, ObjectGone, XapiError
from xscontainer.xapi.session import Session


class KeyPair(NamedTuple):
    private: str  # PEM or OpenSSH format
    public: str  # as found: "ssh-rsa AAAA..." or the base64 alone

    def __repr__(self) -> str:  # it must not reach a log by accident
        return "KeyPair(...)"


def value(session: Session, uuid: str) -> str:
    """:raises ObjectGone: no such secret."""
    return session.xenapi.secret.get_value(session.xenapi.secret.get_by_uuid(uuid))


def key_pair(session: Session, pool_ref: str, pool_config: "Mapping[str, str]",
             generate: "Callable[[], KeyPair]") -> KeyPair:
    """The pool's key pair; made and stored if the pool has none.

    Guests prepared years ago trust the stored key, so one that is there is never
    replaced: not even when a secret it names is missing.

    :raises KeyPairError: the pool names secrets that do not exist.
    """
    private_uuid = pool_config.get(keys.PRIVATE_SECRET, "")
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
    private_ref = session.xenapi.secret.create({"value": pair.private, "other_config": {}})
    public_ref = session.xenapi.secret.create({"value": pair.public, "other_config": {}})
    private_uuid = session.xenapi.secret.get_uuid(private_ref)
    try:
        session.xenapi.pool.add_to_other_config(pool_ref, keys.PRIVATE_SECRET, private_uuid)
    except XapiError as exc:
        if exc.details[:1] != ["MAP_DUPLICATE_KEY"]:
            raise  # nobody knows whether it was heard: two secrets left over do no harm, a missing key does
        stored = session.xenapi.pool.get_other_config(pool_ref).get(keys.PRIVATE_SECRET, "")
        if stored != private_uuid:
            session.xenapi.secret.destroy(private_ref)
            session.xenapi.secret.destroy(public_ref)
            return KeyPair(value(session, stored), "")
    # Only the winner of the private key comes here, so a public key that is there is a leftover.
    session.xenapi.pool.remove_from_other_config(pool_ref, keys.PUBLIC_SECRET)
    session.xenapi.pool.add_to_other_config(
        pool_ref, keys.PUBLIC_SECRET, session.xenapi.secret.get_uuid(public_ref))
    return pair
