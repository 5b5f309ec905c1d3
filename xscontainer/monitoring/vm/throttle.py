"""Holds one guest's monitor back while the guest has used more CPU than its budget (:mod:`xscontainer.core.budget`)."""

from typing import Callable

from xscontainer.core.budget import GuestBudget, ThreadMeter
from xscontainer.core.pacing import Lease
from xscontainer.errors import GuestThrottled
from xscontainer.monitoring.vm.sleeper import Sleeper


class Throttle:
    """The throttle of one monitor, whose thread calls :meth:`rest`. Any thread may call the other methods.

    :param label: the VM's name for messages.
    :param stale_after: seconds.
    :ivar budget: the guest's.
    """

    def __init__(self, label: "Callable[[], str]", budget: GuestBudget, stale_after: float, sleeper: Sleeper) -> None:
        self._label = label
        self._stale_after = stale_after
        self._sleeper = sleeper
        self._meter = ThreadMeter(budget)
        self.budget = budget

    def rest(self, lease: Lease) -> None:
        """Charge the guest, and sleep while its budget is overdrawn.

        Events wait, too: reading them takes CPU even if the list does not change.
        """
        seconds = self._meter.charge()
        if seconds > 0.0:
            lease.let_expire(self._sleeper.now(), self.error)
            self._sleeper.sleep(seconds)

    @property
    def lasting(self) -> bool:
        """Return whether the guest has been held back for so long that this may be why its list is late."""
        return self.budget.throttled_for() >= self._stale_after / 2

    def error(self) -> GuestThrottled:
        """Return the error that clients are shown instead of a list that is late because of this."""
        return GuestThrottled(f"VM {self._label()} keeps xscontainer busier than one VM may: its list would be more "
                              f"than {self._stale_after:g} s old.")
