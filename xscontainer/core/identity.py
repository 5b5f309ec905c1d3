"""Decide whether the machine at a VM's address is that VM. Pure.

Guests choose the addresses that they report, disks are cloned together with host keys, and DHCP gives an address away
while its last holder still reports it. So the machine at an address may be another VM of the pool, whose containers
would be shown and controlled in place of the VM's own.

Three things tell VMs apart: what other running VMs of the pool report and have pinned, what the guest itself says
(under Xen it can read the uuid of its domain, which is the VM's), and what an administrator decided.
"""

import base64
import binascii
import hashlib
import re
from typing import Dict, FrozenSet, Iterable, NamedTuple, Optional, Sequence, Set, Tuple, Union

from xscontainer import keys
from xscontainer.core.addresses import is_host_internal, meanings, reported
from xscontainer.core.vm_record import UUID, VMChange, VMRecord

MOST_PIN_CHARACTERS = 16384
MOST_NAME = 80  # characters of a VM's name in a message
MOST_NAMED = 8  # VMs that one message names

# While a VM migrates, xenopsd replaces the end of the uuid in both of its domains.
_STABLE_PART = 24  # characters of a uuid that stay the same

TAKE, ASK, ANOTHER_VM, CONFLICT = "take", "ask", "another VM", "conflict"


class OtherVM(NamedTuple):
    """The identifying facts of a VM of the pool.

    :ivar addresses: reported by its guest tools, in canonical form.
    :ivar pin: fingerprint of the host key that is pinned for it; "" if none is.
    :ivar accepted: see keys.ACCEPTED.
    :ivar published: whether clients are shown its list.
    """

    uuid: str
    name: str
    resident_on: str
    addresses: FrozenSet[str]
    pin: str
    accepted: str
    published: bool

    @classmethod
    def of(cls, vm: VMRecord) -> "OtherVM":
        own = vm.other_config if vm.is_owner else {}
        return cls(vm.uuid, vm.name, vm.resident_on, reported(vm.networks), fingerprint(own.get(keys.HOST_KEY, "")),
                   own.get(keys.ACCEPTED, ""), keys.PS in own)

    @property
    def label(self) -> str:
        return f"{self.name[:MOST_NAME]!r} ({self.uuid})"

    def is_at(self, address: str) -> bool:
        """Return whether the guest tools of this VM report the address, in any form."""
        return not self.addresses.isdisjoint(meanings(address))

    @property
    def established(self) -> bool:
        return self.published or bool(self.pin)


class Peer(NamedTuple):
    """The machine that answers at an address.

    :ivar host_key: fingerprint of the SSH host key that it shows; "" over TLS.
    :ivar chosen: an administrator set this address for the VM (keys.ADDRESS).
    :ivar confirmed: a person has just confirmed the host key for this VM.
    :ivar served: the VM's engine was reached at this address before.
    """

    address: str
    host_key: str
    chosen: bool = False
    confirmed: bool = False
    served: bool = False


class Verdict(NamedTuple):
    """A decision about a peer.

    :ivar action: TAKE it for the VM, ASK the guest first, or refuse it: ANOTHER_VM or CONFLICT.
    :ivar holder: the VM that the peer is, or may be.
    """

    action: str
    holder: Optional[OtherVM] = None


def decide(own: OtherVM, peer: Peer, claimants: "Sequence[OtherVM]", answer: "Optional[str]") -> Verdict:
    """Decide whether the peer is the VM ``own``.

    :param claimants: the other running VMs that claim the peer; see :func:`claimants_of`.
    :param answer: the uuid that the guest gives (:func:`parse_answer`); None: it was not asked.
    """
    if peer.host_key and own.accepted == peer.host_key:
        return Verdict(TAKE)
    if peer.host_key and answer is None and (claimants or not own.pin):
        return Verdict(ASK)
    if answer == own.uuid:
        return Verdict(TAKE)
    if answer and not is_migrating(answer, own.uuid):
        return Verdict(ANOTHER_VM, next((claimant for claimant in claimants if claimant.uuid == answer), None))
    return _undecided(own, peer, claimants)


def _undecided(own: OtherVM, peer: Peer, claimants: "Sequence[OtherVM]") -> Verdict:
    """Decide without the guest's answer: the VM that was there first keeps the address, a later one is refused."""
    here = [claimant for claimant in claimants if claimant.is_at(peer.address)]
    same_key = [claimant for claimant in claimants if peer.host_key and claimant.pin == peer.host_key]
    accepted = next((claimant for claimant in here if peer.host_key and claimant.accepted == peer.host_key), None)
    if accepted is not None:
        return Verdict(ANOTHER_VM, accepted)
    if peer.chosen:
        return Verdict(TAKE)
    if peer.host_key and own.pin == peer.host_key:
        # Two clones with one host key are two VMs, but not at one address.
        twin = next((claimant for claimant in same_key if claimant in here), None)
        return Verdict(ANOTHER_VM, twin) if twin and not peer.served else Verdict(TAKE)
    if same_key:
        return Verdict(ANOTHER_VM, same_key[0])
    # A VM for which another host key is pinned is not this peer.
    here = [claimant for claimant in here if not (peer.host_key and claimant.pin)]
    first_here = peer.served or (own.published and not any(claimant.established for claimant in here))
    if not here or peer.confirmed or first_here:
        return Verdict(TAKE)
    return Verdict(CONFLICT, next((claimant for claimant in here if claimant.established), here[0]))


def claimants_of(own: OtherVM, peer: Peer, others: "Iterable[OtherVM]") -> "Tuple[OtherVM, ...]":
    """Return the VMs that claim the peer: they report its address or have its host key pinned."""
    # Each host has a host-internal network of its own, with the same addresses.
    internal = is_host_internal(peer.address)
    return tuple(other for other in others if other.uuid != own.uuid and (
        (peer.host_key and other.pin == peer.host_key)
        or (other.is_at(peer.address) and not (internal and other.resident_on != own.resident_on))))


# --- the guest's answer

_ANSWER = re.compile(rb"^([0-9a-f-]{36})\r?$", re.MULTILINE)
_DOM0 = "00000000-0000-0000-0000-000000000000"

# For engine.ssh.commands, which sets PATH to the system's own directories. Here the user's PATH comes first: the user
# that logs in can answer for the guest in any case.
QUESTION = "PATH=$USERPATH:$PATH; cat /sys/hypervisor/uuid"


def parse_answer(said: bytes) -> str:
    """Return the uuid that QUESTION printed; "" if the guest does not know it."""
    found = _ANSWER.findall(said)
    uuid = found[-1].decode("ascii") if found else ""
    return uuid if UUID.match(uuid) and uuid != _DOM0 else ""


def is_migrating(answer: str, uuid: str) -> bool:
    """Return whether a guest gives this answer while its VM ``uuid`` migrates: it counts as no answer."""
    return answer != uuid and answer[:_STABLE_PART] == uuid[:_STABLE_PART]


# --- all VMs of the pool


class Census:
    """An index of the running VMs by address and host key. One thread updates it, every thread may read it.

    A VM takes about 1 KB beside its record, which the event stream holds anyway. An event that changes neither
    addresses nor keys costs some microseconds.

    :ivar complete: whether every VM of the pool is in the index.
    """

    def __init__(self) -> None:
        self.complete = False
        self._all: Dict[str, VMRecord] = {}
        # Address or fingerprint -> uuid of its only holder, or a set of uuids. Sets are replaced, never changed.
        self._holders: "Dict[str, Union[str, FrozenSet[str]]]" = {}

    def apply(self, changes: "Iterable[VMChange]", full: bool) -> None:
        """Update the index.

        :param full: the changes name all VMs of the pool.
        """
        for change in changes:
            vm = change.record
            runs = vm is not None and vm.is_guest and vm.power_state == "Running"
            self._put(change.uuid, vm if runs else None)
        self.complete = self.complete or full

    def _put(self, uuid: str, now: Optional[VMRecord]) -> None:
        before = self._all.get(uuid)
        if now is not None:
            self._all[uuid] = now  # before the claims: a concurrent reader that finds a claim must find the VM
        if _facts(before) != _facts(now):
            was, is_ = _claims(before), _claims(now)
            for claim in is_ - was:
                self._hold(claim, self._uuids(claim) | {uuid})
            for claim in was - is_:
                self._hold(claim, self._uuids(claim) - {uuid})
        if now is None:
            self._all.pop(uuid, None)

    def _uuids(self, claim: str) -> "FrozenSet[str]":
        held = self._holders.get(claim, frozenset())
        return frozenset([held]) if isinstance(held, str) else held

    def _hold(self, claim: str, uuids: "FrozenSet[str]") -> None:
        if uuids:
            self._holders[claim] = next(iter(uuids)) if len(uuids) == 1 else uuids
        else:
            self._holders.pop(claim, None)

    def holders(self, address: str, host_key: str = "") -> "Tuple[OtherVM, ...]":
        """Return the VMs that report the address, or have the host key of this fingerprint pinned or accepted."""
        claims = meanings(address) | ({host_key} if host_key else frozenset())
        uuids: FrozenSet[str] = frozenset().union(*map(self._uuids, claims))
        found = [self._all.get(uuid) for uuid in sorted(uuids)]
        return tuple(OtherVM.of(vm) for vm in found if vm is not None)

    def get(self, uuid: str) -> Optional[OtherVM]:
        vm = self._all.get(uuid)
        return None if vm is None else OtherVM.of(vm)


def _facts(vm: Optional[VMRecord]) -> "Tuple[object, ...]":
    """Return the fields that a VM's claims are computed from."""
    if vm is None:
        return ()
    return (vm.networks, *map(vm.other_config.get, (keys.HOST_KEY, keys.ACCEPTED, keys.OWNER)))


def _claims(vm: Optional[VMRecord]) -> Set[str]:
    if vm is None:
        return set()
    known = OtherVM.of(vm)
    return {*known.addresses, *filter(None, (known.pin, known.accepted))}


# --- host keys


def fingerprint(pin: str) -> str:
    """Return the fingerprint of a pinned host key as ssh-keygen -l prints it; "" if it is no host key.

    :param pin: in any form that engine.ssh.hostkeys accepts.
    """
    for word in pin.split()[:4] if len(pin) <= MOST_PIN_CHARACTERS else ():
        blob = _blob(word)
        if blob:
            digest = base64.b64encode(hashlib.sha256(blob).digest()).decode("ascii")
            return "SHA256:" + digest.rstrip("=")
    return ""


def _blob(word: str) -> bytes:
    try:
        blob = base64.b64decode(word.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return b""
    length = int.from_bytes(blob[:4], "big")
    return blob if 0 < length <= 64 and len(blob) > 4 + length else b""
