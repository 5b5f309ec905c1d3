"""Keys and certificates, from nothing but chance: a CA for the pool, one pair for an engine, one for us.

ECDSA on P-256, which every engine with TLS 1.2 knows. What may sign says so (BasicConstraints, KeyUsage), what may not
is bound to one purpose: the key of a guest's engine lets nobody in anywhere.
"""

import datetime
import ipaddress
from typing import TYPE_CHECKING, List, NamedTuple, Optional, Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from xscontainer.engine.certs import each, validity, vm_name
from xscontainer.reach import address_or_name

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

CA_DAYS = 3650
LEAF_DAYS = 825
CLIENT = "xscontainer"  # what the pool's client certificate is called
# Clocks of guests differ, and a certificate is used as soon as it is made.
BEGINS_BEFORE = datetime.timedelta(days=1)


class Pair(NamedTuple):
    """A certificate and its private key, both PEM; the key as PKCS #8, not encrypted."""

    certificate: str
    key: str

    def __repr__(self) -> str:  # it must not reach a log by accident
        return "Pair(...)"


class _Loaded(NamedTuple):
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def new_ca(label: str, now: float) -> Pair:
    """A CA of its own, for :data:`CA_DAYS`.

    :param label: its name; at most 64 characters are used.
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
    """For an engine that answers at ``addresses`` (IPv4, IPv6, names), for :data:`LEAF_DAYS`.

    :param vm: uuid of the VM that it is in, for which alone the certificate is good then.
    :raises ValueError: there is no address, or one is neither an address nor a name; or ``ca`` is unusable.
    """
    if not addresses:
        raise ValueError("a server's certificate needs an address")
    found: List[x509.GeneralName] = [_alternative(address) for address in dict.fromkeys(addresses)]
    if vm:
        found.append(x509.UniformResourceIdentifier(vm_name(vm)))
    return _leaf(ca, label, ExtendedKeyUsageOID.SERVER_AUTH, now, x509.SubjectAlternativeName(found))


def new_client(ca: Pair, label: str, now: float, days: int = LEAF_DAYS) -> Pair:
    """For ourselves.

    :raises ValueError: ``ca`` is unusable.
    """
    return _leaf(ca, label, ExtendedKeyUsageOID.CLIENT_AUTH, now, None, days)


def signer(certificates: str, key: str) -> Pair:
    """The certificate that this key belongs to, of several (PEM), with it.

    :raises ValueError: there is none, or the key can not sign.
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
    """:raises ValueError: it can not sign, or not for long enough to be worth it."""
    if validity(_load(ca).certificate)[1] - now < 86400.0:
        raise ValueError("it has ended")


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
    certificate = x509.load_pem_x509_certificate(pair.certificate.encode("utf-8"))
    try:
        key = serialization.load_pem_private_key(pair.key.encode("utf-8"), None)
    except TypeError as error:
        raise ValueError("the CA's key is encrypted") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the CA's key is not of the kind that is made here")
    if _raw(key.public_key()) != _raw(certificate.public_key()):
        raise ValueError("the CA's certificate and key are no pair")
    return _Loaded(certificate, key)


def _raw(key: "PublicKeyTypes") -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
