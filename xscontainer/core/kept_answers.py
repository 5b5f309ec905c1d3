"""Answers about VMs that are kept as long as nothing has changed, within a bound of memory."""

import threading
from collections import OrderedDict
from typing import Optional, Tuple

MOST_BYTES = 4 << 20  # for all VMs
MOST_OF_ONE = 256 << 10


class KeptAnswers:
    """The last answer about each VM that somebody asked for lately. Thread-safe.

    The answers that were not asked for the longest are dropped first.
    """

    def __init__(self, most: int = MOST_BYTES, most_of_one: int = MOST_OF_ONE) -> None:
        self._most, self._most_of_one = most, most_of_one
        self._lock = threading.Lock()
        self._answers: "OrderedDict[str, Tuple[object, str]]" = OrderedDict()
        self._size = 0

    def get(self, vm_uuid: str, version: object) -> Optional[str]:
        """Return the answer that was kept for this version (compared by identity); None if there is none."""
        with self._lock:
            kept = self._answers.get(vm_uuid)
            if kept is None or kept[0] is not version:
                return None
            self._answers.move_to_end(vm_uuid)
            return kept[1]

    def keep(self, vm_uuid: str, version: object, answer: str) -> None:
        """Keep an ASCII answer in place of an older one; a long one is not kept."""
        with self._lock:
            self._drop(vm_uuid)
            if len(answer) > self._most_of_one:
                return
            self._answers[vm_uuid] = (version, answer)
            self._size += len(answer)
            while self._size > self._most:
                self._drop(next(iter(self._answers)))

    def _drop(self, vm_uuid: str) -> None:
        _, answer = self._answers.pop(vm_uuid, (None, ""))
        self._size -= len(answer)
