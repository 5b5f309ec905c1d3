"""Making, copying and destroying VMs and their VIFs: other_config is carried along as XAPI does."""
import re
import uuid
from typing import TYPE_CHECKING, Any, Callable, Dict

from . import operations
from .clock import now
from .database import Row
from .failures import XapiError
from .generic import record_values
from .lifecycle import generation_id, power_off
from .operations import operation_on
from .query import stored_text
from .values import EPOCH, NULL, Time

if TYPE_CHECKING:
    from .dispatch import Call
    from .pool import Pool

_MAC = re.compile(r"([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$")
# Fields that a copy does not take from the original.
_RELATED = ("snapshots", "children", "VIFs", "VBDs", "VUSBs", "VGPUs", "VTPMs", "consoles", "crash_dumps",
            "attached_PCIs", "groups")
# Fields that a revert leaves as they are.
_KEPT = frozenset(_RELATED + ("uuid", "parent", "metrics", "guest_metrics", "snapshot_of", "is_a_snapshot",
                              "is_a_template", "power_state", "resident_on", "domid", "current_operations",
                              "allowed_operations", "scheduled_to_be_resident_on", "appliance"))


def new_vm(pool: "Pool", values: Dict[str, Any]) -> Row:
    """A VM's records: metrics, mac_seed and allowed operations are added."""
    values = dict(values)
    config = dict(values.get("other_config", {}))
    config.setdefault("mac_seed", str(uuid.uuid4()))
    with pool.db.lock:
        metrics = pool.db.create("VM_metrics", {"VCPUs_utilisation": {"0": 0.0}})
        values.update(other_config=config, metrics=metrics.ref)
        vm = pool.db.create("VM", values)
        operations.refresh(pool, vm)
    return vm


def create(call: "Call", given: Dict[str, Any]) -> str:
    """VM.create."""
    values = record_values(call.pool.model.classes["VM"], given)
    values.update(memory_overhead=11534336, power_state="Halted", has_vendor_device=True, hardware_platform_version=2,
                  generation_id="0:0", domain_type="hvm")
    operations.no_operations(values)
    return new_vm(call.pool, values).ref


def destroy(call: "Call", ref: str) -> str:
    """VM.destroy: VIFs, VBDs and metrics go with it."""
    pool = call.pool
    vm = pool.db.find("VM", ref)
    with operation_on(call, vm, "destroy"):
        pool.step()
        with pool.db.lock:
            for cls, field in (("VIF", "VIFs"), ("VBD", "VBDs")):
                for other in list(vm.values[field]):
                    row = pool.db.get(cls, other)
                    if row is not None:
                        pool.db.destroy(row)
            for cls, field in (("VM_metrics", "metrics"), ("VM_guest_metrics", "guest_metrics")):
                row = pool.db.get(cls, vm.values[field])
                if row is not None:
                    pool.db.destroy(row)
            for child in list(vm.values["children"]):
                row = pool.db.get("VM", child)
                if row is not None:
                    pool.db.set(row, "parent", vm.values["parent"])
            pool.db.destroy(vm)
            pool.saved.pop(ref, None)
    return ""


def _copied(vm: Row, name: str) -> Dict[str, Any]:
    values = dict(vm.values)
    for field in _RELATED:
        values[field] = []
    operations.no_operations(values)
    values.update(uuid="", name_label=name, snapshot_of=NULL, parent=NULL, is_a_snapshot=False, blocked_operations={},
                  snapshot_info={}, snapshot_metadata="", snapshot_time=Time(EPOCH), transportable_snapshot_id="",
                  is_default_template=False, guest_metrics=NULL, generation_id=generation_id(), reference_label="",
                  last_booted_record="", appliance=NULL)
    return values


def _copy_vifs(pool: "Pool", vm: Row, copy: Row) -> None:
    for ref in reversed(vm.values["VIFs"]):
        row = pool.db.get("VIF", ref)
        if row is not None:
            values = dict(row.values)
            values.update(uuid="", VM=copy.ref, currently_attached=False, allowed_operations=["attach"])
            pool.db.create("VIF", values)


def _clone(operation: str) -> Callable[..., str]:
    def run(call: "Call", ref: str, name: str, *_sr: str) -> str:
        pool = call.pool
        vm = pool.db.find("VM", ref)
        with operation_on(call, vm, operation):
            values = _copied(vm, name)
            config = {k: v for k, v in vm.values["other_config"].items() if k != "mac_seed"}
            if vm.values["is_a_template"]:
                config = dict({"base_template_name": vm.values["name_label"]}, **config)
            values["other_config"] = config
            with pool.db.lock:
                copy = new_vm(pool, values)
                _copy_vifs(pool, vm, copy)
        return copy.ref
    return run


def _metadata(values: Dict[str, Any]) -> str:
    """The record as text, as XAPI keeps it in a snapshot."""
    pairs = ("('{}' '{}')".format(k, stored_text(v).replace("\\", "\\\\").replace("'", "\\'"))
             for k, v in reversed(list(values.items())))
    return "({})".format(" ".join(pairs))


def snapshot(call: "Call", ref: str, name: str, _ignored: Any = ()) -> str:
    """VM.snapshot: other_config as it is, the VM's parent afterwards."""
    pool = call.pool
    vm = pool.db.find("VM", ref)
    with operation_on(call, vm, "snapshot"):
        values = _copied(vm, name)
        saved = dict(vm.values)
        values.update(is_a_snapshot=True, is_a_template=True, snapshot_of=ref, snapshot_time=now(),
                      parent=vm.values["parent"], snapshot_metadata=_metadata(saved), snapshot_info={
                          "power-state-at-snapshot": saved["power_state"], "disk-snapshot-type": "crash_consistent"})
        with pool.db.lock:
            copy = new_vm(pool, values)
            _copy_vifs(pool, vm, copy)
            pool.saved[copy.ref] = saved
            pool.db.set(vm, "parent", copy.ref)
        pool.messages.add("VM_SNAPSHOTTED", 5, "VM", saved["uuid"], "VM '{}' (uuid: {}) snapshotted, snapshot name: {}"
                          .format(saved["name_label"], saved["uuid"], name))
    return copy.ref


def checkpoint(call: "Call", ref: str, name: str) -> str:
    """VM.checkpoint: a snapshot of a running VM."""
    operations.check_state(call.pool.db.find("VM", ref), "checkpoint")
    return snapshot(call, ref, name)


def revert(call: "Call", ref: str) -> str:
    """VM.revert: the VM's record as it was at the snapshot; it is Halted afterwards."""
    pool = call.pool
    copy = pool.db.find("VM", ref)
    vm = pool.db.find("VM", copy.values["snapshot_of"])
    with operation_on(call, vm, "revert"):
        if vm.values["power_state"] != "Halted":
            pool.power_event(vm.ref, "stop")
            power_off(pool, vm, pool.step)
        with pool.db.lock:
            for field, value in pool.saved.get(ref, copy.values).items():
                if field not in _KEPT:
                    pool.db.set(vm, field, value)
            pool.db.set(vm, "parent", ref)
    return ""


def set_is_a_template(call: "Call", ref: str, value: bool) -> str:
    """VM.set_is_a_template."""
    vm = call.pool.db.find("VM", ref)
    with call.pool.db.lock:
        call.pool.db.set(vm, "is_a_template", value)
        operations.refresh(call.pool, vm)
    return ""


def provision(call: "Call", ref: str) -> str:
    """VM.provision: a template's clone becomes a VM."""
    return set_is_a_template(call, ref, False)


def create_vif(call: "Call", given: Dict[str, Any]) -> str:
    """VIF.create: the device must be free, an empty MAC is made up."""
    database = call.pool.db
    values = record_values(call.pool.model.classes["VIF"], given)
    vm = database.find("VM", values["VM"])
    network = database.find("network", values["network"])
    if any(database.find("VIF", ref).values["device"] == values["device"] for ref in vm.values["VIFs"]):
        raise XapiError("DEVICE_ALREADY_EXISTS", values["device"])
    mac = values["MAC"]
    if mac and not _MAC.match(mac):
        raise XapiError("MAC_INVALID", mac)
    if not mac:
        digits = uuid.uuid4().hex
        values["MAC"] = ":".join(["{:02x}".format(int(digits[:2], 16) & 0xfc | 2)] +
                                 [digits[i:i + 2] for i in range(2, 12, 2)])
        values["MAC_autogenerated"] = True
    values.update(allowed_operations=["attach"], network=network.ref, currently_attached=False)
    return database.create("VIF", values).ref


HANDLERS = {
    "VM.create": create, "VM.destroy": destroy, "VM.clone": _clone("clone"), "VM.copy": _clone("copy"),
    "VM.snapshot": snapshot, "VM.checkpoint": checkpoint, "VM.revert": revert, "VM.provision": provision,
    "VM.set_is_a_template": set_is_a_template, "VIF.create": create_vif,
}
