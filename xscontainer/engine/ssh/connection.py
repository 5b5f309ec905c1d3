"""One open SSH connection to a guest: connect and log in, then streams to the engine and commands in the guest."""

import functools
import math
import threading
import time
from typing import Callable, NamedTuple, Optional, Tuple

import paramiko

from xscontainer.core import current_call
from xscontainer.core.budget import GuestBudget
from xscontainer.core.target import is_user
from xscontainer.engine import address_fallback, failures
from xscontainer.engine.connection import Connection
from xscontainer.engine.ssh import algorithms, bridge, commands, discovery, hostkeys
from xscontainer.engine.ssh.authentication import log_in
from xscontainer.engine.ssh.channel import ChannelStream
from xscontainer.engine.ssh.handshake import (
    GREETING,
    HOST_KEY,
    LOGIN,
    STAGES,
    TCP,
    Handshake,
    Met,
    OnStage,
    longest_handshake,
    within,
)
from xscontainer.engine.ssh.keypair import KeyPair, load_private_key, new_key_pair, public_line
from xscontainer.engine.ssh.liveness import LivenessProbe
from xscontainer.engine.ssh.shell import Shell
from xscontainer.engine.ssh.transport import GuestTransport
from xscontainer.errors import ArgumentError, ConnectError, EngineTimeout, TransportLost
from xscontainer.settings import EngineSettings, GuestSettings

__all__ = ["GREETING", "HOST_KEY", "LOGIN", "STAGES", "TCP", "KeyPair", "SSHConnection", "Target", "connect",
           "load_private_key", "new_key_pair", "public_line"]

OnHostKey = Callable[[str, str], None]
IdentityCheck = Callable[[Shell, str, hostkeys.HostKey], None]


class Target(NamedTuple):
    """The guest to connect to, and the login.

    :ivar addresses: numeric IPs in order of preference.
    :ivar socket: path of the engine's socket in the guest; "": find it.
    :ivar host_key: the pin, in any form that hostkeys.parse_pin reads; None: accept the first key that is shown.
    :ivar method: Connection.method of the last connection, "" if unknown.
    :ivar last_socket: Connection.socket of the last connection, "" if unknown.
    :ivar kind: discovery.DOCKER or discovery.PODMAN if only that engine is wanted; "": either.
    :ivar budget: the guest's CPU budget, charged for the reading thread; None: a budget of this connection alone.
    :ivar judge: called with (shell, address, host key) after the login. A ConnectError that it raises gives up the
        address.
    :ivar weak: words of algorithms.WEAK: weak algorithms that are allowed.
    """

    addresses: Tuple[str, ...]
    port: int
    user: str
    socket: str
    host_key: Optional[str] = None
    method: str = ""
    last_socket: str = ""
    kind: str = ""
    budget: Optional[GuestBudget] = None
    judge: Optional[IdentityCheck] = None
    weak: Tuple[str, ...] = ()


class SSHConnection(Connection):
    """A connection after the login.

    :ivar host_key: the host key that the guest showed.
    :ivar shell: runs commands as the user who is logged in.
    """

    def __init__(self, transport: GuestTransport, target: Target, address: str, host_key: hostkeys.HostKey,
                 engine: EngineSettings) -> None:
        self.address = address
        self.host_key = host_key
        self.shell = Shell(transport)
        self._transport = transport
        self._liveness = LivenessProbe(transport)
        self._target = target
        named = target.socket
        if not named and target.kind != discovery.PODMAN and "for_Windows" in transport.remote_version:
            named = bridge.DEFAULT_PIPE  # Windows has no Unix sockets
        places = discovery.places(named, target.kind, engine.socket)
        self._tunnel = bridge.Tunnel(transport, places, target.method, target.last_socket)
        self._channels = threading.BoundedSemaphore(engine.max_channels)

    @property
    def method(self) -> str:  # type: ignore[override]
        return self._tunnel.method

    @property
    def socket(self) -> str:  # type: ignore[override]
        return self._tunnel.socket

    def run(self, script: str, *arguments: str, deadline: float, most: int = commands.MOST_ANSWER,
            data: Optional[bytes] = None) -> commands.Answer:
        """Run a short script in the guest; for parameters and errors see :func:`.commands.run`."""
        return self.shell.run(script, *arguments, deadline=deadline, most=most, data=data)

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

    def open_extra(self, timeout: float) -> Optional[ChannelStream]:
        self._check_open()
        return self._tunnel.open_extra(time.monotonic() + timeout)

    @property
    def room(self) -> int:  # type: ignore[override]
        # sshd's limit of sessions (MaxSessions) does not count channels to a socket.
        return 0 if self.method in ("", bridge.DIRECT) else self._transport.sessions.limit

    @property
    def crowded(self) -> bool:  # type: ignore[override]
        return self._transport.sessions.waiting > 0

    def _check_open(self) -> None:
        if self.closed:
            why = failures.words(self._transport.packetizer.ended or "it ended")
            raise TransportLost(f"The SSH connection to the VM is closed: {why}.")

    def close(self) -> None:
        self._transport.close()
        self._liveness.close()

    def hang_up(self) -> None:
        self._transport.hang_up("it was closed")

    def probe_liveness(self, seconds: float) -> None:
        self._liveness.start(seconds)

    @property
    def closed(self) -> bool:
        return bool(self._transport.packetizer.ended) or not self._transport.is_active()

    def describe(self) -> str:
        way = f" ({self.method} to {self.socket})" if self.method else ""
        weak = algorithms.used_weak(self._transport) if not self.closed else ()
        warning = f", with weak algorithms: {', '.join(weak)}" if weak else ""
        return f"{self._target.user}@{self.address} port {self._target.port}{way}{warning}"


def connect(target: Target, private_key: paramiko.PKey, guest: GuestSettings, engine: EngineSettings,
            on_host_key: Optional[OnHostKey] = None, on_stage: Optional[OnStage] = None,
            deadline: float = math.inf) -> SSHConnection:
    """Connect with one TCP connection, one key exchange and one login with one key.

    If another machine than the VM answers at an address, try the remaining addresses within the same deadline.

    :param on_host_key: called with (base64, fingerprint) of the guest's host key before the login if no key is pinned.
        An exception from it ends the attempt. Called again for each address; the last key is the VM's.
    :param on_stage: called with (one of STAGES, what was found) at the end of each stage; from TCP again for each
        address.
    :param deadline: by time.monotonic(), besides the timeouts of ``guest``.
    :raises ConnectError: GuestUnreachable, GuestSilent, HostKeyChanged, HostKeyUnreadable, KeyNotAccepted.
    :raises ArgumentError: if the socket's path or the user's name may not be used.
    """
    if target.socket:
        bridge.check_path(target.socket)
    if not is_user(target.user):
        raise ArgumentError(f"{failures.words(target.user)} is not a user name.",
                            "Correct xscontainer-username in the VM's other_config.")
    pinned = hostkeys.parse_pin(target.host_key) if target.host_key else None
    deadline = min(deadline, current_call.deadline(),
                   time.monotonic() + longest_handshake(guest) + guest.login_timeout)
    handshake = Handshake(target.port, pinned, guest, on_stage or (lambda stage, found: None), deadline,
                          functools.partial(GuestTransport, budget=target.budget, weak=target.weak))

    def attempt(addresses: Tuple[str, ...]) -> SSHConnection:
        return _enter(handshake.meet(addresses), handshake, target, private_key, engine, on_host_key)

    return address_fallback.try_each(target.addresses, attempt, deadline)


def _enter(met: Met, handshake: Handshake, target: Target, private_key: paramiko.PKey, engine: EngineSettings,
           on_host_key: Optional[OnHostKey]) -> SSHConnection:
    """Check the host key, log in, and have the target's judge decide whether this is the VM."""
    guest, suspect = handshake.settings, met.address
    try:
        hostkeys.check(met.host_key, handshake.preferred, met.where)
        if handshake.preferred is not None:
            suspect = ""
        elif on_host_key is not None:
            on_host_key(met.host_key.base64, met.host_key.fingerprint)
        handshake.tell(HOST_KEY, str(met.host_key))
        with failures.translating(f"The SSH connection to {met.where}", failures.SSH_SIDE):
            log_in(met.transport, target.user, private_key, within(guest.login_timeout, handshake.deadline), met.where)
        handshake.tell(LOGIN, target.user)
        if target.judge is not None:
            suspect = met.address
            target.judge(Shell(met.transport), met.address, met.host_key)
        connection = SSHConnection(met.transport, target, met.address, met.host_key, engine)
        # The guest may have ended the connection since the last answer: the reading thread then closes the socket.
        with failures.translating(f"The SSH connection to {met.where}", failures.SSH_SIDE):
            met.transport.watch(guest.keepalive, guest.dead_after)
        return connection
    except BaseException as error:
        met.transport.close()
        if isinstance(error, ConnectError):
            error.suspect_address = suspect
        raise
