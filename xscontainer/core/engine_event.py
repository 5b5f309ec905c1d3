"""Events of a container engine as plain values, and whether a list shows their effect yet.

They come from a guest that may be hostile: as in :mod:`xscontainer.core.container` everything is bounded and nothing
raises.
"""

from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

from xscontainer.core.container import HEALTHS, IMAGE_LIMIT, NAME_LIMIT, Container
from xscontainer.sanitize import clean_text, integer, mapping

# The states in which a list that knows of the event may show its container.
_SHOWN: Dict[str, Tuple[str, ...]] = {
    "start": ("running",),
    "restart": ("running",),
    "unpause": ("running",),
    "pause": ("paused",),
    "die": ("exited", "restarting", "dead", "removing"),
    "died": ("exited", "restarting", "dead", "removing"),
    "stop": ("exited", "restarting", "dead", "removing"),
}
# Container events that leave the list as it was.
_QUIET = frozenset(
    "attach detach resize top copy export archive-path extract-to-dir exec_create exec_start exec_die exec_detach "
    "exec kill commit checkpoint cleanup healthcheck exec_died mount unmount sync".split()
)
# Container events that a record of the VM's events keeps. For Podman's names see EngineEvent.kind.
RECORDED = frozenset("create start restart stop kill oom die destroy rename pause unpause health_status".split())
_LATEST_NS = (1 << 63) - 1


class EngineEvent(NamedTuple):
    """One line of GET /events.

    ``action`` is the bare verb: "health_status: healthy" becomes action health_status and health healthy,
    "exec_start: sh" becomes exec_start.

    :ivar exit_code: of the container's process, in an event that says that it ended.
    :ivar signal: the number of the signal that was sent, as text; "" if the engine names none, as Podman.
    :ivar time_ns: nanoseconds since the epoch, by the engine's clock; 0: unknown.
    """

    type: str
    action: str
    id: str = ""
    name: str = ""
    health: Optional[str] = None
    image: str = ""
    exit_code: Optional[int] = None
    signal: str = ""
    time_ns: int = 0

    @classmethod
    def from_api(cls, data: object) -> "EngineEvent":
        """Return the event in one decoded line.

        Old engines give only ``status`` and ``id``, new ones only ``Type``, ``Action`` and ``Actor``.
        """
        fields = mapping(data)
        actor = mapping(fields.get("Actor"))
        given = mapping(actor.get("Attributes"))
        words = clean_text(fields.get("Action"), 256) or clean_text(fields.get("status"), 256)
        action, _, detail = words.partition(":")
        health = None
        if action == "health_status":
            named = (detail.strip(), fields.get("HealthStatus"), given.get("health_status"))
            health = next((word for word in named if isinstance(word, str) and word in HEALTHS), None)
        return cls(
            type=clean_text(fields.get("Type"), 32) or ("container" if words else ""),
            action=action,
            id=clean_text(actor.get("ID"), 128) or clean_text(fields.get("id"), 128),
            name=clean_text(given.get("name"), NAME_LIMIT),
            health=health,
            image=clean_text(given.get("image"), IMAGE_LIMIT) or clean_text(fields.get("from"), IMAGE_LIMIT),
            exit_code=_exit_code(given) if action in ("die", "died") else None,
            signal=clean_text(given.get("signal"), 16) if action == "kill" else "",
            time_ns=_time_ns(fields),
        )

    @property
    def kind(self) -> str:
        """Return the action by Docker's name for it."""
        return {"died": "die", "remove": "destroy"}.get(self.action, self.action)

    @property
    def recorded(self) -> bool:
        """Return whether a record of the VM's events keeps the event."""
        return self.type == "container" and bool(self.id) and self.kind in RECORDED

    @property
    def changes_list(self) -> bool:
        """Return whether the container list may have changed; an unknown action counts as a change."""
        return self.type == "container" and bool(self.action) and self.action not in _QUIET

    def shown_by(self, container: Optional[Container]) -> bool:
        """Return whether a list shows the effect of the event. An event without a visible effect counts as shown.

        :param container: the list's entry for the event's container; None: it has none.
        """
        if self.action in ("destroy", "remove"):
            return container is None
        if container is None:
            return False
        if self.action == "rename":
            return container.name == self.name
        if self.action == "health_status":
            # Podman sends an event for every check, and its lists show no health.
            return self.health is None or container.health is None or container.health == self.health
        states = _SHOWN.get(self.action)
        return states is None or container.state in states

    @property
    def changes_info(self) -> bool:
        """Return whether the engine's own facts may have changed (its configuration was reloaded)."""
        return self.type == "daemon"


def _exit_code(given: "Mapping[str, Any]") -> Optional[int]:
    # Podman before 4 gives containerExitCode only, which later ones set to "0" in events of all other kinds.
    for name in ("exitCode", "containerExitCode"):
        code = integer(given.get(name), -(1 << 31), (1 << 32) - 1)  # Windows has codes of 32 bits
        if code is not None:
            return code
    return None


def _time_ns(fields: "Mapping[str, Any]") -> int:
    """Return the time of an event. Engines before 1.9 give seconds only."""
    nanoseconds = integer(fields.get("timeNano"), 1, _LATEST_NS)
    if nanoseconds is None:
        nanoseconds = 1000000000 * (integer(fields.get("time"), 1, _LATEST_NS // 1000000000) or 0)
    return nanoseconds


# Stands for an event that cannot be read: any container may have changed in any way.
UNREAD = EngineEvent("container", "unread")
