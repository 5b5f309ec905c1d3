"""Certificates on the engine's side: what a TLS connection is made from, and what is wrong with one shown to us."""

import datetime
import hashlib
import math
import re
import ssl
import tempfile
import time
from typing import Any, List, Mapping, NamedTuple, Optional, Tuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from xscontainer.engine import failures
from xscontainer.errors import TLSCredentialsInvalid

MOST_PEM = 64 * 1024  # characters of one certificate (with its chain) or key
MEMORY = "/dev/shm"  # a file system that no disk holds

POOL_CA = "xscontainer CA of the pool"  # what the pool's own is called
_VM = "urn:uuid:"  # begins a name (URI) that binds a certificate to a VM

# What the library raises beside ValueError for a certificate that keeps to no rules.
_MALFORMED = (x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)


class Credentials(NamedTuple):
    """All PEM.

    :ivar ca: the certificate(s) one of which must have signed the engine's; no other is trusted.
    :ivar certificate: ours, with its chain if it has one.
    :ivar key: its private key, not encrypted.
    """

    ca: str
    certificate: str
    key: str

    def __repr__(self) -> str:  # it must not reach a log by accident
        return "Credentials(...)"


class Facts(NamedTuple):
    """What a certificate says; words from a guest, fit for a message. Times are seconds since the epoch."""

    subject: str
    issuer: str
    names: Tuple[str, ...]
    begins: float
    ends: float


def client_context(credentials: Credentials, verify: bool = True) -> ssl.SSLContext:
    """TLS 1.2 or newer, our certificate shown, the engine's verified against its CA and the name that is dialled.

    :param verify: False: any certificate will do; to look at one that was refused, never to talk.
    :raises TLSCredentialsInvalid: one of them is no such thing, or certificate and key are not a pair.
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
        # Not the library's words: they may quote what is in the secret.
        raise TLSCredentialsInvalid("The secret with the CA certificate holds no certificate (PEM).") from error


def _load_own(context: ssl.SSLContext, credentials: Credentials) -> None:
    if len(credentials.certificate) > MOST_PEM or len(credentials.key) > MOST_PEM:
        raise TLSCredentialsInvalid("The secret with the client certificate or its key is too long.")

    asked: List[bool] = []  # for a password, which OpenSSL would read from the terminal

    def no_password() -> str:
        asked.append(True)
        return ""

    # The ssl module reads keys from files only: from one in memory that has no name.
    with tempfile.TemporaryFile(dir=MEMORY) as file:
        file.write(f"{credentials.certificate}\n{credentials.key}\n".encode("utf-8"))
        file.flush()
        try:
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}", password=no_password)
        except ssl.SSLError as error:
            if asked:
                why = "The private key of the client certificate is encrypted; store it without a password."
            elif error.reason == "KEY_VALUES_MISMATCH":
                why = "The client certificate and the private key are no pair."
            else:
                why = "The secrets with the client certificate and its key do not hold a certificate and a key (PEM)."
            raise TLSCredentialsInvalid(why) from error
    try:
        load(credentials.certificate)
    except ValueError as error:
        raise TLSCredentialsInvalid("The client certificate is malformed.") from error


def facts(certificate: x509.Certificate) -> Facts:
    """:raises ValueError: it is malformed."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = tuple(failures.words(name.value) for name in extension.value)
    except x509.ExtensionNotFound:
        names = ()
    except _MALFORMED as error:
        raise ValueError("its extensions are malformed") from error
    return Facts(failures.words(certificate.subject.rfc4514_string()),
                 failures.words(certificate.issuer.rfc4514_string()), names[:20], *validity(certificate))


def validity(certificate: x509.Certificate) -> Tuple[float, float]:
    """First and last second of it, since the epoch."""
    if hasattr(certificate, "not_valid_after_utc"):
        return certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    utc = datetime.timezone.utc  # cryptography before 42 gives UTC without saying so
    return (certificate.not_valid_before.replace(tzinfo=utc).timestamp(),
            certificate.not_valid_after.replace(tzinfo=utc).timestamp())


def fingerprint(der: bytes) -> str:
    """SHA-256 of a certificate, hexadecimal."""
    return hashlib.sha256(der).hexdigest()


def fault(shown: Facts, signer: Optional[Facts], wanted: str, wrong_name: bool, said: str,
          now: float) -> Tuple[str, str]:
    """What is wrong with a certificate that was refused, and what to do about it ("": the usual).

    :param signer: the CA certificate of ours that signed it, if one did.
    :param wanted: the name or address that was dialled.
    :param wrong_name: all is well with it but the name.
    :param said: OpenSSL's words.
    """
    if now > shown.ends:
        return f"ended on {day(shown.ends)}", "Give the engine a new certificate, or set this host's clock right."
    if now < shown.begins:
        return f"is not valid before {day(shown.begins)}", "Set the clock of this host, or that of the VM, right."
    if wrong_name:
        names = ", ".join(shown.names) or "no name or address at all"
        return (f"is made out to {names}, and not to {wanted}",
                "Give the engine a certificate for this address, or the VM an xscontainer-address that it is made "
                "out to.")
    if signer is None:
        return f"is issued by {shown.issuer}, which is not the CA that the VM's xscontainer-tls-ca-cert names", ""
    if now > signer.ends:
        return f"is issued by {signer.subject}, whose own ended on {day(signer.ends)}", "Make new certificates."
    return f"is refused: {said}", ""


def signer_of(certificate: x509.Certificate, ca: str) -> Optional[Facts]:
    """The certificate in ``ca`` (PEM) whose key signed this one, if one did; of several the one that lasts longest."""
    found = []
    for block in each(ca):
        try:
            authority = load(block)
            certificate.verify_directly_issued_by(authority)
            found.append(facts(authority))
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            continue
    return max(found, key=lambda authority: authority.ends, default=None)


def ca_end(der: bytes, ca: str) -> float:
    """When the last certificate in ``ca`` (PEM) ends that vouches for one that was found good; since the epoch."""
    try:
        signer = signer_of(load(ssl.DER_cert_to_PEM_cert(der)), ca)
        # Others stand between: which of these they lead to is not told.
        return signer.ends if signer else max(validity(load(block))[1] for block in each(ca))
    except ValueError:
        return math.inf  # OpenSSL reads what the library does not


def vm_name(uuid: str) -> str:
    """The name in a certificate for the engine of that VM, beside where it answers."""
    return _VM + uuid


def vms_named(shown: "Mapping[str, Any]") -> "Optional[Tuple[str, ...]]":
    """Uuids of the VMs that a certificate is good for; None: for any that answers where it is made out to.

    :param shown: as ssl's getpeercert gives it, once it was found good.
    """
    named = tuple(failures.words(name[len(_VM):]) for kind, name in shown["subjectAltName"]
                  if kind == "URI" and name.startswith(_VM))
    ours = (("commonName", POOL_CA),) in shown["issuer"]
    return named if named or ours else None


def each(pem: str) -> List[str]:
    """The certificates in there, one by one."""
    return re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", pem, re.DOTALL)


def day(seconds: float) -> str:
    """A time as people read it, to the second, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def load(pem: str) -> x509.Certificate:
    """The first certificate in ``pem``.

    :raises ValueError: there is none.
    """
    try:
        return x509.load_pem_x509_certificate(pem.encode("utf-8"))
    except _MALFORMED as error:
        raise ValueError("it is malformed") from error
