"""Successors in time, made by the coordinator: of the pool's client certificate, and of its CA.

The next CA comes so early that each certificate of an engine ends, and is made anew with a message in time, before the
old CA does. From then on both are trusted: by the hosts, and by each engine that is given files. An engine that knows
the old one only goes on being shown a client certificate of the old one, which lasts as long as that does.
"""

import time
from typing import List, Optional

from xscontainer import keys
from xscontainer.certificates import POOL_HINT
from xscontainer.errors import TLSCredentialsInvalid
from xscontainer.xapi import pair
from xscontainer.xapi.pool import PoolRecord
from xscontainer.xapi.session import Session

DAY = 86400.0
BEFORE = 30 * DAY  # s before the end of a certificate that a new one is due


def due(ends: float, now: float) -> bool:
    """Whether a certificate that ends then needs a successor by now; both seconds since the epoch."""
    return ends - now < BEFORE


def renew(session: Session, pool: PoolRecord, now: Optional[float] = None) -> List[str]:
    """Give the pool what is due, in the secrets that all its VMs name already; what that was, in words.

    :raises ObjectGone, TLSCredentialsInvalid: what the pool has is incomplete or unusable.
    """
    client_uuid, ca_uuid = (pool.other_config.get(key, "") for key in (keys.TLS_CLIENT_SECRET, keys.TLS_CA_SECRET))
    if not client_uuid or not ca_uuid:
        return []
    from xscontainer.certificates import making
    from xscontainer.engine import certs

    at = time.time() if now is None else now
    client, ca = pair.read(session, client_uuid), pair.read(session, ca_uuid)
    renewed: List[str] = []

    def renew_client(signer: "making.Pair", days: int) -> None:
        nonlocal client
        client = pair.replace(session, client, *making.new_client(signer, making.CLIENT, at, days))
        renewed.append("client certificate")

    try:
        signer = making.signer(ca.certificate, ca.key)
        left = certs.validity(certs.load(signer.certificate))[1] - at
        if left < making.LEAF_DAYS * DAY + 2 * BEFORE:
            if left > BEFORE + 2 * DAY:  # else it would be due again at once
                renew_client(signer, int(left // DAY))
            successor = making.new_ca(certs.POOL_CA, at)
            both = successor.certificate + signer.certificate
            # The certificate first: cut off in between, the old key has its certificate still, and all begins anew.
            pair.replace(session, ca, both, ca.key)
            pair.replace(session, ca, both, successor.key)
            renewed.append("CA")
            signer = successor
        if due(certs.validity(certs.load(client.certificate))[1], at):
            renew_client(signer, making.LEAF_DAYS)
    except ValueError as error:
        raise TLSCredentialsInvalid(f"The pool's TLS certificates are unusable: {error}.", POOL_HINT) from error
    return renewed
