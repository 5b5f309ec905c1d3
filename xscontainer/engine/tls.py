"""The engine's own TCP port, over TLS with certificates on both sides: each stream is a connection of its own."""

import socket
import ssl
import threading
import time
from typing import Any, NamedTuple, Optional, Sequence, Set, Tuple

from cryptography import x509

from xscontainer.engine import certs, failures, strangers
from xscontainer.engine.certs import Credentials
from xscontainer.engine.connection import CA, CLIENT, ENGINE, Connection, End
from xscontainer.engine.dial import dial
from xscontainer.engine.exchange import exchange
from xscontainer.engine.tlsstream import TLSStream, hung_up, refusal, said
from xscontainer.errors import (
    ConnectError,
    EngineTimeout,
    GuestSilent,
    GuestUnreachable,
    TLSCertificateInvalid,
    TLSClientRefused,
    TLSProtocol,
    TransportLost,
    XSContainerError,
)
from xscontainer.settings import EngineSettings, SSHSettings

__all__ = ["Credentials", "TLSConnection", "Target", "connect"]

METHOD = "tls"

_UNREACHABLE_HINT = ("Check that the engine listens on that port in the VM and that no firewall stands between it and "
                     "this host.")
_SILENT_HINT = "Check that it is the engine that listens there and that the VM is not overloaded."
_OTHER_VM_HINT = ("Check that no two VMs report the same address. If this VM is a copy of that one, have certificates "
                  "made for it ('xscontainer prepare VM --mode tls --generate-certs').")
# OpenSSL's names for "the name is wrong" and "the address is wrong", the only faults of an else good certificate.
_WRONG_NAME = (62, 64)


class Target(NamedTuple):
    """Where the engine listens.

    :ivar addresses: numeric IPs in order of preference.
    :ivar name: what its certificate must be made out to; "": the address that answers.
    :ivar vm: uuid of the VM that it is in: a certificate that names VMs, as all of the pool's own CA, must name it.
    """

    addresses: Tuple[str, ...]
    port: int
    name: str = ""
    vm: str = ""


class TLSConnection(Connection):
    """Nothing stands between streams; it is ended by close() only."""

    method = METHOD

    def __init__(self, target: Target, credentials: Credentials, ssh: SSHSettings, engine: EngineSettings) -> None:
        """:raises TLSCredentialsInvalid: they are unusable."""
        self._target = target
        self._credentials = credentials
        self._context = certs.client_context(credentials)
        self._own_end = certs.validity(certs.load(credentials.certificate))[1]
        self._ssh = ssh
        self._channels = threading.BoundedSemaphore(engine.max_channels)
        self._lock = threading.Lock()
        self._streams: Set[TLSStream] = set()
        self._shown: Optional[Tuple[float, bytes]] = None  # end and DER of the engine's certificate
        self._proven: Optional[TLSStream] = None  # has carried a request, and waits for the next
        self._closed = False

    def prove(self) -> None:
        """Carry one request, for what only shows then: the engine refuses our certificate, or is none.

        :raises XSContainerError: as :func:`connect`.
        """
        seconds = self._ssh.connect_timeout + self._ssh.banner_timeout
        stream = self.open_stream(seconds)
        try:
            stream.deadline = time.monotonic() + self._ssh.auth_timeout
            keep = exchange(stream, "GET", "/_ping", headers={"Host": "engine"}).keep
            stream.deadline = None
        except TLSClientRefused as error:
            stream.close()
            raise self._explained(error) from error
        except BaseException:
            stream.close()
            raise
        if keep:
            self._proven = stream
        else:
            stream.close()

    def open_stream(self, timeout: float) -> TLSStream:
        deadline = time.monotonic() + timeout
        with self._lock:
            self._check_open()
            proven, self._proven = self._proven, None
        if proven is not None:
            if not proven.stale:
                return proven
            proven.close()
        if not self._channels.acquire(timeout=timeout):
            raise EngineTimeout("All connections to the engine stayed in use.")
        try:
            stream = TLSStream(*self._shake_hands(deadline), self._given_back)
        except BaseException:
            self._channels.release()
            raise
        with self._lock:
            self._streams.add(stream)
            closed = self._closed
        if closed:
            stream.close()
            self._check_open()
        return stream

    def _given_back(self, stream: TLSStream) -> None:
        with self._lock:
            self._streams.discard(stream)
        self._channels.release()

    def _check_open(self) -> None:
        if self._closed:
            raise TransportLost("The connection to the VM was closed.")

    def close(self) -> None:
        with self._lock:
            self._closed = True
            streams = list(self._streams)
        for stream in streams:
            stream.close()

    @property
    def closed(self) -> bool:
        return self._closed

    def ends(self) -> Tuple[End, ...]:
        if self._shown is None:
            return ()
        ends, der = self._shown
        return (End(ENGINE, ends), End(CA, certs.ca_end(der, self._credentials.ca)), End(CLIENT, self._own_end))

    def describe(self) -> str:
        return f"{self.address} port {self._target.port} (TLS)"

    # --- one more connection

    def _shake_hands(self, deadline: float) -> Tuple[ssl.SSLSocket, str]:
        # Only the first connection chooses: all streams are to lead to the same engine.
        addresses = (self.address,) if self.address else self._target.addresses
        return strangers.past(addresses, lambda left: self._shake_hands_at(left, deadline), deadline)

    def _shake_hands_at(self, addresses: Sequence[str], deadline: float) -> Tuple[ssl.SSLSocket, str]:
        answered, address = self._dial(addresses, deadline)
        where = f"{address} port {self._target.port}"
        wanted = self._target.name or address
        sock = None
        try:
            sock = self._context.wrap_socket(answered, server_hostname=wanted, do_handshake_on_connect=False,
                                             suppress_ragged_eofs=False)
            sock.settimeout(max(0.001, min(self._ssh.banner_timeout, deadline - time.monotonic())))
            sock.do_handshake()
            shown: Any = sock.getpeercert()
            if not shown.get("subjectAltName"):
                # CPython 3.6 takes a common name instead, which nothing modern does.
                raise ssl.CertificateError("it names no address")
            self._check_vm(certs.vms_named(shown), where)
        except BaseException as error:
            (sock or answered).close()
            ours = error if isinstance(error, ConnectError) else self._failure(error, address, wanted, deadline)
            if isinstance(ours, (GuestSilent, TLSCertificateInvalid, TLSProtocol)):
                ours.stranger = address
            if ours is None or ours is error:
                raise
            raise ours from error
        self.address = address
        der = sock.getpeercert(True) or b""
        self._shown = (ssl.cert_time_to_seconds(shown["notAfter"]), der)
        self.certificate = certs.fingerprint(der)
        return sock, where

    def _check_vm(self, named: Optional[Tuple[str, ...]], where: str) -> None:
        """An address is what a guest says it is; the CA's word for which VM it gave a certificate is not."""
        if named is not None and self._target.vm not in named:
            raise TLSCertificateInvalid(f"The certificate of the engine at {where} is made out to "
                                        f"{f'VM {named[0]}' if named else 'no VM'}, and not to this one.",
                                        _OTHER_VM_HINT)

    def _dial(self, addresses: Sequence[str], deadline: float) -> Tuple[socket.socket, str]:
        timeout = max(0.001, min(self._ssh.connect_timeout, deadline - time.monotonic()))
        try:
            answered = dial(addresses, self._target.port, timeout, self._ssh.dead_after)
        except GuestUnreachable as error:
            raise type(error)(error.message, _UNREACHABLE_HINT) from error
        _watch(answered.sock, self._ssh)
        return answered.sock, answered.address

    def _failure(self, error: BaseException, address: str, wanted: str, deadline: float) -> Optional[XSContainerError]:
        """What went wrong in a handshake, in our words; None: it was not the handshake."""
        where = f"{address} port {self._target.port}"
        if isinstance(error, ssl.CertificateError) or _verification(error):
            return self._refused_certificate(error, address, wanted, deadline)
        if hung_up(error):
            return GuestSilent(f"{where} ended the connection during the TLS handshake.", _SILENT_HINT)
        if isinstance(error, ssl.SSLError):
            refused = refusal(error, where)
            return self._explained(refused) if refused else TLSProtocol(
                f"What answers at {where} does not speak TLS as it should ({said(error)}).")
        if isinstance(error, socket.timeout):
            return GuestSilent(f"{where} did not complete the TLS handshake in time.", _SILENT_HINT)
        if isinstance(error, OSError):
            return GuestSilent(f"The TLS handshake with {where} failed: {failures.words(error)}.", _SILENT_HINT)
        return None

    def _explained(self, refused: TLSClientRefused) -> TLSClientRefused:
        """With what our own certificate says of itself, where that is the reason."""
        begins, ends = certs.validity(certs.load(self._credentials.certificate))
        if begins <= time.time() <= ends:
            return refused
        return TLSClientRefused(f"{refused.message[:-1]}; it is valid from {certs.day(begins)} to {certs.day(ends)}.",
                                "Give the VM a new client certificate, or set this host's clock right.")

    def _refused_certificate(self, error: BaseException, address: str, wanted: str,
                             deadline: float) -> TLSCertificateInvalid:
        """OpenSSL does not hand over a certificate it refused: look at it once more, in a handshake of its own."""
        words = failures.words(getattr(error, "verify_message", "") or error)
        hint = ""
        try:
            certificate = self._look(address, deadline)
            shown = certs.facts(certificate)
            what, hint = certs.fault(shown, certs.signer_of(certificate, self._credentials.ca), wanted,
                                     _only_the_name(error), words, time.time())
            what = f"({shown.subject}) {what}"
        except (OSError, ValueError, XSContainerError):
            what = f"is refused: {words}"
        return TLSCertificateInvalid(f"The certificate of the engine at {address} port {self._target.port} {what}.",
                                     hint)

    def _look(self, address: str, deadline: float) -> x509.Certificate:
        context = certs.client_context(self._credentials, verify=False)
        answered, _ = self._dial((address,), deadline)
        with answered, context.wrap_socket(answered, do_handshake_on_connect=False) as sock:
            sock.settimeout(max(0.001, min(self._ssh.banner_timeout, deadline - time.monotonic())))
            sock.do_handshake()
            return certs.load(ssl.DER_cert_to_PEM_cert(sock.getpeercert(True) or b""))


def _verification(error: BaseException) -> bool:
    return isinstance(error, ssl.SSLError) and error.reason == "CERTIFICATE_VERIFY_FAILED"


def _only_the_name(error: BaseException) -> bool:
    code = getattr(error, "verify_code", None)
    # CPython 3.6 has no codes; it compares the name by itself, after all else was found right.
    return isinstance(error, ssl.CertificateError) if code is None else code in _WRONG_NAME


def _watch(sock: socket.socket, ssh: SSHSettings) -> None:
    """Have the kernel notice a peer that is gone, as the SSH connection does; an idle stream has nothing to send."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle = max(1, int(ssh.keepalive))
    between = max(1, int((ssh.dead_after - ssh.keepalive) / 3))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, between)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


def connect(target: Target, credentials: Credentials, ssh: SSHSettings, engine: EngineSettings) -> TLSConnection:
    """One TCP connection, one handshake, one request.

    :param ssh: its deadlines and its signs of life serve here too.
    :raises ConnectError: GuestUnreachable, GuestSilent, TLSCertificateInvalid, TLSClientRefused, TLSProtocol.
    :raises TLSCredentialsInvalid: what we were given to connect with is unusable.
    :raises EngineError: what answers is no engine, or does not answer.
    """
    connection = TLSConnection(target, credentials, ssh, engine)
    try:
        connection.prove()
    except BaseException:
        connection.close()
        raise
    return connection
