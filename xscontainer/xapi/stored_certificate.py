"""A certificate and its private key, stored in two XAPI secrets for the whole pool.

A key of pool.other_config names the secret with the private key. That secret's own other_config names the secret with
the certificate. So a single write decides, even if two hosts store a certificate at the same moment.
"""

from typing import Callable, NamedTuple, Tuple

from xscontainer.xapi import pool, secret
from xscontainer.xapi.session import Session

_CERTIFICATE = "certificate"  # in the other_config of the key's secret


class StoredCertificate(NamedTuple):
    """:ivar certificate: PEM. :ivar key: PEM."""

    certificate: str
    key: str
    certificate_uuid: str
    key_uuid: str

    def __repr__(self) -> str:  # the key must not reach a log by accident
        return f"StoredCertificate(certificate_uuid={self.certificate_uuid!r}, key_uuid={self.key_uuid!r})"


def read(session: Session, key_uuid: str) -> StoredCertificate:
    """Read both secrets.

    :param key_uuid: of the secret with the private key.
    :raises ObjectGone: one of the two secrets does not exist.
    """
    found = session.xenapi.secret.get_record(session.xenapi.secret.get_by_uuid(key_uuid))
    certificate_uuid = found["other_config"].get(_CERTIFICATE, "")
    certificate = secret.value(session, certificate_uuid)
    return StoredCertificate(certificate, found["value"], certificate_uuid, key_uuid)


def get_or_create(session: Session, pool_ref: str, name: str,
                  make: "Callable[[], Tuple[str, str]]") -> StoredCertificate:
    """Read the certificate that ``name`` in pool.other_config names; make and store one if there is none.

    :param make: returns (certificate, key).
    :raises ObjectGone: a secret is missing. No other certificate is made then, because guests trust the lost one.
    """
    uuid = session.xenapi.pool.get_other_config(pool_ref).get(name, "")
    if uuid:
        return read(session, uuid)
    certificate, key = make()
    certificate_uuid, certificate_ref = secret.create(session, certificate)
    key_uuid, key_ref = secret.create(session, key, {_CERTIFICATE: certificate_uuid})
    # If the claim fails, two secrets are left over. That does no harm; a missing key would.
    if not pool.claim(session, pool_ref, name, key_uuid):
        session.xenapi.secret.destroy(key_ref)
        session.xenapi.secret.destroy(certificate_ref)
        return read(session, session.xenapi.pool.get_other_config(pool_ref).get(name, ""))
    return StoredCertificate(certificate, key, certificate_uuid, key_uuid)


def replace(session: Session, old: StoredCertificate, certificate: str, key: str) -> StoredCertificate:
    """Write another certificate and key into the same secrets, for all that name these secrets.

    A reader between the two writes finds a key that does not match the certificate, and reads again soon.
    """
    for uuid, value in ((old.key_uuid, key), (old.certificate_uuid, certificate)):
        session.xenapi.secret.set_value(session.xenapi.secret.get_by_uuid(uuid), value)
    return old._replace(certificate=certificate, key=key)
