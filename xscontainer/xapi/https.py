"""XAPI of another machine, over HTTPS."""

import http.client
import io
import socket
import ssl
import time
from typing import BinaryIO, Optional, cast

from xscontainer.errors import XapiNotTrusted, XapiUnavailable, cause
from xscontainer.xapi.address import Address, parse
from xscontainer.xapi.endpoint import Endpoint
from xscontainer.xapi.pipeline import MOST_ANSWER
from xscontainer.xapi.trust import Trust

LOWEST_RATE = 32768  # bytes/s of an answer, once it has begun
_HEADS = 1 << 20  # bytes of the heads of all answers that are read together


class HttpsServer(Endpoint):
    """XAPI at an address.

    :param trust: decides whether the certificate is XAPI's.
    """

    hint = "Check the address and the port, and that XAPI (the toolstack) runs there."

    def __init__(self, address: Address, trust: Trust) -> None:
        super().__init__()
        self.address = address
        self.name = self.host = str(address)
        self._trust = trust

    def at(self, host: str) -> "HttpsServer":
        """Return the endpoint of another host of the pool, at the same port.

        :param host: a name or an IP address.
        :raises ArgumentError: when it is not an address.
        """
        bracketed = f"[{host}]" if ":" in host else host
        return HttpsServer(parse(f"{bracketed}:{self.address.port}"), self._trust)

    def connect(self, timeout: Optional[float]) -> socket.socket:
        deadline = time.monotonic() + (timeout or 0.0)
        try:
            sock = self._reached(deadline)
        except OSError as error:
            raise XapiUnavailable(f"XAPI at {self.name} cannot be reached: {error.strerror or cause(error)}.",
                                  self.hint) from error
        try:
            sock.settimeout(_left(deadline))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = self._encrypted(sock)
        except BaseException:
            sock.close()
            raise
        try:
            self._trust.check(self.address, stream.getpeercert(binary_form=True) or b"")
        except BaseException:
            stream.close()
            raise
        return stream

    def _reached(self, deadline: float) -> socket.socket:
        """Connect to one of the addresses of the name, within one deadline for all.

        :raises OSError: none of them answers.
        """
        found = socket.getaddrinfo(self.address.host, self.address.port, type=socket.SOCK_STREAM)
        for number, (family, kind, protocol, _, address) in enumerate(found):
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(_left(deadline) / (len(found) - number))
                sock.connect(address)
                return sock
            except OSError as error:
                sock.close()
                failed: OSError = error
            except BaseException:
                sock.close()
                raise
        raise failed  # getaddrinfo returns at least one address

    def check(self, timeout: float) -> None:
        """Check that the server answers and that its certificate is XAPI's.

        :raises XapiUnavailable: it does not; XapiNotTrusted if that is because of the certificate.
        """
        try:
            self.connect(timeout).close()
        except OSError as error:
            raise XapiUnavailable(f"XAPI at {self.name} cannot be reached: {cause(error)}.", self.hint) from error

    def _encrypted(self, sock: socket.socket) -> ssl.SSLSocket:
        """Make the TLS handshake.

        :raises XapiNotTrusted: the certificate is not valid. XapiUnavailable: there is no TLS.
        """
        try:
            return self._trust.context.wrap_socket(sock, server_hostname=self.address.host.partition("%")[0])
        except ssl.CertificateError as error:  # with CPython 3.6: the name does not match
            raise self._invalid(getattr(error, "verify_message", "") or str(error)) from error
        except ssl.SSLError as error:
            if error.reason == "CERTIFICATE_VERIFY_FAILED":  # with CPython 3.6: anything else about the certificate
                raise self._invalid("") from error
            raise XapiUnavailable(f"The server at {self.address} makes no TLS connection: "
                                  f"{error.reason or 'the handshake failed'}.", self.hint) from error

    def _invalid(self, reason: str) -> XapiNotTrusted:
        why = reason.strip().rstrip(".") or "it has expired, or no CA in the CA file signed it"
        return XapiNotTrusted(f"The certificate of XAPI at {self.address} is not valid: {why}.")

    def answers(self, sock: socket.socket) -> "BinaryIO":
        return cast(BinaryIO, io.BufferedReader(_Bounded(sock), 65536))


class _Bounded(io.RawIOBase):
    """The bytes of a server, bounded in number and time: the socket's own timeout begins anew with each byte."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._deadline = time.monotonic() + (sock.gettimeout() or 0.0)
        self._received = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        self._sock.settimeout(_left(self._deadline + self._received / LOWEST_RATE))
        count = self._sock.recv_into(buffer)
        self._received += count
        if self._received > MOST_ANSWER + _HEADS:
            raise http.client.HTTPException(f"it sends more than {MOST_ANSWER} bytes")
        return count


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise socket.timeout("it took too long")
    return left
