"""One VM's life: connect to its engine, publish its list, follow its events, and begin again when that ends.

:mod:`xscontainer.monitoring.registry` starts a monitor, hands it the changes of its VM that XAPI's events show, and
stops it. The rules are in :mod:`xscontainer.core.cadence`, the parts in :mod:`xscontainer.monitoring.vm`.
"""

import copy
import logging
import threading
from typing import Optional

from xscontainer.core.cadence import Cadence
from xscontainer.core.vm_record import VMRecord
from xscontainer.engine.api import Engine
from xscontainer.errors import EngineError, EngineTimeout, GuestSilent, XSContainerError, shortage
from xscontainer.monitoring.vm.follower import Follower, Parts
from xscontainer.monitoring.vm.link import Link
from xscontainer.monitoring.vm.publisher import Publisher
from xscontainer.monitoring.vm.services import Services
from xscontainer.monitoring.vm.sleeper import Sleeper, wait_for_retry
from xscontainer.monitoring.vm.throttle import Throttle
from xscontainer.publish import Publication
from xscontainer.settings import Settings

log = logging.getLogger(__name__)


class Monitor:
    """The life of one VM's monitor, in a thread of its own from :meth:`start` to :meth:`stop`. Thread-safe.

    :param sleeper: the thread's clock and waits.
    :ivar publication: the VM's keys in other_config.
    :ivar publisher: what clients are shown.
    """

    def __init__(self, vm: VMRecord, services: Services, publication: Publication, settings: Settings,
                 sleeper: Optional[Sleeper] = None) -> None:
        self.publication = publication
        self._services = services
        self._settings = settings
        self._sleeper = sleeper = sleeper or Sleeper()
        self._link = link = Link(vm, services, settings)
        budget = services.budget_of(vm.uuid)
        self._throttle = Throttle(lambda: link.vm.label, budget, settings.publish.stale_after, sleeper)
        self._cadence = Cadence(settings, sleeper.now(), self._throttle.error, budget.hold_writing)
        self.publisher = Publisher(link, publication, settings.publish, self._cadence, sleeper.now,
                                   services.write_failed)
        self._follower = Follower(Parts(link, self.publisher, self._cadence, self._throttle, sleeper), services,
                                  settings)
        self._last_error: Optional[XSContainerError] = None
        self._thread = threading.Thread(target=self._run, name=f"monitor-{vm.uuid[:8]}", daemon=True)

    # --- from other threads --------------------------------------------------

    def start(self) -> None:
        """Begin; returns at once, and may be called once."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Return whether the thread runs. A monitor whose thread ended without :meth:`stop` has to be replaced."""
        return self._thread.is_alive()

    @property
    def vm(self) -> VMRecord:
        """The VM as XAPI's events showed it last."""
        return self._link.vm

    def update(self, vm: VMRecord) -> bool:
        """Take note of a change of the VM. Does not wait.

        Ends a connection that leads to another place now, and a wait for the next try if the change may help.

        :returns: whether its published keys have to be checked (Publication.settle).
        """
        unsettled = self.publication.observe(vm)
        if self._link.update(vm):
            self._sleeper.wake()
        return unsettled

    def replace_if_stale(self) -> bool:
        """Replace a list that is not known to be right any more with the reason. To be called every few seconds.

        :returns: whether there is something to write (Publication.settle).
        """
        return self.publisher.replace_if_stale(lambda: self._throttle.error() if self._throttle.lasting else None)

    def engine(self) -> Engine:
        """The connected engine, for an action.

        :raises XSContainerError: there is none at the moment; says why.
        """
        engine = self._link.open_engine
        if engine is None:
            error = self._last_error
            # A copy: an error that is raised again and again keeps every call it ever went through.
            raise copy.copy(error) if error else GuestSilent(
                f"VM {self.vm.label} is being connected to.", "Repeat the call.")
        return engine

    def retry_now(self) -> None:
        """End the wait for the next try: it may succeed now."""
        self._sleeper.wake()

    def stop(self) -> None:
        """End soon; see :meth:`join`. The publication is closed first, so that nothing is written any more."""
        self.publication.close()
        self._sleeper.stop()
        self._link.hang_up()
        self._services.stopped(self.vm.uuid)

    def join(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds for the end; returns whether it came."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    # --- the thread ----------------------------------------------------------

    def _run(self) -> None:
        while not self._sleeper.stopped:
            try:
                self._live()
            except Exception:
                if not self._sleeper.stopped:
                    log.exception("VM %s: its monitor failed and begins again", self.vm.label)
                    self._follower.close()
                    wait_for_retry(self._cadence.crashed(self._sleeper.now()), self._cadence, self._sleeper)
        self._follower.close()

    def _live(self) -> None:
        """One try: connect, follow, and wait until the next try is due."""
        if self._sleeper.take_wake():
            self._cadence.backoff.restart(self._sleeper.now())
        self._throttle.rest(self._cadence.lease)
        try:
            engine = self._follower.connect()
            self._follower.begin(engine)
            log.info("VM %s: its containers are shown%s (%s)", self.vm.label,
                     "" if self._last_error is None else " again", engine.connection.describe())
            self._last_error = None
            self._link.succeeded()
            self._cadence.backoff.succeed(self._sleeper.now())
            self._follower.serve(engine)
        except Exception as exc:
            self._follower.end()
            error = shortage(exc) or exc
            if not isinstance(error, XSContainerError):
                raise
            if not self._sleeper.stopped:
                self._failed(error)

    def _failed(self, error: XSContainerError) -> None:
        """Show the error when it is time to, and wait until the next try is due."""
        news = self._last_error is None or self._last_error.code != error.code
        (log.warning if news else log.debug)("VM %s: %s: %s", self.vm.label, error.code, error)
        self._last_error = error
        if not isinstance(error, EngineError) or self._link.open_engine is None:
            self._follower.close()
        if isinstance(error, EngineTimeout) and self._throttle.lasting:
            error = self._throttle.error()
        retry = self._cadence.failed(self._sleeper.now(), error)
        if retry.show:
            self.publisher.show_failure(error)
        wait_for_retry(retry, self._cadence, self._sleeper, lambda: self._services.login_held(self.vm),
                       lambda: self._link.recovered(error))
