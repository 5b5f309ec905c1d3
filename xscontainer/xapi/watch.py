"""XAPI's event stream, turned into batches of VM changes.

:class:`Tracker` is pure and knows the rules: folding, missed deletions, addresses that live in another class than the
VM. :class:`Watch` is the thin loop that polls event.from, hands each batch to the daemon (which passes it on to the
registry), and subscribes again after any error.
"""

import logging
import random
import threading
import time
from typing import Any, Callable, Dict, FrozenSet, List, NamedTuple, Optional, Sequence, Set

from xscontainer.core.addresses import bounded
from xscontainer.core.budget import FairRate, GuestBudget, Rate, ThreadMeter
from xscontainer.core.vm_record import VMChange, VMRecord
from xscontainer.errors import XapiError, XapiUnavailable, cause
from xscontainer.sanitize import line
from xscontainer.xapi.pool import PoolRecord, addresses_of
from xscontainer.xapi.session import Session

log = logging.getLogger(__name__)

# A host's heartbeats are in another class (host_metrics): these classes change only when something happens.
CLASSES = ["vm", "vm_guest_metrics", "pool", "host", "pif"]

# Between two attempts to reach xapi, seconds. xapi is local and cheap to ask, and everything waits for it, so the wait
# stays short however long xapi is away.
RETRY_FIRST = 0.2
RETRY_MOST = 0.5

# Seconds of CPU that reading events may take in a second. If more changes, the polls are further apart: xapi folds all
# changes of an object between two polls into one event.
_CPU = Rate(each=0.25, total=0.25, burst=0.5, total_burst=0.5)


class ResyncNeeded(Exception):
    """An event was missed: the tracker and XAPI disagree about which VMs exist."""


class Batch(NamedTuple):
    """The changes that one poll returned.

    :ivar pool: None if it has not changed.
    :ivar full: the changes name all VMs of the pool: the first batch of a subscription.
    :ivar host_addresses: of all hosts of the pool; None if they have not changed.
    """

    changes: List[VMChange]
    pool: Optional[PoolRecord]
    full: bool
    host_addresses: Optional[FrozenSet[str]] = None


class Tracker:
    """The VMs of the pool as the events so far describe them."""

    def __init__(self) -> None:
        self._complained: Set[str] = set()  # refs of malformed records that were logged; each is logged once
        self._named: Set[str] = set()  # uuids of the VMs that exist according to the batches so far
        self._clear()

    def _clear(self) -> None:
        self._vms: Dict[str, VMRecord] = {}  # by ref
        self._networks: Dict[str, Dict[str, str]] = {}  # by ref of the guest metrics
        self._vm_of: Dict[str, str] = {}  # ref of the guest metrics -> ref of the VM
        self._pool: Optional[PoolRecord] = None
        self._addresses: Dict[str, FrozenSet[str]] = {}  # by ref of the host or PIF
        self._unreadable: Dict[str, str] = {}  # ref of a VM whose last record was malformed -> its uuid, "" if unknown
        self._miscounted = False

    def restart(self, result: "Dict[str, Any]") -> Batch:
        """Return the batch for the first answer to a subscription (token ""): VMs that it does not name are gone."""
        before = self._named
        self._clear()
        batch = self.feed(result)
        gone = [VMChange(uuid, None) for uuid in sorted(before - self._named)]
        return batch._replace(changes=batch.changes + gone, full=True)

    def feed(self, result: "Dict[str, Any]") -> Batch:
        """Return the batch for a later answer of event.from.

        :raises ResyncNeeded: XAPI and the tracker count different numbers of VMs, twice in a row. A lost "del" leaves
            no other trace.
        """
        touched: Set[str] = set()
        gone: List[str] = []
        pool = self._pool
        addresses = dict(self._addresses)
        for event in result["events"]:
            try:
                name, ref = event["class"], event["ref"]
                if not isinstance(ref, str):
                    raise TypeError("its reference is no text")
                if name == "vm":
                    self._vm_event(event, touched, gone)
                elif name == "vm_guest_metrics":
                    self._metrics_event(event, touched)
                elif name == "pool" and event["operation"] != "del":
                    pool = PoolRecord.from_snapshot(ref, event["snapshot"])
                elif name in ("host", "pif"):
                    addresses[ref] = addresses_of({} if event["operation"] == "del" else event["snapshot"])
            except (LookupError, TypeError, ValueError, AttributeError, XapiError) as error:
                self._not_understood(event, error)
        changes = [VMChange(uuid, None) for uuid in gone] + self._changes(touched)
        self._count(result)
        changed_pool = pool if pool != self._pool else None
        before, after = (frozenset().union(*known.values()) for known in (self._addresses, addresses))
        self._pool, self._addresses = pool, addresses
        # Last: if an error keeps a batch from the listener, the restart that follows must report its deletions.
        self._named = {vm.uuid for vm in self._vms.values()}.union(filter(None, self._unreadable.values()))
        return Batch(changes, changed_pool, False, after if after != before else None)

    def _not_understood(self, event: Any, error: Exception) -> None:
        """Log a malformed record. What was known of its object stays, and all other events are handled."""
        fields = event if isinstance(event, dict) else {}
        name, ref, snapshot = fields.get("class"), fields.get("ref"), fields.get("snapshot")
        if name == "vm" and isinstance(ref, str):
            uuid = snapshot.get("uuid") if isinstance(snapshot, dict) else ""
            known = self._vms.get(ref)
            self._unreadable[ref] = known.uuid if known else uuid if isinstance(uuid, str) else ""
        if str(ref) not in self._complained:
            self._complained.add(str(ref))
            log.warning("a malformed record of XAPI is ignored (%s, %s): %s", line(name, 40),
                        line(ref, 80), line(cause(error), 200))

    def _vm_event(self, event: "Dict[str, Any]", touched: "Set[str]", gone: "List[str]") -> None:
        ref = event["ref"]
        known = self._vms.get(ref)
        if event["operation"] == "del":
            touched.discard(ref)
            unread = self._unreadable.pop(ref, "")
            if known:
                self._vm_of.pop(known.guest_metrics, None)
                del self._vms[ref]
            if known or unread:
                gone.append(known.uuid if known else unread)
            return
        # Every host holds a record of every VM of the pool; the published lists would take most of that memory.
        vm = VMRecord.from_snapshot(ref, event["snapshot"]).abridged()
        if known and known.guest_metrics != vm.guest_metrics:
            self._vm_of.pop(known.guest_metrics, None)
        if vm.is_guest:
            self._vm_of[vm.guest_metrics] = ref
        if known is None or known._replace(networks={}) != vm:
            touched.add(ref)
        self._vms[ref] = vm._replace(networks=known.networks if known else {})
        self._unreadable.pop(ref, None)

    def _metrics_event(self, event: "Dict[str, Any]", touched: "Set[str]") -> None:
        ref = event["ref"]
        before = self._networks.get(ref, {})
        if event["operation"] == "del":
            self._networks.pop(ref, None)
        else:
            self._networks[ref] = bounded(event["snapshot"].get("networks") or {})
        # Guest agents report all the time, mostly without a change.
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
        miscounted = expected is not None and int(expected) != len(self._vms.keys() | self._unreadable.keys())
        if miscounted and self._miscounted:
            raise ResyncNeeded(f"XAPI counts {expected} VMs, {len(self._vms)} are known")
        # A single mismatch may be a creation or destruction whose event has not arrived yet.
        self._miscounted = miscounted


class Watch:
    """Polls event.from until stopped, and hands every batch to ``deliver``.

    :param login: opens a session; called again after any error.
    :param timeout: seconds that a poll waits in xapi for an event.
    :param prepare: called with the session before each subscription, to read what the events refer to.
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
        self.turned_at = time.monotonic()  # when the thread last made progress: the watchdog looks at it

    def run(self) -> None:
        """Poll in the caller's thread until :meth:`stop`."""
        delay = RETRY_FIRST
        while not self._stopped.is_set():
            self.turned_at = time.monotonic()
            started = False
            try:
                self._subscribe()
                started = True
                self._follow()
            except Exception as exc:  # noqa: BLE001 - the outermost handler
                # A malformed answer is handled like a lost connection.
                if not self._stopped.is_set():
                    self._lost(exc)
            finally:
                self._disconnect()
            delay = RETRY_FIRST if started else min(delay * 1.5, RETRY_MOST)
            self._stopped.wait(delay * random.uniform(0.8, 1.2))

    def resync(self) -> None:
        """Have all VMs delivered again when the poll returns next."""
        self._resync.set()

    def stop(self) -> None:
        """End the loop, from any thread; a poll under way is interrupted."""
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
        meter = ThreadMeter(GuestBudget("events", FairRate(_CPU)))
        while not self._stopped.is_set():
            if self._resync.is_set():
                self._resync.clear()
                self._prepare(self._session)
                token = ""
            first = token == ""
            result = _poll(self._session, CLASSES, token, 0.0 if first else self._timeout)
            batch = self._tracker.restart(result) if first else self._tracker.feed(result)
            token = result["token"]
            self.turned_at = time.monotonic()
            if batch.full or batch.changes or batch.pool or batch.host_addresses:
                self._deliver(batch)
            if first:
                meter.skip()  # reading a whole large pool takes long; that is no reason to delay the next poll
            else:
                self._stopped.wait(meter.charge())

    def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.logout()


def _poll(session: Session, classes: "Sequence[str]", token: str, timeout: float) -> "Dict[str, Any]":
    # The name on the wire; xapi refuses XenAPI's spelling "event_from" to all but a local superuser.
    poll = getattr(session.xenapi.event, "from")
    return poll(list(classes), token, float(timeout))
