"""The pods of podman's containers, which its Docker-compatible list does not name.

A container is in a pod from its creation on. So podman is asked for its pods only when a list has a new container.
"""

import threading
import time
from typing import Callable, Dict

from xscontainer.core.container import ContainerList
from xscontainer.core.groups import POD, Group
from xscontainer.core.memory_budget import turn
from xscontainer.engine import api_version, failures
from xscontainer.engine.calls import Calls
from xscontainer.engine.http import message_of, parse_json
from xscontainer.errors import EngineError
from xscontainer.sanitize import clean_text, mapping

MOST_PODS = 4096
SECONDS = 3.0  # for the answer
_ASKING = "Listing the pods"
_KEY = 16  # digits of an id that are kept


class Pods:
    """The pods of one podman's containers. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held while podman is asked: one thread asks for all
        self._names: Dict[str, str] = {}  # beginning of a container's id -> name of its pod, "" if it is in none

    def added_to(self, found: ContainerList, ask: "Callable[[], Dict[str, str]]") -> ContainerList:
        """Return the list with the pods of those containers whose labels name no other group.

        :param ask: returns the name of the pod for the id of each container that is in one. If podman does not answer,
            the list has no pods until there is another new container.
        """
        with self._lock:
            names = self._names
            keys = [container.id[:_KEY] for container in found.containers]
            if not all(key in names for key in keys):
                try:
                    pods = {container[:_KEY]: name for container, name in ask().items()}
                except EngineError:
                    pods = {}
                names = self._names = {key: pods.get(key, "") for key in keys}
        if not any(names.values()):
            return found
        return found._replace(containers=tuple(
            container if container.group.kind or not names[container.id[:_KEY]] else container._replace(
                group=Group(POD, names[container.id[:_KEY]], unit=container.group.unit))
            for container in found.containers))


def ask(calls: Calls) -> "Dict[str, str]":
    """Return the name of its pod for the id of each container that is in a pod.

    :raises EngineError: podman does not say.
    """
    deadline = time.monotonic() + SECONDS

    def once(version: str) -> "Dict[str, str]":
        timeout = max(0.1, deadline - time.monotonic())
        with calls.lease(version, timeout=timeout) as client, failures.translating(_ASKING, failures.API_SIDE):
            # podman serves its own API below any version.
            answer = client.get_raw(api_version.path(version or "4.0.0", "/libpod/pods/json"), timeout)
            if answer.status != 200:
                raise failures.refusal(answer.status, message_of(answer.body), _ASKING)
            with turn(len(answer.body)):
                return _names(parse_json(answer.body))

    return calls.with_version(once)


def _names(answer: object) -> "Dict[str, str]":
    names: Dict[str, str] = {}
    for pod in answer[:MOST_PODS] if isinstance(answer, list) else []:
        fields = mapping(pod)
        name, containers = clean_text(fields.get("Name"), 128), fields.get("Containers")
        for container in containers if name and isinstance(containers, list) else []:
            identifier = mapping(container).get("Id")
            if isinstance(identifier, str):
                names[identifier[:64]] = name
    return names
