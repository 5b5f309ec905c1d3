"""A pool's database, sessions and guests, on which the API's methods work.

Methods (``objects/``) and the HTTP side (``service/``) get a PoolData. The Pool that tests hold (``pool/``) is derived
from it and adds the methods that change it.
"""

import os
import threading
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Tuple

from xscontainer.simulator.xapi.database.database import Database
from xscontainer.simulator.xapi.database.datamodel import load
from xscontainer.simulator.xapi.database.row import Row
from xscontainer.simulator.xapi.state.event_hub import Events
from xscontainer.simulator.xapi.state.faults import Faults
from xscontainer.simulator.xapi.state.host_data import HostData
from xscontainer.simulator.xapi.state.message_store import Messages
from xscontainer.simulator.xapi.state.plugin_runner import Runner
from xscontainer.simulator.xapi.state.session_store import Sessions
from xscontainer.simulator.xapi.state.stats import Stats
from xscontainer.simulator.xapi.state.workers import Workers

PowerCallback = Callable[[str, str], None]
DiskCallback = Callable[[str, str, str], None]


class PoolData:
    """A pool's state. Tests may set the following delays and choices.

    step_delay: seconds between the writes of a power operation.
    migrate_copy, migrate_lag: seconds before the VM runs on the target, and from then until resident_on names it.
    plugin_patience: (least, most) seconds that a second VM.call_host_plugin waits.
    transfer_delay: seconds between the last byte of an upload and the end of its task.
    transfer_url: the address to which a client is sent for a disk that only another host reaches.
    placement: chooses the host (row) on which a VM starts; None: see objects/placement.py.
    """

    hosts: Sequence[HostData]
    coordinator: HostData

    def __init__(self, directory: str) -> None:
        self.directory = os.path.abspath(directory)
        os.makedirs(self.directory, exist_ok=True)
        # Files that hosts serve over HTTPS to everybody; a test makes it. /opt/xensource/www.
        self.web_dir = os.path.join(self.directory, "www")
        self.model = load()
        self.db = Database(self.model)
        self.operations_ended = threading.Condition(self.db.lock)
        self.events = Events(self.db)
        self.messages = Messages(self.db)
        self.sessions = Sessions(self.db, self.events.wake_all)
        self.stats = Stats()
        self.faults = Faults()
        self.plugin_runner = Runner(self.directory)
        self.workers = Workers()
        # By reference of the VM, the snapshot, the task and the session.
        self.guest_networks: Dict[str, Dict[str, str]] = {}
        self.saved: Dict[str, Dict[str, Any]] = {}
        self.task_owners: Dict[str, str] = {}
        self.registered: Set[str] = set()
        # VMs without a guest agent (references), VMs that hold on to their disks and VDIs in transfer (uuids).
        self.agentless: Set[str] = set()
        self.refusing_detach: Set[str] = set()
        self.transfers: Dict[str, List[str]] = {}
        self.step_delay = 0.003
        self.migrate_copy = 0.05
        self.migrate_lag = 0.2
        self.plugin_patience: Tuple[float, float] = (0.05, 1.4)
        self.transfer_delay = 0.0
        self.transfer_url: Callable[[HostData], str] = lambda host: "http://127.0.0.1:{}".format(host.tcp_port)
        self.placement: Optional[Callable[[Row], Row]] = None
        self._power_callbacks: List[PowerCallback] = []
        self._disk_callbacks: List[DiskCallback] = []
        self._hosts_changed = threading.Condition()
        self._domid = 0

    def host_of(self, ref: str) -> Optional[HostData]:
        """Return the host of that reference, None if there is none."""
        return next((host for host in self.hosts if host.ref == ref), None)

    def wait_for_coordinator(self, wanted: Callable[[], bool]) -> bool:
        """Block until the coordinator serves; return False if ``wanted()`` or the pool ended before."""
        with self._hosts_changed:
            while not self.coordinator.up:
                if self.workers.stopping.is_set() or not wanted():
                    return False
                self._hosts_changed.wait(1.0)
        return True

    def changed_state(self) -> None:
        """Wake all calls that wait, since a host went up or down."""
        with self._hosts_changed:
            self._hosts_changed.notify_all()
        self.events.wake_all()

    def step(self) -> None:
        """Pause as between two writes of a power operation."""
        self.workers.pause(self.step_delay)

    def has_agent(self, vm: Row) -> bool:
        """Return whether a VM's guest can be asked to shut down, reboot, suspend or migrate."""
        return vm.ref not in self.agentless

    def next_domid(self) -> int:
        """Return a domain id that was not used before."""
        with self.db.lock:
            self._domid += 1
            return self._domid

    def on_power(self, callback: PowerCallback) -> None:
        """Call ``callback(vm_ref, event)`` on start, stop, reboot, suspend, resume, pause, unpause and migrate.

        It runs in the thread of the operation: for "stop", "reboot" and "suspend" before the record changes, for
        "start" and "resume" just before the operation ends. For "migrate" it runs when the VM begins to run on the
        target, while resident_on still names the source.
        """
        self._power_callbacks.append(callback)

    def power_event(self, ref: str, event: str) -> None:
        """Call the callbacks of on_power()."""
        for callback in list(self._power_callbacks):
            callback(ref, event)

    def on_disk(self, callback: DiskCallback) -> None:
        """Call ``callback(vm_ref, event, vbd_ref)`` as a running VM's drives change.

        "attach" and "insert" are reported after the guest can read the disk; "detach" and "eject" just before the disk
        is gone, while the VBD still names it. Starting and ending a VM attach and detach its disks and discs. The
        callback runs in the thread of the operation.
        """
        self._disk_callbacks.append(callback)

    def disk_event(self, vm: str, event: str, vbd: str) -> None:
        """Call the callbacks of on_disk()."""
        for callback in list(self._disk_callbacks):
            callback(vm, event, vbd)

    def report(self, name: str, vm: Row, text: str) -> None:
        """Add the message that XAPI leaves after an operation on a VM; {} in ``text`` stands for the VM."""
        self.messages.add(
            name, 5, "VM", vm["uuid"], text.format("VM '{}' (uuid: {})".format(vm["name_label"], vm["uuid"]))
        )
