"""Addresses of XAPI servers, as people write them. Pure."""

import ipaddress
import re
from typing import NamedTuple

from xscontainer.errors import ArgumentError

HTTPS_PORT = 443
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\Z")
_BRACKETS = re.compile(r"\[([^\]]*)\](?::([0-9]{1,5}))?\Z")
_ZONE = re.compile(r"[A-Za-z0-9_.-]{1,32}\Z")


class Address(NamedTuple):
    """A server.

    :ivar host: a name in lower case, or an IP address without brackets.
    """

    host: str
    port: int = HTTPS_PORT

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse(text: str) -> Address:
    """Return the address in "NAME", "NAME:PORT", "IPv6" or "[IPv6]:PORT", with or without "https://".

    :raises ArgumentError: when it is none of these.
    """
    wanted = text.strip()
    if wanted.lower().startswith("https://"):
        wanted = wanted[len("https://"):].rstrip("/")
    bracketed = _BRACKETS.match(wanted)
    if bracketed:
        host, port = bracketed.group(1), bracketed.group(2)
        known = _is_ip(host, 6)
    elif wanted.count(":") > 1:
        host, port, known = wanted, None, _is_ip(wanted, 6)
    else:
        host, colon, port = wanted.partition(":")
        # A name of digits and dots would be an IPv4 address to a resolver, such as 10.1 for 10.0.0.1.
        known = _is_ip(host, 4) if re.match(r"[0-9.]+\Z", host) else _is_name(host)
        known = known and bool(re.match(r"[0-9]{1,5}\Z", port) if colon else True)
    number = int(port or HTTPS_PORT) if known else 0
    if not 1 <= number <= 65535:
        raise ArgumentError(f"{text[:300]!r} is not the address of a server.",
                            "Give a name or an IP address, with a port if it is not 443: host1, 10.0.0.1:8443, "
                            "[2001:db8::1]:8443.")
    return Address(host.lower(), number)


def _is_name(text: str) -> bool:
    return len(text) <= 253 and all(_LABEL.match(label) for label in text.rstrip(".").split("."))


def _is_ip(text: str, version: int) -> bool:
    address, percent, zone = text.partition("%")
    try:
        return ipaddress.ip_address(address).version == version and (not percent or bool(_ZONE.match(zone)))
    except ValueError:
        return False
