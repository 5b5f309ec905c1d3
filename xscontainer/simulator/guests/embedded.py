"""A guest without OpenSSH: an SSH server made of threads (paramiko's server side).

It serves what a client of containers asks of a guest: public key logins, direct-streamlocal@openssh.com channels, and
commands, which a shell of this machine runs with the guest's PATH. On that PATH ``docker``, ``socat`` and ``ncat`` are
this machine's own or, where one is missing, a small stand-in that does the one thing they are needed for.
"""

import base64
import io
import os
import selectors
import shutil
import socket
import subprocess
import sys
import threading
from typing import Any, Dict, List, Optional, Sequence, Set, cast

import paramiko
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    OPEN_FAILED_CONNECT_FAILED,
    OPEN_SUCCEEDED,
)
from paramiko.message import Message

from xscontainer.simulator.engines import processes, relay
from xscontainer.simulator.guests.base import Guest, clean_path

STREAMLOCAL = "direct-streamlocal@openssh.com"
TOOLS = ("docker", "socat", "ncat")
IDLE_POLL = 5.0
_CHUNK = 65536

# What the three programs are needed for: pass stdin and stdout to a Unix socket. Python, started without site: 15 ms.
_STAND_IN = r'''import os, select, socket, sys
words = sys.argv[1:]
path = next((w.split(":", 1)[1] for w in words if w.upper().startswith("UNIX-CONNECT:")), "")
path = path or next((w for w in words if w.startswith("/")), "")
path = path or next((w[7:] for w in words if w.startswith("unix://")), "") or os.environ.get("DOCKER_HOST", "")[7:]
sock = socket.socket(socket.AF_UNIX)
try:
    sock.connect(path)
except OSError as error:
    sys.exit("cannot connect to %s: %s" % (path, error))
inputs = [0, sock]
while sock in inputs:
    for source in select.select(inputs, [], [])[0]:
        data = os.read(0, 65536) if source == 0 else sock.recv(65536)
        if not data:
            inputs.remove(source)
            if source == 0:
                sock.shutdown(socket.SHUT_WR)
        elif source == 0:
            sock.sendall(data)
        else:
            while data:
                data = data[os.write(1, data):]
'''


class EmbeddedSSHGuest(Guest):
    """See the module. Further parameters beside those of :class:`Guest`:

    :param forwarding: whether streamlocal channels are allowed (AllowStreamLocalForwarding).
    :param tools: the only programs on the PATH of commands in the guest; None: all of this machine, and stand-ins.
    :param max_sessions: channels open at once per connection; more are refused (MaxSessions counts alike).
    """

    def __init__(
        self, directory: str, forwarding: bool = True, tools: Optional[Sequence[str]] = None, max_sessions: int = 10,
        **common: Any
    ) -> None:
        super().__init__(directory, **common)
        self.forwarding = forwarding
        self.max_sessions = max_sessions
        self._path = _make_path(self.directory, tools)
        self._gate = threading.Event()
        self._gate.set()
        self._lock = threading.Lock()
        self._transports: Set[_Transport] = set()

    # -- life -------------------------------------------------------------------------------------------------------
    def freeze(self) -> None:
        super().freeze()
        self._gate.clear()

    def thaw(self) -> None:
        self._gate.set()
        super().thaw()

    def misbehave(self, kind: str, **details: Any) -> None:
        """Switch a fault on (see :mod:`..engines.faults`)."""
        self.faults.set(kind, **details)

    def behave(self) -> None:
        """Switch all faults off."""
        self.faults.clear()

    def set_forwarding(self, allowed: bool) -> None:
        """Whether streamlocal channels are allowed, at once."""
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
            # The client left or spoke no SSH: nothing to serve.
            transport.close()

    def authorized(self) -> Set[bytes]:
        """The public keys that may log in, as wire blobs."""
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
        """What commands in the guest see."""
        return {"PATH": self._path, "HOME": os.path.join(self.directory, "home"), "USER": self.user, "SHELL": "/bin/sh",
                "DOCKER_HOST": "unix://" + self.engine_socket}


class _Policy(paramiko.ServerInterface):
    """What a client of this guest may do."""

    def __init__(self, guest: EmbeddedSSHGuest, transport: "_Transport") -> None:
        self._guest = guest
        self._transport = transport

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        fits = username == self._guest.user and key.asbytes() in self._guest.authorized()
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
        self._guest.start_thread(_run_command, self._guest, channel, command)
        return True


class _Transport(paramiko.Transport):
    """paramiko's server side, taught to read the path out of a streamlocal channel's open message."""

    # Its reader would wake ten times a second per connection.
    _active_check_timeout = IDLE_POLL

    def __init__(self, connection: "_GatedSocket", guest: EmbeddedSSHGuest) -> None:
        # Whatever reads and writes like a socket serves.
        super().__init__(cast(socket.socket, connection))
        self._guest = guest
        self.policy = _Policy(guest, self)
        self._asked = ""
        self._connected: Dict[int, socket.socket] = {}
        # paramiko itself holds channels only weakly.
        self._held: Dict[int, paramiko.Channel] = {}

    def _parse_channel_open(self, message: Message) -> None:
        kind = message.get_text()
        for _ in range(3):  # sender's channel, window, packet size
            message.get_int()
        self._asked = message.get_text() if kind == STREAMLOCAL else ""
        message.rewind()
        super()._parse_channel_open(message)

    def connect_channel(self, chanid: int) -> bool:
        """Connect the channel about to open to the socket it asked for."""
        unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            unix.connect(self._asked)
        except OSError:
            unix.close()
            return False
        self._connected[chanid] = unix
        return True

    def open_channels(self) -> int:
        return len(self._channels)

    def _queue_incoming_channel(self, channel: paramiko.Channel) -> None:
        # Instead of waiting in accept(): a streamlocal channel starts at once, a session when it asks for a command.
        self._held[channel.get_id()] = channel
        unix = self._connected.pop(channel.get_id(), None)
        if unix is None:
            return
        if self._guest.faults.take("channel", ("channel-silent",)):
            self._guest.start_thread(_hold, channel, unix)
            return
        self._guest.start_thread(_to_socket, channel, unix)
        self._guest.start_thread(_to_channel, unix, channel)

    def _unlink_channel(self, chanid: int) -> None:
        super()._unlink_channel(chanid)
        self._held.pop(chanid, None)


class _GatedSocket:
    """A socket that says and hears nothing while the guest is frozen."""

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


def _hold(channel: paramiko.Channel, unix: socket.socket) -> None:
    with unix:
        while channel.recv(_CHUNK):
            pass
    channel.close()


def _to_socket(channel: paramiko.Channel, unix: socket.socket) -> None:
    try:
        while True:
            data = channel.recv(_CHUNK)
            if not data:
                unix.shutdown(socket.SHUT_WR)
                return
            unix.sendall(data)
    except OSError:
        relay.shut(unix)
    finally:
        if channel.closed:
            relay.shut(unix)


def _to_channel(unix: socket.socket, channel: paramiko.Channel) -> None:
    with unix:
        try:
            while True:
                data = unix.recv(_CHUNK)
                if not data:
                    return
                channel.sendall(data)
        finally:
            channel.close()


def _run_command(guest: EmbeddedSSHGuest, channel: paramiko.Channel, command: bytes) -> None:
    """A command of the client's in a shell, its stdin, stdout, stderr and exit code on the channel."""
    child = subprocess.Popen(
        ["/bin/sh", "-c", os.fsdecode(command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=guest.environment(), cwd=os.path.join(guest.directory, "home"), start_new_session=True, bufsize=0,
    )
    feeder = threading.Thread(target=_feed, args=(channel, child), name="simulator-stdin", daemon=True)
    feeder.start()
    try:
        _collect(channel, child)
    finally:
        kill_tree(child)
        if child.stdout is not None and child.stderr is not None:
            child.stdout.close()
            child.stderr.close()
        if not channel.closed:
            channel.send_exit_status(child.returncode if child.returncode >= 0 else 255)
        channel.close()
        feeder.join(5.0)


def _feed(channel: paramiko.Channel, child: "subprocess.Popen[bytes]") -> None:
    """stdin; when the client closes the channel altogether, the command dies as a hung-up one does."""
    assert child.stdin is not None
    try:
        while True:
            data = channel.recv(_CHUNK)
            if not data:
                break
            child.stdin.write(data)
    except OSError:
        pass
    child.stdin.close()
    if channel.closed:
        kill_tree(child)


def _collect(channel: paramiko.Channel, child: "subprocess.Popen[bytes]") -> None:
    assert child.stdout is not None and child.stderr is not None
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ, channel.sendall)
        selector.register(child.stderr, selectors.EVENT_READ, channel.sendall_stderr)
        while selector.get_map():
            for key, _ in selector.select():
                data = os.read(key.fd, _CHUNK)
                if data:
                    key.data(data)
                else:
                    selector.unregister(key.fileobj)
    child.wait()


def kill_tree(child: "subprocess.Popen[bytes]") -> None:
    """The command and all it started; reaped."""
    if child.poll() is None:
        processes.kill(processes.descendants([child.pid]) | {child.pid})
        child.wait()


def _load(private: bytes) -> paramiko.PKey:
    text = io.StringIO(private.decode("ascii"))
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        text.seek(0)
        try:
            return kind.from_private_key(text)
        except paramiko.SSHException:
            continue
    raise ValueError("a host key of an unknown kind")


def _make_path(directory: str, tools: Optional[Sequence[str]]) -> str:
    """A PATH of the named tools (this machine's or a stand-in), or of everything with stand-ins behind."""
    path = os.path.join(directory, "bin")
    os.makedirs(path, exist_ok=True)
    script = os.path.join(directory, "stand-in.py")
    with open(script, "w", encoding="ascii") as file:
        file.write(_STAND_IN)
    for tool in TOOLS if tools is None else tools:
        link, real = os.path.join(path, tool), shutil.which(tool)
        if real is not None:
            os.symlink(real, link)
        elif tool in TOOLS:
            with open(link, "w", encoding="utf-8") as file:
                file.write(f'#!/bin/sh\nexec {sys.executable} -I -S {script} "$@"\n')
            os.chmod(link, 0o755)
    machine: List[str] = [] if tools is not None else os.environ.get("PATH", os.defpath).split(":")
    return clean_path([path] + machine)
