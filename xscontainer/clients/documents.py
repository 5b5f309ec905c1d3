"""The documents that clients read about one VM: a list and the engine's facts, or the reason why there are none.

Values come from the VM's monitor (monitoring.vm.publisher), the texts go to publish.Publication.
"""

import json
from typing import Any, Dict, Optional, Tuple

from xscontainer import keys
from xscontainer.clients import xmlform
from xscontainer.core.container import Container, ContainerList
from xscontainer.core.engine_facts import EngineInfo, EngineVersion
from xscontainer.errors import XSContainerError
from xscontainer.sanitize import map_bytes
from xscontainer.settings import PublishSettings

BESIDE_BYTES = 6000  # reserved for the other documents at least: they may come after the list
STATUS_BYTES = 3000  # a status takes at most
LEAST_BYTES = 20000  # a list may take at least, whatever else other_config holds


class Documents:
    """The documents of one VM.

    :ivar problem: why no list is shown; None while a list is shown.
    :ivar notice: what is missing beside the list; None: nothing.
    :ivar shortened: how many containers the list leaves out, and which fields it leaves out of all containers.
    """

    def __init__(self, settings: PublishSettings) -> None:
        self._settings = settings
        self.problem: Optional[XSContainerError] = None
        self.notice: Optional[XSContainerError] = None
        self.shortened: Tuple[int, Tuple[str, ...]] = (0, ())
        self._list: Dict[str, str] = {}
        self._about: Dict[str, str] = {}  # documents about the engine
        self._known: Tuple[object, ...] = ()  # the facts that these documents show

    @property
    def listed(self) -> bool:
        """Return whether a list is shown."""
        return self.problem is None and bool(self._list)

    @property
    def texts(self) -> Dict[str, str]:
        """The documents to publish: key of keys.PUBLISHED -> text."""
        if self.problem is not None:
            return {keys.STATUS: _status(self.problem)}
        notice = {keys.STATUS: _status(self.notice)} if self.notice is not None and self._list else {}
        return {**self._list, **self._about, **notice}

    def list(self, found: ContainerList, others_bytes: int = 0) -> "Tuple[Container, ...]":
        """Take the engine's list; returns its containers.

        :param others_bytes: size of the other keys in the VM's other_config.
        """
        beside = max(map_bytes({**self._about, keys.PS: "", keys.STATUS: ""}) + STATUS_BYTES, BESIDE_BYTES)
        room = max(self._settings.max_bytes - others_bytes - beside, LEAST_BYTES)
        document = xmlform.docker_ps(found.containers, room, found.left_out, self._settings.ended_as_137)
        self.shortened = (document.left_out, tuple(document.dropped))
        self._list = {keys.PS: document.text}
        self.problem = None
        return found.containers

    def facts(self, version_answer: "Optional[Dict[str, Any]]", info_answer: "Optional[Dict[str, Any]]") -> None:
        """Take the engine's answers to GET /version and GET /info; None: it gave none. Counters alone are no change."""
        version = None if version_answer is None else EngineVersion.from_api(version_answer)
        info = None if info_answer is None else EngineInfo.from_api(info_answer)
        known = (version, info and info.stable_key())
        if known != self._known:
            self._known, self._about = known, {}
            if info is not None:
                self._about[keys.INFO] = xmlform.docker_info(info)
            if version is not None:
                self._about[keys.VERSION] = xmlform.docker_version(version)

    def failure(self, error: XSContainerError, lost: bool = True) -> None:
        """Replace a list that may be stale with the reason.

        :param lost: also forget the list and the facts, because the engine that answers next may be another one.
        """
        self.problem = error
        if lost:
            self._list, self._about, self._known = {}, {}, ()


def _status(error: XSContainerError) -> str:
    return json.dumps({"code": error.code, "message": _bounded(str(error))}, ensure_ascii=False)


def _bounded(text: str) -> str:
    """Return the text without control characters, which XAPI refuses: error messages quote guests."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)[:500]
