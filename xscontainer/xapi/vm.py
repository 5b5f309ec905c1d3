"""VM records and per-key writes of VM.other_config.

Never ``set_other_config``: it replaces the whole map by what we read before,
and with it what another client wrote in between.
"""

from typing import Dict, Mapping

from xscontainer import keys
from xscontainer.errors import ObjectGone, XapiError
from xscontainer.vmrecord import NULL_REF, VMRecord
from xscontainer.xapi.session import Session

# How often a key that another writer adds between our remove and our add is removed again.
MOST_RACES = 5


def record(session: Session, vm_uuid: str) -> VMRecord:
    """The VM as it is now, with the addresses its guest reports.

    :raises ObjectGone: no such VM.
    """
    ref = session.xenapi.VM.get_by_uuid(vm_uuid)
    snapshot = session.xenapi.VM.get_record(ref)
    return VMRecord.from_snapshot(ref, snapshot, networks(session, snapshot["guest_metrics"]))


def networks(session: Session, guest_metrics: str) -> "Dict[str, str]":
    """The addresses in a guest metrics object; none if it is NULL or gone meanwhile."""
    if guest_metrics == NULL_REF:
        return {}
    try:
        return dict(session.xenapi.VM_guest_metrics.get_networks(guest_metrics))
    except ObjectGone:
        return {}


def put_key(session: Session, vm_ref: str, key: str, value: str, present: bool) -> None:
    """Set one key of a VM's other_config.

    :param present: whether the key is believed to be there; if that is wrong it costs
        a call more, nothing else. There is no call that replaces a key: two it takes,
        and for the moment between them the key is absent, which clients can read.
    """
    if present:
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
    """Set keys in this order, those that differ from the record's."""
    for key, value in changes.items():
        if vm.other_config.get(key) != value:
            put_key(session, vm.ref, key, value, present=key in vm.other_config)


def remove_key(session: Session, vm_ref: str, key: str) -> None:
    """Remove one key; no error if it is absent."""
    session.xenapi.VM.remove_from_other_config(vm_ref, key)


def adopt(session: Session, vm: VMRecord) -> VMRecord:
    """Remove what a clone, a copy or an import carried in: another VM's list, the pin of its host key, its address.

    :returns: the record as it is then; ``vm`` itself if it is the VM's own.
    """
    if vm.is_owner:
        return vm
    # What we were shown may be old by now.
    now = VMRecord.from_snapshot(vm.ref, session.xenapi.VM.get_record(vm.ref), vm.networks)
    if now.is_owner:
        return now
    own = own_part(session, now)
    for key in now.other_config:
        if key not in own.other_config:
            remove_key(session, vm.ref, key)
    # Last: from here on what is there passes for the VM's own.
    put(session, now, {keys.OWNER: vm.uuid})
    return own


def own_part(session: Session, vm: VMRecord) -> VMRecord:
    """The record as :func:`adopt` would leave it; nothing is written."""
    if vm.is_owner:
        return vm
    carried = {*keys.PUBLISHED, keys.HOST_KEY}
    if _address_of_owner(session, vm.other_config):
        carried.add(keys.ADDRESS)
    config = {key: value for key, value in vm.other_config.items() if key not in carried}
    return vm._replace(other_config={**config, keys.OWNER: vm.uuid})


def _address_of_owner(session: Session, config: "Mapping[str, str]") -> bool:
    """Whether the address that is set is that of the VM it was carried in from, which is running."""
    if not config.get(keys.ADDRESS):
        return False
    try:
        owner = session.xenapi.VM.get_record(session.xenapi.VM.get_by_uuid(config[keys.OWNER]))
    except ObjectGone:
        return False
    # Where that one is off, this may be its replica, which has taken its place.
    return owner["power_state"] == "Running" and owner["other_config"].get(keys.ADDRESS) == config[keys.ADDRESS]
