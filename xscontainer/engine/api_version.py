"""Choose the API version for an engine, and recognize Docker and Podman, from the answer to GET /version."""

import re
from typing import Any, Dict, Optional, Tuple

from xscontainer.core.target import DOCKER, PODMAN
from xscontainer.errors import EngineGarbage, EngineTooOld

OLDEST = (1, 24)
PREFERRED = (1, 44)  # the newest version whose answers this code was written for

_VERSION = re.compile(r"([0-9]{1,3})\.([0-9]{1,4})\Z")


def negotiate(version: Dict[str, Any]) -> str:
    """Return the API version to speak with an engine.

    That is PREFERRED, or the engine's newest if that is older, or the engine's oldest if that is newer: the calls that
    we make have not changed in ten years, so an unknown version is better than no answer.

    :param version: the engine's answer to GET /version.
    :raises EngineTooOld: if the engine's newest version is older than OLDEST.
    :raises EngineGarbage: if the answer names no versions.
    """
    newest = _parse(version.get("ApiVersion"))
    oldest = _parse(version.get("MinAPIVersion") or "1.0")
    if newest is None or oldest is None:
        raise EngineGarbage("The engine does not say which API versions it speaks.")
    if newest < OLDEST:
        raise EngineTooOld(f"The engine speaks the API up to version {newest[0]}.{newest[1]} only.")
    major, minor = max(min(PREFERRED, newest), oldest)
    return f"{major}.{minor}"


def kind(version: Dict[str, Any]) -> str:
    """Return PODMAN or, for every other engine, DOCKER.

    :param version: the engine's answer to GET /version.
    """
    parts = version.get("Components")
    names = [part.get("Name") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return PODMAN if "Podman Engine" in names else DOCKER


def path(version: str, rest: str) -> str:
    """Return the path of a request.

    :param version: API version, as "1.41"; "": the engine's newest.
    :param rest: the path below the version, with its query.
    """
    return f"/v{version}{rest}" if version else rest


def is_at_least(version: str, least: Tuple[int, int]) -> bool:
    """Return whether an API version, as "1.41", is this one or newer; False for one that is not known."""
    return (_parse(version) or (0, 0)) >= least


def _parse(text: object) -> Optional[Tuple[int, int]]:
    match = _VERSION.match(text) if isinstance(text, str) else None
    return (int(match.group(1)), int(match.group(2))) if match else None
