"""XAPI's event stream, as a stream of VM changes.

Two halves: :class:`Tracker` is pure and knows the rules (folding, missed
deletions, addresses that live in another class than the VM); :class:`Watch`
is the thin loop that polls, and starts again from nothing after any trouble.
"""

import random
import threading
from typing import Any, Callable, Dict, FrozenSet, List, NamedTuple, Optional, Sequence, Set

from xscontainer.errors import XapiUnavailable
from xscontainer.vmrecord import VMChange, VMRecord
from xscontainer.xapi.pool import PoolRecord, addresses_of
from xscontainer.xapi.session import Session

# A host's signs of life are in another class: these change when something does.
CLASSES = ["vm", "vm_guest_metrics", "pool", "host", "pif"]

# Between two attempts to reach xapi, seconds. It is local and cheap to ask, and
# everything waits for it, so the wait stays short however long it is away.
RETRY_FIRST = 0.2
RETRY_MOST = 0.5


class ResyncNeeded(Exception):
    """An event was missed: what we hold of the pool is no longer what there is."""


class Batch(NamedTuple):
    """What one poll brought. ``full``: the changes name every VM there is, after a (re)subscription."""

    changes: List[VMChange]
    pool: Optional[PoolRecord]  # only when it changed
    full: bool
    host_addresses: Optional[FrozenSet[str]] = None  # of all hosts of the pool; the same


class Tracker:
    """The pool's VMs as the events so far describe them."""

    def __init__(self) -> None:
        self._named: Set[str] = set()  # uuids of the VMs that the listener believes to exist
        self._clear()

    def _clear(self) -> None:
        self._vms: Dict[str, VMRecord] = {}  # by ref
        self._networks: Dict[str, Dict[str, str]] = {}  # by ref of the guest metrics
        self._vm_of: Dict[str, str] = {}  # ref of the guest metrics -> ref of the VM
        self._pool: Optional[PoolRecord] = None
        self._addresses: Dict[str, FrozenSet[str]] = {}  # by ref of the host or PIF
        self._miscounted = False

    def restart(self, result: "Dict[str, Any]") -> Batch:
        """The first answer to a subscription from token "": VMs it does not name are gone."""
        before = self._named
        self._clear()
        batch = self.feed(result)
        gone = [VMChange(uuid, None) for uuid in sorted(before - self._named)]
        return batch._replace(changes=batch.changes + gone, full=True)

    def feed(self, result: "Dict[str, Any]") -> Batch:
        """An answer of event.from.

        :raises ResyncNeeded: XAPI counts other VMs than we do, twice in a row. A lost
            "del" leaves no other trace.
        """
        touched: Set[str] = set()
        gone: List[str] = []
        pool = self._pool
        addresses = dict(self._addresses)
        for event in result["events"]:
            name, ref = event["class"], event["ref"]
            if name == "vm":
                self._vm_event(event, touched, gone)
            elif name == "vm_guest_metrics":
                self._metrics_event(event, touched)
            elif name == "pool" and event["operation"] != "del":
                pool = PoolRecord.from_snapshot(ref, event["snapshot"])
            elif name in ("host", "pif"):
                addresses[ref] = addresses_of({} if event["operation"] == "del" else event["snapshot"])
        changes = [VMChange(uuid, None) for uuid in gone] + self._changes(touched)
        self._count(result)
        changed_pool = pool if pool != self._pool else None
        before, after = (frozenset().union(*known.values()) for known in (self._addresses, addresses))
        self._pool, self._addresses = pool, addresses
        # Last: what an error keeps from the listener is told after the restart that follows it.
        self._named = {vm.uuid for vm in self._vms.values()}
        return Batch(changes, changed_pool, False, after if after != before else None)

    def _vm_event(self, event: "Dict[str, Any]", touched: "Set[str]", gone: "List[str]") -> None:
        ref = event["ref"]
        known = self._vms.get(ref)
        if event["operation"] == "del":
            touched.discard(ref)
            if known:
                self._vm_of.pop(known.guest_metrics, None)
                del self._vms[ref]
                gone.append(known.uuid)
            return
        # Every host hears of every VM, and holds them all: their lists are most of what that takes.
        vm = VMRecord.from_snapshot(ref, event["snapshot"]).abridged()
        if known and known.guest_metrics != vm.guest_metrics:
            self._vm_of.pop(known.guest_metrics, None)
        if vm.is_guest:
            self._vm_of[vm.guest_metrics] = ref
        if known is None or known._replace(networks={}) != vm:
            touched.add(ref)
        self._vms[ref] = vm._replace(networks=known.networks if known else {})

    def _metrics_event(self, event: "Dict[str, Any]", touched: "Set[str]") -> None:
        ref = event["ref"]
        before = self._networks.get(ref, {})
        if event["operation"] == "del":
            self._networks.pop(ref, None)
        else:
            self._networks[ref] = dict(event["snapshot"].get("networks") or {})
        # Guest agents report all the time, and mostly what is known.
        if ref in self._vm_of and self._networks.get(ref, {}) != before:
            touched.add(self._vm_of[ref])

    def _changes(self, touched: "Set[str]") -> "List[VMChange]":
        changes = []
        for ref in sorted(touched):
            vm = self._vms[ref]
            vm = self._vms[ref] = vm._replace(networks=self._networks.get(vm.guest_metrics, {}))
            changes.append(VMChange(vm.uuid, vm))
        return changes

    def _count(self, result: "Dict[str, Any]") -> None:
        expected = (result.get("valid_ref_counts") or {}).get("vm")
        miscounted = expected is not None and int(expected) != len(self._vms)
        if miscounted and self._miscounted:
            raise ResyncNeeded(f"XAPI counts {expected} VMs, we hold {len(self._vms)}")
        # Once may be a creation or destruction that is on its way to us.
        self._miscounted = miscounted


class Watch:
    """Polls event.from until stopped, handing every batch to ``deliver``.

    :param login: opens a session; called again after any trouble.
    :param timeout: seconds a poll waits for an event, in xapi.
    :param prepare: called with the session before each subscription: refs looked up
        there are as new as the subscription.
    :param deliver: called with each batch, in order; must be quick and must not raise.
    :param lost: called with the error each time the stream breaks.
    """

    def __init__(self, login: "Callable[[], Session]", timeout: float,
                 prepare: "Callable[[Session], None]", deliver: "Callable[[Batch], None]",
                 lost: "Callable[[Exception], None]") -> None:
        self._login = login
        self._timeout = timeout
        self._prepare = prepare
        self._deliver = deliver
        self._lost = lost
        self._tracker = Tracker()
        self._session: Optional[Session] = None
        self._stopped = threading.Event()
        self._resync = threading.Event()

    def run(self) -> None:
        """Until :meth:`stop`; the thread is the caller's."""
        delay = RETRY_FIRST
        while not self._stopped.is_set():
            started = False
            try:
                self._subscribe()
                started = True
                self._follow()
            except Exception as exc:  # noqa: BLE001 - the outermost handler
                # An answer of the wrong shape is as good as none.
                if not self._stopped.is_set():
                    self._lost(exc)
            finally:
                self._disconnect()
            delay = RETRY_FIRST if started else min(delay * 1.5, RETRY_MOST)
            self._stopped.wait(delay * random.uniform(0.8, 1.2))

    def resync(self) -> None:
        """Have everything delivered afresh, at the next return of the poll."""
        self._resync.set()

    def stop(self) -> None:
        """End it from any thread: a poll under way is interrupted."""
        self._stopped.set()
        session = self._session
        if session is not None:
            session.interrupt()

    def _subscribe(self) -> None:
        session = self._login()
        self._session = session
        if self._stopped.is_set():
            raise XapiUnavailable("Stopped.")
        self._prepare(session)

    def _follow(self) -> None:
        assert self._session is not None
        token = ""
        while not self._stopped.is_set():
            if self._resync.is_set():
                self._resync.clear()
                self._prepare(self._session)
                token = ""
            first = token == ""
            result = _poll(self._session, CLASSES, token, 0.0 if first else self._timeout)
            batch = self._tracker.restart(result) if first else self._tracker.feed(result)
            token = result["token"]
            if batch.full or batch.changes or batch.pool or batch.host_addresses:
                self._deliver(batch)

    def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.logout()


def _poll(session: Session, classes: "Sequence[str]", token: str, timeout: float) -> "Dict[str, Any]":
    # The wire's name; XenAPI's spelling "event_from" is refused for all but a local superuser.
    poll = getattr(session.xenapi.event, "from")
    return poll(list(classes), token, float(timeout))
