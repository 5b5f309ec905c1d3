"""A private key and its certificate in two XAPI secrets, one such pair for the whole pool.

A key of pool.other_config names the secret with the private key; that secret's own other_config names the one with the
certificate. So there is one write that decides, whoever else makes a pair at the same moment.
"""

from typing import Callable, NamedTuple, Tuple

from xscontainer.xapi import pool, secret
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
    certificate = secret.value(session, certificate_uuid)
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
    certificate_uuid, certificate_ref = secret.create(session, certificate)
    key_uuid, key_ref = secret.create(session, key, {_CERTIFICATE: certificate_uuid})
    # Should the claim fail, two secrets are left over: they do no harm, a missing key does.
    if not pool.claim(session, pool_ref, name, key_uuid):
        session.xenapi.secret.destroy(key_ref)
        session.xenapi.secret.destroy(certificate_ref)
        return read(session, session.xenapi.pool.get_other_config(pool_ref).get(name, ""))
    return Kept(certificate, key, certificate_uuid, key_uuid)


def replace(session: Session, old: Kept, certificate: str, key: str) -> Kept:
    """Another pair in the same secrets, for all that name them.

    Whoever reads in the moment between the two writes finds no pair, and reads again soon.
    """
    for uuid, value in ((old.key_uuid, key), (old.certificate_uuid, certificate)):
        session.xenapi.secret.set_value(session.xenapi.secret.get_by_uuid(uuid), value)
    return old._replace(certificate=certificate, key=key)
