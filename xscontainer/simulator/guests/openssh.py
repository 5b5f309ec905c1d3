"""A guest that answers with the machine's real sshd, as any user.

There are two modes of the same program:

* ``socket`` (default): this process listens and starts ``sshd -i`` for each connection, as systemd's ssh.socket and
  inetd do. The connection belongs to sshd alone: no byte passes through Python. An idle guest costs one socket.
* ``sshd``: a listening ``sshd -D`` of its own. While a fault is switched on with :meth:`OpenSSHGuest.misbehave`, the
  mode ``socket`` plays it.
"""

import functools
import os
import socket
import subprocess
from typing import Any, Dict, Optional, Sequence

from xscontainer.simulator.engines import processes
from xscontainer.simulator.engines.errors import NotAvailable
from xscontainer.simulator.engines.started import Logged
from xscontainer.simulator.guests.base import Guest, own_user
from xscontainer.simulator.guests.sshd import PRIVILEGE_SEPARATION_DIRECTORY, Sshd, View


@functools.lru_cache(maxsize=None)
def refused_user(user: str) -> str:
    """Return why sshd refuses every login to this account, or the empty string.

    Without PAM it refuses locked accounts, as that of ``nobody`` often is.
    """
    if not user:
        return "this user has no name in passwd"
    getent = processes.find_program("getent")
    if getent is None:
        return ""
    asked = subprocess.run([getent, "shadow", user], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.DEVNULL, timeout=10.0)
    password = (asked.stdout.split(b":") + [b""])[1]
    return f"sshd refuses the user {user}, whose account is locked" if password.startswith(b"!") else ""


class OpenSSHGuest(Guest, Logged):
    """See the module. It takes these parameters beside those of :class:`Guest`.

    :param options: sshd_config keywords and values; they win over ours (``{"AllowStreamLocalForwarding": "no"}``).
    :param tools: the only programs on the PATH of commands in the guest; None: all of this machine. For root also the
        only ones of HIDDEN that are in the guest at all.
    :param mode: ``socket`` or ``sshd``.
    :param run: a directory that is ``/run`` in the guest, and ``/var/run`` with it; needs root.
    """

    def __init__(
        self, directory: str, options: Optional[Dict[str, str]] = None, tools: Optional[Sequence[str]] = None,
        mode: str = "socket", run: str = "", **common: Any
    ) -> None:
        reason = self.missing()
        if reason:
            raise NotAvailable(reason)
        if mode not in ("socket", "sshd"):
            raise ValueError(f"no such mode: {mode}")
        super().__init__(directory, **common)
        view = View(tools, os.path.abspath(run) if run else "")
        if view.run:
            os.makedirs(os.path.join(view.run, os.path.basename(PRIVILEGE_SEPARATION_DIRECTORY)), exist_ok=True)
        self._mode = mode
        self._options: Dict[str, str] = {}
        self.sshd = Sshd(str(processes.find_program("sshd")), self, view, self._threads)
        self.set_options(options or {})

    @staticmethod
    def missing() -> str:
        """Return why sshd cannot be used here, or the empty string."""
        if not processes.find_program("sshd"):
            return "sshd is not installed (Debian: openssh-server)"
        if processes.servers_off():
            return processes.servers_off()
        # For root's locked account PAM is switched on, which works for root only.
        return "" if os.geteuid() == 0 else refused_user(own_user())

    # -- configuration ----------------------------------------------------------------------------------------------
    def set_options(self, options: Dict[str, str]) -> None:
        """Replace the sshd_config overrides for every new connection (mode ``sshd``: restarts the listener)."""
        self._options = dict(options)
        self.sshd.write_config(self._options, f"ListenAddress {self.address}\n" if self._mode == "sshd" else "")
        if self.sshd.listening:
            self.sshd.stop_listening()
            self._listen()

    def set_forwarding(self, allowed: bool) -> None:
        """Allow streamlocal channels or not, for every new connection."""
        self.set_options({**self._options, "AllowStreamLocalForwarding": "yes" if allowed else "no"})

    # -- life -------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        if os.geteuid() == 0:
            # sshd as root needs this directory, which systemd makes where it runs.
            os.makedirs(PRIVILEGE_SEPARATION_DIRECTORY, mode=0o755, exist_ok=True)
        if self._mode == "socket":
            super().start()
        elif not self.sshd.listening:
            self._listen()

    def _listen(self) -> None:
        # Choose the port the first time, and check that it is free: sshd would only log that it is not.
        super().start()
        super().stop(sessions=False)
        self.sshd.listen()

    def stop(self, sessions: bool = True) -> None:
        self.sshd.stop_listening()
        super().stop(sessions)

    def misbehave(self, kind: str, **details: Any) -> None:
        """Switch a connection fault on (see :mod:`..engines.faults`), in either mode."""
        super().misbehave(kind, **details)
        if self.sshd.listening:
            self.sshd.stop_listening()
            super().start()

    def behave(self) -> None:
        """Switch all faults off."""
        super().behave()
        if self._mode == "sshd" and not self.sshd.listening and self._listening:
            self._listen()

    def freeze(self) -> None:
        super().freeze()
        self.sshd.freeze()

    def thaw(self) -> None:
        self.sshd.thaw()
        if not self.sshd.listening:
            super().thaw()

    # -- sessions ---------------------------------------------------------------------------------------------------
    @property
    def sessions(self) -> int:
        return self.sshd.sessions()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            self.sshd.serve(connection)

    def _end_sessions(self) -> None:
        self.sshd.end_sessions()
        self._threads.end()
