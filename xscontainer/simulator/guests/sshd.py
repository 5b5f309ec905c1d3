"""The sshd processes of one guest: their configuration, the listening one, and one for each connection."""

import os
import shlex
import signal
import socket
import subprocess
import threading
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set

from xscontainer.simulator.engines import processes
from xscontainer.simulator.engines.errors import SimulatorError
from xscontainer.simulator.engines.relay import Threads
from xscontainer.simulator.guests.base import Guest, clean_path, make_tools, programs_but
from xscontainer.simulator.guests.hostkey import write_private

PRIVILEGE_SEPARATION_DIRECTORY = "/run/sshd"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class View(NamedTuple):
    """The part of this machine that commands in a guest see.

    tools: the only programs; None: all. run: the directory that is /run in the guest; empty: this machine's.
    """

    tools: Optional[Sequence[str]]
    run: str

    def wrap(self, command: List[str]) -> List[str]:
        """Return a command that runs another one with this view of the file system."""
        mounts = [f"mount --bind {shlex.quote(self.run)} /run"] if self.run else []
        if self.tools is not None and os.geteuid() == 0:
            mounts += [f"mount --bind /dev/null {shlex.quote(path)}" for path in programs_but(self.tools)]
        if not mounts:
            return command
        # In a mount namespace of its own, which sshd and all that it starts keep.
        return ["unshare", "--mount", "sh", "-c", " && ".join(mounts + ['exec "$@"']), "sh"] + command


def config_lines(guest: Guest, tools: Optional[Sequence[str]], options: Mapping[str, str]) -> List[str]:
    """Return the lines of sshd_config for a guest; sshd takes the first value of a keyword, so ``options`` win."""
    if tools is not None:
        path = f"{guest.hypervisor.path}:{make_tools(guest.directory, list(tools))}"
    else:
        path = clean_path([guest.hypervisor.path] + (os.environ.get("PATH", "") + ":" + SYSTEM_PATH).split(":"))
    ours = {
        "HostKey": guest.host_key_path,
        "AuthorizedKeysFile": guest.authorized_keys_path,
        "PidFile": "none",
        "StrictModes": "no",
        # A locked account can log in with PAM only. Without PAM no name service of the machine is asked.
        "UsePAM": "yes" if _account_locked(guest.user) else "no",
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
        "SetEnv": f'PATH={path} HOME={guest.directory}/home',
    }
    return [f"{key} {value}\n" for key, value in list(options.items()) + list(ours.items())]


class Sshd:
    """Runs sshd for one guest.

    wrap: puts what a guest sees of this machine around a command; tests may replace it.

    :param program: sshd's path.
    :param threads: for waiting for the end of each connection's sshd.
    """

    def __init__(self, program: str, guest: Guest, view: View, threads: Threads) -> None:
        self._program = program
        self._guest = guest
        self.wrap = view.wrap
        self._tools = view.tools
        self._threads = threads
        self._config_path = os.path.join(guest.directory, "sshd_config")
        self._daemon: Optional["subprocess.Popen[bytes]"] = None
        self._lock = threading.Lock()
        self._children: Set["subprocess.Popen[bytes]"] = set()
        self._frozen: Set[int] = set()
        self._orphans: Set[int] = set()

    def write_config(self, options: Dict[str, str], more: str = "") -> None:
        """Write sshd_config for every connection from now on; ``more`` is added at the end."""
        lines = config_lines(self._guest, self._tools, options)
        write_private(self._config_path, ("".join(lines) + more).encode("utf-8"))

    def _spawn(self, connection: Any, *more: str) -> "subprocess.Popen[bytes]":
        command = [self._program, "-f", self._config_path, "-E", self._guest.log_path, *more]
        return subprocess.Popen(
            self.wrap(command), stdin=connection, stdout=connection, stderr=subprocess.DEVNULL,
            cwd=self._guest.directory, env={"PATH": SYSTEM_PATH}, start_new_session=True,
        )

    @property
    def listening(self) -> bool:
        """Return whether a listening sshd was started."""
        return self._daemon is not None

    def listen(self, timeout: float = 10.0) -> None:
        """Start a listening sshd and wait until it accepts connections.

        :raises SimulatorError: it ended, or ``timeout`` seconds have passed.
        """
        address, port = self._guest.address, self._guest.port
        self._daemon = self._spawn(subprocess.DEVNULL, "-D", "-p", str(port))
        deadline = time.monotonic() + timeout
        while True:
            try:
                socket.create_connection((address, port), 1.0).close()
                return
            except OSError as error:
                if self._daemon.poll() is not None or time.monotonic() > deadline:
                    self.stop_listening()
                    log = processes.log_tail(self._guest.log_path, 2000)
                    raise SimulatorError(f"sshd does not listen on {address}:{port}: {log}") from error
                time.sleep(0.003)

    def stop_listening(self) -> None:
        """End the listening sshd; its sessions stay."""
        if self._daemon is not None:
            # Sessions are its children: once it has ended, nothing tells them from other processes.
            self._orphans |= processes.descendants([self._daemon.pid])
            processes.end(self._daemon, 5.0)
            self._daemon = None

    def serve(self, connection: socket.socket) -> None:
        """Start an sshd for one connection, as inetd does."""
        child = self._spawn(connection, "-i")
        with self._lock:
            self._children.add(child)
        # A waiting thread costs nothing while idle, and no ended session stays a zombie.
        self._threads.start(self._reap, child, name="simulator-sshd")

    def _reap(self, child: "subprocess.Popen[bytes]") -> None:
        child.wait()
        with self._lock:
            self._children.discard(child)

    def sessions(self) -> int:
        """Return the number of connections that stand now."""
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

    def freeze(self) -> None:
        """Stop all processes."""
        self._frozen = self._session_pids()
        if self._daemon is not None:
            self._frozen.add(self._daemon.pid)
        processes.kill(self._frozen, signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue all processes."""
        processes.kill(self._frozen, signal.SIGCONT)
        self._frozen = set()

    def end_sessions(self) -> None:
        """Kill every session and wait for its end."""
        # A session of another user than root forks right after its login. A stopped process forks no more, and
        # children whose parent has ended could not be told from other processes.
        pids: Set[int] = set()
        while True:
            found = self._session_pids() - pids
            if not found:
                break
            processes.kill(found, signal.SIGSTOP)
            pids |= found
        processes.kill(pids)
        processes.wait_gone(pids, 5.0)


def _account_locked(user: str) -> bool:
    """Return whether the password field forbids a login without PAM; False if it cannot be read."""
    try:
        with open("/etc/shadow", encoding="utf-8", errors="replace") as shadow:
            return any(line.startswith(user + ":!") for line in shadow)
    except OSError:
        return False
