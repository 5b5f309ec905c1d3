"""A logged-in user in a guest, who runs commands there."""

from typing import Any, Optional

from xscontainer.engine import failures
from xscontainer.engine.ssh import commands
from xscontainer.engine.ssh.transport import GuestTransport


class Shell:
    """The commands of the user who is logged in on one SSH transport. Thread-safe."""

    def __init__(self, transport: GuestTransport) -> None:
        self._transport = transport

    @property
    def user(self) -> str:
        return str(self._transport.get_username() or "")

    @property
    def server(self) -> str:
        """The identification string of the guest's SSH server, as "SSH-2.0-OpenSSH_9.2p1"."""
        return self._transport.remote_version

    @property
    def own_address(self) -> str:
        """The IP address of this host on the connection.

        :raises TransportLost: if the connection has ended.
        """
        sock: Any = self._transport.sock
        with failures.translating("The SSH connection to the VM", failures.SSH_SIDE):
            return str(sock.getsockname()[0])

    @property
    def closed(self) -> bool:
        """True if the connection has ended."""
        return not self._transport.is_active()

    def run(self, script: str, *arguments: str, deadline: float, most: int = commands.MOST_ANSWER,
            data: Optional[bytes] = None) -> commands.Answer:
        """Run a short script in the guest; for parameters and errors see :func:`.commands.run`."""
        return commands.run(self._transport, script, *arguments, deadline=deadline, most=most, data=data)
