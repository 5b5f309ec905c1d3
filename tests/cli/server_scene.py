"""A pool that serves HTTPS with the plugin on its hosts, and the command as an admin runs it on another machine."""

import contextlib
import os
import pty
import select
import signal
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from tests.cli.place import container, docker_ps
from tests.plugin.pool import PluginPool
from xscontainer import keys
from xscontainer.simulator.xapi import ROOT_PASSWORD
from xscontainer.xapi.trust import fingerprint_of

ROOT = Path(__file__).resolve().parent.parent.parent
SECRET = "correct-horse-battery"  # password of all users but root


class Answer(NamedTuple):
    code: int
    out: str
    err: str


class Scene:
    """:ivar home: of the admin."""

    def __init__(self, plugins: PluginPool, home: Path) -> None:
        self.plugins = plugins
        self.pool = plugins.pool
        self.home = home
        self.ca_file = home / "ca.pem"
        self.ca_file.write_text("".join(host.certificate for host in self.pool.hosts))
        self.password = self.secret("root-password", ROOT_PASSWORD)

    def secret(self, name: str, text: str, mode: int = 0o600) -> str:
        path = self.home / name
        path.write_text(text + "\n")
        path.chmod(mode)
        return str(path)

    def server(self, host: int = 0) -> str:
        return f"{self.pool.hosts[host].address}:{self.pool.hosts[host].https_port}"

    def fingerprint(self, host: int = 0) -> str:
        return fingerprint_of(ssl.PEM_cert_to_DER_cert(self.pool.hosts[host].certificate))

    def as_root(self, host: int = 0) -> "Tuple[str, ...]":
        return ("--server", self.server(host), "--ca-file", str(self.ca_file), "--password-file", self.password)

    def as_user(self, role: str) -> "Tuple[str, ...]":
        if role not in self.pool.sessions.users:
            self.pool.add_user(role, SECRET, role)
        return ("--server", self.server(), "--user", role, "--ca-file", str(self.ca_file), "--password-file",
                self.secret("user-password", SECRET))

    def add_vm(self, name: str, *containers: str, host: int = 0) -> str:
        """Add a VM with a published list and no network; return its uuid."""
        ref = self.pool.create_vm(name, host=self.pool.hosts[host], other_config={
            keys.MONITOR: "True", keys.PS: docker_ps(*map(container, containers))})
        return str(self.pool.vm(ref)["uuid"])

    def vm(self, name: str) -> str:
        """Return the uuid of the VM with that name."""
        return next(str(vm["uuid"]) for vm in self.pool.records("VM").values() if vm["name_label"] == name)

    def other_config(self, vm_uuid: str) -> "Dict[str, str]":
        return next(vm["other_config"] for vm in self.pool.records("VM").values() if vm["uuid"] == vm_uuid)

    def environment(self, **more: str) -> "Dict[str, str]":
        kept = {name: value for name, value in os.environ.items() if not name.startswith("XSCONTAINER")}
        return dict(kept, HOME=str(self.home), XDG_CONFIG_HOME=str(self.home / "config"), PYTHONIOENCODING="utf-8",
                    **more)

    def command(self, *words: str) -> "List[str]":
        return [sys.executable, "-W", "ignore", "-m", "xscontainer.cli", *words]

    def run(self, *words: str, pass_fds: "Tuple[int, ...]" = (), stdin: Any = subprocess.DEVNULL,
            **environment: str) -> Answer:
        done = subprocess.run(
            self.command(*words), cwd=str(ROOT), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            timeout=60, env=self.environment(**environment), pass_fds=pass_fds)
        return Answer(done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8"))

    def at_a_terminal(self, *words: str, replies: "List[Tuple[str, str]]") -> "Tuple[int, str]":
        """Run the command at a terminal of its own; return exit code and all that the terminal shows.

        :param replies: text to wait for, and what is typed then.
        """
        pid, terminal = pty.fork()
        if pid == 0:  # the child
            os.chdir(str(ROOT))
            os.execve(sys.executable, self.command(*words), self.environment())
        shown = bytearray()
        try:
            for awaited, reply in replies:
                _read_until(terminal, shown, awaited.encode())
                os.write(terminal, reply.encode() + b"\n")
            _read_until(terminal, shown, None)
        finally:
            os.close(terminal)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGHUP)
            _, status = os.waitpid(pid, 0)
        return status >> 8 if status & 0xff == 0 else -(status & 0x7f), shown.decode("utf-8", "replace")


def _read_until(terminal: int, shown: bytearray, awaited: "Optional[bytes]") -> None:
    """Read until the text appears, None: until the end."""
    begun = len(shown)
    while awaited is None or awaited not in shown[max(0, begun - 1):]:
        assert select.select([terminal], [], [], 60.0)[0], bytes(shown)
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # the child has closed the terminal
            piece = b""
        if not piece:
            assert awaited is None, bytes(shown)
            return
        shown += piece


@contextlib.contextmanager
def scene(directory: Path) -> "Iterator[Scene]":
    home = directory / "home"
    home.mkdir()
    with PluginPool(str(directory / "p"), hosts=2, https=True) as plugins:
        yield Scene(plugins, home)
