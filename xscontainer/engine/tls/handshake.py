"""From several addresses to one TLS connection whose certificates are verified on both sides, or the reason why not."""

import socket
import ssl
import time
from typing import Any, Callable, NamedTuple, Optional, Sequence, Tuple

from cryptography import x509

from xscontainer.engine import address_fallback, failures
from xscontainer.engine.dial import dial
from xscontainer.engine.tls import certs
from xscontainer.engine.tls.certs import Credentials
from xscontainer.engine.tls.stream import hung_up, openssl_message, refusal, timed_out
from xscontainer.errors import (
    AddressConflict,
    AnotherVM,
    ConnectError,
    GuestSilent,
    GuestUnreachable,
    TLSCertificateInvalid,
    TLSClientRefused,
    TLSProtocol,
    XSContainerError,
)
from xscontainer.settings import GuestSettings

_UNREACHABLE_HINT = "Check that the engine listens on that port in the VM and that no firewall blocks it for this host."
_SILENT_HINT = "Check that the engine listens there and that the VM is not overloaded."
_OTHER_VM_HINT = ("Check that no two VMs report the same address. If this VM is a copy of that one, make certificates "
                  "for it ('xscontainer prepare VM --mode tls --generate-certs').")
# OpenSSL's codes for "host name mismatch" and "IP address mismatch": only the name in the certificate is wrong.
_WRONG_NAME = (62, 64)


class Target(NamedTuple):
    """The address of the engine, and the identity that its certificate must prove.

    :ivar addresses: numeric IPs in order of preference.
    :ivar name: the name that the engine's certificate must have; "": the address that answers.
    :ivar vm: uuid of the engine's VM. A certificate that names VMs, as those of the pool's CA do, must name it.
    :ivar judge: called with the address if the certificate names no VM. A ConnectError that it raises gives up the
        address.
    """

    addresses: Tuple[str, ...]
    port: int
    name: str = ""
    vm: str = ""
    judge: Optional[Callable[[str], None]] = None


class Shaken(NamedTuple):
    """A TLS connection after its handshake.

    :ivar where: address and port, for messages.
    :ivar expires: seconds since the epoch. :ivar der: the engine's certificate.
    """

    sock: ssl.SSLSocket
    address: str
    where: str
    expires: float
    der: bytes


class Handshake:
    """Makes TLS connections to one engine.

    :raises TLSCredentialsInvalid: if the credentials are unusable.
    """

    def __init__(self, target: Target, credentials: Credentials, guest: GuestSettings) -> None:
        self._target = target
        self._credentials = credentials
        self._context = certs.client_context(credentials)
        self._guest = guest

    def shake(self, address: str, deadline: float) -> Shaken:
        """Connect and complete the handshake before ``deadline`` (time.monotonic()).

        :param address: the address of the engine's earlier connections; "": try each of the target's.
        :raises ConnectError: GuestUnreachable, GuestSilent, TLSCertificateInvalid, TLSClientRefused, TLSProtocol.
        """
        # All streams must lead to the same engine, so only the first connection chooses the address.
        addresses = (address,) if address else self._target.addresses
        return address_fallback.try_each(
            addresses, lambda remaining: self._shake_at(remaining, not address, deadline), deadline)

    def _shake_at(self, addresses: Sequence[str], first: bool, deadline: float) -> Shaken:
        connected, address = self._dial(addresses, deadline)
        where = f"{address} port {self._target.port}"
        wanted = self._target.name or address
        sock = None
        try:
            sock = self._context.wrap_socket(connected, server_hostname=wanted, do_handshake_on_connect=False,
                                             suppress_ragged_eofs=False)
            sock.settimeout(max(0.001, min(self._guest.handshake_timeout, deadline - time.monotonic())))
            sock.do_handshake()
            shown: Any = sock.getpeercert()
            if not shown.get("subjectAltName"):
                # CPython 3.6 falls back to the common name, which is obsolete.
                raise ssl.CertificateError("it names no address")
            self._check_vm(certs.vms_named(shown), address, where, first)
            return Shaken(sock, address, where, ssl.cert_time_to_seconds(shown["notAfter"]),
                          sock.getpeercert(True) or b"")
        except BaseException as error:
            (sock or connected).close()
            ours = error if isinstance(error, ConnectError) else self._translated(error, address, wanted, deadline)
            if isinstance(ours, (GuestSilent, TLSCertificateInvalid, TLSProtocol, AddressConflict, AnotherVM)):
                ours.suspect_address = address
            if ours is None or ours is error:
                raise
            raise ours from error

    def _check_vm(self, named: Optional[Tuple[str, ...]], address: str, where: str, first: bool) -> None:
        """Check that the engine is the VM's.

        A guest can report any address, but the CA decides which VM a certificate names.
        """
        if named is not None and self._target.vm not in named:
            raise TLSCertificateInvalid(f"The certificate of the engine at {where} is for "
                                        f"{f'VM {named[0]}' if named else 'no VM'}, not for this VM.", _OTHER_VM_HINT)
        if named is None and self._target.judge is not None and first:
            self._target.judge(address)

    def _dial(self, addresses: Sequence[str], deadline: float) -> Tuple[socket.socket, str]:
        timeout = max(0.001, min(self._guest.connect_timeout, deadline - time.monotonic()))
        try:
            connected = dial(addresses, self._target.port, timeout, self._guest.dead_after)
        except GuestUnreachable as error:
            raise type(error)(error.message, _UNREACHABLE_HINT) from error
        try:
            _set_keepalive(connected.sock, self._guest)
        except BaseException:
            connected.sock.close()
            raise
        return connected.sock, connected.address

    def _translated(self, error: BaseException, address: str, wanted: str,
                    deadline: float) -> Optional[XSContainerError]:
        """Return our error for one of the handshake; None if the error is not of the handshake."""
        where = f"{address} port {self._target.port}"
        if isinstance(error, ssl.CertificateError) or _is_verification(error):
            return self._refused_certificate(error, address, wanted, deadline)
        if hung_up(error):
            return GuestSilent(f"The server at {where} closed the connection during the TLS handshake.", _SILENT_HINT)
        refused = refusal(error, where) if isinstance(error, ssl.SSLError) else None
        if refused is not None:
            return self.explained(refused)
        if isinstance(error, ssl.SSLError) and failures.meaning(error, failures.TLS) is TLSProtocol:
            return TLSProtocol(f"The server at {where} does not speak TLS as required ({openssl_message(error)}).")
        if timed_out(error):
            return GuestSilent(f"The server at {where} did not complete the TLS handshake in time.", _SILENT_HINT)
        if isinstance(error, OSError):
            return GuestSilent(f"The TLS handshake with {where} failed: {failures.words(error)}.", _SILENT_HINT)
        return None

    def explained(self, refused: TLSClientRefused) -> TLSClientRefused:
        """Return the error with our certificate's dates if the certificate is not valid now."""
        begins, ends = certs.validity(certs.load(self._credentials.certificate))
        if begins <= time.time() <= ends:
            return refused
        return TLSClientRefused(f"{refused.message[:-1]}; it is valid from {certs.day(begins)} to {certs.day(ends)}.",
                                "Give the VM a new client certificate, or set this host's clock right.")

    def _refused_certificate(self, error: BaseException, address: str, wanted: str,
                             deadline: float) -> TLSCertificateInvalid:
        """Explain what is wrong with the engine's certificate.

        OpenSSL does not hand over a certificate that it refused, so get it in a second handshake.
        """
        reason = failures.words(getattr(error, "verify_message", "") or error)
        hint = ""
        try:
            certificate = self._unverified(address, deadline)
            shown = certs.facts(certificate)
            what, hint = certs.fault(shown, certs.signer_of(certificate, self._credentials.ca), wanted,
                                     _is_only_the_name(error), reason, time.time())
            what = f"({shown.subject}) {what}"
        except (OSError, ValueError, XSContainerError):
            what = f"is refused: {reason}"
        return TLSCertificateInvalid(f"The certificate of the engine at {address} port {self._target.port} {what}.",
                                     hint)

    def _unverified(self, address: str, deadline: float) -> x509.Certificate:
        context = certs.client_context(self._credentials, verify=False)
        connected, _ = self._dial((address,), deadline)
        with connected, context.wrap_socket(connected, do_handshake_on_connect=False) as sock:
            sock.settimeout(max(0.001, min(self._guest.handshake_timeout, deadline - time.monotonic())))
            sock.do_handshake()
            return certs.load(ssl.DER_cert_to_PEM_cert(sock.getpeercert(True) or b""))


def _is_verification(error: BaseException) -> bool:
    return isinstance(error, ssl.SSLError) and getattr(error, "reason", "") == "CERTIFICATE_VERIFY_FAILED"


def _is_only_the_name(error: BaseException) -> bool:
    code = getattr(error, "verify_code", None)
    # CPython 3.6 has no codes. It compares the name itself, after OpenSSL has accepted the rest.
    return isinstance(error, ssl.CertificateError) if code is None else code in _WRONG_NAME


def _set_keepalive(sock: socket.socket, guest: GuestSettings) -> None:
    """Let the kernel notice a dead guest, as an SSH connection does: an idle stream has nothing to send."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle = max(1, int(guest.keepalive))
    between = max(1, int((guest.dead_after - guest.keepalive) / 3))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, between)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
