"""Networks and mounts of a container, from its entry in an engine's list. They come from a guest that may be hostile.

Everything is cleaned and bounded, and nothing raises.
"""

from typing import Any, List, Mapping, NamedTuple, Optional, Tuple

from xscontainer.sanitize import clean_text, integer, mapping

MOST_NETWORKS = 8  # of one container
MOST_MOUNTS = 16
TEXT_LIMIT = 255  # characters
_MOST_LOOKED_AT = 1024


class Network(NamedTuple):
    """A network that a container is in.

    :ivar ip: IPv4 address there; "" if it has none, as while it does not run.
    :ivar ip6: IPv6 address there, or "".
    """

    name: str
    ip: str = ""
    ip6: str = ""

    @property
    def cost(self) -> int:
        """Estimate of its memory, bytes; one wide character widens a whole text."""
        return 80 + _texts_cost(*self)


class Mount(NamedTuple):
    """A mount of a container.

    :ivar type: bind, volume, tmpfs, or another word of the engine; "" if unknown.
    :ivar source: name of the volume, else path in the guest; "" if unknown.
    :ivar destination: path in the container.
    :ivar read_only: None: unknown.
    """

    type: str
    source: str
    destination: str
    read_only: Optional[bool] = None

    @property
    def cost(self) -> int:
        """Estimate of its memory, bytes."""
        return 90 + _texts_cost(self.type, self.source, self.destination)


class Details(NamedTuple):
    """Facts about a container that are not published in docker_ps; None: the engine's list does not give them."""

    networks: Optional[Tuple[Network, ...]] = None
    mounts: Optional[Tuple[Mount, ...]] = None
    restart_count: Optional[int] = None


def _texts_cost(*texts: str) -> int:
    return sum(50 + (1 if len(text) == len(text.encode("utf-8", "surrogatepass")) else 4) * len(text)
               for text in texts)


def details_of_entry(fields: "Mapping[str, Any]") -> Details:
    """Return the details in an entry of an engine's list: Docker's, or podman's own."""
    count = next((fields[name] for name in ("RestartCount", "Restarts") if name in fields), None)
    return Details(_networks(fields), _mounts(fields.get("Mounts")), integer(count, 0, 1 << 31))


def _networks(fields: "Mapping[str, Any]") -> "Optional[Tuple[Network, ...]]":
    given = fields.get("Networks")  # podman's own list has only the names
    if isinstance(given, list):
        names = (clean_text(name, TEXT_LIMIT) for name in given[:_MOST_LOOKED_AT])
        return tuple(sorted({Network(name) for name in names if name}))[:MOST_NETWORKS]
    found = mapping(fields.get("NetworkSettings")).get("Networks")
    if not isinstance(found, dict):
        return None
    networks: List[Network] = []
    for name, facts in list(found.items())[:_MOST_LOOKED_AT]:
        facts = mapping(facts)
        networks.append(Network(clean_text(name, TEXT_LIMIT), clean_text(facts.get("IPAddress"), 45),
                                clean_text(facts.get("GlobalIPv6Address"), 45)))
    return tuple(sorted(network for network in networks if network.name))[:MOST_NETWORKS]


def _mounts(given: object) -> "Optional[Tuple[Mount, ...]]":
    if not isinstance(given, list):
        return None
    found = {mount for mount in map(_mount, given[:_MOST_LOOKED_AT]) if mount}
    return tuple(sorted(found, key=lambda mount: (mount.destination, mount.source, mount.type)))[:MOST_MOUNTS]


def _mount(data: object) -> Optional[Mount]:
    if isinstance(data, str):  # podman's own list has only the destinations
        return Mount("", "", clean_text(data, TEXT_LIMIT)) if data else None
    fields = mapping(data)
    destination = clean_text(fields.get("Destination"), TEXT_LIMIT)
    if not destination:
        return None
    source = clean_text(fields.get("Name"), TEXT_LIMIT) or clean_text(fields.get("Source"), TEXT_LIMIT)
    writable = fields.get("RW")
    return Mount(clean_text(fields.get("Type"), 32), source, destination,
                 None if not isinstance(writable, bool) else not writable)
