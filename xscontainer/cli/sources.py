"""The VMs and containers whose events or resources a command shows."""

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from xscontainer.cli import lookup
from xscontainer.core.naming import NamedContainer, NamedVM
from xscontainer.errors import Ambiguous, NotFound
from xscontainer.xapi import inventory
from xscontainer.xapi.session import Session


class Source(NamedTuple):
    """A VM that is asked."""

    uuid: str
    name: str

    @property
    def label(self) -> str:
        """The name for people; the uuid if there is none."""
        return self.name or self.uuid


def managed(session: Session) -> "List[Source]":
    """Return all running VMs with container management.

    :raises NotFound: when there is none.
    """
    found = [Source(vm.uuid, vm.name) for host in inventory.read(session).hosts for vm in host.vms
             if vm.monitored and vm.power_state == "Running"]
    if not found:
        raise NotFound("No running VM of the pool is container-managed.", "Prepare one: xscontainer prepare VM")
    return found


def vms(session: Session, words: "Sequence[str]") -> "List[Source]":
    """Return the VMs that these words mean; all running ones with container management if there is no word."""
    return [Source(vm.uuid, vm.name) for vm in lookup.vms(session, words)] if words else managed(session)


def vms_and_containers(session: Session,
                       words: "Sequence[str]") -> "List[Tuple[Source, Optional[List[NamedContainer]]]]":
    """Return the VMs that these words mean, each with the wanted containers; None: all of them.

    A word means a VM by its whole name or uuid, else a container, else a VM by the beginning of its name or uuid.

    :raises NotFound, Ambiguous: when a word means neither one VM nor one container.
    """
    if not words:
        return [(source, None) for source in managed(session)]
    found: Dict[Source, Optional[List[NamedContainer]]] = {}
    for word in words:
        vm, container = _meant(session, word)
        if vm is not None:
            found[Source(vm.uuid, vm.name)] = None
        elif container is not None:
            source = Source(container.vm_uuid, container.vm_name)
            chosen = found.setdefault(source, [])
            if chosen is not None:
                chosen.append(container)
    return list(found.items())


def _meant(session: Session, word: str) -> "Tuple[Optional[NamedVM], Optional[NamedContainer]]":
    vm: Optional[NamedVM] = None
    try:
        vm = lookup.vms(session, [word])[0]
    except NotFound:
        pass
    except Ambiguous:
        return None, lookup.containers(session, [word])[0]
    if vm is not None and word.lower() in (vm.name.lower(), vm.uuid):
        return vm, None
    try:
        return None, lookup.containers(session, [word])[0]
    except (NotFound, Ambiguous):
        if vm is None:
            raise
        return vm, None
