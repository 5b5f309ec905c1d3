"""The texts of a container's cells in a table. Pure."""

from typing import Dict, List, Optional, Sequence, Tuple

from xscontainer.core.container import Container, Port

_EVERYWHERE = ("", "0.0.0.0", "::")
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def state(container: Container) -> str:
    """Return the state with the health, or with the exit code of the last run."""
    if container.health:
        return f"{container.state} ({container.health})"
    if container.state in ("exited", "restarting"):
        return f"{container.state} ({container.exit_code or 0})"
    return container.state


def span(seconds: float) -> str:
    """Return a time span in one or two units: "42s", "5m", "3h 5m", "4d 2h", "120d"."""
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m"
    if whole < _DAY:
        return _two(whole, _HOUR, "h", _MINUTE, "m")
    return _two(whole, _DAY, "d", _HOUR, "h") if whole < 100 * _DAY else f"{whole // _DAY}d"


def _two(whole: int, large: int, large_name: str, small: int, small_name: str) -> str:
    rest = whole % large // small
    return f"{whole // large}{large_name}" + (f" {rest}{small_name}" if rest else "")


def until_next(seconds: float) -> float:
    """Return the seconds after which :func:`span` of a growing time span may change."""
    step = 1 if seconds < _MINUTE else _MINUTE if seconds < _DAY else _HOUR
    return step - seconds % step


def short_image(image: str) -> str:
    """Return the image without its registry: the end of the text says most."""
    registry, slash, rest = image.partition("/")
    named = "." in registry or ":" in registry or registry == "localhost"
    return f"\u2026/{rest}" if slash and named and rest else image


def ports(given: "Sequence[Port]") -> str:
    """Return the ports as in ``docker ps``: ranges are joined, and IPv4 with IPv6.

    A port that is published on all addresses has no address: "8080->80/tcp".
    """
    return ", ".join(map(_port_text, _ranges(_merged(given))))


Range = Tuple[str, str, int, Optional[int], int]  # type, address, first private and public port, number of ports


def _merged(given: "Sequence[Port]") -> "List[Port]":
    """Return the ports sorted, those on all IPv4 and all IPv6 addresses as one without an address."""
    addresses: Dict[Tuple[int, str, Optional[int]], List[str]] = {}
    for port in given:
        addresses.setdefault((port.private, port.type, port.public), []).append(port.ip)
    merged = []
    for (private, kind, public), found in addresses.items():
        everywhere = {ip for ip in found if ip in _EVERYWHERE}
        others = sorted({ip for ip in found if ip not in _EVERYWHERE})
        if everywhere:
            others.insert(0, "::" if everywhere == {"::"} else "")
        merged += [Port(private, kind, public, ip) for ip in others]
    return sorted(merged, key=lambda port: (port.type, port.public is None, port.ip, port.private, port.public or 0))


def _ranges(given: "Sequence[Port]") -> "List[Range]":
    found: List[Range] = []
    for port in given:
        if found:
            kind, ip, private, public, count = found[-1]
            following = None if public is None else public + count
            if (port.type, port.ip, port.private, port.public) == (kind, ip, private + count, following):
                found[-1] = kind, ip, private, public, count + 1
                continue
        found.append((port.type, port.ip, port.private, port.public, 1))
    return sorted(found, key=lambda each: (each[2], each[0], each[1]))


def _port_text(ports: Range) -> str:
    kind, ip, private, public, count = ports

    def numbers(first: int) -> str:
        return f"{first}-{first + count - 1}" if count > 1 else str(first)

    address = f"[{ip}]:" if ":" in ip else f"{ip}:" if ip else ""
    return (f"{address}{numbers(public)}->" if public is not None else "") + f"{numbers(private)}/{kind}"
