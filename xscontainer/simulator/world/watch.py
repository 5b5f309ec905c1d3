"""A thread that polls event.from, as XenCenter and Xen Orchestra do."""

import contextlib
import threading
from typing import Any, Callable, Dict, List, Sequence

from xscontainer.errors import XapiError
from xscontainer.xapi.session import Session

POLL_SECONDS = 30.0
RETRY_SECONDS = 0.05


class Watcher:
    """Calls ``on_event(ref, snapshot)`` in its own thread for every object and then for every change of one.

    It starts again after a restart of xapi, so an object may be reported twice. A context manager.

    :param login: makes a session whose deadline is beyond POLL_SECONDS.
    :param classes: as event.from takes them: ``vm``, ``vm/OpaqueRef:...``, ``pool``.
    :param on_event: must be quick. Its exception ends the thread, and :meth:`stop` raises it again.
    """

    def __init__(
        self, login: Callable[[], Session], classes: Sequence[str], on_event: Callable[[str, Dict[str, Any]], None]
    ) -> None:
        self._login = login
        self._classes = list(classes)
        self._on_event = on_event
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._sessions: List[Session] = []
        self._lock = threading.Lock()
        self._failure: List[BaseException] = []
        self._thread = threading.Thread(target=self._run, name="simulator-watcher", daemon=True)

    def __enter__(self) -> "Watcher":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, timeout: float = 10.0) -> None:
        """Watch; return once all present objects have been reported, or after ``timeout`` seconds."""
        self._thread.start()
        self._ready.wait(timeout)

    def stop(self) -> None:
        """End at once. May be called twice."""
        self._stopping.set()
        with self._lock:
            for session in self._sessions:
                session.interrupt()
        if self._thread.ident is not None:
            self._thread.join(20.0)
        if self._failure:
            raise self._failure.pop()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                with contextlib.suppress(XapiError):
                    self._follow()
                self._stopping.wait(RETRY_SECONDS)
        except Exception as error:  # noqa: BLE001 - stop() raises it
            self._failure.append(error)
        finally:
            self._ready.set()

    def _follow(self) -> None:
        session = self._login()
        try:
            with self._lock:
                self._sessions = [session]
            token = ""
            while not self._stopping.is_set():
                batch = session.xenapi_request("event.from", (self._classes, token, POLL_SECONDS))
                token = batch["token"]
                for event in batch["events"]:
                    if "snapshot" in event:
                        self._on_event(event["ref"], event["snapshot"])
                self._ready.set()
        finally:
            with self._lock:
                self._sessions = []
            session.logout()
