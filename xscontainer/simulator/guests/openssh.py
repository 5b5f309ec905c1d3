"""A guest that answers with the machine's real sshd, as any user.

Two ways, same program:

* ``socket`` (default): this process listens and starts ``sshd -i`` for each connection, as systemd's ssh.socket and
  inetd do. The connection belongs to sshd alone: no byte passes through Python. An idle guest costs one socket.
* ``sshd``: a listening ``sshd -D`` of its own. Connection faults are played by the first way, which takes over for as
  long as one is switched on with :meth:`OpenSSHGuest.misbehave`.
"""

import functools
import os
import signal
import socket
import subprocess
import threading
import time
from typing import Any, Dict, List, Optional, Sequence, Set

from xscontainer.simulator.engines import processes
from xscontainer.simulator.engines.errors import NotAvailable, SimulatorError
from xscontainer.simulator.guests.base import Guest, clean_path, make_tools, own_user
from xscontainer.simulator.guests.hostkey import write_private

PRIVILEGE_SEPARATION_DIRECTORY = "/run/sshd"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@functools.lru_cache(maxsize=None)
def refused_user(user: str) -> str:
    """Why sshd lets nobody into this account, whatever the key, or the empty string.

    Without PAM it refuses accounts whose password says that they are locked, as that of ``nobody`` often does.
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


class OpenSSHGuest(Guest):
    """See the module. Further parameters beside those of :class:`Guest`:

    :param options: sshd_config keywords and values; they win over ours (``{"AllowStreamLocalForwarding": "no"}``).
    :param tools: the only programs on the PATH of commands in the guest; None: all of this machine.
    :param mode: ``socket`` or ``sshd``.
    :param run: a directory that is ``/run`` in the guest, and ``/var/run`` with it; needs root.
    """

    def __init__(
        self, directory: str, options: Optional[Dict[str, str]] = None, tools: Optional[Sequence[str]] = None,
        mode: str = "socket", run: str = "", **common: Any
    ) -> None:
        self._sshd = processes.find_program("sshd")
        reason = self.missing()
        if reason:
            raise NotAvailable(reason)
        if mode not in ("socket", "sshd"):
            raise ValueError(f"no such mode: {mode}")
        super().__init__(directory, **common)
        self._run = os.path.abspath(run) if run else ""
        if self._run:
            os.makedirs(os.path.join(self._run, os.path.basename(PRIVILEGE_SEPARATION_DIRECTORY)), exist_ok=True)
        self._options = dict(options or {})
        self._tools = tools
        self._mode = mode
        self._config_path = os.path.join(self.directory, "sshd_config")
        self._daemon: Optional["subprocess.Popen[bytes]"] = None
        self._lock = threading.Lock()
        self._children: Set["subprocess.Popen[bytes]"] = set()
        self._frozen: Set[int] = set()
        self._orphans: Set[int] = set()
        self._write_config()

    @staticmethod
    def missing() -> str:
        """Why sshd cannot be used here, or the empty string."""
        if not processes.find_program("sshd"):
            return "sshd is not installed (Debian: openssh-server)"
        # For root's locked account PAM is switched on, which looks elsewhere; it serves nobody but root.
        return "" if os.geteuid() == 0 else refused_user(own_user())

    # -- configuration ----------------------------------------------------------------------------------------------
    def set_options(self, options: Dict[str, str]) -> None:
        """Other sshd_config overrides for every connection from now on (mode ``sshd``: restarts the listener)."""
        self._options = dict(options)
        self._write_config()
        if self._daemon is not None:
            self._stop_daemon()
            self._start_daemon()

    def set_forwarding(self, allowed: bool) -> None:
        """Whether streamlocal channels are allowed, for every connection from now on."""
        self.set_options({**self._options, "AllowStreamLocalForwarding": "yes" if allowed else "no"})

    def _write_config(self) -> None:
        ours = {
            "HostKey": self.host_key_path,
            "AuthorizedKeysFile": self.authorized_keys_path,
            "PidFile": "none",
            "StrictModes": "no",
            # Where the account is locked only PAM lets it in; without PAM no directory of the system is asked.
            "UsePAM": "yes" if _account_locked(self.user) else "no",
            "PasswordAuthentication": "no",
            "ChallengeResponseAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "AllowStreamLocalForwarding": "yes",
            "UseDNS": "no",
            "PrintMotd": "no",
            "PrintLastLog": "no",
            "X11Forwarding": "no",
            "MaxStartups": "200",
            "LogLevel": "VERBOSE",
            "SetEnv": f'PATH={self._path()} HOME={self.directory}/home DOCKER_HOST=unix://{self.engine_socket}',
        }
        lines = [f"{key} {value}\n" for key, value in list(self._options.items()) + list(ours.items())]
        if self._mode == "sshd":
            lines.append(f"ListenAddress {self.address}\n")
        write_private(self._config_path, "".join(lines).encode("utf-8"))

    def _path(self) -> str:
        if self._tools is not None:
            return make_tools(self.directory, list(self._tools))
        return clean_path((os.environ.get("PATH", "") + ":" + SYSTEM_PATH).split(":"))

    def _command(self, *more: str) -> List[str]:
        sshd = [str(self._sshd), "-f", self._config_path, "-E", self.log_path] + list(more)
        if not self._run:
            return sshd
        # A view of the file system of its own; sshd and all that it starts keep it.
        return ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /run && exec "$@"', self._run] + sshd

    # -- life -------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        if os.geteuid() == 0:
            # sshd as root insists on this directory of the system's, which systemd makes where it runs.
            os.makedirs(PRIVILEGE_SEPARATION_DIRECTORY, mode=0o755, exist_ok=True)
        if self._mode == "socket":
            super().start()
        elif self._daemon is None:
            self._start_daemon()

    def _start_daemon(self, timeout: float = 10.0) -> None:
        # Chooses the port the first time, and finds out whether it is free: sshd would only say so in its log.
        super().start()
        super().stop(sessions=False)
        self._daemon = self._spawn(self._command("-D", "-p", str(self.port)), subprocess.DEVNULL)
        deadline = time.monotonic() + timeout
        while True:
            try:
                socket.create_connection((self.address, self.port), 1.0).close()
                return
            except OSError as error:
                if self._daemon.poll() is not None or time.monotonic() > deadline:
                    self._stop_daemon()
                    raise SimulatorError(f"sshd does not listen: {self.log_tail()}") from error
                time.sleep(0.003)

    def stop(self, sessions: bool = True) -> None:
        self._stop_daemon()
        super().stop(sessions)

    def _stop_daemon(self) -> None:
        if self._daemon is not None:
            # Sessions are its children: once it is gone, nothing tells them from other processes.
            self._orphans |= processes.descendants([self._daemon.pid])
            processes.end(self._daemon, 5.0)
            self._daemon = None

    def misbehave(self, kind: str, **details: Any) -> None:
        """Switch a connection fault on (see :mod:`..engines.faults`), in either mode."""
        self.faults.set(kind, **details)
        if self._daemon is not None:
            self._stop_daemon()
            super().start()

    def behave(self) -> None:
        """Switch all faults off."""
        self.faults.clear()
        if self._mode == "sshd" and self._daemon is None and self._listening:
            self._start_daemon()

    def freeze(self) -> None:
        super().freeze()
        self._frozen = self._session_pids()
        if self._daemon is not None:
            self._frozen.add(self._daemon.pid)
        processes.kill(self._frozen, signal.SIGSTOP)

    def thaw(self) -> None:
        processes.kill(self._frozen, signal.SIGCONT)
        self._frozen = set()
        if self._daemon is None:
            super().thaw()

    # -- sessions ---------------------------------------------------------------------------------------------------
    @property
    def sessions(self) -> int:
        if self._daemon is not None:
            table = processes.parents()
            return sum(1 for parent in table.values() if parent == self._daemon.pid)
        with self._lock:
            return len(self._children)

    def _session_pids(self) -> Set[int]:
        with self._lock:
            roots = {child.pid for child in self._children}
        if self._daemon is not None:
            roots |= processes.descendants([self._daemon.pid])
        self._orphans = {pid for pid in self._orphans if not processes.gone(pid)}
        roots |= self._orphans
        return roots | processes.descendants(roots)

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            child = self._spawn(self._command("-i"), connection)
        with self._lock:
            self._children.add(child)
        # A thread that waits costs nothing while idle, and no ended session stays a zombie.
        self._threads.start(self._reap, child, name="simulator-sshd")

    def _reap(self, child: "subprocess.Popen[bytes]") -> None:
        child.wait()
        with self._lock:
            self._children.discard(child)

    def _spawn(self, command: List[str], connection: Any) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            command, stdin=connection, stdout=connection, stderr=subprocess.DEVNULL, cwd=self.directory,
            env={"PATH": SYSTEM_PATH}, start_new_session=True,
        )

    def _end_sessions(self) -> None:
        # A session of another user than root forks right after its login: what is stopped forks no more, and
        # children whose parent is gone could not be told from other processes.
        pids: Set[int] = set()
        while True:
            found = self._session_pids() - pids
            if not found:
                break
            processes.kill(found, signal.SIGSTOP)
            pids |= found
        processes.kill(pids)
        processes.wait_gone(pids, 5.0)
        self._threads.end()

    def log_tail(self, size: int = 2000) -> str:
        """The end of sshd's log."""
        return processes.log_tail(self.log_path, size)


def _account_locked(user: str) -> bool:
    """Whether the password field forbids a login without PAM; unreadable means no."""
    try:
        with open("/etc/shadow", encoding="utf-8", errors="replace") as shadow:
            return any(line.startswith(user + ":!") for line in shadow)
    except OSError:
        return False
