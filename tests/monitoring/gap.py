"""Count the updates of a VM's list that clients see as a VM without its list. For tests and for `make bench`."""

import pathlib
import threading
import time
from typing import Any, Dict, List, NamedTuple

from tests.clients.following import Follower
from xscontainer import keys
from xscontainer.core.vm_record import VMRecord
from xscontainer.publish import Publication
from xscontainer.simulator.world.watch import Watcher
from xscontainer.simulator.xapi import Pool
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session, SessionPool
from xscontainer.xapi.wake import ClientWake

SCRIPT = str(pathlib.Path(__file__).with_name("see_gaps.mjs"))
PAUSE = 0.6  # seconds between two updates, about the pace at which one VM is written


class Seen(NamedTuple):
    """:ivar tight: updates of which a client that polls without a pause saw the VM without its list.

    :ivar orchestra: the same count for Xen Orchestra's client, xen-api.
    :ivar changes: the number of new lists that Xen Orchestra's client has seen.
    """

    updates: int
    tight: int
    orchestra: int
    changes: int


class _Unpaired(Session):
    """A session that sends the second request only when the first is answered, as earlier releases did."""

    def together(self, *calls: Any) -> "List[Any]":
        return [self.xenapi_request(method, parameters) for method, parameters in calls]


def watch_updates(pool: Pool, updates: int, size: int, paired: bool = True, wake: bool = True) -> Seen:
    """Replace the list of a VM ``updates`` times while two clients watch it.

    :param pool: has a TCP port; gets a user "admin".
    :param size: bytes of each list.
    :param paired: send both requests back to back.
    :param wake: make an event before the requests.
    """
    pool.add_user("admin", "admin-pw", "pool-admin")
    kind = Session if paired else _Unpaired
    path = pool.coordinator.socket_path
    ref = pool.create_vm("web", other_config={"xscontainer-monitor": "True"})
    uuid = pool.vm(ref)["uuid"]
    sessions = SessionPool(lambda: kind.login(path, "gap", 10.0, 10.0), 2, 10.0)
    record: VMRecord = sessions.run(lambda session: xapi_vm.record(session, uuid))
    waking = ClientWake(sessions, lambda: str(pool.coordinator.ref), lambda: wake)
    publication = Publication(record, sessions, before=waking.before_writing)
    publication.show({keys.PS: "first"})
    tight: List[bool] = []
    watching = Watcher(lambda: Session.login(path, "tight", 60.0, 10.0), ["vm/" + ref],
                       lambda _, snapshot: tight.append(keys.PS in snapshot["other_config"]))
    follower = Follower(SCRIPT, f"http://127.0.0.1:{pool.coordinator.tcp_port}", uuid)
    try:
        follower.next()
        with watching:
            time.sleep(0.5)
            tight.clear()
            for number in range(updates):
                publication.show({keys.PS: f"{number:05}" + "<x/>" * (size // 4)})
                time.sleep(PAUSE)
            report: Dict[str, Any] = {}
            deadline = time.monotonic() + 20.0
            while report.get("last", "")[:5] != f"{updates - 1:05}" and time.monotonic() < deadline:
                follower.order("tell")
                report = follower.next()
                threading.Event().wait(0.1)
            missed = tight.count(False)
    finally:
        follower.close()
        sessions.close()
    return Seen(updates, missed, report["absent"], report["changes"])
