"""Read the engine's list of containers entry by entry as it arrives. Dropped entries take no memory."""

from typing import Any, Dict, List

from xscontainer.core import memory_budget as memory
from xscontainer.core.bounded import TooCostly
from xscontainer.core.container import Collected
from xscontainer.core.json_list import MOST_MEMBER, ListReader
from xscontainer.engine import failures
from xscontainer.engine.container_lookup import WHOLE_ID, concerns
from xscontainer.errors import EngineGarbage, EngineTooMuch
from xscontainer.sanitize import trimmed

MOST_ENTRIES = 65536  # a limit of CPU time; 16 MiB hold 40,000 of the shortest entries of an engine
_ENTRY_BYTES = 400  # memory of an id and a name
_MOST_KEPT = 5000


class Sink:
    """Receives the body of one answer that is a list.

    :param collected: ``add`` is called with each entry that is an object; ``cost`` is the memory it keeps in bytes.
    :ivar size: bytes of the body so far.
    """

    def __init__(self, collected: Any) -> None:
        self.collected = collected
        self._reader = ListReader(self._take)
        self._entries = 0
        self.size = 0

    def _take(self, entry: object) -> None:
        self._entries += 1
        if self._entries > MOST_ENTRIES:
            raise EngineTooMuch(f"The engine lists more than {MOST_ENTRIES} containers.",
                                "Remove containers that are not needed.")
        if isinstance(entry, dict):
            self.collected.add(entry)

    def feed(self, data: bytes) -> int:
        """Read a piece of the body. Return how many bytes of memory are in use now.

        :raises EngineGarbage: if the body is not a list. :raises EngineTooMuch: if an entry is too large.
        """
        self.size += len(data)
        self._read(lambda: self._reader.feed(data))
        return self._reader.held + int(self.collected.cost)

    def end(self) -> None:
        """Note the end of the body. Raises as ``feed``."""
        self._read(self._reader.end)

    def _read(self, step: Any) -> None:
        try:
            with memory.turn(self.size):
                step()
        except TooCostly as error:
            raise EngineTooMuch(f"A container takes more than {MOST_MEMBER} bytes in the engine's list.",
                                "Remove labels or published ports of that container.") from error
        except ValueError as error:
            raise EngineGarbage(f"The engine's answer is not a list of containers: {failures.words(error)}.") from error


class Entries:
    """Collects all entries as the engine describes them."""

    def __init__(self) -> None:
        self.entries: List[Dict[str, Any]] = []
        self.cost = 0

    def add(self, entry: "Dict[str, Any]") -> None:
        self.entries.append(entry)


class Count:
    """Counts the entries."""

    cost = 0

    def __init__(self) -> None:
        self.number = 0

    def add(self, entry: "Dict[str, Any]") -> None:
        self.number += 1


class Ids:
    """Collects whole ids.

    :param most: how many to keep.
    :ivar number: how many there are.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.ids: List[str] = []
        self.number = 0

    def add(self, entry: "Dict[str, Any]") -> None:
        found = entry.get("Id")
        if isinstance(found, str) and WHOLE_ID.match(found):
            self.number += 1
            if len(self.ids) < self._most:
                self.ids.append(found)

    @property
    def cost(self) -> int:
        return _ENTRY_BYTES * len(self.ids)


class Called:
    """Collects the ids and names that decide which container a caller means (:mod:`.container_lookup`).

    :param called: the id, short id or name that the caller gave.
    """

    def __init__(self, called: str) -> None:
        self._called = called
        self.entries: List[Dict[str, Any]] = []

    def add(self, entry: "Dict[str, Any]") -> None:
        if len(self.entries) < _MOST_KEPT and concerns(self._called, entry):
            self.entries.append(trimmed({name: entry.get(name) for name in ("Id", "Names", "State")}))

    @property
    def cost(self) -> int:
        return _ENTRY_BYTES * len(self.entries)


__all__ = ["Called", "Collected", "Count", "Entries", "Ids", "Sink"]
