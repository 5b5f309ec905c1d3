"""Find the running VMs that report an address or have a host key pinned, without the event stream's index."""

import contextlib
import time
from typing import List, Set

from xscontainer import keys
from xscontainer.core import addresses, identity
from xscontainer.core.identity import OtherVM
from xscontainer.core.vm_record import NULL_REF, UUID, VMRecord
from xscontainer.errors import ObjectGone
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session

# VMs at one address, or with one host key. A VM that is left out may be the one that matters, so the limit is high.
MOST_HOLDERS = 256
# Limits of the search for a host key: VMs and seconds. Each VM takes a call of about a millisecond.
MOST_ASKED = 4096
SECONDS = 10.0


def holders(session: Session, address: str, host_key: str = "") -> "List[OtherVM]":
    """Find the running VMs that report the address or have the host key pinned, at most MOST_HOLDERS of each.

    :param host_key: fingerprint; "": only the address is searched for, which takes a single call.
    """
    refs = _reporting(session, address) if address else set()
    if host_key:
        refs |= _pinning(session, host_key)
    found = []
    for ref in sorted(refs):
        with contextlib.suppress(ObjectGone):
            vm = _record(session, ref)
            if vm.is_guest and vm.power_state == "Running":
                found.append(OtherVM.of(vm))
    return found


def get(session: Session, uuid: str) -> "OtherVM":
    """Read one VM.

    :raises ObjectGone: the pool has no VM of this uuid.
    """
    if not UUID.match(uuid):
        raise ObjectGone(f"There is no VM {uuid[:40]!r}.")
    return OtherVM.of(xapi_vm.record(session, uuid))


def _record(session: Session, ref: str) -> VMRecord:
    snapshot = session.xenapi.VM.get_record(ref)
    return VMRecord.from_snapshot(ref, snapshot, xapi_vm.networks(session, snapshot["guest_metrics"]))


def _reporting(session: Session, address: str) -> "Set[str]":
    refs: Set[str] = set()
    wanted = addresses.meanings(address)
    for metrics, record in session.xenapi.VM_guest_metrics.get_all_records().items():
        if metrics != NULL_REF and not wanted.isdisjoint(addresses.reported(record.get("networks") or {})):
            refs.update(session.xenapi.VM.get_all_records_where(f'field "guest_metrics" = "{metrics}"'))
            if len(refs) >= MOST_HOLDERS:
                break
    return refs


def _pinning(session: Session, host_key: str) -> "Set[str]":
    """Read the running VMs one by one: all records at once would be large, because of their container lists."""
    until = time.monotonic() + SECONDS
    running = [ref for host in session.xenapi.host.get_all_records().values() for ref in host["resident_VMs"]]
    refs: Set[str] = set()
    for ref in running[:MOST_ASKED]:
        if len(refs) >= MOST_HOLDERS or time.monotonic() > until:
            break
        with contextlib.suppress(ObjectGone):
            config = session.xenapi.VM.get_other_config(ref)
            if identity.fingerprint(config.get(keys.HOST_KEY, "")) == host_key:
                refs.add(ref)
    return refs
