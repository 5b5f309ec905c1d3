"""Find the VMs and containers that the words of a command line mean. Pure.

* A VM is its uuid, its name, or a beginning of either that only one VM has.
* A container is VM/NAME or VM/ID, where ID is a beginning of its id, or NAME or ID alone if the pool has only one.

A uuid counts before a name, a whole name before a beginning. Names of VMs may contain "/": the longest beginning of the
word that is a VM counts.
"""

from typing import Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from xscontainer.core.container import ID_OR_NAME, SHORT_ID
from xscontainer.core.vm_record import NULL_REF
from xscontainer.errors import Ambiguous, NotFound

_MOST_COMPARED = 5000  # names, when a wrong word is compared with the right ones
_LONGEST_COMPARED = 80  # characters: the comparison takes quadratic time
_MOST_SUGGESTED = 3
_MOST_CANDIDATES = 20  # in an error


class NamedVM(NamedTuple):
    """A VM that a word may mean.

    :ivar host: ref of the host that it runs on, or NULL_REF.
    """

    uuid: str
    name: str
    host: str = NULL_REF
    power_state: str = "Running"

    @property
    def label(self) -> str:
        """The name for people; the uuid if there is none."""
        return self.name or self.uuid


class NamedContainer(NamedTuple):
    """A container that a word may mean.

    :ivar host: ref of the host that its VM runs on, or NULL_REF.
    :ivar id: "" if the VM publishes no complete list: the engine must find the container by its name.
    """

    vm_uuid: str
    vm_name: str
    host: str
    id: str
    name: str

    @property
    def argument(self) -> str:
        """The value for the argument ``container`` of the plugin's functions."""
        return self.id or self.name

    @property
    def label(self) -> str:
        """VM/NAME, for people."""
        return f"{self.vm_name or self.vm_uuid}/{self.name or self.id[:SHORT_ID]}"


class Listed(NamedTuple):
    """The published containers of a VM.

    :ivar containers: (id, name) of each.
    :ivar complete: False if the VM may have more containers.
    """

    containers: Tuple[Tuple[str, str], ...] = ()
    complete: bool = False


class Names:
    """The names in a pool.

    :param listed: returns the containers of a VM. With a word it may leave out all containers of a VM if none of them
        has that word as its name or as a beginning of its id.
    :param host_name: returns the name of a host by its ref.
    :param whole: the VMs are all VMs of the pool. If not, a word means a VM only by its whole name or uuid.
    """

    def __init__(self, vms: "Iterable[NamedVM]", listed: "Callable[[NamedVM, str], Listed]",
                 host_name: "Callable[[str], str]", whole: bool = True) -> None:
        self._vms = sorted(vms, key=lambda vm: (vm.name, vm.uuid))
        self._listed = listed
        self._host_name = host_name
        self._whole = whole

    def vm(self, word: str) -> NamedVM:
        """Return the VM that a word means.

        :raises NotFound: when there is none. :raises Ambiguous: when there are several.
        """
        found = self._exact(word) or self._beginning(word)
        if not found:
            labels = [vm.label for vm in self._vms]
            raise NotFound(f"The pool has no VM {word!r}.", did_you_mean(word, labels) or "Give its name or uuid.")
        return self._one_vm(word, found)

    def container(self, word: str) -> NamedContainer:
        """Return the container that a word means.

        :raises NotFound: when there is none. :raises Ambiguous: when there are several.
        """
        problem: Optional[NotFound] = None
        for vms_of in (self._exact, self._beginning):
            for vm_word, name in splits(word):
                vms = vms_of(vm_word)
                if not vms:
                    continue
                found, missing = self._inside(vm_word, vms, name)
                if found is not None:
                    return found
                problem = problem or missing
        found_anywhere = self._anywhere(word)
        if found_anywhere is not None:
            return found_anywhere
        raise problem or self._unknown(word)

    # --- VMs

    def _exact(self, word: str) -> "List[NamedVM]":
        uuid = word.lower()
        return ([vm for vm in self._vms if vm.uuid == uuid]
                or [vm for vm in self._vms if vm.name == word and word])

    def _beginning(self, word: str) -> "List[NamedVM]":
        if not word or not self._whole:
            return []
        uuid = word.lower()
        return [vm for vm in self._vms if vm.name.startswith(word) or vm.uuid.startswith(uuid)]

    def _one_vm(self, word: str, found: "Sequence[NamedVM]") -> NamedVM:
        if len(found) > 1:
            same = all(vm.name == word for vm in found)
            raise Ambiguous(
                f"{len(found)} VMs are named {word!r}." if same else f"{len(found)} VMs begin with {word!r}.",
                "Give a uuid." if same else "Give a whole name or a uuid.",
                candidates=self._rows((vm.label, vm.host, vm.uuid, "") for vm in found))
        return found[0]

    # --- containers

    def _inside(self, vm_word: str, vms: "Sequence[NamedVM]",
                name: str) -> "Tuple[Optional[NamedContainer], Optional[NotFound]]":
        """Return the container of that name in one of the VMs, or why there is none."""
        holding = [(vm, self._listed(vm, "")) for vm in vms]
        if len(vms) > 1:
            if any(_matches(listed, name) or not listed.complete for _, listed in holding):
                self._one_vm(vm_word, vms)  # raises
            return None, None
        (vm, listed), = holding
        found = [_container(vm, *each) for each in _matches(listed, name)]
        if found:
            return self._one_container(f"{vm_word}/{name}", found), None
        if not listed.complete and ID_OR_NAME.match(name):
            return NamedContainer(vm.uuid, vm.name, vm.host, "", name), None
        names = [each or whole[:SHORT_ID] for whole, each in listed.containers]
        meant = did_you_mean(name, names, lambda each: f"{vm.label}/{each}")
        return None, NotFound(f"The VM {vm.name!r} ({vm.uuid}) has no container {name!r}.", meant or (
            "Run 'xscontainer ps --all' to see its containers."))

    def _anywhere(self, word: str) -> "Optional[NamedContainer]":
        """Return the container of that name or id in any VM."""
        if not word or not self._whole:
            return None
        everywhere = [(vm, self._listed(vm, word)) for vm in self._vms]
        for kind in _KINDS:
            found = [_container(vm, *each) for vm, listed in everywhere for each in listed.containers
                     if kind(word, *each)]
            if found:
                return self._one_container(word, found)
        return None

    def _one_container(self, word: str, found: "Sequence[NamedContainer]") -> NamedContainer:
        if len(found) > 1:
            vms, labels = {each.vm_uuid for each in found}, {each.label for each in found}
            hint = "Give the VM, too: VM/NAME."
            if len(vms) < len(found):
                hint = "Give more of the container's id."
            elif len(labels) < len(found):
                hint = "Give the VM's uuid, too: UUID/NAME."
            raise Ambiguous(
                f"{len(found)} containers match {word!r}.", hint,
                candidates=self._rows((each.label, each.host, each.vm_uuid, each.id[:SHORT_ID]) for each in found))
        return found[0]

    def _unknown(self, word: str) -> NotFound:
        """Return the error for a word that means no container; several suggestions if it means a VM."""
        try:
            vm = self.vm(word)
        except (NotFound, Ambiguous):
            pass
        else:
            return NotFound(f"{word!r} is the VM {vm.name!r} ({vm.uuid}), not a container.",
                               f"Name a container of the VM: {vm.label}/NAME.")
        labels, names = [], []
        for vm in self._vms:
            for whole, name in self._listed(vm, "").containers:
                labels.append(_container(vm, whole, name).label)
                names.append(name)
        named = dict(zip(reversed(names), reversed(labels)))
        meant = did_you_mean(word, labels) if "/" in word else did_you_mean(word, names, named.__getitem__)
        return NotFound(f"The pool has no container {word!r}.", meant or (
            "Run 'xscontainer ps --all' to see the containers of the pool."))

    def _rows(self, found: "Iterable[Tuple[str, str, str, str]]") -> "List[str]":
        rows = list(found)
        lines = [f"{label} on {self._host_name(host) if host != NULL_REF else 'no host'}, VM {uuid}"
                 + (f", container {short}" if short else "") for label, host, uuid, short in rows[:_MOST_CANDIDATES]]
        return lines + ([f"and {len(rows) - len(lines)} more"] if len(rows) > len(lines) else [])


def splits(word: str) -> "Iterator[Tuple[str, str]]":
    """Yield VM and name for each "/" in the word, the longest VM first."""
    position = word.rfind("/")
    while position > 0:
        if position + 1 < len(word):
            yield word[:position], word[position + 1:]
        position = word.rfind("/", 0, position)


def _container(vm: NamedVM, whole: str, name: str) -> NamedContainer:
    return NamedContainer(vm.uuid, vm.name, vm.host, whole, name)


# The ways in which a word means a container, the best first: whole id, name, beginning of the id.
_KINDS: "Tuple[Callable[[str, str, str], bool], ...]" = (
    lambda word, whole, name: whole == word,
    lambda word, whole, name: name == word,
    lambda word, whole, name: whole.startswith(word.lower()),
)


def _matches(listed: Listed, word: str) -> "List[Tuple[str, str]]":
    for kind in _KINDS:
        found = [each for each in listed.containers if word and kind(word, *each)]
        if found:
            return found
    return []


def similar(word: str, choices: "Iterable[str]") -> "List[str]":
    """Return the choices that a wrong word may have meant, the most similar first."""
    import difflib  # 3 ms of the start, for errors alone

    short: Dict[str, str] = {}
    for choice in choices:
        if choice and len(short) < _MOST_COMPARED:
            short.setdefault(choice[:_LONGEST_COMPARED].lower(), choice)
    return [short[found] for found in difflib.get_close_matches(
        word[:_LONGEST_COMPARED].lower(), list(short), _MOST_SUGGESTED)]


def did_you_mean(word: str, choices: "Sequence[str]", shown: "Callable[[str], str]" = str) -> str:
    """Return a question with the choices that a wrong word may have meant; "" if none resembles it.

    :param shown: returns the text to show for a choice.
    """
    found = [repr(shown(choice)) for choice in similar(word, choices)]
    if not found:
        return ""
    return f"Did you mean {', '.join(found[:-1])}{' or ' if found[1:] else ''}{found[-1]}?"
