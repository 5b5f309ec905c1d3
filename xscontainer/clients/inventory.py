"""The pool as clients see it: hosts, VMs and published containers, from the records of XAPI, and their JSON. Pure.

Published data comes from guests, and every vm-admin can write other_config. It is bounded, parsed and checked here.
Invalid data becomes a problem of that VM alone. :mod:`xscontainer.xapi.inventory` asks XAPI for the records.
"""

from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from xscontainer import keys
from xscontainer.clients import xmlform
from xscontainer.core import eligibility
from xscontainer.core.bounded import json_from, xml_from
from xscontainer.core.container import Container
from xscontainer.core.vm_record import VMRecord
from xscontainer.sanitize import clean_text

MOST_DOCUMENT = 307200  # characters; XAPI accepts no longer request, so no longer document was published
MOST_STATUS = 8192  # characters

Records = Mapping[str, Mapping[str, Any]]


class Problem(NamedTuple):
    """The reason why a VM's containers are missing or incomplete.

    :ivar code: an error code of docs/troubleshooting.md, or one of this module.
    :ivar message: one or two sentences.
    """

    code: str
    message: str


class VM(NamedTuple):
    """A VM with its published containers.

    :ivar engine: version of the engine, "" if unknown.
    :ivar api_version: version of the engine's API, "" if unknown.
    :ivar left_out: number of containers that the published list does not hold.
    """

    uuid: str
    name: str
    power_state: str
    monitored: bool
    engine: str = ""
    api_version: str = ""
    containers: Tuple[Container, ...] = ()
    left_out: int = 0
    problem: Optional[Problem] = None

    @property
    def label(self) -> str:
        """The name for people; the uuid if there is none."""
        return self.name or self.uuid


class Host(NamedTuple):
    uuid: str
    name: str
    address: str
    is_coordinator: bool
    vms: Tuple[VM, ...] = ()


class Pool(NamedTuple):
    """The pool.

    :ivar vms: VMs that run on no host.
    """

    uuid: str
    name: str
    hosts: Tuple[Host, ...] = ()
    vms: Tuple[VM, ...] = ()


def build(pool_record: "Mapping[str, Any]", hosts: Records, vms: Records, every_vm: bool = False) -> Pool:
    """Return the pool that these records describe, sorted by name. Pure."""
    return assemble(
        pool_record["uuid"], pool_record["name_label"],
        {ref: Host(host["uuid"], host["name_label"], host["address"], ref == pool_record["master"])
         for ref, host in hosts.items()},
        ((vm.resident_on, view(vm)) for vm in VMRecord.all_of(vms) if belongs(vm, every_vm)))


def belongs(vm: VMRecord, every_vm: bool = False) -> bool:
    """Return whether a VM belongs to the inventory: it is container-managed, or shown to clients for another reason.

    :param every_vm: those that are not container-managed do, too.
    """
    return vm.is_guest and (every_vm or keys.MONITOR in vm.other_config or bool(vm.published))


def assemble(uuid: str, name: str, hosts: "Mapping[str, Host]", placed: "Iterable[Tuple[str, VM]]") -> Pool:
    """Return the pool of these hosts and VMs, sorted by name.

    :param hosts: by ref, without their VMs.
    :param placed: the ref of each VM's host, and the VM; a VM whose host is unknown runs on none.
    """
    places: Dict[str, List[VM]] = {ref: [] for ref in hosts}
    nowhere: List[VM] = []
    for host, vm in placed:
        places.get(host, nowhere).append(vm)
    return Pool(uuid, name,
                _in_order(host._replace(vms=_in_order(places[ref])) for ref, host in hosts.items()),
                _in_order(nowhere))


def _in_order(items: Any) -> "Tuple[Any, ...]":
    return tuple(sorted(items, key=lambda item: (item.name, item.uuid)))


def every_vm_of(pool: Pool) -> "Iterator[Tuple[Optional[Host], VM]]":
    """Yield each VM with its host."""
    for host in pool.hosts:
        for vm in host.vms:
            yield host, vm
    for vm in pool.vms:
        yield None, vm


def view(vm: VMRecord) -> VM:
    """Return the published data of a VM. Pure."""
    found = about(vm)
    text = vm.other_config.get(keys.PS)
    if text is None or not vm.is_owner:
        return found
    try:
        if len(text) > MOST_DOCUMENT:
            raise ValueError(f"the container list is {len(text)} characters long")
        listed = xmlform.read_docker_ps(text)
    except ValueError as error:
        return found._replace(problem=Problem("LIST_UNREADABLE", clean_text(f"The list cannot be read: {error}.", 500)))
    return found._replace(containers=listed.containers, left_out=listed.left_out + listed.unusable)


def about(vm: VMRecord) -> VM:
    """Return the published data of a VM without its containers: its list is not read. Pure."""
    found = VM(vm.uuid, vm.name, vm.power_state, eligibility.enabled(vm))
    if not vm.is_owner:
        return found._replace(problem=Problem("CARRIED_IN", "The published list belongs to another VM: this VM is a "
                                                            "clone or was made from a snapshot."))
    problem = _status(vm.other_config.get(keys.STATUS))
    engine, api_version = _versions(vm.other_config.get(keys.VERSION, ""))
    found = found._replace(engine=engine, api_version=api_version, problem=problem)
    if keys.PS not in vm.other_config:
        return found._replace(problem=problem or _why_nothing(found))
    return found


def _why_nothing(vm: VM) -> Optional[Problem]:
    if not vm.monitored:
        return Problem("NOT_REGISTERED", "Container management is off.")
    if vm.power_state != "Running":
        return None  # the power state is shown
    return Problem("NOT_PUBLISHED", "No list is published. Check that xscontainer-monitor runs on the VM's host.")


def _status(text: Optional[str]) -> Optional[Problem]:
    if text is None:
        return None
    try:
        given = json_from(text) if len(text) <= MOST_STATUS else None
    except ValueError:
        given = None
    if not isinstance(given, dict):
        return Problem("STATUS_UNREADABLE", f"{keys.STATUS} in the VM's other_config cannot be read.")
    return Problem(clean_text(given.get("code"), 64), clean_text(given.get("message"), 2000))


def _versions(text: str) -> "Tuple[str, str]":
    """Return the versions of engine and API in a docker_version document; empty strings if it is unusable."""
    if not text or len(text) > MOST_DOCUMENT or "<!" in text:
        return "", ""
    try:
        root = xml_from(text)
    except ValueError:
        return "", ""
    return clean_text(root.findtext("Version"), 64), clean_text(root.findtext("ApiVersion"), 32)


# --- JSON ---------------------------------------------------------------------


def as_json(pool: Pool) -> "Dict[str, Any]":
    """Return plain dicts and lists for programs. Scripts read the keys: they are part of the interface."""
    return {"pool": {
        "uuid": pool.uuid,
        "name": pool.name,
        "hosts": [_host_json(host) for host in pool.hosts],
        "vms_on_no_host": [vm_json(vm) for vm in pool.vms],
    }}


def _host_json(host: Host) -> "Dict[str, Any]":
    return {
        "uuid": host.uuid,
        "name": host.name,
        "address": host.address,
        "coordinator": host.is_coordinator,
        "vms": [vm_json(vm) for vm in host.vms],
    }


def vm_json(vm: VM) -> "Dict[str, Any]":
    """Return a VM with its containers."""
    return {
        "uuid": vm.uuid,
        "name": vm.name,
        "power_state": vm.power_state,
        "monitored": vm.monitored,
        "engine": engine_json(vm),
        "problem": problem_json(vm.problem),
        "containers": xmlform.as_json(vm.containers),
        "left_out": vm.left_out,
    }


def engine_json(vm: VM) -> "Optional[Dict[str, str]]":
    return {"version": vm.engine, "api_version": vm.api_version} if vm.engine else None


def problem_json(problem: "Optional[Problem]") -> "Optional[Dict[str, str]]":
    return dict(problem._asdict()) if problem else None
