"""The pool as XAPI tells it: pool -> host -> VM -> container.

What is published in other_config can be written by every vm-admin and comes
from guests: it is bounded, parsed and checked here, and what does not pass
becomes a problem of that VM alone.
"""

import json
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple
from xml.etree import ElementTree

from xscontainer import eligibility, keys, xmlform
from xscontainer.harmless import clean_text
from xscontainer.model import Container
from xscontainer.vmrecord import VMRecord
from xscontainer.xapi.session import Session

# XAPI takes no longer request, so nothing longer was published, characters.
MOST_DOCUMENT = 307200
MOST_STATUS = 8192
# Templates, of which every pool has dozens, are left at XAPI.
_NO_TEMPLATES = 'field "is_a_template" = "false"'

Records = Mapping[str, Mapping[str, Any]]


class Problem(NamedTuple):
    """Why not all is shown: ``code`` as in the README (or ours below), ``message`` a sentence or two."""

    code: str
    message: str


class VM(NamedTuple):
    """A VM with container management. ``engine``: version of its engine, ``api_version`` of the API, "" if unknown."""

    uuid: str
    name: str
    power_state: str
    monitored: bool
    engine: str = ""
    api_version: str = ""
    containers: Tuple[Container, ...] = ()
    left_out: int = 0  # containers that the list does not hold
    problem: Optional[Problem] = None


class Host(NamedTuple):
    uuid: str
    name: str
    address: str
    is_coordinator: bool
    vms: Tuple[VM, ...] = ()


class Pool(NamedTuple):
    """``vms``: those that run on no host."""

    uuid: str
    name: str
    hosts: Tuple[Host, ...] = ()
    vms: Tuple[VM, ...] = ()


def read(session: Session, every_vm: bool = False) -> Pool:
    """Three calls.

    :param every_vm: also those that know nothing of container management.
    :raises XapiError: XAPI does not answer, or refuses.
    """
    (pool_record,) = session.xenapi.pool.get_all_records().values()
    hosts = session.xenapi.host.get_all_records()
    vms = session.xenapi.VM.get_all_records_where(_NO_TEMPLATES)
    return build(pool_record, hosts, vms, every_vm)


def build(pool_record: "Mapping[str, Any]", hosts: Records, vms: Records, every_vm: bool = False) -> Pool:
    """Put the records together, in the order of names. Pure."""
    places: Dict[str, List[VM]] = {ref: [] for ref in hosts}
    nowhere: List[VM] = []
    for ref, snapshot in vms.items():
        vm = VMRecord.from_snapshot(ref, snapshot)
        if vm.is_guest and (every_vm or keys.MONITOR in vm.other_config or vm.published):
            places.get(vm.resident_on, nowhere).append(view(vm))
    return Pool(
        pool_record["uuid"], pool_record["name_label"],
        _in_order(
            Host(host["uuid"], host["name_label"], host["address"], ref == pool_record["master"],
                 _in_order(places[ref]))
            for ref, host in hosts.items()),
        _in_order(nowhere))


def _in_order(items: Any) -> "Tuple[Any, ...]":
    return tuple(sorted(items, key=lambda item: (item.name, item.uuid)))


def view(vm: VMRecord) -> VM:
    """What a VM's other_config tells. Pure."""
    found = VM(vm.uuid, vm.name, vm.power_state, eligibility.enabled(vm))
    if not vm.is_owner:
        return found._replace(problem=Problem("CARRIED_IN", "What is published was carried in from another VM, "
                                                            "as a clone or a snapshot does."))
    problem = _status(vm.other_config.get(keys.STATUS))
    engine, api_version = _versions(vm.other_config.get(keys.VERSION, ""))
    found = found._replace(engine=engine, api_version=api_version, problem=problem)
    text = vm.other_config.get(keys.PS)
    if text is None:
        return found._replace(problem=problem or _why_nothing(found))
    try:
        if len(text) > MOST_DOCUMENT:
            raise ValueError(f"the container list is {len(text)} characters long")
        listed = xmlform.read_docker_ps(text)
    except ValueError as error:
        return found._replace(problem=Problem("LIST_UNREADABLE", clean_text(f"The list cannot be read: {error}.", 500)))
    return found._replace(containers=listed.containers, left_out=listed.left_out + listed.unusable)


def _why_nothing(vm: VM) -> Optional[Problem]:
    if not vm.monitored:
        return Problem("NOT_REGISTERED", "Container management is off.")
    if vm.power_state != "Running":
        return None  # which is said already
    return Problem("NOT_PUBLISHED", "No list is published. Check that xscontainer-monitor runs on its host.")


def _status(text: Optional[str]) -> Optional[Problem]:
    if text is None:
        return None
    try:
        given = json.loads(text) if len(text) <= MOST_STATUS else None
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        return Problem("STATUS_UNREADABLE", f"{keys.STATUS} in its other_config cannot be read.")
    return Problem(clean_text(given.get("code"), 64), clean_text(given.get("message"), 2000))


def _versions(text: str) -> "Tuple[str, str]":
    """(engine's version, API's version) of a docker_version document; empty where it is none."""
    if not text or len(text) > MOST_DOCUMENT or "<!" in text:
        return "", ""
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError):
        return "", ""
    return clean_text(root.findtext("Version"), 64), clean_text(root.findtext("ApiVersion"), 32)
