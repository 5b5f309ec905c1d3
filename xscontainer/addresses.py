"""Where a VM may answer: the addresses its guest tools report, judged and put in order.

Guest metrics are written by the guest. Without a judge, a VM could point the
root daemon of its host at that host itself, at another host of the pool or at
a multicast group.
"""

import ipaddress
import re
from typing import Container, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple, Union

MOST_CANDIDATES = 16
HOST_INTERNAL = ipaddress.ip_network("169.254.0.0/16")
DOM0_INTERNAL = "169.254.0.1"  # every host itself on that network; XAPI keeps no PIF that would say so

_NETWORKS_KEY = re.compile(r"^(\d{1,4})/(?:ip|ipv4/(\d{1,4})|ipv6/(\d{1,4}))\Z", re.ASCII)

IPAddress = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]


class Candidates(NamedTuple):
    usable: Tuple[str, ...]  # in the order in which to prefer them
    refused: Tuple[Tuple[str, str], ...]  # (address, why)


# IPv6 networks whose addresses stand for IPv4 addresses, and where in them those begin, in bits from the right:
# mapped, compatible (long out of use), translated (NAT64), 6to4.
_EMBEDDING = tuple((ipaddress.IPv6Network(network), shift) for network, shift in (
    ("::ffff:0:0/96", 0), ("::/96", 0), ("64:ff9b::/96", 0), ("2002::/16", 80)))


def _meanings(address: IPAddress) -> "Iterator[IPAddress]":
    """The address, and the IPv4 address that a translator on the way, or the kernel, may make of it."""
    yield address
    for network, shift in _EMBEDDING if address.version == 6 else ():
        if address in network:
            yield ipaddress.IPv4Address(int(address) >> shift & 0xffffffff)


def _refusal(address: IPAddress, forbidden: "Container[str]", allow_loopback: bool) -> str:
    """Why it may not be used, "" if it may."""
    return next(filter(None, (_why_not(meaning, forbidden, allow_loopback) for meaning in _meanings(address))), "")


def _why_not(judged: IPAddress, forbidden: "Container[str]", allow_loopback: bool) -> str:
    if judged.is_loopback:
        return "" if allow_loopback else "it is a loopback address"
    if judged.is_multicast:
        return "it is a multicast address"
    if judged.is_unspecified or str(judged) == "255.255.255.255":
        return "it names no single machine"
    if judged.version == 6 and judged.is_link_local:
        return "a link-local IPv6 address cannot be reached from this host"
    if str(judged) in forbidden or str(judged) == DOM0_INTERNAL:
        return "it belongs to a host of the pool"
    return ""


def _parsed(text: str) -> Optional[IPAddress]:
    try:
        # Newer Pythons read a zone ("fe80::1%eth0"), and then the same address has many texts.
        return None if "%" in text else ipaddress.ip_address(text)
    except ValueError:
        return None


def left(networks: Dict[str, str], address: str) -> bool:
    """Whether the guest tools report addresses (nothing at all tells nothing), and this one is not among them."""
    reported = {str(_parsed(value.strip())) for key, value in networks.items() if _NETWORKS_KEY.match(key)}
    return bool(reported) and address not in reported


def judge(given: "Iterable[str]", forbidden: "Iterable[str]" = (), last_good: str = "",
          allow_loopback: bool = False) -> Candidates:
    """The same for addresses that somebody chose, or that a name stands for: their order is kept, last good first.

    Whoever dials must dial what comes out, never the name again: it may stand for another address by then.
    """
    forbidden = frozenset(forbidden)
    usable: List[str] = []
    refused: List[Tuple[str, str]] = []
    for text in given:
        address = _parsed(text)
        why = "it is no IP address" if address is None else _refusal(address, forbidden, allow_loopback)
        if why:
            refused.append((text[:64] if address is None else str(address), why))
        elif str(address) not in usable:
            usable.append(str(address))
    usable.sort(key=lambda text: text != last_good)
    return Candidates(tuple(usable[:MOST_CANDIDATES]), tuple(refused[:MOST_CANDIDATES]))


def candidates(networks: Dict[str, str], forbidden: "Iterable[str]" = (), last_good: str = "",
               prefer_internal: bool = False, allow_loopback: bool = False) -> Candidates:
    """Order the addresses in a VM_guest_metrics.networks map.

    Last good first, then the host-internal network if preferred, IPv4, IPv6, and
    the host-internal network last if it is not preferred; within each by VIF.

    :param forbidden: addresses of the pool's hosts, in their canonical text form.
    """
    forbidden = frozenset(forbidden)
    found: List[Tuple[Tuple[int, int, int, int], str]] = []
    refused: List[Tuple[str, str]] = []
    seen = set()
    for key, value in networks.items():
        match = _NETWORKS_KEY.match(key)
        if not match:
            continue
        given = value.strip()
        address = _parsed(given)
        if address is None:
            if given:
                refused.append((given[:64], "it is no IP address"))
            continue
        text = str(address)
        if text in seen:
            continue
        seen.add(text)
        why = _refusal(address, forbidden, allow_loopback)
        if why:
            refused.append((text, why))
            continue
        internal = address.version == 4 and address in HOST_INTERNAL
        family = (0 if prefer_internal else 3) if internal else (1 if address.version == 4 else 2)
        index = int(match.group(2) or match.group(3) or 0)
        found.append(((0 if text == last_good else 1, family, int(match.group(1)), index), text))
    found.sort()
    return Candidates(tuple(text for _, text in found[:MOST_CANDIDATES]), tuple(refused[:MOST_CANDIDATES]))
