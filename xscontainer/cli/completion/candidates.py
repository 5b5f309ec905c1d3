"""Find the words that may stand at the cursor, from the table in words.json."""

import os
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from xscontainer.cli.completion.quoting import Candidate

Words = Dict[str, Any]

# Command -> the beginning of the status of the containers that it takes. Other commands take every container.
_TAKES = {"stop": "Up", "pause": "Up", "top": "Up", "stats": "Up", "unpause": "Up (Paused)"}
_TAKES_NOT = {"start": "Up", "unpause": "", "pause": "Up (Paused)"}


class Position(NamedTuple):
    """The place of the cursor in a command line.

    :ivar command: its words: ("drive", "write").
    :ivar parser: entry of words.json that applies.
    :ivar value_of: option whose value is typed; "" for none.
    :ivar arguments: positional arguments before the cursor.
    :ivar given: options before the cursor, with their values.
    """

    command: Tuple[str, ...]
    parser: Words
    value_of: str = ""
    arguments: Tuple[str, ...] = ()
    only_arguments: bool = False
    given: Dict[str, str] = {}


def position(words: Sequence[str], table: Words) -> Optional[Position]:
    """Return the place behind these words; None after a word that is no command.

    :param words: without the program.
    """
    command: List[str] = []
    parser, value_of, only_arguments = table, "", False
    arguments: List[str] = []
    given: Dict[str, str] = {}
    for word in words:
        if value_of:
            given[value_of], value_of = word, ""
        elif word == "--" and not only_arguments:
            only_arguments = True
        elif word.startswith("-") and word != "-" and not only_arguments:
            name, assigned, value = word.partition("=")
            given[name] = value
            kind = parser["options"].get(name)
            value_of = name if kind is not None and not assigned else ""
        elif parser.get("commands"):
            name = table["aliases"].get(word, word) if parser is table else word
            if name not in parser["commands"]:
                return None
            parser = parser["commands"][name]
            command.append(name)
        else:
            arguments.append(word)
    return Position(tuple(command), parser, value_of, tuple(arguments), only_arguments, given)


def candidates(at: Position, current: str, pool: "Callable[[], Any]") -> "Iterator[Candidate]":
    """Yield the words that may stand at the cursor.

    :param current: the word at the cursor so far.
    :param pool: returns a logged-in xapi.names.Xapi.
    """
    if at.value_of:
        yield from _of_kind(at.parser["options"][at.value_of], at, current, pool)
        return
    if current.startswith("-") and not at.only_arguments:
        name, assigned, value = current.partition("=")
        kind = at.parser["options"].get(name)
        if not assigned:
            yield from _options(at)
        elif kind:
            for found in _of_kind(kind, at, value, pool):
                yield found._replace(word=f"{name}={found.word}")
        return
    if at.parser.get("commands"):
        for name, entry in at.parser["commands"].items():
            yield Candidate(name, entry["help"])
        return
    kind = _argument(at)
    if kind is not None:
        yield from _of_kind(kind, at, current, pool)


def _options(at: Position) -> "Iterator[Candidate]":
    for name in at.parser["options"]:
        if name not in at.given and name.startswith("--"):
            yield Candidate(name)


def _argument(at: Position) -> Any:
    """Return the kind of the positional argument at the cursor; None if there is none."""
    kinds = at.parser.get("arguments", [])
    number = len(at.arguments)
    if number < len(kinds):
        return kinds[number]["kind"]
    return kinds[-1]["kind"] if kinds and kinds[-1]["many"] else None


def _of_kind(kind: Any, at: Position, current: str, pool: "Callable[[], Any]") -> "Iterator[Candidate]":
    if isinstance(kind, list):
        yield from map(Candidate, kind)
    elif kind == "FILE":
        yield from _files(current)
    elif kind == "VM":
        yield from _vms(pool(), at)
    elif kind == "CONTAINER":
        yield from _containers(pool(), at, current)
    elif kind == "VM|CONTAINER":
        xapi = pool()
        yield from _vms(xapi, at)
        yield from _containers(xapi, at, current)
    elif kind in _CLASSES:
        name, where = _CLASSES[kind]
        for record in pool().records(name, where):
            yield Candidate(record["name_label"] or record["uuid"])


# Word in the help -> class in XAPI, and which of its objects.
_CLASSES = {
    "HOST": ("host", "true"),
    "NETWORK": ("network", "true"),
    "SR": ("SR", "true"),
    "TEMPLATE": ("VM", 'field "is_a_template" = "true" and field "is_a_snapshot" = "false"'),
}


def _files(current: str) -> "Iterator[Candidate]":
    directory, _, begun = current.rpartition("/")
    shown = directory + "/" if "/" in current else ""
    for name in sorted(os.listdir(os.path.expanduser(shown) or ".")):
        if name.startswith(begun) and (begun or not name.startswith(".")):
            is_directory = os.path.isdir(os.path.join(os.path.expanduser(shown), name))
            yield Candidate(shown + name + ("/" if is_directory else ""))


def _vms(pool: Any, at: Position) -> "Iterator[Candidate]":
    vms = pool.vms()
    labels = _labels(vms)
    for vm in sorted(vms, key=lambda vm: (not vm.managed, vm.name)):
        if labels[vm.uuid] not in at.arguments:
            yield Candidate(labels[vm.uuid], vm.power_state)


def _labels(vms: "Sequence[Any]") -> Dict[str, str]:
    """Return the name of each VM; its uuid if another VM has the same name, or the name cannot be typed."""
    count = _count(vm.name for vm in vms)
    return {vm.uuid: vm.name if count[vm.name] == 1 and vm.name.isprintable() and vm.name[:1] not in ("", "-")
            else vm.uuid for vm in vms}


def _count(words: "Iterable[str]") -> Dict[str, int]:
    counted: Dict[str, int] = {}
    for word in words:
        counted[word] = counted.get(word, 0) + 1
    return counted


def _containers(pool: Any, at: Position, current: str) -> "Iterator[Candidate]":
    """Yield VM/ first, and the containers of a VM when its name is typed; names that are unique, too."""
    from xscontainer.xapi import names

    command = at.command[-1] if at.command else ""
    takes, takes_not = _TAKES.get(command, ""), _TAKES_NOT.get(command, "")
    vms = pool.vms()
    labels = _labels(vms)
    begun = [(labels[vm.uuid], vm) for vm in vms if names.has_container(vm.document, takes, takes_not)]
    begun.sort(key=lambda each: each[0])
    for label, _ in begun:
        if "/" not in current:
            yield Candidate(label + "/")
    for label, vm in begun:
        # Only the lists of the VMs that are meant are read: all of a pool may have megabytes.
        if current.startswith(label + "/"):
            for container in names.containers(vm.document):
                if f"{label}/{container.name}" not in at.arguments and _is_taken(container, takes, takes_not):
                    yield Candidate(f"{label}/{container.name}", _note(container))
    if current and "/" not in current:
        count = _count(name for vm in vms for name in names.named(vm.document, current))
        for _, vm in begun:
            if any(count[name] == 1 for name in names.named(vm.document, current)):
                for container in names.containers(vm.document):
                    if count.get(container.name) == 1 and container.name not in at.arguments and _is_taken(
                            container, takes, takes_not):
                        yield Candidate(container.name, _note(container))


def _is_taken(container: Any, takes: str, takes_not: str) -> bool:
    return container.status.startswith(takes) and not (takes_not and container.status.startswith(takes_not))


def _note(container: Any) -> str:
    return f"{container.status}, {container.image}"
