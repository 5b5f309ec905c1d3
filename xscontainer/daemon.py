"""xscontainer-monitor: the service in dom0.

It puts the parts together and keeps them running: the XAPI event stream, the
registry with a monitor for each VM, and the socket on which the plugin hands
in its calls. ``Daemon.run`` is its whole life.
"""

import argparse
import contextlib
import ctypes
import logging
import logging.handlers
import os
import select
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, List, Optional

from xscontainer import __version__, plugin, settings, systemd
from xscontainer.access import Access, expiry, login, read_facts, session_pool
from xscontainer.certificates import renewal
from xscontainer.context import DaemonContext, forwarding_pool
from xscontainer.errors import SettingsError, XSContainerError
from xscontainer.monitor import Monitor, Opener
from xscontainer.pacing import spread
from xscontainer.publish import Publication, wipe
from xscontainer.registry import Host, Registry, start_thread
from xscontainer.server import Server
from xscontainer.vmrecord import VMRecord
from xscontainer.xapi.events import Batch, Watch
from xscontainer.xapi.pool import PoolRecord
from xscontainer.xapi.session import Session

if TYPE_CHECKING:
    from typing import Protocol  # novm
else:
    Protocol = object

log = logging.getLogger(__name__)

# A poll that xapi answers late is not yet a dead xapi, seconds.
POLL_MARGIN = 15.0
# Without systemd's watchdog the parts are looked at this often, seconds.
HEALTH_INTERVAL = 10.0
# The registry's thread may wait this long for XAPI before it counts as stuck, seconds.
STUCK_AFTER = 180.0
# Hundreds of threads that wait need little of the 8 MiB each that is usual.
THREAD_STACK = 512 * 1024

# glibc gives each thread arenas and caches of its own, which two threads for each VM fill with what nobody
# needs any more: 3.5 MB in arenas and 5 MB in caches with 100 VMs. Whoever starts the service says so in
# its environment (glibc before 2.26 has no such caches); the arenas, Heap can also bound from within.
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}


class Heap:
    """The C library's allocator, if it is glibc's; else nothing happens."""

    ARENA_MAX = -8  # M_ARENA_MAX of mallopt(3)

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._trim = getattr(library, "malloc_trim", None)
        set_option = getattr(library, "mallopt", None)
        if self._trim and set_option:
            set_option(self.ARENA_MAX, 1)

    def give_back(self) -> None:
        """Free memory between what is in use goes back to the kernel: 2.5 MB after 100 VMs were connected to."""
        if self._trim:
            self._trim(0)


class StopSignal:
    """Whether the process was told to end, by SIGTERM or SIGINT; for the main thread.

    A pipe, not a threading.Event: a signal handler that sets an Event can meet the lock
    of the very wait() it interrupts.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._told)

    def _told(self, *_: object) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, b"x")

    def wait(self, timeout: float) -> bool:
        """Whether it was told to end, within ``timeout`` seconds or before."""
        return bool(select.select([self._read], [], [], timeout)[0])


class Stop(Protocol):
    """What ends :meth:`Daemon.run`: a StopSignal, or a threading.Event."""

    def wait(self, timeout: float) -> bool: ...


class Daemon:
    """One host's monitor."""

    def __init__(self, conf: settings.Settings) -> None:
        self._settings = conf
        self._sessions = session_pool(conf)
        self._forwarding = forwarding_pool(conf, conf.daemon.workers)
        self._access = Access(conf, self._sessions)
        self._host = Host()
        self._opener = Opener(self._access.open, threading.Semaphore(conf.monitor.start_workers), self._unsettled,
                              lambda vm, ends: expiry.warn(self._sessions, self._access.facts.pool, vm, ends))
        self._registry = Registry(self._host, self._make_monitor, lambda vm: wipe(self._sessions, vm),
                                  lambda: self._watch.resync())
        self._watch = Watch(
            lambda: login(conf, conf.xapi.event_timeout + POLL_MARGIN), conf.xapi.event_timeout,
            self._prepare, self._deliver, self._stream_lost)
        self._context = DaemonContext(conf, self._access, self._forwarding, self._registry)
        self._server = Server(
            conf.daemon.socket, lambda argument: plugin.handle(argument, self._context), conf.daemon.workers)
        self._threads: List[threading.Thread] = []

    def run(self, stop: Stop) -> int:
        """Until ``stop``; returns the exit code."""
        threading.stack_size(THREAD_STACK)
        heap = Heap()  # before there are threads
        self._server.start()
        self._threads = [start_thread("registry", self._registry.run), start_thread("xapi-events", self._watch.run)]
        systemd.notify("READY=1")
        log.info("xscontainer-monitor %s is ready, calls are taken at %s", __version__, self._settings.daemon.socket)
        try:
            return self._stand_guard(stop, heap)
        finally:
            systemd.notify("STOPPING=1")
            self._stop()
            log.info("xscontainer-monitor has stopped")

    def _stand_guard(self, stop: Stop, heap: Heap) -> int:
        interval = systemd.watchdog_interval() or HEALTH_INTERVAL
        resync_at = time.monotonic() + spread(self._settings.monitor.resync_interval)
        while not stop.wait(interval):
            dead = [thread.name for thread in self._threads if not thread.is_alive()]
            if dead or time.monotonic() - self._registry.turned_at > STUCK_AFTER:
                log.critical("%s: systemd has to start xscontainer-monitor again",
                             f"the thread {dead[0]} ended by itself" if dead else "the registry is stuck")
                return 1
            heap.give_back()
            systemd.notify("WATCHDOG=1", f"STATUS=monitoring {len(self._registry.records())} VMs")
            if time.monotonic() >= resync_at:
                resync_at = time.monotonic() + spread(self._settings.monitor.resync_interval)
                self._watch.resync()
        return 0

    def _stop(self) -> None:
        self._context.stopping.set()
        self._watch.stop()
        self._server.stop()
        self._registry.stop()
        for thread in self._threads:
            thread.join(40.0)
        self._sessions.close()
        self._forwarding.close()

    def _make_monitor(self, vm: VMRecord) -> Monitor:
        return Monitor(vm, self._opener, Publication(vm, self._sessions), self._settings)

    def _unsettled(self, vm_uuid: str) -> None:
        self._registry.check(vm_uuid)

    # --- called by the event stream's thread ---------------------------------

    def _prepare(self, session: Session) -> None:
        facts = read_facts(session, self._settings.daemon.inventory)
        self._access.update(facts)
        self._host.ref, self._host.is_coordinator = facts.this_host, facts.is_coordinator
        if facts.is_coordinator:
            self._renew(session, facts.pool)

    @staticmethod
    def _renew(session: Session, pool: PoolRecord) -> None:
        """Each time that all is read anew, which is often enough."""
        try:
            for what in renewal.renew(session, pool):
                log.info("the pool has a new %s for engines that are reached over TLS", what)
        except XSContainerError as exc:
            log.warning("the pool's TLS certificates were not renewed: %s", exc)

    def _deliver(self, batch: Batch) -> None:
        if batch.host_addresses:
            self._access.update(self._access.facts._replace(host_addresses=batch.host_addresses))
        if batch.pool:
            facts = self._access.facts._replace(pool=batch.pool)
            self._access.update(facts)
            if facts.is_coordinator != self._host.is_coordinator:
                self._host.is_coordinator = facts.is_coordinator
                self._watch.resync()  # every VM is to be judged anew
        self._registry.deliver(batch)

    def _stream_lost(self, error: Exception) -> None:
        log.warning("the XAPI event stream broke and is opened again: %s", error)
        self._sessions.forget()
        self._forwarding.forget()


def configure_logging(conf: settings.DaemonSettings) -> None:
    """Lines for people, to the log file or else to stderr, which systemd keeps."""
    handler: logging.Handler
    if conf.log_file:
        # Watched: logrotate moves the file away under us.
        handler = logging.handlers.WatchedFileHandler(conf.log_file, encoding="utf-8")
    else:
        handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(threadName)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(conf.log_level.upper())
    # A library's view of a connection that we report about ourselves.
    for noisy in ("paramiko", "urllib3", "docker"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)


def main(arguments: Optional[List[str]] = None) -> int:
    """Entry point of xscontainer-monitor."""
    parser = argparse.ArgumentParser(prog="xscontainer-monitor", description=__doc__.split("\n\n")[0])
    parser.add_argument("--config", metavar="FILE", help=f"settings file (default: ${settings.ENVIRONMENT_VARIABLE} "
                                                         f"or {settings.DEFAULT_PATH})")
    parser.add_argument("--version", action="version", version=__version__)
    options = parser.parse_args(arguments)
    try:
        loaded = settings.load(options.config)
    except SettingsError as exc:
        print(f"xscontainer-monitor: {exc}", file=sys.stderr)
        return 2
    try:
        configure_logging(loaded.settings.daemon)
    except OSError as exc:
        print(f"xscontainer-monitor: The log file {loaded.settings.daemon.log_file} cannot be written: "
              f"{exc.strerror or exc}.", file=sys.stderr)
        return 1
    for warning in loaded.warnings:
        log.warning("%s", warning)
    os.umask(0o077)
    try:
        return Daemon(loaded.settings).run(StopSignal())
    except XSContainerError as exc:
        log.critical("%s", exc)
        return 1


if __name__ == "__main__":
    sys.exit(main())
