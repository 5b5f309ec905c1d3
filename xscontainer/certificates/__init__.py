"""Issue certificates for engines that are reached over TLS.

One CA and one client certificate serve the whole pool; they are kept in XAPI secrets. Each VM has a server certificate
of its own, whose key is handed to the guest on a CD and not kept. The CA's key never leaves XAPI. :mod:`.renewal`
replaces the pool's certificates before they expire.
"""

import contextlib
import ipaddress
import os
import ssl
import time
from typing import Dict, Iterable, Mapping, NamedTuple, Optional, Sequence, Tuple

from xscontainer import keys
from xscontainer.core import addresses, target
from xscontainer.core.vm_record import VMRecord
from xscontainer.errors import (
    AddressRefused,
    AddressUnknown,
    ArgumentError,
    ObjectGone,
    TLSCredentialsInvalid,
    TLSCredentialsMissing,
)
from xscontainer.xapi import stored_certificate
from xscontainer.xapi.session import Session

LABEL = "XSCONTAINER"  # of the CD
POOL_HINT = (f"Remove {keys.TLS_CA_SECRET} and {keys.TLS_CLIENT_SECRET} from the pool's other_config. Then prepare "
             "each VM that is reached over TLS again: xscontainer prepare VM --mode tls --generate-certs.")

# Files on the CD beside the certificates -> path in the directory guest-config.
_SCRIPTS = {"enable-tls.sh": "linux/enable-tls.sh", "enable-tls.ps1": "windows/enable-tls.ps1",
            "README.txt": "tls-medium.txt"}


class Issued(NamedTuple):
    """A certificate that was issued for the engine of a VM.

    :ivar other_config: keys to set in the VM's other_config.
    :ivar files: for the guest alone, with the private key of its engine: name -> content.
    :ivar fingerprint: of the engine's certificate, in the form of engine.connection.
    :ivar ends: when the engine's certificate expires, seconds since the epoch.
    """

    other_config: Mapping[str, str]
    files: Mapping[str, bytes]
    fingerprint: str
    ends: float

    def __repr__(self) -> str:  # the private key must not reach a log
        return f"Issued(other_config={self.other_config!r}, ends={self.ends!r})"


def names(vm: VMRecord, forbidden: "Iterable[str]", allow_loopback: bool = False) -> Tuple[str, ...]:
    """Return the addresses and names for the certificate of a VM's engine.

    They are the address that is set for the VM, and all that the guest tools report.

    :param forbidden: the addresses of the pool's hosts.
    :raises ArgumentError: when the address that is set is neither an IP address nor a name.
    :raises AddressRefused: when the address that is set may not be used.
    :raises AddressUnknown: when no address is set, and the guest tools report none that may be used.
    """
    chosen = []
    text = vm.other_config.get(keys.ADDRESS, "")
    if text:
        try:
            chosen = [target.address_or_name(text)]
        except ValueError as error:
            raise ArgumentError(f"No certificate can be made: {error}.") from error
        with contextlib.suppress(ValueError):  # a name is resolved and checked on each connection
            ipaddress.ip_address(chosen[0])
            for address, why in addresses.judge(chosen, forbidden, allow_loopback=allow_loopback).refused:
                raise AddressRefused(f"The address {address} of VM {vm.label} may not be used: {why}.")
    reported = addresses.candidates(vm.networks, forbidden, allow_loopback=allow_loopback).usable
    found = tuple(dict.fromkeys((*chosen, *reported)))
    if not found:
        raise AddressUnknown(f"The guest tools of VM {vm.label} report no IP address that may be used.",
                             "Check them and the VM's network, or give an address.")
    return found


def issue(session: Session, vm: VMRecord, answers_at: Sequence[str], now: Optional[float] = None) -> Issued:
    """Issue a certificate for the engine in a VM; make the pool's CA and client certificate if there are none.

    The VM is not changed: the caller sets its keys as soon as the guest has the files.

    :param answers_at: addresses and names for the certificate, see :func:`names`.
    :param now: seconds since the epoch; None: the clock.
    :raises TLSCredentialsMissing: when a secret of the pool is gone.
    :raises TLSCredentialsInvalid: when a secret of the pool holds no usable certificate.
    :raises ValueError: when there is no address, or one is neither an IP address nor a name.
    """
    # Imported here for start-up time: the x509 part of cryptography takes 80 ms, and few calls need it.
    from xscontainer.certificates import making
    from xscontainer.engine.tls import certs

    at = time.time() if now is None else now
    pool_ref = session.xenapi.pool.get_all()[0]
    try:
        ca = stored_certificate.get_or_create(session, pool_ref, keys.TLS_CA_SECRET,
                                              lambda: making.new_ca(certs.POOL_CA, at))
        try:
            signer = making.signer(ca.certificate, ca.key)
            making.check(signer, at)
        except ValueError as error:
            raise TLSCredentialsInvalid(f"The pool's CA is unusable: {error}.", POOL_HINT) from error
        client = stored_certificate.get_or_create(session, pool_ref, keys.TLS_CLIENT_SECRET,
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
    """Return the scripts that install certificates in a guest, and their README: name on the CD -> content.

    :param directory: the directory guest-config.
    :raises OSError: when the installation is incomplete.
    """
    found = {}
    for name, path in _SCRIPTS.items():
        with open(os.path.join(directory, path), "rb") as source:
            found[name] = source.read()
    return found
