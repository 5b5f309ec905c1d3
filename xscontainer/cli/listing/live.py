"""Follow the pool by XAPI's events.

:class:`PoolState` is pure. :class:`Follower` is the thread that waits for events; it subscribes again when XAPI is
restarted. It wakes the reader through a pipe, so that the reader can wait for signals and for time, too.
"""

import contextlib
import os
import random
import signal
import threading
import time
from typing import Any, Callable, Dict, NamedTuple, Optional, Set

from xscontainer import keys
from xscontainer.clients.inventory import VM, Host, Pool, assemble, belongs, view
from xscontainer.core import eligibility
from xscontainer.core.vm_record import VMRecord
from xscontainer.errors import XapiError, cause
from xscontainer.xapi.session import Session

CLASSES = ["vm", "host", "pool"]
POLL = 60.0  # s that XAPI holds back its answer if there is no event
LAST = 1.0  # s that the end of the thread is waited for; it may be in the middle of a login
# XAPI has no call that replaces a key: a new list is the removal of the old one, and then another event.
GAP = 0.2  # s for which a VM may be without a list before that is shown
CALM = 0.05  # s between a change and the next poll: XAPI folds the changes of an object into one event meanwhile
RETRY_FIRST, RETRY_MOST = 0.2, 2.0  # s between two attempts to reach XAPI


class EventLost(Exception):
    """XAPI has another number of VMs than its events have named."""


class PoolState:
    """The pool as the events so far describe it.

    :param every_vm: include VMs that are not container-managed.
    :ivar gaps: refs of VMs whose list was removed, maybe to be replaced.
    """

    def __init__(self, every_vm: bool) -> None:
        self._every_vm = every_vm
        self.gaps: Set[str] = set()
        self._clear()

    def _clear(self) -> None:
        self._records: Dict[str, VMRecord] = {}  # of VMs that may be shown
        self._views: Dict[str, VM] = {}
        self._refs: Set[str] = set()  # of all VMs, templates included
        self._hosts: Dict[str, Host] = {}
        self._pool = ("", "", "")  # uuid, name, ref of the coordinator
        self._miscounted = False
        self.gaps.clear()

    def restart(self, result: "Dict[str, Any]") -> None:
        """Take the first answer to a subscription, which names everything."""
        self._clear()
        self.take(result)

    def take(self, result: "Dict[str, Any]") -> bool:
        """Take an answer of event.from; return whether anything that is shown has changed.

        :raises EventLost: a deletion was missed.
        """
        changed = False
        for event in result["events"]:
            handler = {"vm": self._vm, "host": self._host, "pool": self._pool_event}.get(event["class"])
            if handler is not None and handler(event["ref"], event["operation"], event.get("snapshot") or {}):
                changed = True
        self._count(result)
        return changed

    def _vm(self, ref: str, operation: str, snapshot: "Dict[str, Any]") -> bool:
        known = self._records.pop(ref, None)
        self.gaps.discard(ref)
        if operation == "del":
            self._refs.discard(ref)
        else:
            self._refs.add(ref)
            with contextlib.suppress(XapiError):  # a malformed record
                record = VMRecord.from_snapshot(ref, snapshot)
                if belongs(record, self._every_vm):
                    # Other keys than ours change, too.
                    record = record._replace(others_bytes=0, domid=0, guest_metrics="")
                    self._records[ref] = record
                    if known is not None and _lost_its_list(known, record):
                        self.gaps.add(ref)
                    if record == known:
                        return False
                    self._views[ref] = view(record)
                    return True
        self._views.pop(ref, None)
        return known is not None

    def _host(self, ref: str, operation: str, snapshot: "Dict[str, Any]") -> bool:
        known = self._hosts.pop(ref, None)
        if operation != "del":
            self._hosts[ref] = Host(str(snapshot["uuid"]), str(snapshot["name_label"]), str(snapshot["address"]), False)
        return self._hosts.get(ref) != known

    def _pool_event(self, ref: str, operation: str, snapshot: "Dict[str, Any]") -> bool:
        known = self._pool
        if operation != "del":
            self._pool = str(snapshot["uuid"]), str(snapshot["name_label"]), str(snapshot["master"])
        return self._pool != known

    def _count(self, result: "Dict[str, Any]") -> None:
        expected = (result.get("valid_ref_counts") or {}).get("vm")
        miscounted = expected is not None and int(expected) != len(self._refs)
        if miscounted and self._miscounted:
            raise EventLost()
        # A single mismatch may be a creation or destruction whose event has not arrived yet.
        self._miscounted = miscounted

    def pool(self) -> Pool:
        """Return the pool, sorted by name."""
        uuid, name, coordinator = self._pool
        return assemble(uuid, name,
                        {ref: host._replace(is_coordinator=ref == coordinator) for ref, host in self._hosts.items()},
                        ((self._records[ref].resident_on, found) for ref, found in self._views.items()))


def _lost_its_list(before: VMRecord, now: VMRecord) -> bool:
    """Return whether the list was removed without a reason: it is being replaced, or its monitor has ended."""
    return (keys.PS in before.other_config and not {keys.PS, keys.STATUS} & set(now.other_config)
            and now.power_state == "Running" and eligibility.enabled(now))


class Seen(NamedTuple):
    """The state at one moment.

    :ivar trouble: the reason why the pool may be out of date; "" while events arrive.
    """

    pool: Pool
    trouble: str


class Follower:
    """A thread that follows the pool; a context manager.

    :param login: opens a session.
    :param every_vm: include VMs that are not container-managed.
    """

    def __init__(self, login: "Callable[[], Session]", every_vm: bool) -> None:
        self._login = login
        self._state = PoolState(every_vm)
        self._lock = threading.Lock()
        self._seen: Optional[Seen] = None
        self._stopped = threading.Event()
        self._session: Optional[Session] = None
        self._first = ""  # token of the first answer
        self._reader, self._writer = os.pipe()
        self._wakeup: Optional[int] = None  # the process' former descriptor for signals
        for descriptor in (self._reader, self._writer):
            os.set_blocking(descriptor, False)
        self._thread = threading.Thread(target=self._run, name="xapi-events", daemon=True)

    def __enter__(self) -> "Follower":
        """Subscribe, so that the first state is there.

        :raises XapiError: XAPI does not answer, or refuses.
        """
        try:
            self._session = self._login()
            self._first = self._subscribe(self._session)
        except BaseException:
            self._close()
            raise
        # A signal that arrives just before the reader's system call would not interrupt it.
        if threading.current_thread() is threading.main_thread():
            self._wakeup = signal.set_wakeup_fd(self._writer)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._wakeup is not None:
            signal.set_wakeup_fd(self._wakeup)
        self._stopped.set()
        session = self._session
        if session is not None:
            session.interrupt()
        self._thread.join(LAST)
        self._close()

    def _close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.logout()
        os.close(self._reader)
        os.close(self._writer)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when there is a new state, or after a signal."""
        return self._reader

    def wake(self) -> None:
        """Make the descriptor readable."""
        with contextlib.suppress(OSError):  # the pipe is full, or closed
            os.write(self._writer, b".")

    def seen(self) -> Seen:
        """Return the newest state, and make the descriptor wait for a newer one."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 4096)
        with self._lock:
            assert self._seen is not None
            return self._seen

    def _subscribe(self, session: Session) -> str:
        result = _poll(session, "", 0.0)
        self._state.restart(result)
        self._show("")
        return str(result["token"])

    def _run(self) -> None:
        token, delay = self._first, RETRY_FIRST
        while not self._stopped.is_set():
            try:
                if self._session is None:
                    self._session = self._login()
                    token = ""
                    continue  # it may be time to end
                token = self._follow(self._session, token)
                delay = RETRY_FIRST
            except Exception as error:  # noqa: BLE001 - the outermost handler
                # A malformed answer is handled like a lost connection.
                if self._stopped.is_set():
                    return
                self._lost(error)
                self._stopped.wait(delay * random.uniform(0.8, 1.2))
                delay = min(delay * 1.5, RETRY_MOST)

    def _follow(self, session: Session, token: str) -> str:
        """Wait for the next events and return the next token."""
        if not token:
            return self._subscribe(session)
        result = _poll(session, token, POLL)
        changed = self._state.take(result)
        deadline = time.monotonic() + GAP
        while self._state.gaps and time.monotonic() < deadline and not self._stopped.is_set():
            result = _poll(session, result["token"], deadline - time.monotonic())
            changed = self._state.take(result) or changed
        self._state.gaps.clear()
        if changed:
            self._show("")
            self._stopped.wait(CALM)
        return str(result["token"])

    def _lost(self, error: Exception) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.logout()
        if not isinstance(error, EventLost):
            self._show(cause(error))

    def _show(self, trouble: str) -> None:
        with self._lock:
            pool = self._seen.pool if trouble and self._seen else self._state.pool()
            self._seen = Seen(pool, trouble)
        self.wake()


def _poll(session: Session, token: str, timeout: float) -> "Dict[str, Any]":
    # The name on the wire; xapi refuses XenAPI's spelling "event_from" to all but a local superuser.
    poll = getattr(session.xenapi.event, "from")
    with session.patient(timeout + session.timeout):
        result: Dict[str, Any] = poll(CLASSES, token, max(0.0, timeout))
    return result
