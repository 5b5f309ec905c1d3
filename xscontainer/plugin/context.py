"""The two implementations of verbs.context.Context, and the limits that each of them owns.

verbs/context.py says what an action may use; this file says where that comes from. :class:`DaemonContext` is one
object for all calls: VMs as XAPI's events tell them, standing connections, a bounded number of calls.
:class:`LocalContext` serves one call in a process without the daemon: it asks XAPI and opens what the call needs.
"""

import contextlib
import socket
import threading
from typing import ContextManager, Iterator, List, Optional, Set

from xscontainer import keys
from xscontainer.access.event_record import EventRecord
from xscontainer.access.opener import Access, hang_up, require_running_here, session_pool
from xscontainer.clients import inventory
from xscontainer.clients.shown import Shown
from xscontainer.core import current_call, eligibility
from xscontainer.core.kept_answers import KeptAnswers
from xscontainer.core.tally import tally
from xscontainer.core.uptime import published_times
from xscontainer.core.verb import READING
from xscontainer.core.vm_record import VMRecord
from xscontainer.engine.api import Engine
from xscontainer.errors import GuestThrottled, VMNotRegistered, XSContainerError
from xscontainer.monitoring.registry import Registry
from xscontainer.plugin.admission import Admission, Unlimited
from xscontainer.settings import Settings
from xscontainer.verbs.followers import Followers
from xscontainer.verbs.key_rotation import AT_ONCE
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import SessionPool

_DAEMON_ANSWERS = 1.0  # s to take a connection
_LONGEST_HOLD = 15.0  # s that a call waits for a guest's budget


class LocalContext:
    """For one call in a process of its own: opens what the call needs.

    :param forwarding: logins for calls to other hosts, which may take long.
    :ivar admission: bounds how many calls work at once.
    """

    def __init__(self, settings: Settings, access: Access, forwarding: SessionPool) -> None:
        self.settings = settings
        self.access = access
        self.sessions = access.sessions
        self.forwarding = forwarding
        self.admission = Unlimited()
        self.stopping = threading.Event()
        self.drive_reader = threading.Lock()
        self.answers = KeptAnswers()
        self.followers: Optional[Followers] = None

    def this_host_ref(self) -> str:
        return self.access.pool.state.this_host

    def vm(self, vm_uuid: str) -> VMRecord:
        return self.sessions.run(lambda session: xapi_vm.record(session, vm_uuid))

    def shown(self, vm_uuid: str) -> Shown:
        return _shown(LocalContext.vm(self, vm_uuid))

    def shown_here(self) -> "List[Shown]":
        here = self.this_host_ref()
        records = self.sessions.run(lambda session: session.xenapi.VM.get_all_records_where(
            f'field "resident_on" = "{here}"'))
        return [_shown(vm) for vm in VMRecord.all_of(records)
                if vm.is_guest and eligibility.enabled(vm) and eligibility.running_here(vm, here)]

    @contextlib.contextmanager
    def engine(self, vm_uuid: str) -> "Iterator[Engine]":
        vm = self.vm(vm_uuid)
        require_running_here(vm, self.this_host_ref())
        engine, _ = self.access.open(vm)
        try:
            yield engine
        finally:
            hang_up(engine)

    def acting(self, vm_uuid: str, container: str, action: str) -> "ContextManager[object]":
        """Do nothing: this process records no events."""
        return contextlib.ExitStack()

    def record(self, vm_uuid: str) -> EventRecord:
        """A record of what the engine itself remembers of the last hour."""
        record = EventRecord()
        with self.engine(vm_uuid) as engine:
            with engine.events() as stream:
                record.subscribed(stream.began_at, False)  # by the engine's clock
            missed = record.take_missed()
            if missed:
                record.heard(engine.past_events(*missed), past=True)
        return record

    def standing_engine(self, vm_uuid: str) -> "ContextManager[Engine]":
        raise VMNotRegistered(f"No monitor keeps a connection to the VM {vm_uuid} in this process.")

    def crowded(self) -> bool:
        return False

    def watched(self, vm_uuid: str) -> bool:
        """Tell whether the daemon takes calls: a process beside it cannot know more."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_DAEMON_ANSWERS)
            return sock.connect_ex(self.settings.daemon.socket) == 0

    def retry_now(self, vm_uuid: str) -> None:
        """Do nothing: the daemon is another process and tries at its own time."""


class DaemonContext(LocalContext):
    """For all calls of the daemon: VMs as XAPI's events tell them, and the standing connections of their monitors.

    :ivar log_followers: for the daemon, which drops those that nobody asks.
    """

    def __init__(self, settings: Settings, access: Access, forwarding: SessionPool, registry: Registry) -> None:
        super().__init__(settings, access, forwarding)
        self._registry = registry
        self.admission: Admission = Admission(settings.daemon.workers, self._unreachable)
        self.followers = self.log_followers = Followers()

    def vm(self, vm_uuid: str) -> VMRecord:
        try:
            return self._registry.monitor(vm_uuid).vm
        except VMNotRegistered:
            return super().vm(vm_uuid)

    def acting(self, vm_uuid: str, container: str, action: str) -> "ContextManager[object]":
        return self.access.records.of(vm_uuid).acting(container, action)

    def record(self, vm_uuid: str) -> EventRecord:
        self._registry.monitor(vm_uuid)
        return self.access.records.of(vm_uuid)

    def shown(self, vm_uuid: str) -> Shown:
        with contextlib.suppress(VMNotRegistered):
            shown = self._registry.monitor(vm_uuid).publisher.shown
            if shown is not None:
                return shown
        return super().shown(vm_uuid)

    def shown_here(self) -> "List[Shown]":
        found: List[Shown] = []
        waiting: Set[str] = set()
        for vm in self._registry.records():
            with contextlib.suppress(VMNotRegistered):
                shown = self._registry.monitor(vm.uuid).publisher.shown
                if shown is None:
                    waiting.add(vm.uuid)
                else:
                    found.append(shown)
        # Soon after the start of the daemon VMs are not monitored yet, or an older list is still published.
        if not found and not waiting:
            return super().shown_here()
        if waiting:
            found += [shown for shown in super().shown_here() if shown.vm.uuid in waiting]
        return found

    def watched(self, vm_uuid: str) -> bool:
        try:
            return self._registry.monitor(vm_uuid).alive
        except VMNotRegistered:
            return False

    def retry_now(self, vm_uuid: str) -> None:
        with contextlib.suppress(VMNotRegistered):
            self._registry.monitor(vm_uuid).retry_now()

    def _unreachable(self, vm_uuid: str) -> bool:
        """Tell at once whether the VM is monitored and its monitor has no connection."""
        try:
            self._registry.monitor(vm_uuid).engine()
        except VMNotRegistered:
            return False
        except XSContainerError:
            return True
        return False

    @contextlib.contextmanager
    def engine(self, vm_uuid: str) -> "Iterator[Engine]":
        try:
            engine = self._registry.monitor(vm_uuid).engine()
        except XSContainerError:
            # Not connected at the moment. A person waits for this call: connect at once, and say what is wrong.
            with self._on_budget(vm_uuid), super().engine(vm_uuid) as engine:
                yield engine
            return
        with self._on_budget(vm_uuid):
            yield engine

    @contextlib.contextmanager
    def standing_engine(self, vm_uuid: str) -> "Iterator[Engine]":
        engine = self._registry.monitor(vm_uuid).engine()
        with self._on_budget(vm_uuid):
            yield engine

    def crowded(self) -> bool:
        return self.admission.awaited(READING)

    @contextlib.contextmanager
    def _on_budget(self, vm_uuid: str) -> "Iterator[None]":
        """Charge the call to the guest. The call waits for a while if the guest has overdrawn its budget.

        :raises GuestThrottled: that would take too long.
        """
        budget = self.access.budgets.of(vm_uuid)
        hold = budget.hold()
        if hold > current_call.remaining(_LONGEST_HOLD):
            raise GuestThrottled(f"The VM {vm_uuid} has used up its share of this host's time: the next call for it "
                                 f"can be served in {hold:.0f} s.")
        self.stopping.wait(hold)
        with budget.charged():
            yield


def _shown(vm: VMRecord) -> Shown:
    """Return what XAPI's record of a VM shows."""
    found = inventory.view(vm)
    listed = keys.PS in vm.other_config and vm.is_owner
    return Shown(vm._replace(started=published_times(vm.other_config.get(keys.PS, ""))),
                 tally(found.containers, found.left_out) if listed else None)


def forwarding_pool(settings: Settings, calls: int) -> SessionPool:
    """Make the pool of logins for so many calls at once: one for each, and some for the change of the pool's key."""
    return session_pool(settings, calls + AT_ONCE)


@contextlib.contextmanager
def local_context(settings: Settings) -> "Iterator[LocalContext]":
    """A context for one plugin call in a process of its own."""
    with contextlib.ExitStack() as stack:
        sessions, forwarding = session_pool(settings), forwarding_pool(settings, 1)
        stack.callback(sessions.close)
        stack.callback(forwarding.close)
        yield LocalContext(settings, Access(settings, sessions), forwarding)
