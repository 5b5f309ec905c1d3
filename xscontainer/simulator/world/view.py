"""Looking at a world and acting on it, as clients of the pool do."""

import contextlib
import threading
import time
from typing import Any, Callable, Dict, List, Sequence, Union

from xscontainer import keys
from xscontainer.core.container import Container
from xscontainer.simulator.engines import SimulatorError
from xscontainer.simulator.world.daemon import HostDaemon
from xscontainer.simulator.world.vm import WorldVM, by_name
from xscontainer.simulator.world.watch import POLL_SECONDS, Watcher
from xscontainer.simulator.xapi import Pool, SimHost
from xscontainer.xapi.session import Session, SessionPool

PLUGIN = "xscontainer"
# Seconds between two looks at the pool's database: the resolution of what wait() measures.
TICK = 0.001


class Interrupted(Exception):
    """The ``stop`` event of a world was set while it started or waited."""


class WorldView:
    """The VMs, daemons and sessions of a world that has started; see World."""

    pool: Pool
    sessions: SessionPool

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self.vms: List[WorldVM] = []
        self.daemons: List[HostDaemon] = []

    def check(self) -> None:
        """Notice an interrupt.

        :raises Interrupted: the world's ``stop`` is set.
        """
        if self._stop.is_set():
            raise Interrupted()

    def vm(self, name: str) -> WorldVM:
        return next(vm for vm in self.vms if vm.name == name)

    def daemon(self, host: Union[int, SimHost]) -> HostDaemon:
        """Return the daemon of a host."""
        return next(daemon for daemon in self.daemons if daemon.host is self._host(host))

    def _host(self, host: Union[int, SimHost]) -> SimHost:
        return self.pool.hosts[host] if isinstance(host, int) else host

    def login(self) -> Session:
        """Return a new session on the coordinator, which the caller logs out."""
        return Session.login(self.pool.coordinator.socket_path, "simulator", POLL_SECONDS + 90.0, 10.0)

    def session(self) -> "contextlib.AbstractContextManager[Session]":
        """Lend a session on the coordinator."""
        return self.sessions.lease()

    def call(self, host: Union[int, SimHost], function: str, **arguments: str) -> str:
        """Call host.call_plugin on that host, as a client does.

        :raises XapiError: with ``details``, the failure's code and texts.
        """
        with self.session() as session:
            return str(session.xenapi.host.call_plugin(self._host(host).ref, PLUGIN, function, arguments))

    def act(self, host: Union[int, SimHost], function: str, vm: str, container: str) -> str:
        """Call a function for a container of the VM of that name, with the argument names of both clients."""
        return self.call(host, function, vmuuid=self.vm(vm).uuid, container=container, object=container)

    def watch(self, classes: Sequence[str], on_event: Callable[[str, Dict[str, Any]], None]) -> Watcher:
        """Return a client that will follow the pool; not started yet."""
        return Watcher(self.login, classes, on_event)

    def wait(self, condition: Callable[[], Any], what: str = "a condition", timeout: float = 30.0) -> float:
        """Wait until ``condition()`` is true; return the seconds that it took.

        :raises SimulatorError: the condition is not true after ``timeout`` seconds.
        :raises Interrupted: the world's ``stop`` is set.
        """
        begun = time.monotonic()
        while True:
            # Before the condition, so that an interrupt is noticed even if it is true already.
            self.check()
            if condition():
                return time.monotonic() - begun
            if time.monotonic() - begun > timeout:
                raise SimulatorError(f"timed out after {timeout:g} s waiting for {what}\n{self.diagnosis()}")
            time.sleep(TICK)

    def wait_published(
        self, name: str, predicate: Callable[[Dict[str, Container]], Any] = lambda containers: True,
        timeout: float = 30.0,
    ) -> Dict[str, Container]:
        """Return the published list of a VM as soon as ``predicate`` is true of it; raise as :meth:`wait`."""
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

        self.wait(fulfilled, f"the expected list of VM {name}", timeout)
        return next(iter(seen.values()))

    def wait_all_published(self, timeout: float = 60.0) -> float:
        """Wait until every monitored VM has all its documents; return the seconds, raise as :meth:`wait`."""
        wanted = [vm for vm in self.vms if vm.spec.monitored]
        documents = (keys.PS, keys.INFO, keys.VERSION)
        return self.wait(lambda: all(key in vm.other_config for vm in wanted for key in documents),
                         "the list of every VM", timeout)

    def diagnosis(self) -> str:
        """Return the published errors and the ends of the daemons' logs, for an error text."""
        parts = [f"{vm.name}: {status}" for vm in self.vms for status in [vm.other_config.get(keys.STATUS)] if status]
        parts += [f"daemon of {daemon.host.name_label}: {daemon.log_tail()}" for daemon in self.daemons]
        return "\n".join(parts)
