"""Find the container that a caller means. Names may look like ids, and ids like names."""

import re
from typing import Any, Dict, List, Sequence, Tuple

from xscontainer.core.container import SHORT_ID, UNNAMED_ID
from xscontainer.errors import ContainerConflict, ContainerNotFound

WHOLE_ID = re.compile(r"[0-9a-f]{64}\Z")
# The beginning of an id. A whole id needs no look-up: every engine compares whole ids first.
_BEGINNING = re.compile(r"[0-9a-f]{1,63}\Z")


def is_ambiguous(called: str) -> bool:
    """Return whether ``called`` may be either a name or the beginning of an id."""
    return bool(_BEGINNING.match(called))


def concerns(called: str, entry: "Dict[str, Any]") -> bool:
    """Return whether an entry of the engine's list may be meant by ``called``. :func:`resolve` needs only these."""
    whole = entry.get("Id")
    return isinstance(whole, str) and (whole.startswith(called) or called in _names(entry))


def resolve(called: str, listed: "Sequence[Dict[str, Any]]") -> str:
    """Return the whole id of the container that ``called`` means.

    Engines prefer names to the beginning of an id, so a container could be named like the short id of another. Here
    the forms that we publish come first: whole id, short id, name. The beginning of an id in any other length counts
    only if no container has that name.

    :param listed: the engine's list of all containers.
    :raises ContainerNotFound: if no container matches. :raises ContainerConflict: if several do.
    """
    named = [(entry["Id"], _names(entry)) for entry in listed if isinstance(entry.get("Id"), str)]
    choices: List[List[str]] = [
        [whole for whole, _ in named if whole == called],
        [whole for whole, names in named if called in _published(whole, names)],
        [whole for whole, names in named if called in names],
        [whole for whole, _ in named if whole.startswith(called)],
    ]
    found = next(filter(None, choices), [])
    if not found:
        raise ContainerNotFound(f"The engine has no container {called}.")
    if len(found) > 1:
        raise ContainerConflict(f"{len(found)} containers have an id that begins with {called}.",
                                "Give the container's name or its whole id.")
    return found[0]


def _published(whole: str, names: "Tuple[str, ...]") -> "Tuple[str, ...]":
    """Return the short ids in the published list. The second is shown instead of a missing name."""
    return (whole[:SHORT_ID],) if names else (whole[:SHORT_ID], whole[:UNNAMED_ID])


def _names(entry: "Dict[str, Any]") -> "Tuple[str, ...]":
    given = entry.get("Names")
    return tuple(name.lstrip("/") for name in given if isinstance(name, str)) if isinstance(given, list) else ()
