"""What is known of the pool: its coordinator, its hosts' addresses, its settings for us."""

import ipaddress
from typing import Any, Dict, FrozenSet, Mapping, NamedTuple, Tuple

from xscontainer import keys
from xscontainer.errors import XapiError
from xscontainer.xapi.session import Session


class PoolRecord(NamedTuple):
    ref: str
    coordinator: str  # host ref
    other_config: Dict[str, str]  # only our keys

    @classmethod
    def from_snapshot(cls, ref: str, snapshot: "Mapping[str, Any]") -> "PoolRecord":
        return cls(ref, snapshot["master"], {
            key: value for key, value in (snapshot.get("other_config") or {}).items()
            if key.startswith("xscontainer-")
        })

    @property
    def prefers_internal_network(self) -> bool:
        """Whether addresses of the host-internal network come first."""
        return keys.is_true(self.other_config.get(keys.INTERNAL_NETWORK, ""))


def record(session: Session) -> PoolRecord:
    """The one pool there is."""
    (ref, snapshot), = session.xenapi.pool.get_all_records().items()
    return PoolRecord.from_snapshot(ref, snapshot)


def claim(session: Session, pool_ref: str, key: str, value: str) -> bool:
    """Give a key of other_config this value unless it has one; whether it has this one now.

    :raises XapiError: nobody knows whether it was heard.
    """
    try:
        session.xenapi.pool.add_to_other_config(pool_ref, key, value)
    except XapiError as exc:
        if exc.details[:1] != ["MAP_DUPLICATE_KEY"]:
            raise
        # Another host was faster; or we were, in a call that had to be sent twice.
        return bool(session.xenapi.pool.get_other_config(pool_ref).get(key) == value)
    return True


def host_addresses(session: Session) -> "FrozenSet[str]":
    """Every IP address of every host of the pool, in canonical form: no guest is ever reached at one of these."""
    records = (*session.xenapi.host.get_all_records().values(), *session.xenapi.PIF.get_all_records().values())
    return frozenset().union(*map(addresses_of, records))


def addresses_of(record: "Mapping[str, Any]") -> "FrozenSet[str]":
    """Those in the record of a host or of a PIF, in canonical form."""
    texts = (record.get("address", ""), record.get("IP", ""), *record.get("IPv6", ()))
    return frozenset(filter(None, map(_canonical, texts)))


def _canonical(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.split("/")[0]))
    except ValueError:
        return ""


def this_host(session: Session, inventory_path: str) -> "Tuple[str, str]":
    """(ref, uuid) of the host we run on, by its inventory file.

    :raises OSError: the file is not readable.
    :raises ValueError: it names no host.
    """
    with open(inventory_path, encoding="utf-8", errors="replace") as inventory:
        for line in inventory:
            name, _, value = line.partition("=")
            if name.strip() == "INSTALLATION_UUID":
                uuid = value.strip().strip("'\"")
                return session.xenapi.host.get_by_uuid(uuid), uuid
    raise ValueError(f"{inventory_path} has no INSTALLATION_UUID")
