"""Publishes the documents of one VM whenever they change.

Lists and facts come from the follower, errors from the monitor. The documents (:mod:`xscontainer.clients.documents`) go
through :class:`xscontainer.publish.Publication` into the VM's other_config.
"""

import logging
import threading
import time
from typing import Callable, Dict, Optional, Tuple

from xscontainer import keys
from xscontainer.clients.documents import Documents
from xscontainer.clients.shown import Resources, Shown
from xscontainer.core import memory_budget as memory
from xscontainer.core.cadence import Cadence
from xscontainer.core.container import Container, ContainerList
from xscontainer.core.tally import Tally, tally
from xscontainer.core.usage import total
from xscontainer.engine.api import Engine, Facts
from xscontainer.errors import XapiError, XSContainerError
from xscontainer.monitoring.vm.link import Link
from xscontainer.publish import Publication
from xscontainer.settings import PublishSettings

log = logging.getLogger(__name__)

# About the memory of one container in a list that is written, bytes.
_CONTAINER_BYTES = 512

# A reading of stats that is older than this is not shown in summaries, seconds.
_RECENT = 60.0

Notice = Optional[XSContainerError]


class Publisher:
    """The publisher of one monitor. Thread-safe.

    :param write_failed: called when XAPI did not take a write, which is repeated later (Publication.settle).
    :ivar lock: held while documents change, until they are published.
    :ivar tally: the numbers of containers in the list that clients are shown; None: they are shown none.
    :ivar texts: what clients are shown, or will be once it is written: key of keys.PUBLISHED -> document.
    """

    def __init__(self, link: Link, publication: Publication, settings: PublishSettings, cadence: Cadence,
                 now: "Callable[[], float]", write_failed: "Callable[[str], None]") -> None:
        self.lock = threading.RLock()
        self.texts: Dict[str, str] = {}
        self.tally: Optional[Tally] = None
        self._version: object = object()
        self._link = link
        self._publication = publication
        self._documents = Documents(settings)
        self._cadence = cadence
        self._now = now
        self._write_failed = write_failed

    @property
    def list_missing(self) -> bool:
        """Return whether clients are shown an error instead of a list."""
        return self._documents.problem is not None

    @property
    def shown(self) -> Optional[Shown]:
        """The documents that clients are shown, or will be; None: nothing was published since the start."""
        # Without the lock, which is held while XAPI is waited for. A list that comes meanwhile has another version.
        version, texts, vm, lease = self._version, self.texts, self._link.vm, self._cadence.lease
        if not texts:
            return None
        others = {name: value for name, value in vm.other_config.items() if name not in keys.PUBLISHED}
        current = self.tally is not None and lease.reason is None and not lease.expired(self._now())
        return Shown(vm._replace(other_config={**others, **texts, keys.OWNER: vm.uuid}), self.tally,
                     version if current else None, _resources(self._link.open_engine))

    def show_list(self, answer: ContainerList, notice: "Callable[[], Notice]") -> "Tuple[Container, ...]":
        """Publish the engine's list, and renew the lease; returns the containers that are shown."""
        documents = self._documents
        with self.lock:
            shortened = documents.shortened
            with memory.turn(len(answer.containers) * _CONTAINER_BYTES):
                containers = documents.list(answer, self._link.vm.others_bytes)
            documents.notice = notice()
            self.tally, self._version = tally(containers, answer.left_out), object()
            self._publish()
            now = self._now()
            self._cadence.answered(now)
            self._cadence.lease.renew(now)
        left_out, dropped = documents.shortened
        if documents.shortened != shortened and (left_out or dropped):
            log.info("VM %s: its list is shortened: %d containers and the fields %s are left out",
                     self._link.vm.label, left_out, ", ".join(dropped) or "none")
        return containers

    def show_facts(self, facts: Facts, notice: "Callable[[], Notice]") -> None:
        """Publish what the engine says of itself, at once if a list is shown already, else together with it."""
        with self.lock:
            self._documents.facts(facts.version, facts.info)
            self._documents.notice = notice()
            if self._documents.listed:
                self._publish()

    def show_notice(self, notice: "Callable[[], Notice]") -> None:
        """Publish beside a right list what is missing besides."""
        if self._documents.notice is not notice():
            with self.lock:
                self._documents.notice = notice()
                self._publish()

    def show_failure(self, error: XSContainerError) -> None:
        """Publish why there is no list. The engine that answers next may be another one."""
        with self.lock:
            self._documents.failure(error)
            self.tally = None
            self._publish()

    def replace_if_stale(self, throttled: "Callable[[], Notice]") -> bool:
        """Replace a list whose lease has expired with the reason, and leave the writing to Publication.settle.

        Does not wait, and may be called by another thread than the monitor's: whatever that waits for, no stale list
        stays.

        :param throttled: gives the error if the guest is held back, which is the reason then.
        :returns: whether there is something to write.
        """
        lease = self._cadence.lease
        if not lease.expired(self._now()) or not self.lock.acquire(blocking=False):
            return False
        try:
            error = throttled() or lease.reason
            if error is None or not lease.expired(self._now()) or self.list_missing:
                return False
            log.warning("VM %s: %s: %s", self._link.vm.label, error.code, error)
            self._documents.failure(error, lost=False)
            self.tally = None
            self.texts = self._documents.texts
            self._publication.want(self.texts)
            return True
        finally:
            self.lock.release()

    def _publish(self) -> None:
        self.texts = self._documents.texts
        try:
            written = self._publication.show(self.texts)
        except XapiError as exc:
            # The engine is fine; the registry has it written as soon as XAPI takes it.
            log.warning("VM %s: %s", self._link.vm.label, exc)
            self._write_failed(self._link.vm.uuid)
            written = True
        if written:
            self._cadence.wrote(self._now())


def _resources(engine: Optional[Engine]) -> Optional[Resources]:
    """Return the last stats that somebody asked for, if they are recent."""
    read = engine.stats.last if engine is not None else None
    if read is None:
        return None
    age = time.monotonic() - read.at
    return Resources(time.time() - age, total(read.usages)) if age <= _RECENT else None
