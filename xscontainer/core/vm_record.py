"""A VM as xscontainer sees it, and a change of a VM.

Both are built from XAPI's snapshots, which hold the whole record of a VM. Only the fields in use are kept, so that a
pool of thousands of VMs stays small in memory.
"""

import hashlib
import re
from typing import Any, Dict, Iterator, Mapping, NamedTuple, Optional

from xscontainer import keys
from xscontainer.core.uptime import published_times
from xscontainer.errors import XapiError, cause
from xscontainer.sanitize import map_bytes

NULL_REF = "OpaqueRef:NULL"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")  # as XAPI writes them

_KEPT_PREFIX = "xscontainer-"
_DIGEST_CHARS = 33
_ROUNDED = 4096  # bytes: so a small change of another client's key is no change of the record


def digest(text: str) -> str:
    """Return a digest of a long text, for comparison; short texts and digests are returned unchanged.

    A digest begins with a character that XAPI does not store, so no stored text can equal the digest of another.
    """
    if len(text) <= _DIGEST_CHARS:
        return text
    return "\0" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a field of the record is no text")
    return value


class VMRecord(NamedTuple):
    """A VM. ``networks`` comes from its guest metrics, e.g. ``{"0/ip": "10.0.0.5"}``, and is written by the guest."""

    ref: str
    uuid: str
    name: str
    power_state: str  # "Halted" | "Paused" | "Running" | "Suspended"
    resident_on: str  # host ref or NULL_REF
    domid: int  # -1 unless running; a new one after a reboot
    guest_metrics: str  # ref or NULL_REF
    other_config: Dict[str, str]  # only the keys of xscontainer.keys
    is_guest: bool  # neither template, snapshot nor control domain
    networks: Dict[str, str] = {}
    others_bytes: int = 0  # size of the rest of other_config in a request, rounded up
    started: bytes = b""  # of an abridged record: the start times in its published list (core.uptime)

    @classmethod
    def from_snapshot(cls, ref: str, snapshot: Mapping[str, Any],
                      networks: Optional[Dict[str, str]] = None) -> "VMRecord":
        """Return the VM of a snapshot.

        :param snapshot: a VM record of XAPI (VM.get_record, event.from).
        :raises XapiError: the record is malformed.
        """
        try:
            return cls._from(ref, snapshot, networks)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise XapiError(f"XAPI's record of a VM is malformed: {cause(error)}.") from error

    @classmethod
    def all_of(cls, records: "Mapping[str, Mapping[str, Any]]") -> "Iterator[VMRecord]":
        """Yield the VMs of the records, by ref; malformed records are skipped."""
        for ref, snapshot in records.items():
            try:
                found = cls.from_snapshot(ref, snapshot)
            except XapiError:
                continue
            yield found

    @classmethod
    def _from(cls, ref: str, snapshot: Mapping[str, Any], networks: Optional[Dict[str, str]]) -> "VMRecord":
        other_config = snapshot.get("other_config") or {}
        return cls(
            ref=ref,
            uuid=_text(snapshot["uuid"]),
            name=_text(snapshot.get("name_label", "")),
            power_state=_text(snapshot.get("power_state", "")),
            resident_on=_text(snapshot.get("resident_on", NULL_REF)),
            domid=int(snapshot.get("domid", -1)),
            guest_metrics=_text(snapshot.get("guest_metrics", NULL_REF)),
            other_config={
                key: _text(value) for key, value in other_config.items()
                if key.startswith(_KEPT_PREFIX) or key in keys.PUBLISHED
            },
            is_guest=not (snapshot.get("is_a_template") or snapshot.get("is_a_snapshot")
                          or snapshot.get("is_control_domain")),
            networks=networks or {},
            others_bytes=-(-map_bytes({key: _text(value) for key, value in other_config.items()
                                       if key not in keys.PUBLISHED}) // _ROUNDED) * _ROUNDED,
        )

    def abridged(self) -> "VMRecord":
        """Return the record with digests in place of the published values: they are only compared or removed."""
        return self._replace(
            other_config={key: digest(value) if key in keys.PUBLISHED else value
                          for key, value in self.other_config.items()},
            started=published_times(self.other_config.get(keys.PS, "")))

    @property
    def label(self) -> str:
        """The VM's name for log lines and messages: people know the name, programs the uuid."""
        return f"{self.name!r} ({self.uuid})"

    @property
    def published(self) -> Dict[str, str]:
        """The published keys and their values; digests in an abridged record."""
        return {key: self.other_config[key] for key in keys.PUBLISHED if key in self.other_config}

    @property
    def connection_config(self) -> Dict[str, str]:
        """Return the keys of other_config that a connection depends on.

        The published keys, the owner and the note of a TLS warning are not among them: xscontainer writes these itself.
        """
        return {key: value for key, value in self.other_config.items()
                if key not in keys.PUBLISHED and key not in (keys.OWNER, keys.TLS_WARNED)}

    @property
    def is_owner(self) -> bool:
        """False if the published keys and the pinned host key were inherited from another VM.

        Clone, copy, import and snapshot copy other_config verbatim. A VM that the original plugin registered has no
        owner key: its keys count as its own.
        """
        return self.other_config.get(keys.OWNER, self.uuid) == self.uuid


class VMChange(NamedTuple):
    """A VM that appeared or changed, or does not exist any more (``record`` is None)."""

    uuid: str
    record: Optional[VMRecord]
