"""The writes to XAPI that the registry owes: lists to be removed, and lists that a monitor could not write itself."""

import logging
import random
import time
from typing import TYPE_CHECKING, Callable, Dict, NamedTuple, Optional

from xscontainer.core import eligibility
from xscontainer.core.vm_record import NULL_REF, VMRecord
from xscontainer.errors import XapiError, XapiUnavailable

if TYPE_CHECKING:
    from xscontainer.publish import Publication

log = logging.getLogger(__name__)

# How long the list of a halted VM is left to the host that it ran on and to the coordinator, seconds. Each other host
# picks its own moment in between, and most find that the list is gone by then.
OTHERS_WIPE_AFTER = (20.0, 60.0)
# How long XAPI is left alone when it does not answer, seconds.
XAPI_PAUSE = 1.0
# How long writes may take before other events are handled, seconds.
WRITING = 1.0
# How soon a list that XAPI refused is written again, seconds.
REFUSED_PAUSE = 5.0


class Wipe(NamedTuple):
    """A list that is to be removed from ``due`` on. ``run`` is called with the VM as it is now."""

    vm: VMRecord
    run: "Callable[[VMRecord], None]"
    due: float


class PendingWrites:
    """By VM, for one thread. While XAPI does not answer everything waits: each attempt would wait for XAPI.

    :param wipe: removes the list of a VM that has no monitor; may raise XapiError.
    :param publication: VM uuid -> the publication of its monitor, None if the VM is not monitored here.
    :param failed: called with a VM's uuid in the handler of an error that nobody expected.
    :param wrote: called after each write.
    :ivar wipes: by VM uuid.
    """

    def __init__(self, wipe: "Callable[[VMRecord], None]", publication: "Callable[[str], Optional[Publication]]",
                 failed: "Callable[[str], None]", wrote: "Callable[[], None]",
                 clock: "Callable[[], float]" = time.monotonic) -> None:
        self.wipes: Dict[str, Wipe] = {}
        self._usual_wipe = wipe
        self._publication = publication
        self._failed = failed
        self._wrote = wrote
        self._clock = clock
        self._checks: Dict[str, float] = {}  # VM uuid -> when its publication is to be settled
        self._xapi_away_until = clock()

    def plan_wipe(self, vm: VMRecord, action: str, run: "Optional[Callable[[VMRecord], None]]", this_host: str) -> None:
        """Have the list of a VM removed, now or later, as was decided.

        :param action: eligibility.WIPE, WIPE_LATER or IGNORE.
        :param run: removes the list, if that is known better than for any VM.
        """
        now = self._clock()
        pending = self.wipes.pop(vm.uuid, None)
        if action == eligibility.WIPE_LATER:
            due = pending.due if pending else now + random.uniform(*OTHERS_WIPE_AFTER)
            self.wipes[vm.uuid] = Wipe(vm, pending.run if pending else self._usual_wipe, due)
        elif action == eligibility.WIPE:
            run = run or (pending.run if pending else self._usual_wipe)
            self.wipes[vm.uuid] = Wipe(vm, run, min(pending.due, now) if pending else now)
        elif pending and vm.resident_on in (NULL_REF, this_host):
            # Not done yet, and due until the VM runs on another host, which may have published by then.
            self.wipes[vm.uuid] = pending._replace(vm=vm)

    def check(self, vm_uuid: str) -> None:
        """Have the VM's publication settled soon."""
        self._checks[vm_uuid] = self._clock()

    def next_due(self) -> float:
        """Return when :meth:`write` has something to do next, by the clock; infinity if nothing is pending."""
        due = min([*self._checks.values(), *(wipe.due for wipe in self.wipes.values())], default=float("inf"))
        return max(due, self._xapi_away_until)

    def write(self) -> None:
        """Write what is due, the longest overdue first, for WRITING seconds or so."""
        now = begun = self._clock()
        if now < self._xapi_away_until:
            return
        due = [(wipe.due, uuid, self._wipe) for uuid, wipe in self.wipes.items() if wipe.due <= now]
        due += [(at, uuid, self._settle) for uuid, at in self._checks.items() if at <= now]
        for _, uuid, write in sorted(due, key=lambda entry: entry[0]):
            try:
                write(uuid)
            except XapiUnavailable as exc:
                log.debug("%s", exc)
                self._xapi_away_until = self._clock() + XAPI_PAUSE
                return
            except Exception:  # noqa: BLE001 - logged there
                self._failed(uuid)
            self._wrote()
            if self._clock() - begun >= WRITING:
                return

    def _wipe(self, uuid: str) -> None:
        wipe = self.wipes.pop(uuid)
        try:
            wipe.run(wipe.vm)
        except XapiUnavailable:
            self.wipes[uuid] = wipe._replace(due=self._clock())
            raise
        except XapiError as exc:
            # Not tried again at once: the next resynchronization finds what is left.
            log.warning("VM %s: its container list could not be removed: %s", wipe.vm.label, exc)

    def _settle(self, uuid: str) -> None:
        del self._checks[uuid]
        publication = self._publication(uuid)
        if publication is None:
            return
        again: Optional[float] = None
        try:
            again = publication.settle()
        except XapiError as exc:
            again = REFUSED_PAUSE
            if isinstance(exc, XapiUnavailable):
                again = 0.0
                raise
            log.debug("VM %s: %s", uuid, exc)
        finally:
            if again is not None:
                self._checks[uuid] = self._clock() + again
