"""The base of all simulated guests: an address, an SSH server, keys, and a place for an engine."""

import os
import pwd
import shutil
import socket
import time
from typing import Any, List, Optional, Sequence

from xscontainer.simulator.engines import relay
from xscontainer.simulator.engines.acceptor import Acceptor
from xscontainer.simulator.engines.errors import SimulatorError
from xscontainer.simulator.engines.faults import AT_CONNECT, Faults
from xscontainer.simulator.engines.started import Started
from xscontainer.simulator.guests.addresses import AddressBlock, bind_all, listen_on
from xscontainer.simulator.guests.faulty import play_fault
from xscontainer.simulator.guests.guest_keys import GuestKeys
from xscontainer.simulator.guests.hypervisor import Hypervisor

MAX_SOCKET_PATH = 100
# Programs that can connect a stream to an engine's socket. A guest may lack them.
HIDDEN = ("docker", "podman", "socat", "ncat", "nc")
SYSTEM_DIRECTORIES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin:/opt/bin"


def own_user() -> str:
    """Return the name of the effective user, else "". Not getpass.getuser(), which trusts $LOGNAME."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""


class Guest(GuestKeys, Started):
    """Base of the guests; a context manager (entering starts it, leaving closes it).

    :param directory: the guest's own; created if absent, removed by close().
    :param address: a loopback address of its own; empty picks a random one.
    :param port: 0 picks a free one at the first start; it stays the same over restarts.
    :param host_key_type: ``ed25519``, ``ecdsa`` or ``rsa``.
    :param acceptor: shared by several guests and closed by its owner; None: the guest's own.
    :param listener: an already listening socket for address and port (the guest owns it then).
    :param engine_socket: where its engine listens; default ``<directory>/docker.sock``.
    """

    seen_as = ""
    """Where commands in the guest see its directory, if that is another path there."""

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
        self.hypervisor = Hypervisor(self.directory, self.seen_as)
        """The uuid that the guest gives as its VM's; no answer until it is set."""
        super().__init__(self.directory, host_key_type)

    # -- life -------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Answer connections.

        :raises SimulatorError: the port is taken.
        """
        if self._listening:
            return
        if self._listener is None:
            if self.port:
                self._listener = _listen_again(self.address, self.port)
            else:
                self._listener = bind_all([self.address])[0]
        self.port = self._listener.getsockname()[1]
        self._acceptor.add(self._listener, self._on_connection)
        self._listening = True

    def stop(self, sessions: bool = True) -> None:
        """Refuse connections. With ``sessions`` standing connections end, too."""
        if self._listener is not None:
            if self._listening:
                self._acceptor.remove(self._listener)
            self._listener.close()
            self._listener = None
        self._listening = False
        if sessions:
            self._end_sessions()

    def kill(self) -> None:
        """End everything at once, as when the VM is destroyed."""
        self.stop(sessions=True)

    def freeze(self) -> None:
        """Hang like a paused VM: connections stay open, and nothing is sent or accepted."""
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
        """Call stop() and remove the directory. May be called twice."""
        self.thaw()
        self.stop()
        self._threads.close()
        if self._own_acceptor:
            self._acceptor.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def set_forwarding(self, allowed: bool) -> None:
        """Allow streamlocal channels or not."""
        raise NotImplementedError

    def misbehave(self, kind: str, **details: Any) -> None:
        """Switch a connection fault on (see :mod:`..engines.faults`)."""
        self.faults.set(kind, **details)

    def behave(self) -> None:
        """Switch all faults off."""
        self.faults.clear()

    @property
    def sessions(self) -> int:
        """Return the number of open SSH connections."""
        raise NotImplementedError

    # -- for the kinds of guest -------------------------------------------------------------------------------------
    def _serve(self, connection: socket.socket) -> None:
        """Speak SSH on this connection and own its socket. It is called in the acceptor's thread and must be quick."""
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
            self._threads.start(play_fault, connection, fault, self._serve, self._threads)


def _listen_again(address: str, port: int, seconds: float = 2.0) -> socket.socket:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return listen_on(address, port)
        except OSError as error:
            if time.monotonic() > deadline:
                raise SimulatorError(f"cannot listen on {address}:{port}: {error}") from error
            time.sleep(0.005)


def clean_path(directories: List[str]) -> str:
    """Return a PATH of those directories that exist."""
    return os.pathsep.join(directory for directory in directories if os.path.isdir(directory))


def programs_but(wanted: Sequence[str]) -> List[str]:
    """Return the real paths of this machine's programs of HIDDEN that are not ``wanted``."""
    directories = os.environ.get("PATH", "").split(os.pathsep) + SYSTEM_DIRECTORIES.split(":")
    paths = [os.path.join(directory, name) for directory in directories for name in HIDDEN if name not in wanted]
    kept = {os.path.realpath(found) for found in map(shutil.which, wanted) if found}
    return sorted({os.path.realpath(path) for path in paths if os.path.isfile(path)} - kept)


def make_tools(directory: str, tools: List[str]) -> str:
    """Make a directory with links to the named programs of this machine and nothing else; return its path.

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
