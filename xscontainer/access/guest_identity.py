"""Check that the machine at a VM's address is this VM, before anything is shown, pinned or controlled there.

The rules are in core.identity; here their facts are collected, from the event stream, XAPI and the guest.
"""

import logging
import math
import time
from typing import TYPE_CHECKING, Optional, Sequence, Tuple

from xscontainer.core.identity import (
    ANOTHER_VM,
    ASK,
    CONFLICT,
    MOST_NAMED,
    Census,
    OtherVM,
    Peer,
    Verdict,
    claimants_of,
    decide,
)
from xscontainer.core.target import Reach
from xscontainer.core.vm_record import VMRecord
from xscontainer.engine.ssh.vm_uuid import SECONDS, ask_vm_uuid
from xscontainer.errors import AddressConflict, AnotherVM, HostKeyChanged, ObjectGone
from xscontainer.xapi import other_vms
from xscontainer.xapi.session import SessionPool

if TYPE_CHECKING:
    from xscontainer.engine.ssh.hostkeys import HostKey
    from xscontainer.engine.ssh.shell import Shell

_ELSEWHERE_HINT = ("Check that the two VMs do not have or report the same address, or set xscontainer-address in the "
                   "other_config of this VM to its own address. If this VM is to be reached there nevertheless, accept "
                   "that host key for it ('xscontainer hostkey-accept VM').")

log = logging.getLogger(__name__)


class OtherVMs:
    """The other VMs of the pool: from the event stream if it has reported all VMs, else from XAPI. Thread-safe."""

    def __init__(self, sessions: SessionPool, census: Optional[Census] = None) -> None:
        self._sessions = sessions
        self._census = census

    @property
    def at_hand(self) -> bool:
        """True if all VMs are known, so that looking them up costs nothing."""
        return self._census is not None and self._census.complete

    def holders(self, address: str, host_key: str = "") -> "Tuple[OtherVM, ...]":
        """Return the running VMs that report the address or have the host key of this fingerprint pinned."""
        if self._census is not None and self._census.complete:
            return self._census.holders(address, host_key)
        return tuple(self._sessions.run(lambda session: other_vms.holders(session, address, host_key)))

    def get(self, uuid: str) -> Optional[OtherVM]:
        """Return the VM of this uuid, running or not; None if the pool has no such VM."""
        known = self._census.get(uuid) if self._census is not None else None
        if known is not None:
            return known
        try:
            return self._sessions.run(lambda session: other_vms.get(session, uuid))
        except ObjectGone:
            return None


class IdentityCheck:
    """Checks whether a peer is one VM, for one attempt to reach that VM.

    :param served: the address at which the VM's engine was reached before, "" if unknown.
    :param confirmed: a person has just confirmed the host key for this VM.
    :ivar deadline: time.monotonic() after which the guest is not waited for.
    :ivar asks_until: time.monotonic() after which the guest is asked only if another VM claims the peer.
    :ivar claimants: the other VMs that claim the peer that was checked last.
    """

    def __init__(self, known: OtherVMs, vm: VMRecord, reach: Reach, served: str, confirmed: bool) -> None:
        self._known = known
        self._vm = vm
        self._own = OtherVM.of(vm)
        self._reach = reach
        self._served = served
        self._confirmed = confirmed
        self.deadline = self.asks_until = math.inf
        self.claimants: Tuple[OtherVM, ...] = ()

    def over_ssh(self, shell: "Shell", address: str, host_key: "HostKey") -> None:
        """Check a guest after the login.

        :raises AnotherVM, AddressConflict: the guest is not this VM, or may not be.
        :raises TransportLost: the guest ended the connection when it was asked.
        """
        peer = self._peer(address, host_key.fingerprint)
        # Clones may share a pinned host key. To find them through XAPI takes a call for each VM of the pool. If this VM
        # has that key pinned, only the VMs at its address are looked up then.
        self._find_claimants(peer, peer.host_key if self._known.at_hand or self._own.pin != peer.host_key else "")
        verdict, answer = decide(self._own, peer, self.claimants, None), ""
        if verdict.action == ASK:
            now = time.monotonic()
            if self.claimants or now < self.asks_until:
                answer = ask_vm_uuid(shell, min(SECONDS, max(0.1, self.deadline - now)))
            verdict = decide(self._own, peer, self.claimants, answer)
        self._act(verdict, peer, f"The SSH server at {address} port {self._reach.port}", answer)

    def over_tls(self, address: str) -> None:
        """Check an engine whose certificate names no VM; raises as :meth:`over_ssh`."""
        peer = self._peer(address, "")
        self._find_claimants(peer, "")
        self._act(decide(self._own, peer, self.claimants, ""), peer,
                  f"The engine at {address} port {self._reach.port}", "")

    def _peer(self, address: str, host_key: str) -> Peer:
        return Peer(address, host_key, bool(self._reach.address), self._confirmed, address == self._served)

    def _find_claimants(self, peer: Peer, host_key: str) -> None:
        self.claimants = claimants_of(self._own, peer, self._known.holders(peer.address, host_key))

    def _act(self, verdict: Verdict, peer: Peer, what: str, answer: str) -> None:
        if verdict.action == ANOTHER_VM:
            raise self._another(verdict.holder, what, answer, peer)
        if verdict.action == CONFLICT and verdict.holder is not None:
            raise AddressConflict(
                f"{what} may belong to the VM {verdict.holder.label}, which is running and reports the same address as "
                f"the VM {self._vm.label}.", _conflict_hint(peer))
        if self.claimants:
            log.info("VM %s: %s is this VM, although %s has the same address or host key", self._vm.label, what,
                     labels(self.claimants))

    def _another(self, holder: Optional[OtherVM], what: str, answer: str, peer: Peer) -> AnotherVM:
        hint = ""  # the default one
        if answer and answer != self._vm.uuid and (holder is None or holder.uuid == answer):
            holder = holder or self._known.get(answer)
            which = f"the VM {holder.label}" if holder else f"a VM {answer}, which is not in this pool"
            why, hint = f"the guest says that it is {which}", _ELSEWHERE_HINT
        elif holder is not None:
            why = f"its host key {peer.host_key} belongs to the VM {holder.label}, which is running"
        else:
            why = "it belongs to another VM"
        return AnotherVM(f"{what} is not the VM {self._vm.label}: {why}.", hint)


def _conflict_hint(peer: Peer) -> str:
    if peer.host_key:
        return ""  # the default one
    return ("Give each VM an address of its own, or set xscontainer-address in the other_config of the VM that has "
            "this address.")


def labels(claimants: "Sequence[OtherVM]") -> str:
    """Return the names of up to MOST_NAMED VMs, for a message."""
    more = f" and {len(claimants) - MOST_NAMED} more" if len(claimants) > MOST_NAMED else ""
    return ", ".join(claimant.label for claimant in claimants[:MOST_NAMED]) + more


def explain(known: OtherVMs, error: HostKeyChanged, vm: VMRecord) -> None:
    """Add to the error which other running VM has the host key that was shown, if any."""
    holder = next((other for other in known.holders("", error.shown) if other.uuid != vm.uuid), None) \
        if error.shown else None
    if holder is not None:
        error.message += f" The VM {holder.label}, which is running, has this host key."
        error.hint = ("Check that the two VMs do not have or report the same address. Only if both VMs really have "
                      "this host key, accept it ('xscontainer hostkey-accept VM').")
