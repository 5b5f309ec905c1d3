"""A simulated XAPI pool: any number of hosts in one process, and the levers by which tests and the demo move it."""

import os
import threading
import uuid
from typing import Any, Callable, Dict, List, Optional, Set

from . import lifecycle, operations, vbds, vms
from .beginning import populate
from .clock import now
from .database import Database, Row
from .datamodel import load
from .decode import Request
from .dispatch import Call, Dispatcher
from .equipment import Equipment
from .events import Events
from .failures import Dropped, XapiError
from .faults import Faults, Stats
from .host import SimHost
from .messages import Messages
from .plugins import Runner
from .sessions import Sessions, User
from .values import NULL

PowerCallback = Callable[[str, str], None]
ROOT_PASSWORD = "root-pw"


class Pool(Equipment):
    """A pool whose first host is the coordinator; a context manager that starts and stops it.

    directory: where sockets, plugin directories and inventory files go. hosts: how many. tcp: serve on 127.0.0.1 too.
    event_delay: seconds between a write and its report. Delays that tests may set: step_delay (between the writes of
    a power operation), migrate_copy and migrate_lag (before the VM runs on the target, and from then until resident_on
    says so), plugin_patience (seconds from, to: how long a second VM.call_host_plugin waits).
    """

    def __init__(self, directory: str, hosts: int = 2, tcp: bool = True, event_delay: float = 0.001) -> None:
        super().__init__()
        self.directory = os.path.abspath(directory)
        os.makedirs(self.directory, exist_ok=True)
        self.model = load()
        self.db = Database(self.model)
        self.operations_ended = threading.Condition(self.db.lock)
        self.events = Events(self.db, event_delay)
        self.messages = Messages(self)
        self.sessions = Sessions(self)
        self.stats = Stats()
        self.faults = Faults()
        self.plugin_runner = Runner(self.directory)
        self.guest_networks: Dict[str, Dict[str, str]] = {}
        self.saved: Dict[str, Dict[str, Any]] = {}
        self.task_owners: Dict[str, str] = {}
        self.registered: Set[str] = set()
        self.agentless: Set[str] = set()
        self.step_delay = 0.003
        self.migrate_copy = 0.05
        self.migrate_lag = 0.2
        self.plugin_patience = (0.05, 1.4)
        self._permissions: Dict[str, List[str]] = {}
        self._power_callbacks: List[PowerCallback] = []
        self._threads: Set[threading.Thread] = set()
        self._state = threading.Condition()
        self._stopping = threading.Event()
        self._domid = 0
        self._dispatcher = Dispatcher(self, self.model)
        self.hosts = [SimHost(self, n + 1, self.directory, tcp) for n in range(hosts)]
        self.coordinator = self.hosts[0]
        populate(self)
        self.sessions.users["root"] = User("root", ROOT_PASSWORD, None, NULL, "")

    # Life

    def start(self) -> "Pool":
        """Let every host serve."""
        self._stopping.clear()
        self.plugin_runner.start()
        for host in self.hosts:
            host.write_files()
            host.start()
        return self

    def stop(self) -> None:
        """End everything: no thread, socket or plugin process is left."""
        self._stopping.set()
        for host in self.hosts:
            host.up = False
        self.plugin_runner.stop()
        with self.db.lock:
            self.operations_ended.notify_all()
        self.changed_state()
        for host in self.hosts:
            host.close()
        with self._state:
            threads = list(self._threads)
        for thread in threads:
            thread.join(10.0)

    def __enter__(self) -> "Pool":
        return self.start()

    def __exit__(self, *_exc: Any) -> None:
        self.stop()

    def serve(self, host: SimHost, request: Request, local: bool, size: int) -> Any:
        """Serve one call that came in at `host`; raises XapiError or Dropped."""
        return self._dispatcher.serve(host, request, local, size)

    def changed_state(self) -> None:
        """A host went up or down: whoever waits for that looks again."""
        with self._state:
            self._state.notify_all()
        self.events.wake_all()

    def wait_for_coordinator(self, call: Call) -> None:
        """Block a call of a member until the coordinator serves; Dropped when the member itself goes down."""
        if self.coordinator.up:
            return
        with self._state:
            while not self.coordinator.up:
                if self._stopping.is_set() or not call.host.up or call.host.life != call.life:
                    raise Dropped()
                self._state.wait(1.0)

    def background(self, work: Callable[[], None]) -> None:
        """Run `work` in a thread that stop() waits for."""

        def run() -> None:
            try:
                work()
            finally:
                with self._state:
                    self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name="xapi-task", daemon=True)
        with self._state:  # what stop() finds in the set has started
            thread.start()
            self._threads.add(thread)

    def pause(self, seconds: float) -> None:
        """Sleep, but not beyond stop()."""
        if seconds > 0:
            self._stopping.wait(seconds)

    def step(self) -> None:
        """The pause between two writes of a power operation."""
        self.pause(self.step_delay)

    # Users

    def add_user(self, name: str, password: str, role: str) -> str:
        """Let somebody log in over TCP with a role (pool-admin ... read-only); returns the subject's reference.

        role "root" makes another local superuser.
        """
        if role == "root":
            self.sessions.users[name] = User(name, password, None, NULL, "")
            return NULL
        sid = "u{}".format(1000 + len(self.db.rows("subject")))
        roles = [r.ref for r in self.db.rows("role") if r["name_label"] == role]
        config = {k: v for k, v in self.model.records["subject"]["other_config"].items()}
        config.update(
            {"subject-name": name, "subject-uid": sid, "subject-gid": "g" + sid[1:], "subject-displayname": name}
        )
        row = self.db.create("subject", {"subject_identifier": sid, "other_config": config, "roles": roles})
        self.sessions.users[name] = User(name, password, role, row.ref, sid)
        return row.ref

    def permissions_of(self, role: str) -> List[str]:
        """The permissions of a role, as sessions list them."""
        if role not in self._permissions:
            self._permissions[role] = self.model.permissions_of(role)
        return self._permissions[role]

    # Hosts

    def host_of(self, ref: str) -> Optional[SimHost]:
        """The host of that reference, None if there is none."""
        return next((h for h in self.hosts if h.ref == ref), None)

    def choose_host(self, vm: Row) -> Row:
        """Where a VM starts: its affinity, else the host that is up, has its storage and the fewest VMs."""
        wanted = self.host_of(vm["affinity"])
        up = [h for h in self.hosts if h.up and not vbds.missing_sr(self, vm, h.ref)]
        if wanted in up:
            up = [h for h in up if h is wanted]
        if not up:
            raise XapiError("NO_HOSTS_AVAILABLE")
        rows = [self.db.find("host", h.ref) for h in up]
        return min(rows, key=lambda r: len(r["resident_VMs"]))

    def control_domain_uuid(self, host: SimHost) -> str:
        """The uuid of a host's domain 0."""
        return str(self.db.find("VM", self.db.find("host", host.ref)["control_domain"])["uuid"])

    def set_coordinator_down(self, down: bool) -> None:
        """Cut the coordinator off (members' calls block), or bring it back; sessions stay as they are."""
        if down and self.coordinator.up:
            self.coordinator.stop(reset=True, timeout=2.0)
        elif not down and not self.coordinator.up:
            self.coordinator.start()

    def change_coordinator(self, host: SimHost, lose_writes_since: Optional[float] = None) -> None:
        """Another host takes over: all xapis restart, all sessions end; its database may lack the newest writes."""
        self._restart_all(lambda: self._take_over(host, lose_writes_since))

    def rejoin(self) -> None:
        """What a pool join does to its clients: every reference is new (uuids stay), all sessions end."""
        self._restart_all(self._renew)

    def _restart_all(self, change: Callable[[], None]) -> None:
        for host in self.hosts:
            host.stop(reset=True, timeout=2.0)
        self.sessions.end_of_host(None)
        change()
        for host in self.hosts:
            host.write_files()
            host.start()

    def _take_over(self, host: SimHost, lose_writes_since: Optional[float]) -> None:
        if lose_writes_since is not None:
            self.db.forget_since(lose_writes_since)
        self.coordinator = host
        self.db.set(self.db.rows("pool")[0], "master", host.ref)

    def _renew(self) -> None:
        renewed = self.db.renew_references()
        for host in self.hosts:
            host.ref = renewed[host.ref]
        stores: List[Dict[str, Any]] = [self.guest_networks, self.saved, self.task_owners]
        for store in stores:
            for ref in list(store):
                store[renewed.get(ref, ref)] = store.pop(ref)
        self.agentless = {renewed.get(ref, ref) for ref in self.agentless}
        self.sessions.users = {
            name: user._replace(subject=renewed.get(user.subject, NULL)) for name, user in self.sessions.users.items()
        }

    # VMs

    def create_vm(
        self,
        name: str,
        host: Optional[SimHost] = None,
        power_state: str = "Running",
        other_config: Optional[Dict[str, str]] = None,
        networks: Optional[Dict[str, str]] = None,
        template: bool = False,
        agent: bool = True,
        **fields: Any,
    ) -> str:
        """Make a VM, running on `host` (None: where there is most room) unless power_state says otherwise.

        networks: what its guest agent reports while it runs ({"0/ip": "127.7.0.2"}). agent: whether it can be shut
        down cleanly, suspended and migrated. fields: further fields of the record. Returns its reference.
        """
        values = {
            k: v
            for k, v in self.model.records["VM"].items()
            if k in ("memory_static_max", "memory_dynamic_max", "memory_dynamic_min", "memory_static_min")
        }
        values = {k: int(v) for k, v in values.items()}
        values.update(
            name_label=name,
            user_version=1,
            is_a_template=template,
            VCPUs_max=1,
            VCPUs_at_startup=1,
            memory_overhead=11534336,
            has_vendor_device=True,
            hardware_platform_version=2,
            HVM_boot_policy="BIOS order",
            HVM_boot_params={"order": "cdn"},
            generation_id="0:0",
            actions_after_shutdown="destroy",
            actions_after_reboot="restart",
            actions_after_crash="restart",
            domain_type="hvm",
            other_config=dict(other_config or {}),
            HVM_shadow_multiplier=1.0,
        )
        operations.no_operations(values)
        values.update(fields)
        with self.db.lock:
            vm = vms.new_vm(self, values)
            if not agent:
                self.agentless.add(vm.ref)
            self.guest_networks[vm.ref] = dict(networks or {})
            if power_state in ("Running", "Paused"):
                lifecycle.boot(self, vm, self.db.find("host", host.ref) if host else self.choose_host(vm), _no_step)
            if power_state != "Running":
                self.db.set(vm, "power_state", power_state)
            operations.refresh(self, vm)
        return vm.ref

    def set_networks(self, ref: str, networks: Dict[str, str]) -> None:
        """The VM's guest agent reports these addresses from now on ({} withdraws all)."""
        with self.db.lock:
            self.guest_networks[ref] = dict(networks)
            metrics = self.db.get("VM_guest_metrics", self.db.find("VM", ref)["guest_metrics"])
            if metrics is not None:
                self.db.set(metrics, "networks", dict(networks))
                self.db.set(metrics, "last_updated", now())

    def has_agent(self, vm: Row) -> bool:
        """Whether a VM's guest can be asked to shut down, reboot, suspend or migrate."""
        return vm.ref not in self.agentless

    def on_power(self, callback: PowerCallback) -> None:
        """Have callback(vm_ref, event) called as guests start, stop, reboot, suspend, resume, pause, unpause, migrate.

        It is called in the thread of the operation, before the record says that it is done ("stop", "reboot",
        "suspend") or just before it ends ("start", "resume"); for "migrate" when the VM begins to run on the target
        while resident_on still names the source.
        """
        self._power_callbacks.append(callback)

    def power_event(self, ref: str, event: str) -> None:
        """Tell the callbacks."""
        for callback in list(self._power_callbacks):
            callback(ref, event)

    def tell(self, name: str, vm: Row, text: str) -> None:
        """The message that XAPI leaves about what was done to a VM; {} in `text` is the VM."""
        self.messages.add(
            name, 5, "VM", vm["uuid"], text.format("VM '{}' (uuid: {})".format(vm["name_label"], vm["uuid"]))
        )

    def next_domid(self) -> int:
        """A domain id that was not used before."""
        with self.db.lock:
            self._domid += 1
            return self._domid

    def trackid(self, session_ref: str) -> str:
        """The short name of a session that XAPI shows in errors and logs."""
        return uuid.uuid5(uuid.NAMESPACE_OID, session_ref).hex


def _no_step() -> None:
    """VMs made by create_vm appear at once."""
