"""What every simulated guest is: an address that answers SSH, a host key, authorized keys, a place for an engine."""

import os
import pwd
import shutil
import socket
import time
from typing import Any, List, Optional

from xscontainer.simulator.engines import relay
from xscontainer.simulator.engines.acceptor import Acceptor
from xscontainer.simulator.engines.errors import SimulatorError
from xscontainer.simulator.engines.faults import AT_CONNECT, Fault, Faults
from xscontainer.simulator.engines.started import Started
from xscontainer.simulator.guests.addresses import AddressBlock, bind_all, listen_on
from xscontainer.simulator.guests.hostkey import HostKey, make_host_key, read_host_key, write_private

MAX_SOCKET_PATH = 100


def own_user() -> str:
    """The name of the user who runs this, or the empty string. Not getpass.getuser(): it believes $LOGNAME."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""


class Guest(Started):
    """Base of the guests; a context manager (entering starts it, leaving closes it).

    :param directory: the guest's own; created if absent, removed by close().
    :param address: a loopback address of its own; empty picks a random one.
    :param port: 0 picks a free one at the first start; it stays the same over restarts.
    :param host_key_type: ``ed25519``, ``ecdsa`` or ``rsa``.
    :param acceptor: shared by several guests and closed by its owner; None: the guest's own.
    :param listener: an already listening socket for address and port (the guest owns it then).
    :param engine_socket: where its engine listens; default ``<directory>/docker.sock``.
    """

    def __init__(
        self, directory: str, address: str = "", port: int = 0, host_key_type: str = "ed25519",
        acceptor: Optional[Acceptor] = None, listener: Optional[socket.socket] = None, engine_socket: str = "",
    ) -> None:
        self.directory = os.path.abspath(directory)
        self.address = address or AddressBlock().addresses(1)[0]
        self.port = port
        self.user = own_user() or "core"
        self.engine_socket = engine_socket or os.path.join(self.directory, "docker.sock")
        if len(self.engine_socket) > MAX_SOCKET_PATH:
            raise SimulatorError(f"the socket path is longer than {MAX_SOCKET_PATH} characters: {self.engine_socket}")
        self.host_key_path = os.path.join(self.directory, "host_key")
        self.authorized_keys_path = os.path.join(self.directory, "authorized_keys")
        self.log_path = os.path.join(self.directory, "sshd.log")
        self.faults = Faults()
        self.engine: Any = None
        """The engine in this guest, if its maker started one there (RealEngine or EmbeddedEngine)."""
        self.accepted = 0
        """TCP connections accepted so far."""
        self._own_acceptor = acceptor is None
        self._acceptor = acceptor or Acceptor()
        self._listener = listener
        self._listening = False
        self._threads = relay.Threads()
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        os.makedirs(os.path.join(self.directory, "home"), mode=0o700, exist_ok=True)
        write_private(self.authorized_keys_path, b"")
        self._host_key_type = host_key_type
        self._host_key = make_host_key(host_key_type)
        write_private(self.host_key_path, self._host_key.private)

    # -- keys -------------------------------------------------------------------------------------------------------
    @property
    def host_key(self) -> HostKey:
        return self._host_key

    @property
    def host_key_base64(self) -> str:
        """The public half of the host key, as known_hosts files and xscontainer-sshhostkey hold it."""
        return self._host_key.base64

    def rotate_host_key(self, kind: str = "") -> str:
        """A new host key for every connection from now on; its base64."""
        self._host_key = make_host_key(kind or self._host_key_type)
        write_private(self.host_key_path, self._host_key.private)
        return self._host_key.base64

    def set_host_key(self, private: str) -> None:
        """Show this key, an OpenSSH PEM, from now on."""
        self._host_key = read_host_key(private.encode("ascii"))
        write_private(self.host_key_path, self._host_key.private)

    def authorize(self, public_key_line: str) -> None:
        """Let this public key in (one line, as in authorized_keys)."""
        with open(self.authorized_keys_path, "rb") as file:
            before = file.read()
        write_private(self.authorized_keys_path, before + public_key_line.strip().encode("utf-8") + b"\n")

    def revoke_all(self) -> None:
        """Let nobody in from now on."""
        write_private(self.authorized_keys_path, b"")

    # -- life -------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Answer connections.

        :raises SimulatorError: the port is taken.
        """
        if self._listening:
            return
        if self._listener is None:
            if self.port:
                self._listener = self._listen_again()
            else:
                self._listener = bind_all([self.address])[0]
        self.port = self._listener.getsockname()[1]
        self._acceptor.add(self._listener, self._on_connection)
        self._listening = True

    def _listen_again(self, seconds: float = 2.0) -> socket.socket:
        deadline = time.monotonic() + seconds
        while True:
            try:
                return listen_on(self.address, self.port)
            except OSError as error:
                if time.monotonic() > deadline:
                    raise SimulatorError(f"cannot listen on {self.address}:{self.port}: {error}") from error
                time.sleep(0.005)

    def stop(self, sessions: bool = True) -> None:
        """Answer no more: connections are refused. With ``sessions`` standing connections end too."""
        if self._listener is not None:
            if self._listening:
                self._acceptor.remove(self._listener)
            self._listener.close()
            self._listener = None
        self._listening = False
        if sessions:
            self._end_sessions()

    def kill(self) -> None:
        """Everything dies at once, as when the VM is destroyed."""
        self.stop(sessions=True)

    def restart(self, down: float = 0.0) -> None:
        """Stop with all sessions, stay away for ``down`` seconds, start."""
        self.stop()
        time.sleep(down)
        self.start()

    def freeze(self) -> None:
        """Hang like a paused VM: standing connections stay open and say nothing, new ones are not answered."""
        if self._listener is not None and self._listening:
            # The kernel goes on completing TCP handshakes, as it does for a hung sshd.
            self._acceptor.remove(self._listener)
            self._listening = False

    def thaw(self) -> None:
        """Go on after freeze()."""
        if self._listener is not None and not self._listening:
            self._acceptor.add(self._listener, self._on_connection)
            self._listening = True

    def close(self) -> None:
        """stop(), and remove the directory. Callable twice."""
        self.thaw()
        self.stop()
        self._threads.close()
        if self._own_acceptor:
            self._acceptor.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def set_forwarding(self, allowed: bool) -> None:
        """Whether streamlocal channels are allowed."""
        raise NotImplementedError

    def misbehave(self, kind: str, **details: Any) -> None:
        """Switch a connection fault on (see :mod:`..engines.faults`)."""
        raise NotImplementedError

    def behave(self) -> None:
        """Switch all faults off."""
        raise NotImplementedError

    @property
    def sessions(self) -> int:
        """SSH connections that stand now."""
        raise NotImplementedError

    # -- for the kinds of guest -------------------------------------------------------------------------------------
    def _serve(self, connection: socket.socket) -> None:
        """Speak SSH on this connection; owns the socket. Called in the acceptor's thread: quick."""
        raise NotImplementedError

    def _end_sessions(self) -> None:
        raise NotImplementedError

    def _on_connection(self, connection: socket.socket) -> None:
        self.accepted += 1
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        fault = self.faults.take("connect", AT_CONNECT)
        if fault is None:
            self._serve(connection)
        else:
            self._threads.start(self._misbehave, connection, fault)

    def _misbehave(self, connection: socket.socket, fault: Fault) -> None:
        """Play a connection fault; in the guest's own thread."""
        with relay.closing_on_stop(connection, self._threads):
            if relay.play(connection, fault, self._threads.stopping):
                return
            # "late", "slow" and "cut" are what an honest server says, passed on badly.
            near, far = socket.socketpair()
            with near:
                self._serve(far)
                relay.pump(connection, near, fault, self._threads.stopping)


def clean_path(directories: List[str]) -> str:
    """A PATH of those directories that exist."""
    return os.pathsep.join(directory for directory in directories if os.path.isdir(directory))


def make_tools(directory: str, tools: List[str]) -> str:
    """A directory with links to the named programs of this machine and nothing else; its path.

    :raises SimulatorError: a program is missing here.
    """
    path = os.path.join(directory, "bin")
    os.makedirs(path, exist_ok=True)
    for tool in tools:
        target = shutil.which(tool)
        if target is None:
            raise SimulatorError(f"{tool} is not installed on this machine")
        if not os.path.lexists(os.path.join(path, tool)):
            os.symlink(target, os.path.join(path, tool))
    return path
