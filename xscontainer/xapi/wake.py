"""Time writes so that Xen Orchestra never sees the moment between the removal and the addition of a key.

XAPI needs two transactions to replace a map's key, and wakes its watchers at the first. Xen Orchestra's client waits
200 ms after every event before it asks for the next one. So an event without content is injected before the writes, and
the writes follow within these 200 ms.
"""

import logging
import threading
import time
from typing import Callable, Optional

from xscontainer.errors import ObjectGone, XapiError
from xscontainer.xapi.session import Session, SessionPool

log = logging.getLogger(__name__)

# Seconds after the injected event: until clients have received it; until it is too late to start writing; until clients
# have read the changes and wait for events again.
HEARD, BLIND, WAITING_AGAIN = 0.03, 0.13, 0.45


class ClientWake:
    """Injects one event for all writes at about the same time. Thread-safe.

    :param host: returns the ref of this host; the event names its control domain, whose record is small.
    :param wanted: returns whether a client is connected that needs this.
    """

    def __init__(self, sessions: SessionPool, host: "Callable[[], str]", wanted: "Callable[[], bool]",
                 clock: "Callable[[], float]" = time.monotonic,
                 sleep: "Callable[[float], None]" = time.sleep) -> None:
        self._sessions = sessions
        self._host = host
        self._wanted = wanted
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._at = float("-inf")  # when the last event was injected
        self._vm: Optional[str] = None  # that the event names

    def before_writing(self) -> None:
        """Return when writes may begin: at once if no client needs this, else within half a second."""
        while self._wanted():
            wait = self._wait()
            if wait <= 0.0:
                return
            self._sleep(max(wait, 0.001))

    def _wait(self) -> float:
        with self._lock:
            since = self._clock() - self._at
            if since >= WAITING_AGAIN:
                try:
                    self._sessions.run(self._make_event)
                except XapiError as error:
                    log.debug("no event was injected before the writes: %s", error)
                    return 0.0
                self._at = self._clock()
                return HEARD
            if since < HEARD:
                return HEARD - since
            return 0.0 if since < BLIND else WAITING_AGAIN - since

    def _make_event(self, session: Session) -> None:
        for vm in (self._vm, None):
            self._vm = vm or session.xenapi.host.get_control_domain(self._host())
            try:
                session.xenapi.event.inject("VM", self._vm)
                return
            except ObjectGone:
                if vm is None:
                    raise
