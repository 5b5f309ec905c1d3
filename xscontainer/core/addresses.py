"""Check and order the addresses at which a VM may answer. Pure.

The guest writes the addresses in its guest metrics. Without a check it could point the daemon, which runs as root, at
the daemon's own host, at another host of the pool or at a multicast group.
"""

import functools
import heapq
import ipaddress
import re
from typing import (
    Container,
    Dict,
    FrozenSet,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Set,
    Tuple,
    Union,
)

MOST_CANDIDATES = 16
MOST_REPORTED = 32  # addresses of one VM that are compared with those of other VMs
HOST_INTERNAL = ipaddress.ip_network("169.254.0.0/16")
DOM0_INTERNAL = "169.254.0.1"  # every host's own address on that network; XAPI has no PIF for it

_NETWORKS_KEY = re.compile(r"^(\d{1,4})/(?:ip|ipv4/(\d{1,4})|ipv6/(\d{1,4}))\Z", re.ASCII)

# How many characters of one field are read, and how many of a value are quoted.
MOST_FIELD, MOST_QUOTED = 1024, 45
MOST_FIELDS = 64
_AROUND = ", \t\r\n"
_SEPARATORS = re.compile(f"[{_AROUND}]+")
_WITH_PREFIX = re.compile(r"([0-9A-Fa-f.:]+)/[0-9]{1,3}\Z")
_NOT_OF_ADDRESSES = re.compile(r"[^0-9A-Za-z.:%/_-]")

IPAddress = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]


class Candidates(NamedTuple):
    """The addresses of a VM after the check."""

    usable: Tuple[str, ...]  # the preferred address first
    refused: Tuple[Tuple[str, str], ...]  # (address, why)


# IPv6 networks whose addresses embed IPv4 addresses, and the bits to the right of the IPv4 address: mapped, compatible
# (long out of use), translated (NAT64), 6to4.
_EMBEDDING = tuple((ipaddress.IPv6Network(network), shift) for network, shift in (
    ("::ffff:0:0/96", 0), ("::/96", 0), ("64:ff9b::/96", 0), ("2002::/16", 80)))


def _meanings(address: IPAddress) -> "Iterator[IPAddress]":
    """Yield the address, and the IPv4 address that the kernel or a translator on the way may make of it."""
    yield address
    for network, shift in _EMBEDDING if address.version == 6 else ():
        if address in network:
            yield ipaddress.IPv4Address(int(address) >> shift & 0xffffffff)


def _refusal(address: IPAddress, forbidden: "Container[str]", allow_loopback: bool) -> str:
    """Return why the address may not be used, "" if it may."""
    return next(filter(None, (_why_not(meaning, forbidden, allow_loopback) for meaning in _meanings(address))), "")


def _why_not(judged: IPAddress, forbidden: "Container[str]", allow_loopback: bool) -> str:
    if judged.is_loopback:
        return "" if allow_loopback else "it is a loopback address"
    if judged.is_multicast:
        return "it is a multicast address"
    if judged.is_unspecified or str(judged) == "255.255.255.255":
        return "it does not name a single machine"
    if judged.version == 6 and judged.is_link_local:
        return "a link-local IPv6 address cannot be reached from this host"
    if str(judged) in forbidden or str(judged) == DOM0_INTERNAL:
        return "it belongs to a host of the pool"
    return ""


def _parsed(text: str) -> Optional[IPAddress]:
    try:
        # Newer Pythons accept a zone ("fe80::1%eth0"), with which one address would have many texts.
        return None if "%" in text else ipaddress.ip_address(text)
    except ValueError:
        return None


def _values(field: object) -> List[str]:
    """Return the addresses in one field of the guest metrics.

    Current guest tools write one address into a field. Older ones write all addresses of an interface, separated by
    spaces. Others separate them by commas or newlines, or append the prefix length.
    """
    if not isinstance(field, str):
        return []
    values = _SEPARATORS.split(field[:MOST_FIELD].strip(_AROUND))
    if len(field) >= MOST_FIELD and values[-1]:
        # It may be cut, and half an address may be another address: it is refused, and quoted with "?".
        values[-1] += "?"
    return values[:MOST_CANDIDATES]


def _reported(value: str) -> Optional[IPAddress]:
    match = _WITH_PREFIX.match(value)
    return _parsed(match.group(1) if match else value)


def _quoted(value: str) -> str:
    """Return a value that is no address, for a message, without characters that no address has."""
    return _NOT_OF_ADDRESSES.sub("?", value[:MOST_QUOTED])


def bounded(networks: "Mapping[str, object]") -> Dict[str, str]:
    """Return the first MOST_FIELDS address fields of a VM_guest_metrics.networks map, in the order of the VIFs.

    A guest can report thousands of fields, and change them all the time.
    """
    known = ((name, value[:MOST_FIELD]) for name, value in networks.items()
             if isinstance(name, str) and isinstance(value, str) and _NETWORKS_KEY.match(name))
    return dict(heapq.nsmallest(MOST_FIELDS, known, key=lambda field: (len(field[0]), field)))


def is_host_internal(address: str) -> bool:
    """Return whether an address belongs to the host-internal network, whose addresses are the same on every host."""
    parsed = _parsed(address)
    return parsed is not None and parsed.version == 4 and parsed in HOST_INTERNAL


@functools.lru_cache(maxsize=2048)
def meanings(address: str) -> FrozenSet[str]:
    """Return the address in canonical form, and the IPv4 address that an IPv6 address embeds, if any."""
    parsed = _parsed(address)
    return frozenset(map(str, _meanings(parsed))) if parsed is not None else frozenset()


def reported(networks: Dict[str, str]) -> FrozenSet[str]:
    """Return the first MOST_REPORTED addresses that the guest tools report, as :func:`meanings` returns them.

    Link-local IPv6 addresses are left out: no VM is reached at one.
    """
    found: Set[str] = set()
    for key, field in networks.items():
        for value in _values(field) if _NETWORKS_KEY.match(key) else ():
            address = _reported(value)
            if address is not None and not (address.version == 6 and address.is_link_local):
                found |= meanings(str(address))
        if len(found) >= MOST_REPORTED:
            break
    return frozenset(found)


def left(networks: Dict[str, str], address: str) -> bool:
    """Return whether the guest tools report addresses without this one. No report at all means nothing."""
    given = {str(_reported(value)) for key, field in networks.items() if _NETWORKS_KEY.match(key)
             for value in _values(field)}
    return bool(given) and address not in given


def judge(given: "Iterable[str]", forbidden: "Iterable[str]" = (), last_good: str = "",
          allow_loopback: bool = False) -> Candidates:
    """Check addresses that an administrator set, or that a name resolved to: their order is kept, the last good first.

    The caller must dial the returned addresses and not resolve the name again: it may resolve to another address then.
    """
    forbidden = frozenset(forbidden)
    usable: List[str] = []
    refused: List[Tuple[str, str]] = []
    for text in given:
        address = _parsed(text)
        why = "it is no IP address" if address is None else _refusal(address, forbidden, allow_loopback)
        if why:
            refused.append((_quoted(text) if address is None else str(address), why))
        elif str(address) not in usable:
            usable.append(str(address))
    usable.sort(key=lambda text: text != last_good)
    return Candidates(tuple(usable[:MOST_CANDIDATES]), tuple(refused[:MOST_CANDIDATES]))


def candidates(networks: Dict[str, str], forbidden: "Iterable[str]" = (), last_good: str = "",
               prefer_internal: bool = False, allow_loopback: bool = False) -> Candidates:
    """Check and order the addresses in a VM_guest_metrics.networks map.

    The last good address comes first, then the host-internal network if preferred, IPv4, IPv6, and the host-internal
    network if not preferred; within each by VIF.

    :param forbidden: addresses of the pool's hosts, in their canonical text form.
    """
    forbidden = frozenset(forbidden)
    found: List[Tuple[Tuple[int, int, int, int, int], str]] = []
    refused: List[Tuple[str, str]] = []
    seen = set()
    for vif, index, place, value in _fields(networks):
        address = _reported(value)
        text = _quoted(value) if address is None else str(address)
        if text in seen:
            continue
        seen.add(text)
        why = "it is no IP address" if address is None else _refusal(address, forbidden, allow_loopback)
        if address is None or why:
            refused.append((text, why))
            continue
        internal = address.version == 4 and address in HOST_INTERNAL
        family = (0 if prefer_internal else 3) if internal else (1 if address.version == 4 else 2)
        found.append(((0 if text == last_good else 1, family, vif, index, place), text))
    found.sort()
    return Candidates(tuple(text for _, text in found[:MOST_CANDIDATES]), tuple(refused[:MOST_CANDIDATES]))


def _fields(networks: "Dict[str, str]") -> "Iterator[Tuple[int, int, int, str]]":
    """Yield every value that may be an address: number of the VIF, of the field, of the value in the field, value."""
    for key, field in networks.items():
        match = _NETWORKS_KEY.match(key)
        if match:
            for place, value in enumerate(filter(None, _values(field))):
                yield int(match.group(1)), int(match.group(2) or match.group(3) or 0), place, value
