"""Taking back the newest writes, which a xapi that is killed has not saved."""

import time
from collections import deque
from typing import Callable, Deque, Optional, Tuple

# Old values are kept for as many writes, so this bounds memory.
_MOST = 2000


class History:
    """The newest 2000 writes, each with the generation before it and a function that takes it back."""

    def __init__(self) -> None:
        self._writes: Deque[Tuple[float, int, Callable[[], None]]] = deque(maxlen=_MOST)

    def add(self, generation: int, undo: Callable[[], None]) -> None:
        """Note a write."""
        self._writes.append((time.monotonic(), generation, undo))

    def undo_since(self, moment: float) -> Optional[int]:
        """Take back the writes after ``moment`` (time.monotonic()); return the generation then, None for no writes."""
        generation = None
        while self._writes and self._writes[-1][0] > moment:
            _when, generation, undo = self._writes.pop()
            undo()
        return generation

    def clear(self) -> None:
        """Forget all writes: they can no longer be taken back."""
        self._writes.clear()
