"""A whole world on one machine: a pool, guests with engines behind SSH, the real daemon and plugin on every host.

The guests follow their VMs: the sshd and the engine of a VM end and start with it.
"""

import contextlib
import os
import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Iterable, Optional, Sequence, Tuple, TypeVar

from xscontainer import keys
from xscontainer.errors import XSContainerError
from xscontainer.simulator.engines import SimulatorError
from xscontainer.simulator.guests import Guest, Guests
from xscontainer.simulator.world.daemon import HostDaemon
from xscontainer.simulator.world.guest_side import GuestSide
from xscontainer.simulator.world.parts import DEFAULT, OWN, GuestSpec, Parts
from xscontainer.simulator.world.view import WorldView
from xscontainer.simulator.world.vm import WorldVM
from xscontainer.simulator.world.watch import Watcher
from xscontainer.simulator.xapi import Pool
from xscontainer.xapi.session import SessionPool

POOL_NAME = "Simulated pool"
# dockerd's longest socket path adds 53 characters, and the kernel accepts 107.
MAX_DIRECTORY = 54
Item = TypeVar("Item")


class World(WorldView):
    """See the module. A context manager: entering starts all, leaving ends all and removes every file.

    :param directory: for all files, removed at the end; None makes one. Keep it short: sockets live below it.
    :param hosts: how many; the first is the coordinator.
    :param guests: the VMs.
    :param parts: which programs run, and their options.
    :param progress: called with a sentence when a part has started.
    :param stop: when it is set, start and waits end with :class:`Interrupted`.
    """

    def __init__(
        self, directory: Optional[str] = None, hosts: int = 2, guests: Sequence[GuestSpec] = (),
        parts: Parts = DEFAULT, progress: Callable[[str], None] = lambda text: None,
        stop: Optional[threading.Event] = None,
    ) -> None:
        super().__init__(stop or threading.Event())
        self._directory = directory
        self._hosts, self._specs, self._parts = hosts, list(guests), parts
        self._progress = progress
        self._stack = contextlib.ExitStack()
        self.directory = ""

    def __enter__(self) -> "World":
        with contextlib.ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all parts, even if the end of one fails. May be called twice."""
        self._stack.close()

    def _start(self, stack: contextlib.ExitStack) -> None:
        self.directory = os.path.abspath(self._directory or tempfile.mkdtemp(prefix="xs-"))
        stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        if len(self.directory) > MAX_DIRECTORY:
            raise SimulatorError(f"the path {self.directory} is too long for sockets: set TMPDIR to a shorter one")
        self._start_pool(stack)
        self._start_guests(stack)
        self._make_vms(stack)
        self.daemons = [HostDaemon(host, self._parts.settings) for host in self.pool.hosts]
        stack.callback(self._stop_daemons)
        if self._parts.daemons:
            self.start_daemons()
            self._progress("a monitor on every host")

    def _start_pool(self, stack: contextlib.ExitStack) -> None:
        self.pool = Pool(os.path.join(self.directory, "pool"), hosts=self._hosts, https=self._parts.https)
        stack.callback(self.pool.stop)
        self.pool.start()
        (pool_ref,) = self.pool.records("pool")
        self.pool.set_field("pool", pool_ref, "name_label", POOL_NAME)
        self.sessions = SessionPool(self.login, most=32, patience=60.0)
        stack.callback(self.sessions.close)
        self._progress(f"a XAPI pool of {self._hosts} hosts, {self.pool.coordinator.name_label} coordinates it")
        self.check()

    def _start_guests(self, stack: contextlib.ExitStack) -> None:
        self.guests = Guests(os.path.join(self.directory, "g"), len(self._specs), self._parts.ssh, self._parts.engine,
                             guest_options=self._parts.guest_options,
                             passwords={n: spec.password for n, spec in enumerate(self._specs) if spec.password})
        stack.callback(self.guests.close)
        self.guests.start()
        self.check()
        _in_parallel(self._fill, zip(self._specs, self.guests))
        self._progress(f"{len(self._specs)} guests with {sum(len(spec.containers) for spec in self._specs)} containers")
        self.check()

    def _make_vms(self, stack: contextlib.ExitStack) -> None:
        fitted = list(zip(self._specs, self.guests))
        guest_side = GuestSide(self.pool, fitted, self.vms)
        # Before any daemon: the first one makes the key pair and uses it at once.
        watcher = Watcher(self.login, ["pool"], guest_side.authorize_pool_key)
        stack.callback(watcher.stop)
        watcher.start()
        for number, (spec, guest) in enumerate(fitted):
            self.vms.append(self._make_vm(number, spec, guest))
        self.pool.on_power(guest_side.follow_power)

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

    def _fill(self, pair: Tuple[GuestSpec, Guest]) -> None:
        spec, guest = pair
        for container in spec.containers:
            guest.engine.run(container.name, container.command, image=container.image,
                             start=container.state != "created", **container.options)
            verb = {"paused": "pause", "exited": "stop"}.get(container.state)
            if verb:
                guest.engine.do(verb, container.name)
            self.check()

    def _make_vm(self, number: int, spec: GuestSpec, guest: Guest) -> WorldVM:
        host = self.pool.hosts[(number if spec.host is None else spec.host) % len(self.pool.hosts)]
        other_config = {keys.USERNAME: guest.user, keys.SSH_PORT: str(guest.port),
                        keys.ENGINE_SOCKET: guest.engine_socket}
        if spec.monitored:
            other_config[keys.MONITOR] = "True"
        ref = self.pool.create_vm(spec.name, host=host, other_config=other_config, networks={"0/ip": guest.address})
        uuid = str(self.pool.vm(ref)["uuid"])
        guest.hypervisor.says(uuid if spec.says == OWN else spec.says)
        return WorldVM(self.pool, spec, uuid, guest)


def _in_parallel(do: Callable[[Item], None], items: Iterable[Item]) -> None:
    """Call ``do`` with every item in parallel; all are tried, then the first error is raised."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        results = [pool.submit(do, item) for item in items]
    for result in results:
        result.result()


Failure = (SimulatorError, XSContainerError, OSError)
"""The exceptions of a world whose parts do not start or work."""
