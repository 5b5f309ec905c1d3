"""A whole world on one machine: a pool, guests with engines behind SSH, the real daemon and plugin on every host.

The guests follow their VMs: where XAPI shuts a VM down its sshd and its engine end, and come back when it starts.
"""

import contextlib
import os
import shutil
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple, TypeVar, Union

from xscontainer import keys, xmlform
from xscontainer.errors import XSContainerError
from xscontainer.model import Container
from xscontainer.simulator.engines import SimulatorError
from xscontainer.simulator.guests import Guest, Guests
from xscontainer.simulator.world_daemon import HostDaemon
from xscontainer.simulator.world_watch import POLL_SECONDS, Watcher
from xscontainer.simulator.xapi import Pool, SimHost
from xscontainer.xapi.session import Session, SessionPool

PLUGIN = "xscontainer"
POOL_NAME = "Simulated pool"
# dockerd puts a socket 53 characters below it, and the kernel takes 107.
MOST_DIRECTORY = 54
# Between two looks at the pool's database: the resolution of what wait() measures, seconds.
TICK = 0.001
Item = TypeVar("Item")


class ContainerSpec(NamedTuple):
    """A container to be there from the start; ``state`` is running, paused, exited or created."""

    name: str
    image: str = "busybox:latest"
    command: Tuple[str, ...] = ("sleep", "1000000")
    state: str = "running"


class GuestSpec(NamedTuple):
    """A VM with an engine in it, running on the pool's host number ``host`` (None: hosts in turn)."""

    name: str
    containers: Tuple[ContainerSpec, ...] = ()
    host: Optional[int] = None
    monitored: bool = True  # whether xscontainer-monitor is set from the start
    prepared: bool = True  # whether the pool's key is let in as soon as there is one
    password: str = ""  # not empty: its SSH server is an embedded one, which lets in who gives it


class Interrupted(Exception):
    """The ``stop`` event of a world was set while it started or waited."""


class WorldVM:
    """One VM and what stands for it."""

    def __init__(self, pool: Pool, spec: GuestSpec, uuid: str, guest: Guest) -> None:
        self._pool = pool
        self.spec, self.name, self.uuid, self.guest = spec, spec.name, uuid, guest
        self.engine: Any = guest.engine

    @property
    def ref(self) -> str:
        """Its reference now: a pool join changes them all."""
        return self._pool.uuid_to_ref(self.uuid)

    @property
    def host(self) -> Optional[SimHost]:
        """Where XAPI says that it runs; None when halted or suspended."""
        return self._pool.host_of(str(self._pool.vm(self.ref)["resident_on"]))

    @property
    def other_config(self) -> Dict[str, str]:
        return self._pool.other_config(self.ref)

    @property
    def containers(self) -> Optional[Dict[str, Container]]:
        """The published list by container name; None when there is none."""
        text = self.other_config.get(keys.PS)
        return None if text is None else by_name(text)


def by_name(docker_ps: str) -> Dict[str, Container]:
    """The containers of a published list by name.

    :raises ValueError: it is no such document.
    """
    return {container.name: container for container in xmlform.read_docker_ps(docker_ps).containers}


class World:
    """See the module. A context manager: entering starts all, leaving ends all and removes every file.

    :param directory: for all files, removed at the end; None makes one. Keep it short: sockets live below it.
    :param hosts: how many; the first is the coordinator.
    :param guests: the VMs.
    :param ssh: ``auto``, ``openssh`` or ``embedded``; ``auto`` is sshd where it is installed.
    :param engine: ``auto``, ``real`` or ``embedded``; ``auto`` is dockerd where it can run and the guests are few.
    :param daemons: whether every host has a daemon from the start.
    :param settings: {section: {key: value}} for every host's settings file.
    :param guest_options: more arguments for each guest (see :class:`Guests`).
    :param progress: called with a sentence as parts are there.
    :param stop: when it is set, start and waits end with :class:`Interrupted`.
    """

    def __init__(
        self, directory: Optional[str] = None, hosts: int = 2, guests: Sequence[GuestSpec] = (), ssh: str = "auto",
        engine: str = "auto", daemons: bool = True, settings: Optional[Mapping[str, Mapping[str, object]]] = None,
        guest_options: Optional[Dict[str, Any]] = None, progress: Callable[[str], None] = lambda text: None,
        stop: Optional[threading.Event] = None,
    ) -> None:
        self._directory = directory
        self._hosts, self._specs, self._daemons_wanted = hosts, list(guests), daemons
        self._kinds, self._guest_options = (ssh, engine), guest_options
        self._settings = settings or {}
        self._progress = progress
        self._stop = stop or threading.Event()
        self._stack = contextlib.ExitStack()
        self.directory = ""
        self.vms: List[WorldVM] = []
        self.daemons: List[HostDaemon] = []

    # -- life -------------------------------------------------------------------------------------------------------
    def __enter__(self) -> "World":
        with contextlib.ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything; whatever fails, the rest is still ended. Callable twice."""
        self._stack.close()

    def _start(self, stack: contextlib.ExitStack) -> None:
        self.directory = os.path.abspath(self._directory or tempfile.mkdtemp(prefix="xs-"))
        stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        if len(self.directory) > MOST_DIRECTORY:
            raise SimulatorError(f"sockets need a directory whose path is shorter than {self.directory}: set TMPDIR")
        self.pool = Pool(os.path.join(self.directory, "pool"), hosts=self._hosts)
        stack.callback(self.pool.stop)
        self.pool.start()
        (pool_ref,) = self.pool.records("pool")
        self.pool.set_field("pool", pool_ref, "name_label", POOL_NAME)
        self._sessions = SessionPool(self.login, most=32, patience=60.0)
        stack.callback(self._sessions.close)
        self._progress(f"a XAPI pool of {self._hosts} hosts, {self.pool.coordinator.name_label} coordinates it")
        self._check()

        self.guests = Guests(os.path.join(self.directory, "g"), len(self._specs), *self._kinds,
                             guest_options=self._guest_options,
                             passwords={n: spec.password for n, spec in enumerate(self._specs) if spec.password})
        stack.callback(self.guests.close)
        self.guests.start()
        self._check()
        _at_once(self._fill, zip(self._specs, self.guests))
        self._progress(f"{len(self._specs)} guests with {sum(len(spec.containers) for spec in self._specs)} containers")
        self._check()

        # Before any daemon: the first one makes the key pair and uses it at once.
        watcher = Watcher(self.login, ["pool"], self._authorize)
        stack.callback(watcher.stop)
        watcher.start()
        for number, (spec, guest) in enumerate(zip(self._specs, self.guests)):
            self.vms.append(self._make_vm(number, spec, guest))
        self.pool.on_power(self._follow)
        self.daemons = [HostDaemon(host, self._settings) for host in self.pool.hosts]
        stack.callback(self._stop_daemons)
        if self._daemons_wanted:
            self.start_daemons()
            self._progress("a monitor on every host")

    def start_daemons(self) -> None:
        """Start the daemon of every host and wait until they take calls."""
        for daemon in self.daemons:
            daemon.start(wait=False)
        for daemon in self.daemons:
            daemon.wait_ready()

    def _stop_daemons(self) -> None:
        for daemon in self.daemons:
            daemon.ask_to_stop()
        for daemon in self.daemons:
            daemon.stop()

    def _check(self) -> None:
        if self._stop.is_set():
            raise Interrupted()

    def _fill(self, pair: Tuple[GuestSpec, Guest]) -> None:
        spec, guest = pair
        for container in spec.containers:
            guest.engine.run(container.name, container.command, image=container.image,
                             start=container.state != "created")
            verb = {"paused": "pause", "exited": "stop"}.get(container.state)
            if verb:
                guest.engine.do(verb, container.name)
            self._check()

    def _make_vm(self, number: int, spec: GuestSpec, guest: Guest) -> WorldVM:
        host = self.pool.hosts[(number if spec.host is None else spec.host) % len(self.pool.hosts)]
        other_config = {keys.USERNAME: guest.user, keys.SSH_PORT: str(guest.port),
                        keys.ENGINE_SOCKET: guest.engine_socket}
        if spec.monitored:
            other_config[keys.MONITOR] = "True"
        ref = self.pool.create_vm(spec.name, host=host, other_config=other_config, networks={"0/ip": guest.address})
        return WorldVM(self.pool, spec, str(self.pool.vm(ref)["uuid"]), guest)

    # -- the guests' side -------------------------------------------------------------------------------------------
    def _authorize(self, _ref: str, pool_record: Dict[str, Any]) -> None:
        """Prepare the guests as their owner would: let the pool's public key in."""
        uuid = pool_record["other_config"].get(keys.PUBLIC_SECRET)
        if uuid:
            secret = self.pool.record("secret", self.pool.uuid_to_ref(uuid, "secret"))
            for spec, guest in zip(self._specs, self.guests):
                if not spec.prepared:
                    continue
                with open(guest.authorized_keys_path, encoding="utf-8") as file:
                    if secret["value"].strip() not in file.read():
                        guest.authorize(secret["value"])

    def _follow(self, ref: str, event: str) -> None:
        """A VM's power changes, and its guest with it; called in the thread of the operation."""
        uuid = self.pool.vm(ref)["uuid"]
        vm = next((vm for vm in self.vms if vm.uuid == uuid), None)
        if vm is None:
            return  # one that a test made, without a guest
        if event in ("suspend", "pause"):
            vm.guest.freeze()
        elif event in ("resume", "unpause"):
            vm.guest.thaw()
        if event in ("stop", "reboot"):
            vm.guest.thaw()
            vm.guest.stop()
            vm.engine.stop()
            # What a guest agent reports comes only after the boot.
            self.pool.guest_networks[ref] = {}
        if event in ("start", "reboot"):
            vm.engine.start()
            vm.guest.start()
            self.pool.set_networks(ref, {"0/ip": vm.guest.address})

    # -- looking and acting -----------------------------------------------------------------------------------------
    def vm(self, name: str) -> WorldVM:
        return next(vm for vm in self.vms if vm.name == name)

    def daemon(self, host: Union[int, SimHost]) -> HostDaemon:
        """The daemon of a host."""
        return next(daemon for daemon in self.daemons if daemon.host is self._host(host))

    def _host(self, host: Union[int, SimHost]) -> SimHost:
        return self.pool.hosts[host] if isinstance(host, int) else host

    def login(self) -> Session:
        """A session of the caller's own on the coordinator; the caller logs it out."""
        return Session.login(self.pool.coordinator.socket_path, "simulator", POLL_SECONDS + 90.0, 10.0)

    def session(self) -> "contextlib.AbstractContextManager[Session]":
        """A session on the coordinator, lent."""
        return self._sessions.lease()

    def call(self, host: Union[int, SimHost], function: str, **arguments: str) -> str:
        """host.call_plugin on that host, as any client sends it.

        :raises XapiError: with ``details``, the failure's code and texts.
        """
        with self.session() as session:
            return str(session.xenapi.host.call_plugin(self._host(host).ref, PLUGIN, function, arguments))

    def act(self, host: Union[int, SimHost], function: str, vm: str, container: str) -> str:
        """``call`` for a container of the VM of that name, in the argument names of both clients."""
        return self.call(host, function, vmuuid=self.vm(vm).uuid, container=container, object=container)

    def watch(self, classes: Sequence[str], on_event: Callable[[str, Dict[str, Any]], None]) -> Watcher:
        """A client that follows the pool; not started yet."""
        return Watcher(self.login, classes, on_event)

    def wait(self, condition: Callable[[], Any], what: str = "it", timeout: float = 30.0) -> float:
        """Seconds until ``condition()`` is true.

        :raises SimulatorError: it did not come about in time. Interrupted: the world's ``stop`` is set.
        """
        begun = time.monotonic()
        while True:
            # First: a wait for what is so already is no reason to go on.
            self._check()
            if condition():
                return time.monotonic() - begun
            if time.monotonic() - begun > timeout:
                raise SimulatorError(f"{what} did not come about in {timeout:g} s\n{self.diagnosis()}")
            time.sleep(TICK)

    def wait_published(
        self, name: str, predicate: Callable[[Dict[str, Container]], Any] = lambda containers: True,
        timeout: float = 30.0,
    ) -> Dict[str, Container]:
        """The published list of a VM as soon as ``predicate`` is true of it; raises as :meth:`wait`."""
        vm = self.vm(name)
        seen: Dict[str, Dict[str, Container]] = {}

        def fulfilled() -> bool:
            text = vm.other_config.get(keys.PS)
            if text is None:
                return False
            if text not in seen:
                seen.clear()
                seen[text] = by_name(text)
            return bool(predicate(seen[text]))

        self.wait(fulfilled, f"what is expected of the list of {name}", timeout)
        return next(iter(seen.values()))

    def wait_all_published(self, timeout: float = 60.0) -> float:
        """Seconds until every monitored VM has all its documents; raises as :meth:`wait`."""
        wanted = [vm for vm in self.vms if vm.spec.monitored]
        documents = (keys.PS, keys.INFO, keys.VERSION)
        return self.wait(lambda: all(key in vm.other_config for vm in wanted for key in documents),
                         "the list of every VM", timeout)

    def diagnosis(self) -> str:
        """What the parts say of themselves, for an error text."""
        parts = [f"{vm.name}: {status}" for vm in self.vms for status in [vm.other_config.get(keys.STATUS)] if status]
        parts += [f"daemon of {daemon.host.name_label}: {daemon.log_tail()}" for daemon in self.daemons]
        return "\n".join(parts)


def _at_once(do: Callable[[Item], None], items: Iterable[Item]) -> None:
    """Do it to all in parallel; all are tried, then the first error is raised."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        results = [pool.submit(do, item) for item in items]
    for result in results:
        result.result()


Failure = (SimulatorError, XSContainerError, OSError)
"""What starting and using a world raises when something of it does not work."""
