"""The world as the plugin's functions see it: in the daemon, and in a process of their own."""

import contextlib
import socket
import threading
from typing import Iterator

from xscontainer.access import Access, hang_up, require_running_here, session_pool
from xscontainer.actions.rotation import AT_ONCE
from xscontainer.engine.api import Engine
from xscontainer.errors import VMNotRegistered, XSContainerError
from xscontainer.registry import Registry
from xscontainer.settings import Settings
from xscontainer.vmrecord import VMRecord
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import SessionPool

_DAEMON_ANSWERS = 1.0  # s to take a connection


class LocalContext:
    """Where no daemon runs: every call opens what it needs. (actions.context says what a context offers.)

    :param forwarding: logins for calls to other hosts, which may take long.
    """

    def __init__(self, settings: Settings, access: Access, forwarding: SessionPool) -> None:
        self.settings = settings
        self.access = access
        self.sessions = access.sessions
        self.forwarding = forwarding
        self.stopping = threading.Event()

    def this_host_ref(self) -> str:
        return self.access.facts.this_host

    def vm(self, vm_uuid: str) -> VMRecord:
        return self.sessions.run(lambda session: xapi_vm.record(session, vm_uuid))

    @contextlib.contextmanager
    def engine(self, vm_uuid: str) -> "Iterator[Engine]":
        vm = self.vm(vm_uuid)
        require_running_here(vm, self.this_host_ref())
        engine, _ = self.access.open(vm)
        try:
            yield engine
        finally:
            hang_up(engine)

    def watched(self, vm_uuid: str) -> bool:
        """The daemon takes calls, as far as a process beside it can tell."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_DAEMON_ANSWERS)
            return sock.connect_ex(self.settings.daemon.socket) == 0


class DaemonContext(LocalContext):
    """In the daemon: what the event stream told, and the standing connections."""

    def __init__(self, settings: Settings, access: Access, forwarding: SessionPool, registry: Registry) -> None:
        super().__init__(settings, access, forwarding)
        self._registry = registry

    def vm(self, vm_uuid: str) -> VMRecord:
        try:
            return self._registry.monitor(vm_uuid).vm
        except VMNotRegistered:
            return super().vm(vm_uuid)

    def watched(self, vm_uuid: str) -> bool:
        try:
            return self._registry.monitor(vm_uuid).alive
        except VMNotRegistered:
            return False

    @contextlib.contextmanager
    def engine(self, vm_uuid: str) -> "Iterator[Engine]":
        try:
            engine = self._registry.monitor(vm_uuid).engine()
        except XSContainerError:
            # Not connected at the moment. A person waits for this call: try at once, and say what is wrong.
            with super().engine(vm_uuid) as engine:
                yield engine
            return
        yield engine


def forwarding_pool(settings: Settings, calls: int) -> SessionPool:
    """Logins for so many calls at once: each has one for its task, and the change of the pool's key some more."""
    return session_pool(settings, calls + AT_ONCE)


@contextlib.contextmanager
def local_context(settings: Settings) -> "Iterator[LocalContext]":
    """A context for one plugin call in a process of its own."""
    with contextlib.ExitStack() as stack:
        sessions, forwarding = session_pool(settings), forwarding_pool(settings, 1)
        stack.callback(sessions.close)
        stack.callback(forwarding.close)
        yield LocalContext(settings, Access(settings, sessions), forwarding)
