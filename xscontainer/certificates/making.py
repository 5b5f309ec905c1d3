"""Make keys and certificates: a CA for the pool, a server certificate for an engine, a client certificate for hosts.

Keys are ECDSA on P-256, which every engine with TLS 1.2 supports. Only a CA may sign (BasicConstraints, KeyUsage).
Other certificates have one purpose: with the key of a guest's engine nobody can log in to another engine.
"""

import datetime
import ipaddress
from typing import TYPE_CHECKING, List, NamedTuple, Optional, Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from xscontainer.core.target import address_or_name
from xscontainer.engine import failures
from xscontainer.engine.tls.certs import each, load, validity, vm_name

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

CA_DAYS = 3650
LEAF_DAYS = 825
CLIENT = "xscontainer"  # common name of the pool's client certificate
# Clocks of guests differ, and a certificate is used immediately.
BEGINS_BEFORE = datetime.timedelta(days=1)


class Pair(NamedTuple):
    """A certificate and its private key, both PEM; the key is PKCS #8 and not encrypted."""

    certificate: str
    key: str

    def __repr__(self) -> str:  # the private key must not reach a log
        return "Pair(...)"


class _Loaded(NamedTuple):
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def new_ca(label: str, now: float) -> Pair:
    """Make a self-signed CA, valid for :data:`CA_DAYS`.

    :param label: common name; at most 64 characters are used.
    :param now: seconds since the epoch.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(label)
    builder = _builder(name, name, key, now, CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return _pair(builder.sign(key, hashes.SHA256()), key)


def new_server(ca: Pair, label: str, addresses: Sequence[str], now: float, vm: str = "") -> Pair:
    """Make a certificate for an engine that answers at ``addresses``, valid for :data:`LEAF_DAYS`.

    :param addresses: IPv4 and IPv6 addresses, and names.
    :param vm: uuid of the engine's VM, the only VM that the certificate is accepted for; "": any.
    :raises ValueError: when there is no address, one is neither an IP address nor a name, or ``ca`` is unusable.
    """
    if not addresses:
        raise ValueError("a server's certificate needs an address")
    found: List[x509.GeneralName] = [_alternative(address) for address in dict.fromkeys(addresses)]
    if vm:
        found.append(x509.UniformResourceIdentifier(vm_name(vm)))
    return _leaf(ca, label, ExtendedKeyUsageOID.SERVER_AUTH, now, x509.SubjectAlternativeName(found))


def new_client(ca: Pair, label: str, now: float, days: int = LEAF_DAYS) -> Pair:
    """Make the certificate that hosts present to engines.

    :raises ValueError: when ``ca`` is unusable.
    """
    return _leaf(ca, label, ExtendedKeyUsageOID.CLIENT_AUTH, now, None, days)


def signer(certificates: str, key: str) -> Pair:
    """Return the certificate that matches the key, of several, together with the key.

    :param certificates: PEM.
    :raises ValueError: when none matches, or the key cannot sign.
    """
    failure = ValueError("there is no certificate")
    for certificate in each(certificates):
        found = Pair(certificate + "\n", key)
        try:
            _load(found)
        except ValueError as error:
            failure = error
        else:
            return found
    raise failure


def check(ca: Pair, now: float) -> None:
    """Check that a CA can sign for at least one more day.

    :raises ValueError: when it cannot.
    """
    if validity(_load(ca).certificate)[1] - now < 86400.0:
        raise ValueError("it has expired")


def _leaf(ca: Pair, label: str, purpose: x509.ObjectIdentifier, now: float,
          names: Optional[x509.SubjectAlternativeName], days: int = LEAF_DAYS) -> Pair:
    signer = _load(ca)
    key = ec.generate_private_key(ec.SECP256R1())
    left = int((validity(signer.certificate)[1] - now) // 86400)
    builder = _builder(_name(label), signer.certificate.subject, key, now, min(days, left))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()), critical=False)
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    return _pair(builder.sign(signer.key, hashes.SHA256()), key)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: float,
             days: int) -> x509.CertificateBuilder:
    moment = datetime.datetime.fromtimestamp(int(now), datetime.timezone.utc)
    return (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment - BEGINS_BEFORE).not_valid_after(moment + datetime.timedelta(days=days)))


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
        decipher_only=False)


def _name(label: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, label[:64])])


def _alternative(address: str) -> x509.GeneralName:
    wanted = address_or_name(address)
    try:
        return x509.IPAddress(ipaddress.ip_address(wanted))
    except ValueError:
        return x509.DNSName(wanted)


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                          serialization.NoEncryption()).decode("ascii"))


def _load(pair: Pair) -> _Loaded:
    """Decode a CA.

    :raises ValueError: when the certificate or the key is malformed or unusable.
    """
    certificate = load(pair.certificate)
    with failures.decoding("the CA's certificate"):
        _ = certificate.subject  # decoded lazily
        signed = _raw(certificate.public_key())
    if "ENCRYPTED" in pair.key:
        raise ValueError("the CA's key is encrypted")
    with failures.decoding("the CA's key"):
        key = serialization.load_pem_private_key(pair.key.encode("utf-8"), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the CA's key is not an elliptic curve key")
    if _raw(key.public_key()) != signed:
        raise ValueError("the CA's certificate and key do not match")
    return _Loaded(certificate, key)


def _raw(key: "PublicKeyTypes") -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
