"""Certificates of TLS connections to engines: SSL contexts from PEM text, and what is wrong with a certificate."""

import datetime
import hashlib
import math
import re
import ssl
import tempfile
import time
from typing import Any, List, Mapping, NamedTuple, Optional, Tuple

from cryptography import x509

from xscontainer.engine import failures
from xscontainer.errors import TLSCredentialsInvalid

MOST_PEM = 64 * 1024  # characters of one certificate (with its chain) or key
MEMORY = "/dev/shm"  # a file system in memory

POOL_CA = "xscontainer CA of the pool"  # common name of the pool's own CA
_VM = "urn:uuid:"  # prefix of the name (URI) that binds a certificate to a VM


class Credentials(NamedTuple):
    """Certificates and key of one engine's connections, as PEM.

    :ivar ca: the trusted certificates; one of them must have signed the engine's.
    :ivar certificate: our client certificate, with its chain if it has one.
    :ivar key: the private key of the client certificate, not encrypted.
    """

    ca: str
    certificate: str
    key: str

    def __repr__(self) -> str:  # keeps the key out of logs
        return "Credentials(...)"


class Facts(NamedTuple):
    """The contents of a certificate, with untrusted text made fit for a message. Times are seconds since the epoch."""

    subject: str
    issuer: str
    names: Tuple[str, ...]
    begins: float
    ends: float


def client_context(credentials: Credentials, verify: bool = True) -> ssl.SSLContext:
    """Return a context for TLS 1.2 or newer that shows our certificate and verifies the engine's CA and name.

    :param verify: False: accept any certificate; only to examine one that was refused.
    :raises TLSCredentialsInvalid: if a part of the credentials is malformed, or certificate and key do not match.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _restrict(context)
    if verify:
        _load_ca(context, credentials.ca)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    _load_own(context, credentials)
    return context


def _restrict(context: ssl.SSLContext) -> None:
    if hasattr(context, "minimum_version"):  # novm
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # novm
    else:  # CPython 3.6
        context.options |= ssl.OP_NO_SSLv2 | ssl.OP_NO_SSLv3 | ssl.OP_NO_TLSv1 | ssl.OP_NO_TLSv1_1
    context.options |= getattr(ssl, "OP_NO_RENEGOTIATION", 0)


def _load_ca(context: ssl.SSLContext, pem: str) -> None:
    try:
        if len(pem) > MOST_PEM:
            raise ValueError("it is too long")
        context.load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError) as error:
        # Without the library's message, which may quote the secret.
        raise TLSCredentialsInvalid("The secret of the CA certificate holds no certificate (PEM).") from error


def _load_own(context: ssl.SSLContext, credentials: Credentials) -> None:
    if len(credentials.certificate) > MOST_PEM or len(credentials.key) > MOST_PEM:
        raise TLSCredentialsInvalid("The secret of the client certificate or its key is too long.")

    asked: List[bool] = []  # whether OpenSSL asked for a password; without a callback it would read the terminal

    def no_password() -> str:
        asked.append(True)
        return ""

    # The ssl module reads keys from files only. This file has no name and lies in memory.
    with tempfile.TemporaryFile(dir=MEMORY) as file:
        file.write(f"{credentials.certificate}\n{credentials.key}\n".encode("utf-8"))
        file.flush()
        try:
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}", password=no_password)
        except ssl.SSLError as error:
            if asked:
                why = "The private key of the client certificate is encrypted. Store it without a password."
            elif error.reason == "KEY_VALUES_MISMATCH":
                why = "The client certificate and the private key do not match."
            else:
                why = "The secrets of the client certificate and its key do not hold a certificate and a key (PEM)."
            raise TLSCredentialsInvalid(why) from error
    try:
        validity(load(credentials.certificate))
    except ValueError as error:
        raise TLSCredentialsInvalid("The client certificate is malformed.") from error


def facts(certificate: x509.Certificate) -> Facts:
    """Return the contents of a certificate.

    :raises ValueError: if it is malformed.
    """
    with failures.decoding("the certificate"):
        try:
            extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            names = tuple(failures.words(name.value) for name in extension.value)
        except x509.ExtensionNotFound:
            names = ()
        return Facts(failures.words(certificate.subject.rfc4514_string()),
                     failures.words(certificate.issuer.rfc4514_string()), names[:20], *validity(certificate))


def validity(certificate: x509.Certificate) -> Tuple[float, float]:
    """Return the first and last second of a certificate's validity, since the epoch.

    :raises ValueError: if it is malformed.
    """
    with failures.decoding("the certificate"):
        if hasattr(certificate, "not_valid_after_utc"):
            return certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
        utc = datetime.timezone.utc  # cryptography before 42 returns UTC without a time zone
        return (certificate.not_valid_before.replace(tzinfo=utc).timestamp(),
                certificate.not_valid_after.replace(tzinfo=utc).timestamp())


def fingerprint(der: bytes) -> str:
    """Return the SHA-256 of a certificate, hexadecimal."""
    return hashlib.sha256(der).hexdigest()


def fault(shown: Facts, signer: Optional[Facts], wanted: str, wrong_name: bool, reason: str,
          now: float) -> Tuple[str, str]:
    """Return what is wrong with a certificate that was refused, and a hint ("": the usual one).

    :param signer: the trusted CA certificate that signed it; None: none did.
    :param wanted: the name or address that the certificate must have.
    :param wrong_name: only the name is wrong.
    :param reason: OpenSSL's message.
    """
    if now > shown.ends:
        return f"expired on {day(shown.ends)}", "Give the engine a new certificate, or set this host's clock right."
    if now < shown.begins:
        return f"is not valid before {day(shown.begins)}", "Set the clock of this host, or that of the VM, right."
    if wrong_name:
        names = ", ".join(shown.names) or "no name or address"
        return (f"is for {names}, not for {wanted}",
                "Give the engine a certificate for this address, or set xscontainer-address in the VM's other_config "
                "to a name or address of the certificate.")
    if signer is None:
        return f"is issued by {shown.issuer}, which is not the CA that the VM's xscontainer-tls-ca-cert names", ""
    if now > signer.ends:
        return f"is issued by {signer.subject}, which expired on {day(signer.ends)}", "Make new certificates."
    return f"is refused: {reason}", ""


def signer_of(certificate: x509.Certificate, ca: str) -> Optional[Facts]:
    """Return the certificate in ``ca`` (PEM) that signed this one; of several, the one that expires last; else None."""
    found = []
    for block in each(ca):
        try:
            authority = load(block)
            with failures.decoding("the certificate"):
                certificate.verify_directly_issued_by(authority)
            found.append(facts(authority))
        except ValueError:
            continue
    return max(found, key=lambda authority: authority.ends, default=None)


def ca_end(der: bytes, ca: str) -> float:
    """Return when the CA certificate in ``ca`` (PEM) expires that signed a valid certificate, since the epoch."""
    try:
        signer = signer_of(load(ssl.DER_cert_to_PEM_cert(der)), ca)
        # With intermediate certificates it is unknown which of the CA certificates is the root.
        return signer.ends if signer else max(validity(load(block))[1] for block in each(ca))
    except ValueError:
        return math.inf  # OpenSSL reads certificates that the cryptography library does not


def vm_name(uuid: str) -> str:
    """Return the name that binds a certificate to a VM, besides the addresses of its engine."""
    return _VM + uuid


def vms_named(shown: "Mapping[str, Any]") -> "Optional[Tuple[str, ...]]":
    """Return the uuids of the VMs that a certificate names; None: it is valid for any VM at its addresses.

    :param shown: a verified certificate as ssl's getpeercert returns it.
    """
    named = tuple(failures.words(name[len(_VM):]) for kind, name in shown["subjectAltName"]
                  if kind == "URI" and name.startswith(_VM))
    ours = (("commonName", POOL_CA),) in shown["issuer"]
    return named if named or ours else None


def each(pem: str) -> List[str]:
    """Return the certificates in a PEM text, one by one."""
    return re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", pem, re.DOTALL)


def day(seconds: float) -> str:
    """Return a time as text, to the second, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def load(pem: str) -> x509.Certificate:
    """Return the first certificate in ``pem``.

    :raises ValueError: if there is none, or it is malformed.
    """
    with failures.decoding("the certificate"):
        return x509.load_pem_x509_certificate(pem.encode("utf-8"))
