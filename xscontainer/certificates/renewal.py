"""Renew the pool's client certificate and its CA before they expire. The coordinator does it.

A new CA is made so early that every engine's certificate expires, and is renewed after a message, before the old CA
expires. From then on hosts trust both CAs, and so does each engine that gets new files. An engine that trusts the old
CA only still accepts the client certificate: it is signed by the old CA and valid as long as that.
"""

import time
from typing import List, Optional

from xscontainer import keys
from xscontainer.certificates import POOL_HINT
from xscontainer.errors import TLSCredentialsInvalid
from xscontainer.xapi import stored_certificate
from xscontainer.xapi.pool import PoolRecord
from xscontainer.xapi.session import Session

DAY = 86400.0
BEFORE = 30 * DAY  # s before a certificate expires that its renewal is due


def due(ends: float, now: float) -> bool:
    """Return True if a certificate that expires at ``ends`` is due for renewal at ``now``, seconds since the epoch."""
    return ends - now < BEFORE


def renew(session: Session, pool: PoolRecord, now: Optional[float] = None) -> List[str]:
    """Renew what is due, in the secrets that all VMs of the pool already name; return the names of what was renewed.

    :raises ObjectGone: when a secret of the pool is gone.
    :raises TLSCredentialsInvalid: when a secret of the pool holds no usable certificate.
    """
    client_uuid, ca_uuid = (pool.other_config.get(key, "") for key in (keys.TLS_CLIENT_SECRET, keys.TLS_CA_SECRET))
    if not client_uuid or not ca_uuid:
        return []
    # Imported here: pools without TLS, which are most, do not need the x509 part of cryptography.
    from xscontainer.certificates import making
    from xscontainer.engine.tls import certs

    at = time.time() if now is None else now
    client, ca = stored_certificate.read(session, client_uuid), stored_certificate.read(session, ca_uuid)
    renewed: List[str] = []

    def renew_client(signer: "making.Pair", days: int) -> None:
        nonlocal client
        client = stored_certificate.replace(session, client, *making.new_client(signer, making.CLIENT, at, days))
        renewed.append("client certificate")

    try:
        signer = making.signer(ca.certificate, ca.key)
        left = certs.validity(certs.load(signer.certificate))[1] - at
        if left < making.LEAF_DAYS * DAY + 2 * BEFORE:
            if left > BEFORE + 2 * DAY:  # a shorter one would be due again immediately
                renew_client(signer, int(left // DAY))
            successor = making.new_ca(certs.POOL_CA, at)
            both = successor.certificate + signer.certificate
            # The certificates first: if the process dies in between, the old key still matches one of them, and the
            # next renewal starts again.
            stored_certificate.replace(session, ca, both, ca.key)
            stored_certificate.replace(session, ca, both, successor.key)
            renewed.append("CA")
            signer = successor
        if due(certs.validity(certs.load(client.certificate))[1], at):
            renew_client(signer, making.LEAF_DAYS)
    except ValueError as error:
        raise TLSCredentialsInvalid(f"The pool's TLS certificates are unusable: {error}.", POOL_HINT) from error
    return renewed
