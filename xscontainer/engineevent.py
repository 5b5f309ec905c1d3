"""What a container engine tells as it happens, as plain values, and when its list shows it.

As in :mod:`xscontainer.model` it may be hostile, so everything is bounded and nothing raises.
"""

from typing import Dict, NamedTuple, Optional, Tuple

from xscontainer.harmless import clean_text, mapping
from xscontainer.model import HEALTHS, NAME_LIMIT, Container

# The states in which the list may show a container right after an event.
_SHOWN: Dict[str, Tuple[str, ...]] = {
    "start": ("running",),
    "restart": ("running",),
    "unpause": ("running",),
    "pause": ("paused",),
    "die": ("exited", "restarting", "dead", "removing"),
    "died": ("exited", "restarting", "dead", "removing"),
    "stop": ("exited", "restarting", "dead", "removing"),
}
# Container events after which the list reads the same as before.
_QUIET = frozenset(
    "attach detach resize top copy export archive-path extract-to-dir exec_create exec_start exec_die exec_detach "
    "exec kill commit checkpoint cleanup healthcheck exec_died mount unmount sync".split()
)


class EngineEvent(NamedTuple):
    """One line of GET /events.

    ``action`` is the bare verb: "health_status: healthy" becomes action health_status and health healthy,
    "exec_start: sh" becomes exec_start.
    """

    type: str
    action: str
    id: str = ""
    name: str = ""
    health: Optional[str] = None

    @classmethod
    def from_api(cls, data: object) -> "EngineEvent":
        """Old engines give ``status`` and ``id`` alone, new ones ``Type``, ``Action`` and ``Actor`` alone."""
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
        )

    @property
    def changes_list(self) -> bool:
        """Whether the container list may read differently now; an unknown action counts as a change."""
        return self.type == "container" and bool(self.action) and self.action not in _QUIET

    def shown_by(self, container: Optional[Container]) -> bool:
        """Whether a list with this entry for the event's container (None: without one) shows what the event tells.

        An event that says nothing checkable counts as shown.
        """
        if self.action in ("destroy", "remove"):
            return container is None
        if container is None:
            return False
        if self.action == "rename":
            return container.name == self.name
        if self.action == "health_status":
            # Podman tells of every check, and its lists of none.
            return self.health is None or container.health is None or container.health == self.health
        states = _SHOWN.get(self.action)
        return states is None or container.state in states

    @property
    def changes_info(self) -> bool:
        """Whether the engine's own facts may have changed (its configuration was reloaded)."""
        return self.type == "daemon"
