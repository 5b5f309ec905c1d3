"""Certificates for engines that are reached over TLS: made here, kept in XAPI secrets, handed to the guest on a CD.

One CA and one client certificate serve the whole pool, a server certificate one VM. Its key leaves for the guest and is
kept nowhere; the CA's key never leaves XAPI. :mod:`.renewal` gives the pool their successors.
"""

import contextlib
import ipaddress
import os
import ssl
import time
from typing import Dict, Iterable, Mapping, NamedTuple, Optional, Sequence, Tuple

from xscontainer import addresses, keys, reach
from xscontainer.errors import (
    AddressRefused,
    AddressUnknown,
    ArgumentError,
    ObjectGone,
    TLSCredentialsInvalid,
    TLSCredentialsMissing,
)
from xscontainer.vmrecord import VMRecord
from xscontainer.xapi import pair
from xscontainer.xapi.session import Session

LABEL = "XSCONTAINER"  # of the medium
POOL_HINT = (f"Remove {keys.TLS_CA_SECRET} and {keys.TLS_CLIENT_SECRET} from the pool's other_config, and have "
             "certificates made anew for each VM that is reached over TLS.")

# What stands on the medium beside the certificates, in the directory guest-config.
_SCRIPTS = {"enable-tls.sh": "linux/enable-tls.sh", "enable-tls.ps1": "windows/enable-tls.ps1",
            "README.txt": "tls-medium.txt"}


class Issued(NamedTuple):
    """:ivar other_config: what the VM's is to say from now on.

    :ivar files: for the guest's eyes only, the private key of its engine among them: name -> content.
    :ivar fingerprint: of the engine's certificate, as engine.connection has it.
    :ivar ends: when that does, seconds since the epoch.
    """

    other_config: Mapping[str, str]
    files: Mapping[str, bytes]
    fingerprint: str
    ends: float

    def __repr__(self) -> str:  # it must not reach a log by accident
        return f"Issued(other_config={self.other_config!r}, ends={self.ends!r})"


def names(vm: VMRecord, forbidden: "Iterable[str]", allow_loopback: bool = False) -> Tuple[str, ...]:
    """What the certificate for a VM's engine is to be made out to: where it is dialled, and where it may be one day.

    :param forbidden: the addresses of the pool's hosts.
    :raises ArgumentError: what is set is neither an address nor a name. AddressRefused: it may not be used.
    :raises AddressUnknown: nothing is set, and the guest tools report nothing that may be used.
    """
    chosen = []
    text = vm.other_config.get(keys.ADDRESS, "")
    if text:
        try:
            chosen = [reach.address_or_name(text)]
        except ValueError as error:
            raise ArgumentError(f"No certificate can be made: {error}.") from error
        with contextlib.suppress(ValueError):  # a name is judged when it is dialled
            ipaddress.ip_address(chosen[0])
            for address, why in addresses.judge(chosen, forbidden, allow_loopback=allow_loopback).refused:
                raise AddressRefused(f"{address} of VM {vm.label} may not be used: {why}.")
    reported = addresses.candidates(vm.networks, forbidden, allow_loopback=allow_loopback).usable
    found = tuple(dict.fromkeys((*chosen, *reported)))
    if not found:
        raise AddressUnknown(f"The guest tools of VM {vm.label} report no IP address that may be used.",
                             "Check them and the VM's network, or give an address.")
    return found


def issue(session: Session, vm: VMRecord, answers_at: Sequence[str], now: Optional[float] = None) -> Issued:
    """Make a certificate for the engine in a VM; the pool's CA and client certificate too if there are none.

    Nothing of the VM is changed: the caller does, as soon as the guest has the files.

    :param answers_at: what it is made out to, see :func:`names`, beside the VM itself.
    :param now: instead of the clock, seconds since the epoch.
    :raises TLSCredentialsMissing: the pool's secrets are gone. TLSCredentialsInvalid: they hold something else.
    :raises ValueError: no address, or one that is neither an address nor a name.
    """
    from xscontainer.certificates import making
    from xscontainer.engine import certs

    at = time.time() if now is None else now
    pool_ref = session.xenapi.pool.get_all()[0]
    try:
        ca = pair.kept(session, pool_ref, keys.TLS_CA_SECRET, lambda: making.new_ca(certs.POOL_CA, at))
        try:
            signer = making.signer(ca.certificate, ca.key)
            making.check(signer, at)
        except ValueError as error:
            raise TLSCredentialsInvalid(f"The pool's CA is unusable: {error}.", POOL_HINT) from error
        client = pair.kept(session, pool_ref, keys.TLS_CLIENT_SECRET,
                           lambda: making.new_client(signer, making.CLIENT, at))
    except ObjectGone as error:
        raise TLSCredentialsMissing("A secret with the pool's TLS certificates is gone.", POOL_HINT) from error
    server = making.new_server(signer, vm.uuid, answers_at, at, vm.uuid)
    return Issued(
        {keys.MODE: "tls", keys.TLS_CA_CERT: ca.certificate_uuid, keys.TLS_CLIENT_CERT: client.certificate_uuid,
         keys.TLS_CLIENT_KEY: client.key_uuid},
        {"ca.pem": ca.certificate.encode("ascii"), "server-cert.pem": server.certificate.encode("ascii"),
         "server-key.pem": server.key.encode("ascii")},
        certs.fingerprint(ssl.PEM_cert_to_DER_cert(server.certificate)),
        certs.validity(certs.load(server.certificate))[1])


def scripts(directory: str) -> Dict[str, bytes]:
    """What installs the certificates in the guest, and explains: name on the medium -> content.

    :param directory: guest-config.
    :raises OSError: the installation is incomplete.
    """
    found = {}
    for name, path in _SCRIPTS.items():
        with open(os.path.join(directory, path), "rb") as source:
            found[name] = source.read()
    return found
