"""Trust in servers: a certificate is checked against a CA file, or its fingerprint is confirmed once."""

import hashlib
import re
import ssl
from typing import Callable, Collection

from xscontainer.errors import ArgumentError, XapiNotTrusted
from xscontainer.xapi.address import Address
from xscontainer.xapi.known_servers import KnownServers

ON_THE_HOST = "openssl x509 -noout -fingerprint -sha256 -in /etc/xensource/xapi-ssl.pem"
COMPARE = f"Compare it with what this command prints on the host's console: {ON_THE_HOST}"


class Trust:
    """Decides whether a certificate is that of the server.

    :ivar context: for TLS to all servers.
    """

    def __init__(self) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if hasattr(self.context, "minimum_version"):  # novm
            self.context.minimum_version = ssl.TLSVersion.TLSv1_2  # novm
        else:  # CPython 3.6
            self.context.options |= ssl.OP_NO_SSLv2 | ssl.OP_NO_SSLv3 | ssl.OP_NO_TLSv1 | ssl.OP_NO_TLSv1_1

    def check(self, address: Address, certificate: bytes) -> None:
        """Check what TLS itself does not check.

        :param certificate: DER.
        :raises XapiNotTrusted: it is not that of the server.
        """


class ByAuthority(Trust):
    """A CA of the file signed the certificate, and it names the server.

    :param ca_file: path of a file with PEM certificates.
    :raises ArgumentError: the file cannot be read or has none.
    """

    def __init__(self, ca_file: str) -> None:
        super().__init__()
        try:
            self.context.load_verify_locations(cafile=ca_file)
        except ssl.SSLError as error:
            raise ArgumentError(f"The CA file {ca_file} has no certificate in PEM format.") from error
        except OSError as error:
            raise ArgumentError(f"The CA file {ca_file} cannot be read: {error.strerror or error}.") from error


class ByFingerprint(Trust):
    """The certificate has a fingerprint that was given, or that a person has confirmed for this server.

    :param given: fingerprints; if there are any, no other is accepted.
    :param known: the confirmed ones.
    :param confirm: asks a person about a server that is not known yet; raises if it is not confirmed.
    """

    def __init__(self, given: "Collection[str]", known: KnownServers,
                 confirm: "Callable[[Address, str], None]") -> None:
        super().__init__()
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE
        self._given = frozenset(map(fingerprint_in, given))
        self._known = known
        self._confirm = confirm

    def check(self, address: Address, certificate: bytes) -> None:
        presented = fingerprint_of(certificate)
        if presented in self._given:
            return
        if self._given:
            raise XapiNotTrusted(f"XAPI at {address} presents another certificate than the given one. Its SHA-256 "
                                 f"fingerprint is {presented}.",
                                 f"{COMPARE}. If they are equal, give it with --fingerprint.")
        known = self._known.fingerprint(address)
        if known is None:
            self._confirm(address, presented)
            self._known.add(address, presented)
        elif known != presented:
            raise XapiNotTrusted(
                f"XAPI at {address} presents another certificate than the one that was confirmed. The SHA-256 "
                f"fingerprint is {presented}, the confirmed one is {known}. Somebody may be intercepting the "
                "connection, or the host has a new certificate.",
                f"{COMPARE}. If they are equal, remove the line of {address} from {self._known.path} and repeat the "
                "command.")


def fingerprint_of(certificate: bytes) -> str:
    """Return the SHA-256 of a DER certificate as openssl writes it: 32 bytes in hexadecimal with colons."""
    digits = hashlib.sha256(certificate).hexdigest().upper()
    return ":".join(digits[at:at + 2] for at in range(0, len(digits), 2))


def fingerprint_in(text: str) -> str:
    """Return the fingerprint in a text of 64 hexadecimal digits, with or without colons and "SHA256:".

    :raises ArgumentError: when there is none.
    """
    digits = re.sub(r"\A\s*(sha-?256)?(\s*fingerprint)?[:=\s]*", "", text.lower()).strip().replace(":", "")
    if not re.match(r"[0-9a-f]{64}\Z", digits):
        raise ArgumentError(f"{text[:200]!r} is not a SHA-256 fingerprint: 64 hexadecimal digits, with or without "
                            "colons.", f"This command prints it on the host: {ON_THE_HOST}.")
    return ":".join(digits[at:at + 2] for at in range(0, 64, 2)).upper()
