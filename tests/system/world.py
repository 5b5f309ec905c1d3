"""The scene of the benchmark with what tests need beside it: clients by role, the truth, the daemons' logs."""

import json
import os
import re
import signal
import subprocess
from typing import Any, Dict, List, Optional, Sequence
from xml.etree import ElementTree

import XenAPI

from tests.bench.scene import VM, Scene
from tests.need import need
from tests.waiting import until
from xscontainer import keys
from xscontainer.simulator.engines import EmbeddedEngine
from xscontainer.simulator.engines.real import RealEngine
from xscontainer.simulator.guests import OpenSSHGuest

# Ends when asked to: the first process of a container ignores a plain SIGTERM, and is given ten seconds.
OBEDIENT = ("sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait")
_WRITES = ("VM.add_to_other_config", "VM.remove_from_other_config", "VM.set_other_config")


class World(Scene):
    """A context manager, like its base. Each host's daemon has an originator of its own, to tell who wrote.

    :param conf: more of the settings file, as sections that the scene does not write itself.
    """

    def __init__(self, count: int, containers: int = 5, real: bool = False, daemon: bool = True,
                 conf: str = "") -> None:
        need(not OpenSSHGuest.missing(), OpenSSHGuest.missing())
        if real:
            need(not RealEngine.missing(), RealEngine.missing())
        super().__init__(count, containers, real, daemon)
        self._conf = conf
        self._clients: List[Any] = []

    def __exit__(self, kind: Optional[type], *_: object) -> None:
        logs = [self.log(number) for number in range(len(self.configs))]
        self.close()
        if kind is None:
            assert not any("Traceback" in log for log in logs), "\n".join(logs)[-5000:]

    def close(self) -> None:
        for client in self._clients:
            try:
                client.xenapi.session.logout()
            except (XenAPI.Failure, OSError):
                pass  # a restart of xapi has ended it
            client("close")()
        self._clients = []
        super().close()

    def _configure(self, host: Any) -> str:
        path = super()._configure(host)
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
        text = text.replace("log_level = error\n", f"log_level = info\nlog_file = {path}.log\n")
        text = text.replace("[xapi]\n", f"[xapi]\noriginator = {host.name_label}\n")
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text + self._conf)
        return path

    def log(self, number: int) -> str:
        """Return the log of a host's daemon so far."""
        try:
            with open(self.configs[number] + ".log", encoding="utf-8") as stream:
                return stream.read()
        except FileNotFoundError:
            return ""

    def kill_daemon(self, number: int = 1, how: int = signal.SIGKILL) -> "subprocess.Popen[bytes]":
        process = self.daemons.pop(number)
        process.send_signal(how)
        process.wait(30)
        return process

    # --- making --------------------------------------------------------------

    def guest(self, name: str, **options: Any) -> OpenSSHGuest:
        """Another guest that lets our key in, not started; closed with the VM that it is given to."""
        guest = OpenSSHGuest(os.path.join(self.directory, name), acceptor=self._acceptor, **options)
        guest.authorize(self.public_key)
        return guest

    def add_vm(self, name: str, containers: Sequence[str] = ("one", "two"), host: int = 1,
               other_config: Optional[Dict[str, str]] = None, **options: Any) -> VM:
        """Another VM with a light engine.

        :param other_config: more of it. :param options: of the guest.
        """
        guest = self.guest(name, **options)
        engine = EmbeddedEngine(guest.directory + "e", socket_path=guest.engine_socket, acceptor=self._acceptor)
        vm = VM(name, "", "", guest, engine)
        self.vms.append(vm)
        guest.start()
        engine.start()
        for container in containers:
            engine.run(container)
        vm.ref = self.pool.create_vm(name, host=self.pool.hosts[host], networks={"0/ip": guest.address},
                                     other_config=dict(reach(guest), **(other_config or {})))
        vm.uuid = self.pool.vm(vm.ref)["uuid"]
        return vm

    def login(self, role: str, host: int = 0) -> Any:
        """A XenAPI session over TCP as a user with that role."""
        if role not in self.pool.sessions.users:
            self.pool.add_user(role, "secret", role)
        port = self.pool.hosts[host].tcp_port
        client = XenAPI.Session(f"http://127.0.0.1:{port}/")
        client.xenapi.login_with_password(role, "secret", "1.0", "test")
        self._clients.append(client)
        return client

    # --- looking -------------------------------------------------------------

    def key(self, vm: VM, key: str) -> Optional[str]:
        return self.pool.other_config(vm.ref).get(key)

    def shown(self, vm: VM) -> Dict[str, str]:
        """Name of a container -> status, as published."""
        return entries(self.ps(vm))

    def right(self, vm: VM) -> bool:
        """Return whether everything is published as the engine has it."""
        config = self.pool.other_config(vm.ref)
        return (all(key in config for key in (keys.PS, keys.INFO, keys.VERSION)) and keys.STATUS not in config
                and entries(config[keys.PS]) == truth(vm))

    def wait_right(self, *vms: VM, seconds: float = 15.0) -> float:
        """Seconds until these VMs (none: all) are shown as they are."""
        wanted = vms or tuple(self.vms)

        def differences() -> str:
            wrong = [vm for vm in wanted if not self.right(vm)]
            return (f"{len(wrong)} of {len(wanted)} VMs are not right in {seconds} s:\n"
                    + "\n".join(map(self._difference, wrong[:3])))

        return until(lambda: all(map(self.right, wanted)), differences, seconds)

    def _difference(self, vm: VM) -> str:
        """Return how a VM's published list differs from the engine's, with the last log lines about the VM."""
        config, true = self.pool.other_config(vm.ref), truth(vm)
        shown = entries(config.get(keys.PS, ""))
        differs = {name: (shown.get(name), true.get(name)) for name in set(shown) | set(true)
                   if shown.get(name) != true.get(name)}
        absent = [key for key in (keys.PS, keys.INFO, keys.VERSION) if key not in config]
        lines = [line for line in self.log(1).splitlines() if vm.uuid in line][-8:]
        return (f"{vm.name} {vm.uuid}: without {absent}; status {config.get(keys.STATUS)}; "
                f"{len(differs)} containers differ (shown, true): {dict(sorted(differs.items())[:5])}; "
                f"{vm.guest.sessions} sessions\n  " + "\n  ".join(lines))

    def status(self, vm: VM) -> str:
        """The code of what is said instead of a list; "" if nothing is."""
        return str(json.loads(self.key(vm, keys.STATUS) or '{"code": ""}')["code"])

    def wait_status(self, vm: VM, *codes: str, seconds: float = 15.0) -> None:
        """Wait until one of these codes is published and the list is gone."""
        until(lambda: self.status(vm) in codes and keys.PS not in self.pool.other_config(vm.ref),
              f"the status is {self.key(vm, keys.STATUS)}", seconds)

    def writes(self, host: int) -> int:
        """Writes to any VM's other_config by that host's daemon since the statistics were reset."""
        name = self.pool.hosts[host].name_label
        return sum(self.pool.stats.calls(method, name) for method in _WRITES)

    def failure(self, host: int, function: str, **arguments: str) -> List[str]:
        """The ErrorDescription of a plugin call that must fail, as pool-admin over TCP."""
        return failure_of(lambda: self.login("pool-admin").xenapi.host.call_plugin(
            self.pool.hosts[host].ref, "xscontainer", function, arguments))


def change(vm: VM) -> None:
    """Something that the last list cannot show."""
    vm.engine.run(f"changed-{len(vm.engine.list())}", start=False)


def failure_of(call: Any) -> List[str]:
    try:
        value = call()
    except XenAPI.Failure as failure:
        details: List[str] = failure.details
        return details
    raise AssertionError(f"no failure but {value!r}")


def reach(guest: OpenSSHGuest) -> Dict[str, str]:
    """Return the other_config of a VM with this guest: how to reach it, and that it is monitored."""
    return {keys.MONITOR: "True", keys.USERNAME: guest.user, keys.SSH_PORT: str(guest.port),
            keys.ENGINE_SOCKET: guest.engine_socket}


def entries(text: str) -> Dict[str, str]:
    """Name -> status of a docker_ps document; {} for none."""
    if not text:
        return {}
    return {str(entry.findtext("names")): str(entry.findtext("status"))
            for entry in ElementTree.fromstring(text).findall("item/entry")}


def truth(vm: VM) -> Dict[str, str]:
    """Name -> status, from the engine itself, in the words of the contract."""
    return {found["Names"][0].lstrip("/"): status_of(found["Status"]) for found in vm.engine.list()}


def status_of(status: str) -> str:
    """``Up 5 minutes (healthy)`` -> ``Up``."""
    if status.startswith("Up "):
        return "Up (Paused)" if status.endswith("(Paused)") else "Up"
    return re.sub(r"\) .*", ")", status)
