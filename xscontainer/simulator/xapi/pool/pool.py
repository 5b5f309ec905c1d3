"""A simulated XAPI pool: any number of hosts in one process, controlled by tests and the demo."""

from typing import Any, Callable, Dict, List, Optional

from xscontainer.simulator.xapi.database.renewal import renew_references
from xscontainer.simulator.xapi.pool.equipment import Equipment
from xscontainer.simulator.xapi.pool.populate import populate
from xscontainer.simulator.xapi.pool.vms import VMs
from xscontainer.simulator.xapi.service.dispatch import Dispatcher
from xscontainer.simulator.xapi.service.sim_host import SimHost
from xscontainer.simulator.xapi.state.session_store import User
from xscontainer.simulator.xapi.wire.values import NULL

ROOT_PASSWORD = "root-pw"


class Pool(VMs, Equipment):
    """A pool whose first host is the coordinator; a context manager that starts and stops it.

    The delays that tests may set are described in PoolData.

    :param directory: for sockets, plugin directories, disks and inventory files.
    :param hosts: how many.
    :param tcp: whether hosts serve on 127.0.0.1, too.
    :param https: whether hosts serve over HTTPS, too, at loopback addresses that XAPI gives as theirs.
    """

    hosts: List[SimHost]
    coordinator: SimHost

    def __init__(self, directory: str, hosts: int = 2, tcp: bool = True, https: bool = False) -> None:
        super().__init__(directory)
        dispatcher = Dispatcher(self, self.model)
        self.serve = dispatcher.serve
        self.hosts = [SimHost(self, dispatcher, number + 1, tcp, https) for number in range(hosts)]
        self.coordinator = self.hosts[0]
        populate(self)
        self.sessions.users["root"] = User("root", ROOT_PASSWORD, None, NULL, "")

    def start(self) -> "Pool":
        """Let every host serve."""
        self.workers.resume()
        self.plugin_runner.start()
        for host in self.hosts:
            host.write_files()
            host.start()
        return self

    def stop(self) -> None:
        """End everything: no thread, socket or plugin process remains."""
        self.workers.stop()
        for host in self.hosts:
            host.up = False
        self.plugin_runner.stop()
        with self.db.lock:
            self.operations_ended.notify_all()
        self.changed_state()
        for host in self.hosts:
            host.close()
        self.workers.join()

    def __enter__(self) -> "Pool":
        return self.start()

    def __exit__(self, *_exc: Any) -> None:
        self.stop()

    def host_of(self, ref: str) -> Optional[SimHost]:
        """Return the host of that reference, None if there is none."""
        return next((host for host in self.hosts if host.ref == ref), None)

    def add_user(self, name: str, password: str, role: str) -> str:
        """Add a user with a role (pool-admin ... read-only) who may log in over TCP; return the subject's reference.

        The The role "root" makes another local superuser.
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

    def set_coordinator_down(self, down: bool) -> None:
        """Stop the coordinator's xapi, so that members' calls block, or start it; sessions stay as they are."""
        if down and self.coordinator.up:
            self.coordinator.stop(reset=True, timeout=2.0)
        elif not down and not self.coordinator.up:
            self.coordinator.start()

    def change_coordinator(self, host: SimHost, lose_writes_since: Optional[float] = None) -> None:
        """Make another host the coordinator: all xapis restart, all sessions end, the newest writes may be lost."""
        self._restart_all(lambda: self._take_over(host, lose_writes_since))

    def rejoin(self) -> None:
        """Do what a pool join does to clients: every reference is new (uuids stay), all sessions end."""
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
        renewed = renew_references(self.db)
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
