"""Periodic chores of a host, in a thread of their own: no VM waits for them."""

import logging
import threading
from typing import Callable, NamedTuple, Sequence

from xscontainer.errors import XSContainerError

log = logging.getLogger(__name__)


class Chore(NamedTuple):
    """One chore.

    :ivar name: what it does, for the log: "renewing ...".
    :ivar run: may take long, and may raise anything.
    """

    name: str
    run: "Callable[[], None]"


class Upkeep:
    """Runs all chores in turn each time it is woken. A failure is logged, and the chore runs again the next time."""

    def __init__(self, chores: "Sequence[Chore]") -> None:
        self._chores = chores
        self._woken = threading.Event()
        self._stopped = threading.Event()

    def run(self) -> None:
        """Run chores until :meth:`stop`, in the caller's thread."""
        while True:
            self._woken.wait()
            self._woken.clear()
            for chore in self._chores:
                if self._stopped.is_set():
                    return
                self._run(chore)

    @staticmethod
    def _run(chore: Chore) -> None:
        try:
            chore.run()
        except XSContainerError as error:
            log.warning("%s failed: %s", chore.name, error)
        except BaseException:  # the outermost handler; a panic in a library written in Rust is no Exception
            log.exception("%s failed with an unexpected error", chore.name)

    def wake(self) -> None:
        """Run all chores soon. May be called by any thread; does not wait."""
        self._woken.set()

    def stop(self) -> None:
        """Make :meth:`run` return after the present chore. May be called by any thread; does not wait."""
        self._stopped.set()
        self._woken.set()
