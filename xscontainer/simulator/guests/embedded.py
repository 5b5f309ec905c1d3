"""A guest without OpenSSH: an SSH server made of threads (paramiko's server side).

It serves what xscontainer uses of a guest: logins by public key and, if it has one, by password,
direct-streamlocal@openssh.com channels, and commands, which a shell of this machine runs with the guest's PATH. On that
PATH ``docker``, ``socat`` and ``ncat`` are this machine's own or, where one is missing, a small stand-in that does the
one thing they are needed for.
"""

import base64
import io
import os
import socket
import threading
from typing import Any, Callable, Dict, Optional, Sequence, Set, cast

import paramiko
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    MSG_CHANNEL_REQUEST,
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    OPEN_FAILED_CONNECT_FAILED,
    OPEN_SUCCEEDED,
)
from paramiko.message import Message

from xscontainer.simulator.engines import relay
from xscontainer.simulator.guests.base import Guest
from xscontainer.simulator.guests.channels import hold, run_command, to_channel, to_socket
from xscontainer.simulator.guests.stand_in import make_path

STREAMLOCAL = "direct-streamlocal@openssh.com"
IDLE_POLL = 5.0


class EmbeddedSSHGuest(Guest):
    """See the module. It takes these parameters beside those of :class:`Guest`.

    :param forwarding: whether streamlocal channels are allowed (AllowStreamLocalForwarding).
    :param tools: the only programs on the PATH of commands in the guest; None: all of this machine, and stand-ins.
    :param max_sessions: channels open at once per connection; more are refused (MaxSessions counts alike).
    :param password: a password that logs the user in; empty: only keys do.
    """

    def __init__(
        self, directory: str, forwarding: bool = True, tools: Optional[Sequence[str]] = None, max_sessions: int = 10,
        password: str = "", **common: Any
    ) -> None:
        super().__init__(directory, **common)
        self.forwarding = forwarding
        self.max_sessions = max_sessions
        self.password = password
        self._link_keys()
        self._path = f"{self.hypervisor.path}:{make_path(self.directory, tools)}"
        self._gate = threading.Event()
        self._gate.set()
        self._lock = threading.Lock()
        self._transports: Set[_Transport] = set()

    def _link_keys(self) -> None:
        """Link authorized_keys to where commands in the guest look for it."""
        place = os.path.join(self.directory, "home", ".ssh")
        os.makedirs(place, mode=0o700, exist_ok=True)
        link = os.path.join(place, "authorized_keys")
        if not os.path.islink(link):
            os.symlink(self.authorized_keys_path, link)

    # -- life -------------------------------------------------------------------------------------------------------
    def freeze(self) -> None:
        super().freeze()
        self._gate.clear()

    def thaw(self) -> None:
        self._gate.set()
        super().thaw()

    def set_forwarding(self, allowed: bool) -> None:
        """Allow streamlocal channels or not, at once."""
        self.forwarding = allowed

    @property
    def sessions(self) -> int:
        with self._lock:
            return sum(1 for transport in self._transports if transport.is_active())

    def _end_sessions(self) -> None:
        self._gate.set()
        with self._lock:
            transports, self._transports = list(self._transports), set()
        for transport in transports:
            transport.close()
        self._threads.end()
        for transport in transports:
            transport.join(5.0)

    # -- one connection ---------------------------------------------------------------------------------------------
    def _serve(self, connection: socket.socket) -> None:
        transport = _Transport(_GatedSocket(connection, self._gate), self)
        with self._lock:
            self._transports = {known for known in self._transports if known.is_alive()} | {transport}
        transport.add_server_key(_load(self.host_key.private))
        self._threads.start(self._handshake, transport, name="simulator-ssh")

    @staticmethod
    def _handshake(transport: "_Transport") -> None:
        try:
            transport.start_server(server=transport.policy)
        except (paramiko.SSHException, EOFError):
            # The client has closed or spoke no SSH.
            transport.close()

    def authorized(self) -> Set[bytes]:
        """Return the public keys that may log in, as wire blobs."""
        found = set()
        with open(self.authorized_keys_path, "rb") as file:
            for line in file:
                for word in line.split():
                    if word.startswith(b"AAAA"):
                        found.add(base64.b64decode(word))
        return found

    def start_thread(self, *args: Any) -> None:
        """Run a channel in a thread of this guest's."""
        self._threads.start(*args, name="simulator-channel")

    def environment(self) -> Dict[str, str]:
        """Return the environment of commands in the guest."""
        return {"PATH": self._path, "HOME": os.path.join(self.directory, "home"), "USER": self.user, "SHELL": "/bin/sh"}


class _Policy(paramiko.ServerInterface):
    """The rights of a client of this guest."""

    def __init__(self, guest: EmbeddedSSHGuest, transport: "_Transport") -> None:
        self._guest = guest
        self._transport = transport

    def get_allowed_auths(self, username: str) -> str:
        return "publickey,password" if self._guest.password else "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        fits = username == self._guest.user and key.asbytes() in self._guest.authorized()
        return int(AUTH_SUCCESSFUL if fits else AUTH_FAILED)

    def check_auth_password(self, username: str, password: str) -> int:
        fits = username == self._guest.user and password == self._guest.password != ""
        return int(AUTH_SUCCESSFUL if fits else AUTH_FAILED)

    def check_channel_request(self, kind: str, chanid: int) -> int:
        guest = self._guest
        if self._transport.open_channels() >= guest.max_sessions:
            return int(OPEN_FAILED_CONNECT_FAILED)
        if kind == "session":
            return int(OPEN_SUCCEEDED)
        if kind != STREAMLOCAL or not guest.forwarding or guest.faults.take("channel", ("no-forwarding",)):
            return int(OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED)
        return int(OPEN_SUCCEEDED if self._transport.connect_channel(chanid) else OPEN_FAILED_CONNECT_FAILED)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        if self._guest.faults.take("channel", ("no-exec",)):
            return False
        # Start it only after the reply: a quick command would close the channel before.
        self._transport.begin = lambda: self._guest.start_thread(
            run_command, channel, command, self._guest.environment(), self._guest.directory + "/home")
        return True


def _handle_request(channel: paramiko.Channel, message: Message) -> None:
    """Handle a channel request, and start its command after the reply."""
    channel._handle_request(message)
    transport = channel.get_transport()
    begin, transport.begin = transport.begin, None
    if begin is not None:
        begin()


class _Transport(paramiko.Transport):
    """paramiko's server side, which also reads the path in a streamlocal channel's open message."""

    # By default the reader wakes ten times a second for each connection.
    _active_check_timeout = IDLE_POLL
    _channel_handler_table = dict(paramiko.Transport._channel_handler_table)
    _channel_handler_table[MSG_CHANNEL_REQUEST] = _handle_request

    def __init__(self, connection: "_GatedSocket", guest: EmbeddedSSHGuest) -> None:
        # Any object that reads and writes like a socket will do.
        super().__init__(cast(socket.socket, connection))
        self._guest = guest
        self.policy = _Policy(guest, self)
        self._requested_path = ""
        self.begin: Optional[Callable[[], None]] = None
        self._connected: Dict[int, socket.socket] = {}
        # paramiko itself keeps only weak references to channels.
        self._held: Dict[int, paramiko.Channel] = {}

    def _parse_channel_open(self, message: Message) -> None:
        kind = message.get_text()
        for _ in range(3):  # sender's channel, window, packet size
            message.get_int()
        self._requested_path = message.get_text() if kind == STREAMLOCAL else ""
        message.rewind()
        super()._parse_channel_open(message)

    def connect_channel(self, chanid: int) -> bool:
        """Connect the channel that is being opened to the requested socket."""
        unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            unix.connect(self._requested_path)
        except OSError:
            unix.close()
            return False
        self._connected[chanid] = unix
        return True

    def open_channels(self) -> int:
        return len(self._channels)

    def _queue_incoming_channel(self, channel: paramiko.Channel) -> None:
        # Instead of accept(): a streamlocal channel starts at once, a session with its command.
        self._held[channel.get_id()] = channel
        unix = self._connected.pop(channel.get_id(), None)
        if unix is None:
            return
        if self._guest.faults.take("channel", ("channel-silent",)):
            self._guest.start_thread(hold, channel, unix)
            return
        self._guest.start_thread(to_socket, channel, unix)
        self._guest.start_thread(to_channel, unix, channel)

    def _unlink_channel(self, chanid: int) -> None:
        super()._unlink_channel(chanid)
        self._held.pop(chanid, None)


class _GatedSocket:
    """A socket that neither sends nor receives while the guest is frozen."""

    def __init__(self, connection: socket.socket, gate: threading.Event) -> None:
        self._connection = connection
        self._gate = gate

    @property
    def _closed(self) -> bool:
        # paramiko looks at this attribute of a real socket when it stops.
        return self._connection.fileno() < 0

    def recv(self, size: int) -> bytes:
        data = self._connection.recv(size)
        self._gate.wait()
        return data

    def send(self, data: bytes) -> int:
        self._gate.wait()
        return self._connection.send(data)

    def settimeout(self, seconds: Optional[float]) -> None:
        self._connection.settimeout(seconds)

    def close(self) -> None:
        relay.shut(self._connection)
        self._connection.close()

    def getpeername(self) -> Any:
        return self._connection.getpeername()


def _load(private: bytes) -> paramiko.PKey:
    text = io.StringIO(private.decode("ascii"))
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        text.seek(0)
        try:
            return kind.from_private_key(text)
        except paramiko.SSHException:
            continue
    raise ValueError("a host key of an unknown kind")
