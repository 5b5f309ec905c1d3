"""The pool's record: its coordinator, the addresses of its hosts, our keys in its other_config."""

import ipaddress
from typing import Any, Dict, FrozenSet, Mapping, NamedTuple, Tuple

from xscontainer import keys
from xscontainer.errors import XapiError
from xscontainer.xapi.session import Session

# Xen Orchestra adds a key with this prefix to the pool's other_config while it is connected.
ORCHESTRA = "xo:clientInfo:"


class PoolRecord(NamedTuple):
    """The pool, as far as xscontainer needs it."""

    ref: str
    coordinator: str  # host ref
    other_config: Dict[str, str]  # only our keys
    has_orchestra: bool = False  # a Xen Orchestra is connected, or was and did not disconnect properly

    @classmethod
    def from_snapshot(cls, ref: str, snapshot: "Mapping[str, Any]") -> "PoolRecord":
        config = snapshot.get("other_config") or {}
        return cls(ref, str(snapshot["master"]),
                   {key: value for key, value in config.items()
                    if key.startswith("xscontainer-") and isinstance(value, str)},
                   any(key.startswith(ORCHESTRA) for key in config))

    @property
    def prefers_internal_network(self) -> bool:
        """True if addresses of the host-internal network are tried first."""
        return keys.is_true(self.other_config.get(keys.INTERNAL_NETWORK, ""))


def record(session: Session) -> PoolRecord:
    """Read the pool; there is always exactly one."""
    (ref, snapshot), = session.xenapi.pool.get_all_records().items()
    return PoolRecord.from_snapshot(ref, snapshot)


def claim(session: Session, pool_ref: str, key: str, value: str) -> bool:
    """Add a key to the pool's other_config unless it exists; return whether it has this value then.

    :raises XapiError: it is unknown whether the key was added.
    """
    try:
        session.xenapi.pool.add_to_other_config(pool_ref, key, value)
    except XapiError as exc:
        if exc.details[:1] != ["MAP_DUPLICATE_KEY"]:
            raise
        # Another host was faster, or this is the second sending of our own call.
        return bool(session.xenapi.pool.get_other_config(pool_ref).get(key) == value)
    return True


def host_addresses(session: Session) -> "FrozenSet[str]":
    """Return the IP addresses of all hosts of the pool, in canonical form: no guest is reached at one of these."""
    records = (*session.xenapi.host.get_all_records().values(), *session.xenapi.PIF.get_all_records().values())
    return frozenset().union(*map(addresses_of, records))


def addresses_of(record: "Mapping[str, Any]") -> "FrozenSet[str]":
    """Return the IP addresses in the record of a host or PIF, in canonical form."""
    texts = (record.get("address"), record.get("IP"), *(record.get("IPv6") or ()))
    return frozenset(_canonical(text) for text in texts if isinstance(text, str)) - {""}


def _canonical(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.split("/")[0]))
    except ValueError:
        return ""


def this_host(session: Session, inventory_path: str) -> "Tuple[str, str]":
    """Return (ref, uuid) of the host that this process runs on, as its inventory file says.

    :raises OSError: the file cannot be read.
    :raises ValueError: the file names no host.
    """
    with open(inventory_path, encoding="utf-8", errors="replace") as inventory:
        for line in inventory:
            name, _, value = line.partition("=")
            if name.strip() == "INSTALLATION_UUID":
                uuid = value.strip().strip("'\"")
                return session.xenapi.host.get_by_uuid(uuid), uuid
    raise ValueError(f"{inventory_path} has no INSTALLATION_UUID")
