"""A pool with daemons, and VMs whose guests nobody has prepared."""

import contextlib
import json
import os
import subprocess
import sys
from typing import Any, Dict, Iterator, List, Mapping, Optional

from tests.verbs.prepare.guests import INSIDE, PASSWORD, UID, USER, FreshGuest
from xscontainer import keys
from xscontainer.errors import XapiError
from xscontainer.simulator.engines import EmbeddedEngine
from xscontainer.simulator.world import Parts, World
from xscontainer.xapi import secret

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class VM:
    """One VM. ``guest`` and ``engine`` are what runs in it."""

    def __init__(self, world: "Fresh", ref: str, guest: FreshGuest, engine: Any) -> None:
        self._pool = world.pool
        self.ref, self.guest, self.engine = ref, guest, engine
        self.uuid = str(world.pool.vm(ref)["uuid"])

    @property
    def config(self) -> Dict[str, str]:
        return self._pool.other_config(self.ref)

    @property
    def fingerprint(self) -> str:
        from xscontainer.engine.ssh import hostkeys
        return hostkeys.parse_pin(self.guest.host_key_base64).fingerprint


class Fresh(World):
    """See the module. :param daemons: whether every host has one. :param settings: as for World."""

    def __init__(self, directory: str, daemons: bool = True, hosts: int = 2,
                 settings: Optional[Mapping[str, Mapping[str, object]]] = None) -> None:
        super().__init__(directory, hosts=hosts, guests=(), parts=Parts(daemons=daemons, settings=settings or {}))
        self._more = contextlib.ExitStack()
        self.added: List[VM] = []

    def __enter__(self) -> "Fresh":
        super().__enter__()
        return self

    def close(self) -> None:
        super().close()
        self._more.close()

    def add(self, name: str = "web", host: Optional[int] = 1, config: Optional[Dict[str, str]] = None,
            containers: int = 1, **options: Any) -> VM:
        """:param config: other_config beside the engine's socket and sshd's port, which are not the usual ones here."""
        directory = os.path.join(self.directory, f"v{len(self.added)}")
        guest = self._more.enter_context(FreshGuest(directory, **options))
        engine = self._more.enter_context(EmbeddedEngine(directory + "/e", guest.engine_socket))
        os.chown(guest.engine_socket, UID, UID)
        for number in range(containers):
            engine.run(f"c{number}")
        ref = self.pool.create_vm(
            name, host=self.pool.hosts[host] if host is not None else None, networks={"0/ip": guest.address},
            other_config={keys.SSH_PORT: str(guest.port), keys.ENGINE_SOCKET: INSIDE + "/docker.sock",
                          **(config or {})})
        self.added.append(VM(self, ref, guest, engine))
        guest.hypervisor.says(self.added[-1].uuid)
        return self.added[-1]

    def prepare(self, vm: VM, host: int = 0, password: str = "", **more: str) -> Any:
        """The plugin function as a client calls it, with the password in a secret."""
        arguments = dict({"vmuuid": vm.uuid, "username": USER}, **more)
        if password:
            with self.session() as session:
                arguments["passwordsecret"] = secret.keep_password(session, password, vm.uuid)
        result = self.call(host, "prepare", **arguments)
        assert result.startswith("True")
        return json.loads(result[4:])

    def failure(self, function: Any, *arguments: Any, **named: Any) -> List[str]:
        try:
            function(*arguments, **named)
        except XapiError as error:
            return error.details
        raise AssertionError("it succeeded")

    def told(self, function: str, host: int = 0, **arguments: str) -> Any:
        """The JSON that a plugin function returns."""
        return json.loads(self.call(host, function, **arguments)[4:])

    def command(self, *words: str, host: int = 0, **more: Any) -> "subprocess.Popen[bytes]":
        """``xscontainer`` on a host, as a program."""
        daemon = self.daemons[host]
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "xscontainer.cli", "--config", daemon.config_path, *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=dict(os.environ, PYTHONPATH=ROOT, **more.pop("env", {})), **dict({"stdin": subprocess.DEVNULL}, **more))


@contextlib.contextmanager
def password_file(text: str = PASSWORD) -> "Iterator[int]":
    """A descriptor to read it from."""
    read, write = os.pipe()
    try:
        os.write(write, text.encode() + b"\n")
        os.close(write)
        yield read
    finally:
        os.close(read)
