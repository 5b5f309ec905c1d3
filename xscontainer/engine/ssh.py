"""One standing SSH connection to a guest."""

import math
import threading
import time
from typing import Any, Callable, NamedTuple, Optional, Sequence, Tuple

import paramiko

from xscontainer.engine import failures, hostkeys, sockets, strangers, tunnel
from xscontainer.engine.channel import ChannelStream
from xscontainer.engine.connection import Connection
from xscontainer.engine.dial import dial
from xscontainer.engine.doubt import Doubt
from xscontainer.engine.keypair import KeyPair, load_private_key, new_key_pair, public_line
from xscontainer.engine.transport import GuestTransport
from xscontainer.errors import (
    ArgumentError,
    ConnectError,
    EngineTimeout,
    GuestNotSSH,
    GuestSilent,
    KeyNotAccepted,
    LoginEnded,
    LoginNeedsMore,
    PublicKeyOff,
    SSHIncompatible,
    TransportLost,
)
from xscontainer.reach import is_user
from xscontainer.settings import EngineSettings, SSHSettings

__all__ = ["KeyPair", "Met", "SSHConnection", "Target", "connect", "load_private_key", "log_in", "meet", "new_key_pair",
           "public_line"]

HANDSHAKE_POLL = 0.25  # seconds; how finely paramiko measures its own deadlines during a handshake

OnHostKey = Callable[[str, str], None]

# The stages of a connection, in their order, each of which `connect` tells when it is over.
TCP, GREETING, HOST_KEY, LOGIN = STAGES = ("tcp", "ssh", "hostkey", "login")
OnStage = Callable[[str, str], None]


class Target(NamedTuple):
    """Where and how to log in.

    :ivar addresses: numeric IPs in order of preference.
    :ivar socket: path of the engine's socket in the guest; "": it is to be found.
    :ivar host_key: the pin, in any form that hostkeys.parse_pin reads; None: trust the first one shown.
    :ivar method: what worked the last time (Connection.method), "" if nothing is known.
    :ivar last_socket: the same of Connection.socket.
    :ivar kind: sockets.DOCKER or sockets.PODMAN, if the other one is not to be taken.
    """

    addresses: Tuple[str, ...]
    port: int
    user: str
    socket: str
    host_key: Optional[str] = None
    method: str = ""
    last_socket: str = ""
    kind: str = ""


class SSHConnection(Connection):
    """:ivar host_key: what the guest showed."""

    def __init__(self, transport: GuestTransport, target: Target, address: str, host_key: hostkeys.HostKey,
                 engine: EngineSettings) -> None:
        self.address = address
        self.host_key = host_key
        self._transport = transport
        self._doubt = Doubt(transport)
        self._target = target
        places = sockets.places(target.socket, target.kind, engine.socket)
        self._tunnel = tunnel.Tunnel(transport, places, target.method, target.last_socket)
        self._channels = threading.BoundedSemaphore(engine.max_channels)

    @property
    def method(self) -> str:  # type: ignore[override]
        return self._tunnel.method

    @property
    def socket(self) -> str:  # type: ignore[override]
        return self._tunnel.socket

    @property
    def transport(self) -> GuestTransport:
        return self._transport

    def open_stream(self, timeout: float) -> ChannelStream:
        deadline = time.monotonic() + timeout
        self._check_open()
        if not self._channels.acquire(timeout=timeout):
            raise EngineTimeout("All channels to the VM stayed in use.")
        try:
            return self._tunnel.open(deadline, self._channels.release)
        except BaseException:
            self._channels.release()
            raise

    def _check_open(self) -> None:
        if self.closed:
            why = failures.words(self._transport.packetizer.ended or "it ended")
            raise TransportLost(f"The SSH connection to the VM is gone: {why}.")

    def close(self) -> None:
        self._transport.close()
        self._doubt.close()

    def hang_up(self) -> None:
        self._transport.hang_up("it was closed")

    def doubt(self, seconds: float) -> None:
        self._doubt.begin(seconds)

    @property
    def closed(self) -> bool:
        return bool(self._transport.packetizer.ended) or not self._transport.is_active()

    def describe(self) -> str:
        way = f" ({self.method} to {self.socket})" if self.method else ""
        return f"{self._target.user}@{self.address} port {self._target.port}{way}"


def connect(target: Target, private_key: paramiko.PKey, ssh: SSHSettings, engine: EngineSettings,
            on_host_key: Optional[OnHostKey] = None, on_stage: Optional[OnStage] = None,
            deadline: float = math.inf) -> SSHConnection:
    """One TCP connection, one key exchange, one login with one key. An address at which something else turns out to
    answer than the VM is given up, and the others are tried, in the same time.

    :param on_host_key: called with (base64, fingerprint) of the guest's host key when nothing is pinned,
        before the login is tried; what it raises ends the attempt. The last one is that of the VM.
    :param on_stage: called with (one of STAGES, what was found) at the end of each; beginning anew with TCP where
        another address is tried.
    :param deadline: by time.monotonic(), beside the deadlines of ``ssh``.
    :raises ConnectError: GuestUnreachable, GuestSilent, HostKeyChanged, HostKeyUnreadable, KeyNotAccepted.
    :raises ArgumentError: the socket's path or the user's name may not be used.
    """
    if target.socket:
        tunnel.check_path(target.socket)
    if not is_user(target.user):
        raise ArgumentError(f"{failures.words(target.user)} is no name of a user.",
                            "Correct xscontainer-username in the VM's other_config.")
    pinned = hostkeys.parse_pin(target.host_key) if target.host_key else None
    tell = on_stage or (lambda stage, found: None)
    deadline = min(deadline, time.monotonic() + _longest_meeting(ssh) + ssh.auth_timeout)

    def attempt(addresses: Tuple[str, ...]) -> SSHConnection:
        met = _meet(addresses, target.port, pinned, ssh, tell, deadline)
        return _enter(met, target, pinned, private_key, ssh, engine, on_host_key, tell, deadline)

    return strangers.past(target.addresses, attempt, deadline)


def _enter(met: "Met", target: Target, pinned: Optional[hostkeys.HostKey], private_key: paramiko.PKey,
           ssh: SSHSettings, engine: EngineSettings, on_host_key: Optional[OnHostKey], tell: OnStage,
           deadline: float) -> SSHConnection:
    stranger = met.address
    try:
        hostkeys.check(met.host_key, pinned, met.where)
        if pinned is not None:
            stranger = ""
        elif on_host_key is not None:
            on_host_key(met.host_key.base64, met.host_key.fingerprint)
        tell(HOST_KEY, str(met.host_key))
        with failures.translating(f"The SSH connection to {met.where}", failures.SSH_SIDE):
            log_in(met.transport, target.user, private_key, _within(ssh.auth_timeout, deadline), met.where)
        tell(LOGIN, target.user)
        connection = SSHConnection(met.transport, target, met.address, met.host_key, engine)
        met.transport.watch(ssh.keepalive, ssh.dead_after)
        return connection
    except BaseException as error:
        met.transport.close()
        if isinstance(error, ConnectError):
            error.stranger = stranger
        raise


class Met(NamedTuple):
    """A guest that was greeted, and has not let us in yet; whoever has it closes the transport."""

    transport: GuestTransport
    address: str
    where: str  # address and port, for texts
    host_key: hostkeys.HostKey


def meet(addresses: Sequence[str], port: int, preferred: Optional[hostkeys.HostKey], ssh: SSHSettings,
         tell: OnStage = lambda stage, found: None, deadline: float = math.inf) -> Met:
    """One TCP connection and one key exchange, with the first address at which an SSH server answers. Nothing is
    judged by the host key yet.

    :param preferred: a guest with keys of several kinds shows the one of this kind.
    :param tell, deadline: see :func:`connect`.
    :raises ConnectError: GuestUnreachable, GuestSilent. HostKeyUnreadable: nobody can check a key of that kind.
    """
    deadline = min(deadline, time.monotonic() + _longest_meeting(ssh))
    return strangers.past(addresses, lambda left: _meet(left, port, preferred, ssh, tell, deadline), deadline)


def _meet(addresses: Sequence[str], port: int, preferred: Optional[hostkeys.HostKey], ssh: SSHSettings, tell: OnStage,
          deadline: float) -> Met:
    answered = dial(addresses, port, _within(ssh.connect_timeout, deadline), ssh.dead_after)
    where = f"{answered.address} port {port}"
    try:
        tell(TCP, answered.address)
        transport = GuestTransport(answered.sock)
    except BaseException:
        answered.sock.close()
        raise
    try:
        transport.name = f"ssh {answered.address}"
        with failures.translating(f"The SSH connection to {where}", failures.SSH_SIDE):
            shown = _exchange_keys(transport, preferred, _within(2 * ssh.banner_timeout, deadline) / 2, where)
        tell(GREETING, failures.words(transport.remote_version))
        return Met(transport, answered.address, where, shown)
    except BaseException as error:
        transport.close()
        if isinstance(error, (GuestSilent, TransportLost)):
            error.stranger = answered.address
        raise


def _longest_meeting(ssh: SSHSettings) -> float:
    return ssh.connect_timeout + 2 * ssh.banner_timeout


def _within(seconds: float, deadline: float) -> float:
    return max(0.1, min(seconds, deadline - time.monotonic()))


def _exchange_keys(transport: GuestTransport, pinned: Optional[hostkeys.HostKey], timeout: float,
                   where: str) -> hostkeys.HostKey:
    transport.sock.settimeout(HANDSHAKE_POLL)
    transport.banner_timeout = transport.handshake_timeout = timeout
    options = transport.get_security_options()
    options.key_types = hostkeys.preference(options.key_types, pinned)
    done: Any = threading.Event()
    transport.start_client(event=done)
    began = time.monotonic()
    # The greeting has its deadline inside paramiko; the same time again is for the key exchange.
    done.wait(2 * timeout)
    if transport.is_active() and transport.initial_kex_done:
        key = transport.get_remote_server_key()
        return hostkeys.HostKey(key.get_name(), key.asbytes())
    error = transport.get_exception()  # which forgets it
    # When the time is up it is we who close the connection.
    hung_up = not transport.is_active() and time.monotonic() - began < 0.9 * timeout
    why = "it closed the connection" if hung_up else f"no answer within {timeout:.2g} s"
    if not transport.remote_version:
        said = transport.packetizer.greeting
        if not b"SSH-".startswith(said[:4]):
            quoted = f"'{failures.words(said)}'" if said.strip() else "blank lines"
            raise GuestNotSSH(f"What answers at {where} does not speak SSH: it says {quoted}.")
        raise GuestSilent(f"What answers at {where} sent no SSH greeting: {why}.")
    if error is None or isinstance(error, EOFError):
        raise GuestSilent(f"The key exchange with {where} failed: {why}.")
    incompatible = isinstance(error, paramiko.ssh_exception.IncompatiblePeer)
    raise (SSHIncompatible if incompatible else GuestSilent)(
        f"The key exchange with {where} failed: {failures.words(error)}.")


def log_in(transport: GuestTransport, user: str, private_key: paramiko.PKey, timeout: float, where: str) -> None:
    """With the one key.

    :raises KeyNotAccepted: the guest does not take it, or not alone. GuestSilent: it does not say.
    """
    transport.auth_timeout = timeout
    try:
        transport.auth_publickey(user, private_key)
    except paramiko.BadAuthenticationType as error:
        if "publickey" not in error.allowed_types:
            offered = failures.words(", ".join(error.allowed_types) or "nothing")
            raise PublicKeyOff(f"{where} takes no keys from the user {user}; it offers {offered}.") from error
        raise _not_accepted(user, where, error) from error
    except paramiko.AuthenticationException as error:
        # paramiko has one class for all of these.
        if "EOF" in str(error):
            raise LoginEnded(f"{where} ended the connection during the login.") from error
        if "timeout" in str(error):
            raise GuestSilent(f"{where} did not answer the login within {timeout:g} s.") from error
        raise _not_accepted(user, where, error) from error
    if not transport.is_authenticated():
        raise LoginNeedsMore(f"{where} wants more than the pool's key from the user {user}.")


def _not_accepted(user: str, where: str, error: Exception) -> KeyNotAccepted:
    return KeyNotAccepted(f"The user {user} at {where} may not log in with the pool's key: {failures.words(error)}.")
