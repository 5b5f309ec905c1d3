"""A private key and its certificate in two XAPI secrets, one such pair for the whole pool.

A key of pool.other_config names the secret with the private key; that secret's own other_config names the one with the
certificate. So there is one write that decides, whoever else makes a pair at the same moment.
"""

from typing import Callable, NamedTuple, Tuple

from xscontainer.errors import XapiError
from xscontainer.xapi.session import Session

_CERTIFICATE = "certificate"  # in the secret's other_config


class Kept(NamedTuple):
    """:ivar certificate: PEM. :ivar key: PEM."""

    certificate: str
    key: str
    certificate_uuid: str
    key_uuid: str

    def __repr__(self) -> str:  # it must not reach a log by accident
        return f"Kept(certificate_uuid={self.certificate_uuid!r}, key_uuid={self.key_uuid!r})"


def read(session: Session, key_uuid: str) -> Kept:
    """:raises ObjectGone: one of the two secrets does not exist."""
    found = session.xenapi.secret.get_record(session.xenapi.secret.get_by_uuid(key_uuid))
    certificate_uuid = found["other_config"].get(_CERTIFICATE, "")
    certificate = session.xenapi.secret.get_value(session.xenapi.secret.get_by_uuid(certificate_uuid))
    return Kept(certificate, found["value"], certificate_uuid, key_uuid)


def kept(session: Session, pool_ref: str, name: str, make: "Callable[[], Tuple[str, str]]") -> Kept:
    """The pair that ``name`` in pool.other_config names; made and stored if there is none.

    :param make: gives (certificate, key).
    :raises ObjectGone: it names a secret that does not exist. Nothing is made then: others trust what is lost.
    """
    uuid = session.xenapi.pool.get_other_config(pool_ref).get(name, "")
    if uuid:
        return read(session, uuid)
    certificate, key = make()
    certificate_ref = session.xenapi.secret.create({"value": certificate, "other_config": {}})
    certificate_uuid = session.xenapi.secret.get_uuid(certificate_ref)
    key_ref = session.xenapi.secret.create({"value": key, "other_config": {_CERTIFICATE: certificate_uuid}})
    key_uuid = session.xenapi.secret.get_uuid(key_ref)
    try:
        session.xenapi.pool.add_to_other_config(pool_ref, name, key_uuid)
    except XapiError as exc:
        if exc.details[:1] != ["MAP_DUPLICATE_KEY"]:
            raise  # nobody knows whether it was heard: two secrets left over do no harm, a missing key does
        stored = session.xenapi.pool.get_other_config(pool_ref).get(name, "")
        if stored != key_uuid:  # it is our own if the call had to be sent twice
            session.xenapi.secret.destroy(key_ref)
            session.xenapi.secret.destroy(certificate_ref)
            return read(session, stored)
    return Kept(certificate, key, certificate_uuid, key_uuid)


def replace(session: Session, old: Kept, certificate: str, key: str) -> Kept:
    """Another pair in the same secrets, for all that name them.

    Whoever reads in the moment between the two writes finds no pair, and reads again soon.
    """
    for uuid, value in ((old.key_uuid, key), (old.certificate_uuid, certificate)):
        session.xenapi.secret.set_value(session.xenapi.secret.get_by_uuid(uuid), value)
    return old._replace(certificate=certificate, key=key)
