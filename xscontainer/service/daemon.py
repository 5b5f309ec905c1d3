"""xscontainer-monitor: the service in dom0.

It puts the parts together and keeps them running: the XAPI event stream, the registry with a monitor for each VM, and
the socket on which the plugin hands in its calls. ``Daemon.run`` is its whole life.
"""

import argparse
import contextlib
import ctypes
import functools
import logging
import logging.handlers
import os
import select
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, List, Optional

from xscontainer import __version__, settings, version_text
from xscontainer.access import expiry, pool_state
from xscontainer.access.opener import Access, login, session_pool
from xscontainer.certificates import renewal
from xscontainer.core.budget import Budgets, writing
from xscontainer.core.identity import Census
from xscontainer.core.pacing import spread
from xscontainer.core.vm_record import VMRecord
from xscontainer.errors import SettingsError, XSContainerError
from xscontainer.host import systemd
from xscontainer.monitoring.monitor import Monitor
from xscontainer.monitoring.registry import Registry, start_thread
from xscontainer.monitoring.upkeep import Chore, Upkeep
from xscontainer.monitoring.vm.services import Services
from xscontainer.plugin import dispatch
from xscontainer.plugin.admission import Admission
from xscontainer.plugin.context import DaemonContext, forwarding_pool
from xscontainer.publish import Publication, wipe
from xscontainer.service.repeats import XAPI, RepeatFilter
from xscontainer.service.server import Server
from xscontainer.verbs import handover, leftovers
from xscontainer.xapi.session import Session
from xscontainer.xapi.wake import ClientWake
from xscontainer.xapi.watch import Batch, Watch

if TYPE_CHECKING:
    from typing import Protocol  # novm
else:
    Protocol = object

log = logging.getLogger(__name__)

POLL_MARGIN = 15.0  # s that xapi may answer a poll late before it counts as dead
HEALTH_INTERVAL = 10.0  # s between two checks of the threads, if systemd sets no watchdog interval
STUCK_AFTER = 180.0  # s that the registry's and the event stream's thread may wait for XAPI before they count as stuck
MOST_CALLERS = 32  # beside those whose calls work: they wait for a worker, send their call or receive their reply
UPKEEP_PATIENCE = 1.5  # s that the end of the service waits for a chore, which may be interrupted anywhere
THREAD_STACK = 512 * 1024  # bytes instead of the usual 8 MiB: there are hundreds of threads, and most of them wait
# s that a computing thread keeps the others waiting. A container's change takes a dozen such turns until it is shown:
# with CPython's 5 ms, ten flooding guests made the changes of other guests five times as late.
SWITCH_INTERVAL = 0.0005

# glibc gives each thread arenas and caches of its own, which two threads for each VM fill with freed memory: 3.5 MB in
# arenas and 5 MB in caches with 100 VMs. The service's unit sets this environment (glibc before 2.26 has no such
# caches). Heap bounds the arenas also from within.
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}


class Heap:
    """The allocator of glibc. With another C library the methods do nothing."""

    ARENA_MAX = -8  # M_ARENA_MAX of mallopt(3)

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._trim = getattr(library, "malloc_trim", None)
        set_option = getattr(library, "mallopt", None)
        if self._trim and set_option:
            set_option(self.ARENA_MAX, 1)

    def give_back(self) -> None:
        """Return freed memory to the kernel: 2.5 MB after connecting to 100 VMs."""
        if self._trim:
            self._trim(0)


class StopSignal:
    """Remembers whether SIGTERM or SIGINT arrived; for the main thread.

    A pipe instead of a threading.Event: a signal handler that sets an Event can block on the lock of the wait() that it
    interrupts.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._arrived)

    def _arrived(self, *_: object) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, b"x")

    def wait(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds; returns whether a signal has arrived."""
        return bool(select.select([self._read], [], [], timeout)[0])


class Stop(Protocol):
    """The parameter that ends :meth:`Daemon.run`: a StopSignal, or a threading.Event."""

    def wait(self, timeout: float) -> bool: ...


class Daemon:
    """The monitor of one host.

    :param repeats: the rate limit of the log.
    """

    def __init__(self, conf: settings.Settings, repeats: Optional[RepeatFilter] = None) -> None:
        self._settings = conf
        self._repeats = repeats or RepeatFilter()
        self._sessions = session_pool(conf)
        self._forwarding = forwarding_pool(conf, Admission.most(conf.daemon.workers))
        self._budgets = Budgets(write_rates=writing(conf.publish.host_writes, conf.publish.host_bytes))
        self._census = Census()
        self._access = Access(conf, self._sessions, self._budgets, self._census)
        self._pool = self._access.pool
        self._wake = ClientWake(self._sessions, lambda: self._pool.state.this_host, self._orchestra_looks_on)
        self._services = Services(self._access.open, threading.Semaphore(conf.monitor.start_workers), self._unsettled,
                              lambda vm, ends: expiry.warn(self._sessions, self._pool.state.record, vm, ends),
                              self._budgets.of, self._access.held, self._access.answers,
                              self._access.records.of,
                              lambda vm_uuid: self._context.log_followers.drop_of(vm_uuid))
        self._registry = Registry(self._pool, self._make_monitor, lambda vm: wipe(self._sessions, vm),
                                  lambda: self._watch.resync(), self._access.forget,
                                  not_ours=self._access.records.forget)
        self._watch = Watch(
            lambda: login(conf, conf.xapi.event_timeout + POLL_MARGIN), conf.xapi.event_timeout,
            self._prepare, self._deliver, self._stream_lost)
        self._context = DaemonContext(conf, self._access, self._forwarding, self._registry)
        self._server = Server(conf.daemon.socket, functools.partial(dispatch.handle, context=self._context),
                              Admission.most(conf.daemon.workers) + MOST_CALLERS)
        self._upkeep = Upkeep([
            Chore("renewing the pool's TLS certificates", self._renew),
            Chore("removing what unfinished calls of 'create' left", self._sweep),
            Chore("removing discs that were left in drives", lambda: handover.sweep(self._context))])
        self._sweeping: Optional[Session] = None
        self._threads: List[threading.Thread] = []

    def run(self, stop: Stop) -> int:
        """Run until ``stop``; returns the exit code."""
        threading.stack_size(THREAD_STACK)
        sys.setswitchinterval(SWITCH_INTERVAL)
        heap = Heap()  # before there are threads
        self._server.start()
        self._threads = [start_thread("registry", self._registry.run), start_thread("xapi-events", self._watch.run),
                         start_thread("upkeep", self._upkeep.run)]
        systemd.notify("READY=1")
        log.info("xscontainer-monitor %s is ready, calls are taken at %s", __version__, self._settings.daemon.socket)
        try:
            return self._stand_guard(stop, heap)
        finally:
            systemd.notify("STOPPING=1")
            self._stop()
            log.info("xscontainer-monitor has stopped")

    def _trouble(self) -> str:
        """Name a thread that has ended or is stuck; "" if all threads are well."""
        now = time.monotonic()
        poll = self._settings.xapi.event_timeout + POLL_MARGIN
        dead = [f"the thread {thread.name} ended by itself" for thread in self._threads if not thread.is_alive()]
        stuck = [f"{name} is stuck" for name, turned_at, patience in (
            ("the registry", self._registry.turned_at, STUCK_AFTER),
            ("the XAPI event stream", self._watch.turned_at, max(STUCK_AFTER, 2 * poll))) if now - turned_at > patience]
        return (dead + stuck + [""])[0]

    def _stand_guard(self, stop: Stop, heap: Heap) -> int:
        usual = systemd.watchdog_interval() or HEALTH_INTERVAL
        resync_at = time.monotonic() + spread(self._settings.monitor.resync_interval)
        while not stop.wait(min(usual, HEALTH_INTERVAL) if self._context.log_followers else usual):
            trouble = self._trouble()
            if trouble:
                log.critical("%s: xscontainer-monitor exits, and systemd starts it again", trouble)
                return 1
            heap.give_back()
            self._repeats.look()
            self._context.log_followers.drop_left()
            systemd.notify("WATCHDOG=1", f"STATUS=monitoring {len(self._registry.records())} VMs")
            if time.monotonic() >= resync_at:
                resync_at = time.monotonic() + spread(self._settings.monitor.resync_interval)
                self._watch.resync()
        return 0

    def _stop(self) -> None:
        self._context.stopping.set()
        self._context.log_followers.close()
        self._access.records.end()
        self._watch.stop()
        self._upkeep.stop()
        sweeping = self._sweeping
        if sweeping is not None:
            sweeping.interrupt()
        self._server.stop()
        self._registry.stop()
        for thread in self._threads:
            thread.join(UPKEEP_PATIENCE if thread.name == "upkeep" else 40.0)
        self._sessions.close()
        self._forwarding.close()

    def _make_monitor(self, vm: VMRecord) -> Monitor:
        publication = Publication(vm, self._sessions, wrote=self._budgets.of(vm.uuid).wrote,
                                  before=self._wake.before_writing)
        return Monitor(vm, self._services, publication, self._settings)

    def _orchestra_looks_on(self) -> bool:
        wanted = self._settings.publish.wake_clients
        return wanted == "yes" or wanted == "auto" and self._pool.state.record.has_orchestra

    def _unsettled(self, vm_uuid: str) -> None:
        self._registry.check(vm_uuid)

    def _renew(self) -> None:
        state = self._pool.state
        if not state.is_coordinator:
            return
        for what in self._sessions.run(lambda session: renewal.renew(session, state.record)):
            log.info("the pool has a new %s for engines that are reached over TLS", what)

    def _sweep(self) -> None:
        """Remove left-overs with a login that :meth:`_stop` can interrupt, because a coordinator may not answer."""
        with contextlib.closing(login(self._settings)) as session:
            self._sweeping = session
            try:
                if not self._context.stopping.is_set():
                    leftovers.sweep(self._context, session)
            except XSContainerError:
                if not self._context.stopping.is_set():
                    raise
            finally:
                self._sweeping = None
                session.logout()

    # --- called by the event stream's thread ---------------------------------

    def _prepare(self, session: Session) -> None:
        self._pool.set(pool_state.read(session, self._settings.daemon.inventory))
        self._upkeep.wake()  # at each full read of the pool, which is often enough

    def _deliver(self, batch: Batch) -> None:
        if self._pool.change(batch.pool, batch.host_addresses):
            self._watch.resync()  # what this host does about each VM depends on whether it is the coordinator
        self._census.apply(batch.changes, batch.full)  # before connecting to any VM in it
        self._registry.deliver(batch)
        if batch.full:
            self._repeats.over(XAPI)

    def _stream_lost(self, error: Exception) -> None:
        log.warning("the XAPI event stream broke and is opened again: %s", error)
        self._sessions.forget()
        self._forwarding.forget()


def configure_logging(conf: settings.DaemonSettings) -> RepeatFilter:
    """Log to the log file, or to stderr for the journal; returns the rate limit of the log."""
    handler: logging.Handler
    if conf.log_file:
        # Watched, because logrotate moves the file while it is open.
        handler = logging.handlers.WatchedFileHandler(conf.log_file, encoding="utf-8")
    else:
        handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(threadName)s: %(message)s"))
    repeats = RepeatFilter()
    handler.addFilter(repeats)
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(conf.log_level.upper())
    # We report about connections ourselves.
    for noisy in ("paramiko", "urllib3", "docker"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    return repeats


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    made = argparse.ArgumentParser(
        prog="xscontainer-monitor", description="Watches the VMs of this host that have containers, publishes their "
                                                "lists and serves plugin calls.")
    made.add_argument("--config", metavar="FILE", help=f"settings file (default: ${settings.ENVIRONMENT_VARIABLE} "
                                                         f"or {settings.DEFAULT_PATH})")
    made.add_argument("--version", action="version", version=version_text(made.prog))
    return made


def main(arguments: Optional[List[str]] = None) -> int:
    """Entry point of xscontainer-monitor."""
    options = parser().parse_args(arguments)
    try:
        loaded = settings.load(options.config)
    except SettingsError as exc:
        print(f"xscontainer-monitor: {exc}", file=sys.stderr)
        return 2
    try:
        repeats = configure_logging(loaded.settings.daemon)
    except OSError as exc:
        print(f"xscontainer-monitor: The log file {loaded.settings.daemon.log_file} cannot be written: "
              f"{exc.strerror or exc}.", file=sys.stderr)
        return 1
    for warning in loaded.warnings:
        log.warning("%s", warning)
    os.umask(0o077)
    try:
        return Daemon(loaded.settings, repeats).run(StopSignal())
    except XSContainerError as exc:
        log.critical("%s", exc)
        return 1


if __name__ == "__main__":
    sys.exit(main())
