"""The group that a container belongs to: a compose project, a swarm stack or a pod; and the systemd unit it runs as.

All of it comes from labels that anybody in the guest may set, so it is cleaned and bounded. None of this raises.
"""

from typing import NamedTuple, Optional

from xscontainer.sanitize import clean_text, integer, mapping

COMPOSE, SWARM, POD = KINDS = ("compose", "swarm", "pod")
NAME_LIMIT = 128  # characters
MOST_LABELS = 4096  # of one container that are looked at
MOST_NUMBER = 1 << 31

_COMPOSE = "com.docker.compose."
_SWARM = "com.docker.swarm."


class Group(NamedTuple):
    """A container's group.

    :ivar kind: COMPOSE, SWARM, POD, or "" if the container is in none.
    :ivar name: of the project, stack or pod.
    :ivar service: the container's service in it.
    :ivar number: of the container among those of its service, if it has one.
    :ivar one_off: whether the container was made by ``docker compose run``; it is not part of the service.
    :ivar unit: the systemd unit (quadlet) that runs the container and restarts it; "" if none does.
    """

    kind: str = ""
    name: str = ""
    service: str = ""
    number: Optional[int] = None
    one_off: bool = False
    unit: str = ""

    @classmethod
    def cleaned(cls, kind: str, name: object, service: object, number: object, one_off: bool, unit: object) -> "Group":
        """Return the group with these values, of which those that are unusable are left out."""
        name = clean_text(name, NAME_LIMIT)
        unit = clean_text(unit, NAME_LIMIT)
        if not kind or not name:
            return cls(unit=unit) if unit else NO_GROUP
        return cls(kind, name, clean_text(service, NAME_LIMIT), integer(number, 0, MOST_NUMBER), one_off, unit)


NO_GROUP = Group()


def group_of(labels: object, pod: object = "") -> Group:
    """Return the group of a container with these labels.

    A compose project counts first, then a swarm stack, then a pod. podman-compose sets compose's labels, too.

    :param labels: from the engine's list or description, as decoded from JSON.
    :param pod: the name of the podman pod, where the engine reports it.
    """
    given = mapping(labels)
    if len(given) > MOST_LABELS or not given and not pod:
        return NO_GROUP

    def text(name: str) -> str:
        return clean_text(given[name], NAME_LIMIT) if name in given else ""

    unit = text("PODMAN_SYSTEMD_UNIT")
    project = text(_COMPOSE + "project") or text("io.podman.compose.project")
    if project:
        service = text(_COMPOSE + "service") or text("io.podman.compose.service")
        number = integer(given.get(_COMPOSE + "container-number"), 0, MOST_NUMBER)
        return Group(COMPOSE, project, service, number, text(_COMPOSE + "oneoff").lower() == "true", unit)
    stack = text("com.docker.stack.namespace")
    if stack:
        service = text(_SWARM + "service.name")
        if service.startswith(stack + "_"):
            service = service[len(stack) + 1:]
        # "web.2.k5v8...": service, number, task; a service with one task on each node has that node's id there.
        task = text(_SWARM + "task.name").rpartition(".")[0].rpartition(".")[2]
        return Group(SWARM, stack, service, integer(task, 0, MOST_NUMBER), unit=unit)
    name = text("io.kubernetes.pod.name") or clean_text(pod, NAME_LIMIT)
    if name:
        return Group(POD, name, text("io.kubernetes.container.name"), unit=unit)
    return Group(unit=unit) if unit else NO_GROUP


def group_of_entry(entry: object) -> Group:
    """Return the group of a container by its entry in an engine's list: Docker's, or podman's own."""
    fields = mapping(entry)
    return group_of(fields.get("Labels"), fields.get("PodName"))
