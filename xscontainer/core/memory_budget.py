"""The memory that guests may make this process keep: one budget, with a guaranteed share for each guest.

All memory that is kept because of a guest is claimed: answers while they are read, lists, data that waits on a channel,
replies until they are sent. A guest's share is the budget divided by the number of guests that hold any. When a guest
with less than its share needs memory, the guest furthest above its share loses its connection. So no guest is refused
because of another one.

Decoding a document takes many times its bytes, but never waits for a guest. It happens in the :data:`workshop`, one
document at a time, so that its memory is needed only once.
"""

import threading
import time
from contextlib import contextmanager
from typing import Callable, Dict, Iterator, List, Optional, Set

from xscontainer.errors import EngineTooMuch, MemoryBusy

ALL_BYTES = 40 << 20
GUEST_BYTES = 16 << 20  # the most for one guest, even if it is alone
PATIENCE = 10.0  # s to wait for memory that others hold; reading an answer or sending a reply takes no longer

# Held while a document is decoded, and until the decoded value is dropped. Never held while a guest is waited for.
workshop = threading.RLock()
SMALL_BYTES = 16384  # a document up to this size needs no turn: decoded it takes a few hundred KB


@contextmanager
def turn(size: int) -> Iterator[None]:
    """Hold the workshop for a document of ``size`` bytes. A small one does not wait behind large ones of others."""
    if size <= SMALL_BYTES:
        yield
        return
    with workshop:
        yield


class Claim:
    """The memory that is kept for one purpose of one guest; made by :meth:`Budget.claim`. For one thread at a time."""

    def __init__(self, budget: "Budget", owner: str, give_up: Callable[[], None]) -> None:
        self._budget = budget
        self.owner = owner
        self.give_up = give_up
        self.size = 0
        self.lost = False  # another guest needed the memory, and give_up() was called

    def set(self, size: int, patience: float = PATIENCE) -> None:
        """Claim ``size`` bytes instead of the present size.

        :param patience: seconds to wait for memory at most.
        :raises EngineTooMuch: it is more than any guest may have.
        :raises MemoryBusy: other answers, of this guest or of many, take the memory.
        """
        self._budget._set(self, size, patience)

    def release(self) -> None:
        """Give all the memory back; may be called again."""
        self._budget._set(self, 0, 0.0)


class Budget:
    """A budget of memory for guests. Thread-safe.

    :param most: bytes for all owners together.
    :param each: bytes for one owner.
    """

    def __init__(self, most: int = ALL_BYTES, each: int = GUEST_BYTES) -> None:
        self._most, self._each = most, each
        self._changed = threading.Condition()
        self._held: Dict[str, int] = {}  # by owner, only those who hold anything
        self._claims: Set[Claim] = set()  # the same
        self._waiting: Dict[Claim, int] = {}  # how many bytes each is entitled to
        self.total = 0

    def claim(self, owner: str, give_up: Callable[[], None] = lambda: None) -> Claim:
        """Return a claim of 0 bytes.

        :param owner: name of the guest.
        :param give_up: called by any thread when another guest needs the memory; must not wait, and must make the
            owner's thread release the claim soon.
        """
        return Claim(self, owner, give_up)

    def _set(self, claim: Claim, size: int, patience: float) -> None:
        if size > self._each:
            raise EngineTooMuch(f"The answer of the VM's engine takes more than {self._each >> 20} MiB of memory.")
        deadline = time.monotonic() + patience
        try:
            while True:
                with self._changed:
                    if size <= claim.size or self._fits(claim, size):
                        self._take(claim, size)
                        return
                    victim = self._victim(claim.owner) if self._waiting[claim] else None
                    left = deadline - time.monotonic()
                    if victim is not None:
                        victim.lost = True
                    elif left <= 0:
                        raise MemoryBusy("Other large answers of engines take all the memory for them.")
                    else:
                        self._changed.wait(left)
                if victim is not None:
                    victim.give_up()
        finally:
            with self._changed:
                self._waiting.pop(claim, None)

    def _fits(self, claim: Claim, size: int) -> bool:
        """Return whether there is room. If not, note the claim.

        Owners above their share wait behind those within theirs.
        """
        if claim.lost:
            raise MemoryBusy("The engine's answer was dropped, because other VMs needed the memory.")
        more = size - claim.size
        wanted = self._held.get(claim.owner, 0) + more
        entitled = wanted <= self._share(claim.owner)
        reserved = 0 if entitled else sum(self._waiting.values())
        if wanted <= self._each and self.total + more + reserved <= self._most:
            return True
        self._waiting[claim] = more if entitled else 0
        return False

    def _take(self, claim: Claim, size: int) -> None:
        more = size - claim.size
        claim.size = size
        self.total += more
        held = self._held.get(claim.owner, 0) + more
        if held:
            self._held[claim.owner] = held
        else:
            self._held.pop(claim.owner, None)
        (self._claims.add if size else self._claims.discard)(claim)
        if more < 0:
            self._changed.notify_all()

    def _share(self, owner: str) -> int:
        return self._most // len({owner}.union(self._held, (claim.owner for claim in self._waiting)))

    def _victim(self, owner: str) -> Optional[Claim]:
        """Return the largest claim of the owner with the most memory above its share; None while one is given up."""
        share = self._share(owner)
        if any(claim.lost for claim in self._claims):
            return None  # its memory comes soon
        greedy = max((name for name in self._held if name != owner), key=self._held.__getitem__, default=owner)
        if greedy == owner or self._held[greedy] <= share:
            return None
        return max((claim for claim in self._claims if claim.owner == greedy), key=lambda claim: claim.size)


BUDGET = Budget()


class _Call(threading.local):
    claims: Optional[List[Claim]] = None


_call = _Call()


@contextmanager
def held_for_reply() -> Iterator[None]:
    """Hold what :func:`keep` claims in this thread of a plugin call until the reply is sent, then release it."""
    claims: List[Claim] = []
    _call.claims = claims
    try:
        yield
    finally:
        _call.claims = None
        for claim in claims:
            claim.release()


def keep(owner: str, size: int) -> None:
    """Claim ``size`` bytes until the reply to this thread's plugin call is sent; in other threads do nothing.

    :raises EngineTooMuch, MemoryBusy: as Claim.set.
    """
    if _call.claims is not None and size:
        claim = BUDGET.claim(owner)
        claim.set(size)
        _call.claims.append(claim)
