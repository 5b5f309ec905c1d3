"""XAPI's side of the story: a VM as the monitor sees it, and a change of one.

Both are built from event snapshots, which hold a VM's whole record; only what
is used is kept, so that a pool of thousands of VMs stays small in memory.
"""

import hashlib
import re
from typing import Any, Dict, Mapping, NamedTuple, Optional

from xscontainer import keys

NULL_REF = "OpaqueRef:NULL"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")  # as XAPI writes them

_KEPT_PREFIX = "xscontainer-"
_DIGEST_CHARS = 33


def digest(text: str) -> str:
    """What stands for a long text where it is only compared; of a digest, and of a short text, the same again.

    It begins with a character that no text in XAPI holds: nobody can store one to pass for the text.
    """
    if len(text) <= _DIGEST_CHARS:
        return text
    return "\0" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class VMRecord(NamedTuple):
    """A VM. ``networks`` is that of its guest metrics, e.g. ``{"0/ip": "10.0.0.5"}``: written by the guest."""

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

    @classmethod
    def from_snapshot(cls, ref: str, snapshot: Mapping[str, Any],
                      networks: Optional[Dict[str, str]] = None) -> "VMRecord":
        """:param snapshot: a VM record as XAPI gives it (VM.get_record, event.from)."""
        other_config = snapshot.get("other_config") or {}
        return cls(
            ref=ref,
            uuid=snapshot["uuid"],
            name=snapshot.get("name_label", ""),
            power_state=snapshot.get("power_state", ""),
            resident_on=snapshot.get("resident_on", NULL_REF),
            domid=int(snapshot.get("domid", -1)),
            guest_metrics=snapshot.get("guest_metrics", NULL_REF),
            other_config={
                key: value for key, value in other_config.items()
                if key.startswith(_KEPT_PREFIX) or key in keys.PUBLISHED
            },
            is_guest=not (snapshot.get("is_a_template") or snapshot.get("is_a_snapshot")
                          or snapshot.get("is_control_domain")),
            networks=networks or {},
        )

    def abridged(self) -> "VMRecord":
        """The same with digests of what is published: enough for whoever published it, or only has to remove it."""
        return self._replace(other_config={
            key: digest(value) if key in keys.PUBLISHED else value for key, value in self.other_config.items()})

    @property
    def label(self) -> str:
        """How log lines and messages name it: people know the name, programs the uuid."""
        return f"{self.name!r} ({self.uuid})"

    @property
    def published(self) -> Dict[str, str]:
        """What clients are shown of it now; digests in an abridged one."""
        return {key: self.other_config[key] for key in keys.PUBLISHED if key in self.other_config}

    @property
    def is_owner(self) -> bool:
        """False when the published keys and the pinned host key were carried in from another VM.

        Clone, copy, import and snapshot carry other_config verbatim. VMs that the
        original plugin registered have no owner key and are believed.
        """
        return self.other_config.get(keys.OWNER, self.uuid) == self.uuid


class VMChange(NamedTuple):
    """A VM appeared or changed (``record``), or is gone (``record`` is None)."""

    uuid: str
    record: Optional[VMRecord]
