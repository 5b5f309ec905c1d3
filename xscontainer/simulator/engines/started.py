"""Base classes of everything that is started and closed, or that writes a log."""

import time
from typing import Any, TypeVar

from xscontainer.simulator.engines import processes

_Self = TypeVar("_Self", bound="Started")


class Started:
    """A context manager made of start() and close(): entering starts it, leaving closes it."""

    start: Any  # (...) -> None, with defaults for all parameters
    stop: Any  # likewise

    def close(self) -> None:
        raise NotImplementedError

    def restart(self, down: float = 0.0) -> None:
        """Call stop(), wait ``down`` seconds and call start()."""
        self.stop()
        time.sleep(down)
        self.start()

    def __enter__(self: _Self) -> _Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Logged:
    """Something that writes a log."""

    log_path: str

    def log_tail(self, size: int = 2000) -> str:
        """Return the last ``size`` characters of the log."""
        return processes.log_tail(self.log_path, size)
