"""From several addresses to one SSH server: TCP connection, identification, key exchange. No login yet."""

import functools
import socket
import threading
import time
from typing import Any, Callable, NamedTuple, Optional, Sequence

import paramiko

from xscontainer.core import current_call
from xscontainer.engine import address_fallback, failures
from xscontainer.engine.dial import dial
from xscontainer.engine.ssh import algorithms, banner, hostkeys
from xscontainer.engine.ssh.transport import GuestTransport
from xscontainer.errors import GuestSilent, SSHIncompatible, SSHWeak, TransportLost
from xscontainer.settings import GuestSettings

POLL_SECONDS = 0.25  # how often paramiko checks its own deadlines during a handshake

# The stages of a connection, in order. ``OnStage`` is called at the end of each with what was found.
TCP, GREETING, HOST_KEY, LOGIN = STAGES = ("tcp", "ssh", "hostkey", "login")
OnStage = Callable[[str, str], None]


class Met(NamedTuple):
    """An SSH server after the key exchange and before the login. The owner closes the transport.

    :ivar where: address and port, for messages.
    """

    transport: GuestTransport
    address: str
    where: str
    host_key: hostkeys.HostKey


class Handshake(NamedTuple):
    """The parameters of a handshake with an SSH server.

    :ivar preferred: a guest with host keys of several kinds shows the one of this kind.
    :ivar tell: called at the end of each stage.
    :ivar deadline: by time.monotonic(), besides the timeouts of the settings.
    :ivar make: makes the transport from a connected socket.
    """

    port: int
    preferred: Optional[hostkeys.HostKey]
    settings: GuestSettings
    tell: OnStage
    deadline: float
    make: "Callable[[socket.socket], GuestTransport]"

    def meet(self, addresses: Sequence[str]) -> Met:
        """Connect to the first of ``addresses`` that answers.

        :raises ConnectError: with ``suspect_address`` if the server may not be the VM's.
        """
        connected = dial(addresses, self.port, within(self.settings.connect_timeout, self.deadline),
                         self.settings.dead_after)
        where = f"{connected.address} port {self.port}"
        try:
            self.tell(TCP, connected.address)
            transport = self.make(connected.sock)
        except BaseException:
            connected.sock.close()
            raise
        try:
            transport.name = f"ssh {connected.address}"
            timeout = within(2 * self.settings.handshake_timeout, self.deadline) / 2
            with failures.translating(f"The SSH connection to {where}", failures.SSH_SIDE):
                shown = _exchange_keys(transport, self.preferred, timeout, where)
            self.tell(GREETING, failures.words(transport.remote_version))
            return Met(transport, connected.address, where, shown)
        except BaseException as error:
            transport.close()
            if isinstance(error, (GuestSilent, TransportLost)):
                error.suspect_address = connected.address
            raise


def meet(addresses: Sequence[str], port: int, preferred: Optional[hostkeys.HostKey], settings: GuestSettings,
         weak: "Sequence[str]" = ()) -> Met:
    """Connect to the first of ``addresses`` at which an SSH server answers; the host key is not checked yet.

    :param preferred: see Handshake. :param weak: see connection.Target.
    :raises ConnectError: GuestUnreachable, GuestSilent.
    :raises HostKeyUnreadable: if we cannot verify a key of the preferred kind.
    """
    deadline = min(current_call.deadline(), time.monotonic() + longest_handshake(settings))
    handshake = Handshake(port, preferred, settings, lambda stage, found: None, deadline,
                          functools.partial(GuestTransport, weak=weak))
    return address_fallback.try_each(addresses, handshake.meet, deadline)


def longest_handshake(settings: GuestSettings) -> float:
    """Return the seconds that a TCP connection and an SSH handshake take at most."""
    return settings.connect_timeout + 2 * settings.handshake_timeout


def within(seconds: float, deadline: float) -> float:
    """Return ``seconds``, or what is left until ``deadline`` if that is less."""
    return max(0.1, min(seconds, deadline - time.monotonic()))




def _exchange_keys(transport: GuestTransport, pinned: Optional[hostkeys.HostKey], timeout: float,
                   where: str) -> hostkeys.HostKey:
    transport.sock.settimeout(POLL_SECONDS)
    transport.banner_timeout = transport.handshake_timeout = timeout
    options = transport.get_security_options()
    if pinned is not None and pinned.kind == "ssh-dss" and "dss" not in transport.weak:
        raise SSHWeak("The host key pinned for the VM is of the kind ssh-dss, which is too weak.",
                      algorithms.weak_hint(["dss"]))
    options.key_types = hostkeys.preference(options.key_types, pinned)
    done: Any = threading.Event()
    transport.start_client(event=done)
    began = time.monotonic()
    # paramiko limits the identification to banner_timeout; the key exchange has the same time again.
    done.wait(2 * timeout)
    if transport.is_active() and transport.initial_kex_done:
        # get_remote_server_key() would raise if the connection ended just now.
        key: Any = transport.host_key
        return hostkeys.HostKey(key.get_name(), key.asbytes())
    error = transport.get_exception()
    # After the timeout it is paramiko that closes the connection, not the guest.
    closed = not transport.is_active() and time.monotonic() - began < 0.9 * timeout
    if not transport.remote_version:
        raise banner.missing(transport.packetizer.greeting, closed, timeout, where)
    raise _failed(transport, error, closed, timeout, where)


def _failed(transport: GuestTransport, error: Optional[Exception], closed: bool, timeout: float,
            where: str) -> GuestSilent:
    why = transport.packetizer.farewell or (
        "it closed the connection" if closed else f"no answer within {timeout:.2g} s")
    if error is None or isinstance(error, EOFError):
        return GuestSilent(f"The key exchange with {where} failed: {why}.")
    if isinstance(error, algorithms.WeakKey):
        return SSHWeak(f"The SSH server at {where} is refused: {failures.words(error)}.",
                       algorithms.weak_hint([error.word]) if error.word else "")
    incompatible = isinstance(error, paramiko.ssh_exception.IncompatiblePeer)
    if incompatible and transport.packetizer.offer is not None:
        return algorithms.incompatible(transport.ours, transport.packetizer.offer, transport.known, where)
    return (SSHIncompatible if incompatible else GuestSilent)(
        f"The key exchange with {where} failed: {failures.words(error)}.")
