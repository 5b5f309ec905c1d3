"""What large answers take of the memory of this process: all guests share it, and each has its own bound besides."""

import threading

from xscontainer.errors import EngineTooMuch

SMALL_BYTES = 1 << 20  # what is smaller is not counted
ALL_BYTES = 32 << 20


class Share:
    """One answer's. Thread-safe as a class, not each by itself."""

    _lock = threading.Lock()
    _taken = 0

    def __init__(self) -> None:
        self._mine = 0

    def take(self, size: int) -> None:
        """The answer has ``size`` bytes by now.

        :raises EngineTooMuch: there is no room for them besides the others'.
        """
        if size <= SMALL_BYTES:
            return
        with Share._lock:
            Share._taken += size - self._mine
            self._mine = size
            if Share._taken > ALL_BYTES:
                raise EngineTooMuch("The engine's answer is large, and so are those that other VMs are just giving.",
                                    "It is asked for again. Remove containers that are not needed.")

    def give_back(self) -> None:
        """Nobody needs the answer's bytes any more."""
        if self._mine:
            with Share._lock:
                Share._taken -= self._mine
                self._mine = 0
