"""What clients are shown of one VM: a list and the engine's facts, or why there are none."""

import json
from typing import Any, Dict, List, Tuple

from xscontainer import keys, xmlform
from xscontainer.errors import XSContainerError
from xscontainer.model import Container, EngineInfo, EngineVersion, containers_from_api
from xscontainer.settings import PublishSettings


class Documents:
    """:ivar texts: key of keys.PUBLISHED -> document.

    :ivar shortened: how many containers are left out of the list, and which fields of all.
    """

    def __init__(self, settings: PublishSettings) -> None:
        self._settings = settings
        self.texts: Dict[str, str] = {}
        self.shortened: Tuple[int, Tuple[str, ...]] = (0, ())
        self._facts: Tuple[object, ...] = ()  # that are shown

    def list(self, answer: "List[Dict[str, Any]]") -> "Tuple[Container, ...]":
        """The engine's list, as it answers; returns the containers in it."""
        found = containers_from_api(answer, self._settings.max_containers)
        document = xmlform.docker_ps(found.containers, self._settings.max_bytes, found.left_out)
        self.shortened = (document.left_out, tuple(document.dropped))
        self.texts.pop(keys.STATUS, None)
        self.texts[keys.PS] = document.text
        return found.containers

    def facts(self, version_answer: "Dict[str, Any]", info_answer: "Dict[str, Any]") -> None:
        """The engine's own, as it answers; those that tick all the time are no news."""
        version, info = EngineVersion.from_api(version_answer), EngineInfo.from_api(info_answer)
        facts = (version, info.stable_key())
        if facts != self._facts:
            self._facts = facts
            self.texts[keys.INFO] = xmlform.docker_info(info)
            self.texts[keys.VERSION] = xmlform.docker_version(version)

    def failure(self, error: XSContainerError) -> None:
        """A list nobody can vouch for is worse than none: why there is none."""
        self._facts = ()
        self.texts = {keys.STATUS: json.dumps(
            {"code": error.code, "message": _bounded(str(error))}, ensure_ascii=False)}


def _bounded(text: str) -> str:
    """Error texts quote guests; XAPI takes no control characters."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)[:500]
