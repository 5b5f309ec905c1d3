"""What everything that is started and closed shares."""

from typing import Any, TypeVar

_Self = TypeVar("_Self", bound="Started")


class Started:
    """A context manager out of start() and close(): entering starts it, leaving closes it."""

    start: Any  # (...) -> None, with defaults for all it takes

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self: _Self) -> _Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
