"""Follows one connected engine: its list, events, facts and certificates, until the connection breaks.

Events come from the engine through :class:`Feed`, the cadence says when to ask for the list, and lists and facts go to
the publisher.
"""

import logging
import time
from typing import Callable, NamedTuple, Optional, Tuple

from xscontainer.certificates import renewal
from xscontainer.core.cadence import LIST, PROBE, Cadence, Due
from xscontainer.core.container import Container
from xscontainer.core.uptime import StartTimes
from xscontainer.core.vm_record import VMRecord
from xscontainer.engine.api import Engine
from xscontainer.engine.connection import End
from xscontainer.errors import EngineError, EngineTimeout, GuestSilent, XapiError
from xscontainer.monitoring.vm.facts_reader import FactsReader
from xscontainer.monitoring.vm.feed import Feed
from xscontainer.monitoring.vm.link import Link
from xscontainer.monitoring.vm.publisher import Publisher
from xscontainer.monitoring.vm.services import Services
from xscontainer.monitoring.vm.sleeper import Sleeper
from xscontainer.monitoring.vm.throttle import Throttle
from xscontainer.settings import Settings

log = logging.getLogger(__name__)

# How long a first list waits for the engine's facts, seconds: clients are shown all at once, unless facts take long.
FACTS_WITHIN = 0.5
# How long an engine may take to answer a probe, seconds.
PROBE_TIMEOUT = 10.0


class Parts(NamedTuple):
    """The parts of one monitor."""

    link: Link
    publisher: Publisher
    cadence: Cadence
    throttle: Throttle
    sleeper: Sleeper


class Follower:
    """Follows the engines that one monitor connects to, one after the other, in the monitor's thread.

    Call :meth:`connect`, :meth:`begin` and :meth:`serve` in this order, :meth:`end` after an error, and :meth:`close`
    to give the connection up.
    """

    def __init__(self, parts: Parts, services: Services, settings: Settings) -> None:
        self._link, self._publisher, self._cadence, self._throttle, self._sleeper = parts
        self._expiring = services.expiring
        self._record_of = services.record_of
        self._settings = settings
        self._now = self._sleeper.now
        self._start_times = StartTimes(self._link.vm.started)
        self._facts = FactsReader(settings.monitor.info_interval, self._now)
        self._feed: Optional[Feed] = None  # of the connection that there is, or was last

    def connect(self) -> Engine:
        """The engine, connected to anew unless the connection stands.

        :raises XSContainerError: it cannot be connected to.
        """
        engine = self._link.open_engine
        if engine is None:
            self.close()
            self._cadence.lease.let_expire(
                self._now(), lambda: GuestSilent(f"VM {self._link.vm.label} is being connected to."),
                self._settings.guest.longest_connect)
            engine = self._link.connect()
            if self._sleeper.stopped:
                self._link.hang_up()  # stop() came before there was a connection
        return engine

    def begin(self, engine: Engine) -> None:
        """Subscribe to the engine's events, and publish its list.

        :raises XSContainerError: the engine does not give its list.
        """
        self._feed = Feed(engine, self._link.vm.label, self._sleeper.pause, self._now,
                          self._record_of(self._link.vm.uuid))
        self._let_expire()
        self._feed.begin()
        self._link.remember(engine)
        # A guest that connects and breaks again and again writes no more often than another.
        self._sleeper.sleep(self._cadence.write_delay(self._now()))
        self._throttle.rest(self._cadence.lease)
        # Subscribed first and listed then: no event is missed in between.
        self._list(engine, first=True)

    def serve(self, engine: Engine) -> None:
        """Follow the events that :meth:`begin` subscribed to, until somebody ends the connection.

        :raises XSContainerError: the connection or the engine breaks.
        """
        feed = self._feed
        assert feed is not None
        self._cadence.subscribed(self._now())
        feed.listed(True)
        while not self._sleeper.stopped:
            self._throttle.rest(self._cadence.lease)
            feed.begin()
            self._publisher.show_notice(self._missing)
            if self._now() >= self._facts.due_at:
                self._start_facts(engine)
            now = self._now()
            step = self._cadence.next_step(
                now, Due(feed.poll_at, feed.due, self._facts.due_at, self._publisher.list_missing))
            if step.task == LIST:
                before = self._publisher.texts
                self._cadence.listed(self._list(engine), self._now())
                feed.listed(self._publisher.texts != before, step.expected)
            elif step.task == PROBE:
                self._let_expire()
                engine.probe(PROBE_TIMEOUT)
                self._cadence.answered(self._now())
            else:
                heard = feed.take(max(0.0, step.until - now))
                if feed.closed:  # by Link.update() or Monitor.stop()
                    break
                self._start_times.heard(heard.events, time.time())
                self._cadence.heard(heard.events, heard.drained, self._now())
                if any(event.changes_info for event in heard.events):
                    self._facts.read_soon()
        self.end()

    def end(self) -> None:
        """End the event stream."""
        if self._feed is not None:
            self._feed.close()

    def close(self) -> None:
        """End the connection, and wait for the reading of facts over it."""
        self._link.close()
        self._facts.join()

    def _list(self, engine: Engine, first: bool = False) -> "Tuple[Container, ...]":
        self._let_expire()
        asked = time.time()
        answer = engine.listed(self._settings.publish.max_containers,
                               lambda found: self._start_times.settle(found, asked, time.time()))
        if first:
            self._start_facts(engine)
            self._facts.wait(FACTS_WITHIN)
        was_missing = self._publisher.list_missing
        containers = self._publisher.show_list(answer, self._missing)
        if was_missing and not first:
            log.info("VM %s: its containers are shown again", self._link.vm.label)
        return containers

    def _let_expire(self) -> None:
        """Let the lease expire unless the engine answers."""
        stale_after = self._settings.publish.stale_after
        self._cadence.lease.let_expire(self._now(), lambda: EngineTimeout(
            f"The engine in VM {self._link.vm.label} takes more than {stale_after:g} s to answer."))

    def _missing(self) -> Optional[EngineError]:
        """Return the error that says what clients are not shown, or not at once, beside a list that is right."""
        return (self._feed.missing if self._feed else None) or self._facts.missing

    def _start_facts(self, engine: Engine) -> None:
        self._facts.start(lambda: self._read_facts(engine))

    def _read_facts(self, engine: Engine) -> None:
        """Read and publish the engine's facts, in a thread of its own: a list never waits for facts."""
        with self._throttle.budget.charged():
            found = engine.facts()
            with self._publisher.lock:
                if self._link.engine is engine:
                    self._facts.missing = found.missing
                    self._publisher.show_facts(found, self._missing)
            _report_expiring(self._link.vm, engine.connection.ends(), self._expiring)


def _report_expiring(vm: VMRecord, ends: "Tuple[End, ...]",
                     report: "Callable[[VMRecord, Tuple[End, ...]], None]") -> None:
    due = tuple(end for end in ends if renewal.due(end.at, time.time()))
    if due:
        try:
            report(vm, due)
        except XapiError as exc:
            log.warning("VM %s: %s", vm.label, exc)
