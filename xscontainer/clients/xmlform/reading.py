"""Read a published container list."""

import re
from typing import Any, Dict, Mapping, Optional
from xml.etree import ElementTree

from xscontainer.core.bounded import xml_from
from xscontainer.core.container import ContainerList, containers_from_api
from xscontainer.core.groups import KINDS, NO_GROUP, Group
from xscontainer.sanitize import LATEST, integer


def read_docker_ps(text: str) -> ContainerList:
    """Return the containers of a published list, also of one that Citrix's old pack wrote.

    The list is bounded and checked like an engine's answer, since other clients may write to other_config.

    :raises ValueError: when the text is not such a document.
    """
    if "<!" in text:
        raise ValueError("the container list holds a declaration, which no published one does")
    try:
        root = xml_from(text)
    except ValueError as error:
        raise ValueError(f"the container list cannot be read: {error}") from error
    # Of two elements with one name the first counts, and of two entries with one id.
    entries = [(entry, {child.tag: child.text or "" for child in reversed(entry)})
               for entry in root.findall("item/entry")]
    left_out = root.findtext("left_out", "0")
    found = containers_from_api([_as_api(entry, texts) for entry, texts in entries])
    groups = {texts.get("id"): _group(texts) for _, texts in reversed(entries)}
    containers = tuple(container if groups[container.id] is NO_GROUP else container._replace(group=groups[container.id])
                       for container in found.containers)
    missing = int(left_out) if re.fullmatch("[0-9]{1,9}", left_out) else 0
    return found._replace(containers=containers, left_out=found.left_out + missing)


def _as_api(entry: ElementTree.Element, texts: "Mapping[str, str]") -> Dict[str, Any]:
    """Return the engine's own wording of the same state, so that one place decides what it means."""
    return {
        "Id": texts.get("id"),
        "Names": [texts.get("names")],
        "Image": texts.get("image"),
        "Command": texts.get("command"),
        "Created": texts.get("created"),
        "State": texts.get("state"),
        "Status": _status(texts),
        "Health": {"Status": texts.get("health", "")},
        "Ports": [{part.tag: part.text for part in item if part.text} for item in entry.findall("ports/item")],
        "StartedAt": integer(texts.get("started_at"), 1, LATEST),
    }


def _group(texts: "Mapping[str, str]") -> Group:
    kind = next((kind for kind in KINDS if texts.get(kind)), "")
    if not kind and not texts.get("unit"):
        return NO_GROUP
    return Group.cleaned(kind, texts.get(kind), texts.get("service"), texts.get("number"),
                         texts.get("one_off") == "true", texts.get("unit"))


def _status(texts: "Mapping[str, str]") -> Optional[str]:
    """Return the status with the real exit code, even if another one is published in its place."""
    code = texts.get("exit_code", "")
    return f"Exited ({code})" if re.fullmatch("-?[0-9]{1,10}", code) else texts.get("status")
