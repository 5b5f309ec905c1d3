"""VM records and per-key writes of VM.other_config.

``set_other_config`` is never used: it replaces the whole map, and would undo what another client wrote since the map
was read.
"""

from typing import Dict, Mapping, Tuple

from xscontainer import keys
from xscontainer.core.addresses import bounded
from xscontainer.core.vm_record import NULL_REF, VMRecord
from xscontainer.errors import ObjectGone, XapiError
from xscontainer.sanitize import integer
from xscontainer.xapi.session import Session

# How often a key that another writer adds between our remove and our add is removed again.
MOST_RACES = 5


def record(session: Session, vm_uuid: str) -> VMRecord:
    """Read the VM, with the addresses that its guest reports.

    :raises ObjectGone: there is no such VM.
    """
    ref = session.xenapi.VM.get_by_uuid(vm_uuid)
    snapshot = session.xenapi.VM.get_record(ref)
    return VMRecord.from_snapshot(ref, snapshot, networks(session, snapshot["guest_metrics"]))


def resources(session: Session, vm_ref: str) -> "Tuple[int, int]":
    """Return the number of vCPUs and the memory in bytes that a running VM has; 0: XAPI does not say."""
    answers = session.together(("VM.get_VCPUs_at_startup", (vm_ref,)), ("VM.get_memory_target", (vm_ref,)))
    vcpus, memory = (integer(answer, 0, 1 << 62) or 0 for answer in answers)
    return vcpus, memory


def networks(session: Session, guest_metrics: str) -> "Dict[str, str]":
    """Read the addresses in a guest metrics object; none if it is NULL or does not exist any more."""
    if guest_metrics == NULL_REF:
        return {}
    try:
        return bounded(session.xenapi.VM_guest_metrics.get_networks(guest_metrics))
    except ObjectGone:
        return {}


def put_key(session: Session, vm_ref: str, key: str, value: str, present: bool) -> None:
    """Set one key of a VM's other_config.

    XAPI has no call that replaces a key. It takes two calls, and between them clients see no key. So both are sent
    before the first is answered.

    :param present: whether the key seems to exist. A wrong value costs one more call.
    """
    if present:
        removed, added = session.together(("VM.remove_from_other_config", (vm_ref, key)),
                                          ("VM.add_to_other_config", (vm_ref, key, value)))
        if isinstance(removed, XapiError):
            raise removed
        if not isinstance(added, XapiError):
            return
        # Another client added the key in between, or the call failed: the removed key must be added again.
        if added.details[:1] == ["MAP_DUPLICATE_KEY"]:
            session.xenapi.VM.remove_from_other_config(vm_ref, key)
    for race in range(MOST_RACES):
        try:
            session.xenapi.VM.add_to_other_config(vm_ref, key, value)
            return
        except XapiError as exc:
            if exc.details[:1] != ["MAP_DUPLICATE_KEY"] or race == MOST_RACES - 1:
                raise
        session.xenapi.VM.remove_from_other_config(vm_ref, key)


def put(session: Session, vm: VMRecord, changes: "Mapping[str, str]") -> None:
    """Set the keys whose values differ from the record's, in this order."""
    for key, value in changes.items():
        if vm.other_config.get(key) != value:
            put_key(session, vm.ref, key, value, present=key in vm.other_config)


def remove_key(session: Session, vm_ref: str, key: str) -> None:
    """Remove one key; no error if it is absent."""
    session.xenapi.VM.remove_from_other_config(vm_ref, key)


def adopt(session: Session, vm: VMRecord) -> VMRecord:
    """Remove the keys that a clone, copy or import inherited: the other VM's list, its pinned host key, its address.

    :returns: the record after that; ``vm`` itself if it inherited nothing.
    """
    if vm.is_owner:
        return vm
    # The record may be out of date.
    now = VMRecord.from_snapshot(vm.ref, session.xenapi.VM.get_record(vm.ref), vm.networks)
    if now.is_owner:
        return now
    own = own_part(session, now)
    for key in now.other_config:
        if key not in own.other_config:
            remove_key(session, vm.ref, key)
    # Last: after this all keys count as the VM's own.
    put(session, now, {keys.OWNER: vm.uuid})
    return own


def own_part(session: Session, vm: VMRecord) -> VMRecord:
    """Return the record as :func:`adopt` would leave it, without writing anything."""
    if vm.is_owner:
        return vm
    carried = {*keys.PUBLISHED, keys.HOST_KEY, keys.ACCEPTED}
    if _address_of_owner(session, vm.other_config):
        carried.add(keys.ADDRESS)
    config = {key: value for key, value in vm.other_config.items() if key not in carried}
    return vm._replace(other_config={**config, keys.OWNER: vm.uuid})


def _address_of_owner(session: Session, config: "Mapping[str, str]") -> bool:
    """Return whether the address in ``config`` was inherited from another VM that is running and has it, too."""
    if not config.get(keys.ADDRESS):
        return False
    try:
        owner = session.xenapi.VM.get_record(session.xenapi.VM.get_by_uuid(config[keys.OWNER]))
    except ObjectGone:
        return False
    # If the other VM is halted, this VM may be its replica that has taken its place.
    return owner["power_state"] == "Running" and owner["other_config"].get(keys.ADDRESS) == config[keys.ADDRESS]
