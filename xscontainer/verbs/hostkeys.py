"""The verbs that show and accept the SSH host key of a VM's guest."""

import contextlib
import json
import logging
from typing import TYPE_CHECKING, Dict, Iterator, Optional, Tuple

from xscontainer import keys
from xscontainer.core.arguments import FINGERPRINT, VM_UUID, any_text
from xscontainer.core.fingerprint import compare_hint
from xscontainer.core.identity import MOST_NAMED, OtherVM, Peer, claimants_of
from xscontainer.core.target import SSH, Reach, check
from xscontainer.core.verb import CHANGE, EVERYONE, PROBING, SEE, VM_ADMIN, VM_HOST, Argument, Verb
from xscontainer.core.vm_record import VMRecord
from xscontainer.errors import ArgumentError, HostKeyChanged, HostKeyUnreadable, ModeUnsupported
from xscontainer.verbs import DONE
from xscontainer.verbs.context import Context
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session

if TYPE_CHECKING:
    # Importing these loads paramiko.
    from xscontainer.engine.ssh.hostkeys import HostKey
    from xscontainer.engine.ssh.login import Guest

log = logging.getLogger(__name__)


def hostkey_show(context: Context, vmuuid: str, address: str = "", port: str = "", mode: str = "") -> str:
    """Return the host key that the guest shows now, the pinned one, and the other VMs that claim either, as JSON.

    Nothing is written.

    :param mode: "ssh" to look at a VM that is reached over TLS so far.
    """
    wishes = {keys.ADDRESS: address, keys.SSH_PORT: port}
    check(wishes, {keys.ADDRESS: "The argument 'address'", keys.SSH_PORT: "The argument 'port'"}, context.settings)
    vm = running_here(context, vmuuid)
    pinned, readable = pin_of(vm)
    with greet(context, vm, pinned, {**wishes, keys.MODE: mode}) as guest:
        shown, where, claimed = guest.host_key, guest.where, others(context, vm, guest)
    result = {
        "type": shown.kind, "fingerprint": shown.fingerprint, "base64": shown.base64, "address": where,
        "pinned": pinned is not None or not readable, "pinned_fingerprint": pinned.fingerprint if pinned else "",
        "matches": pinned is not None and pinned.blob == shown.blob}
    if claimed:
        result["claimed_by"] = [{"uuid": other.uuid, "name": other.name, "pinned": other.pin == shown.fingerprint}
                              for other in claimed]
    return DONE + json.dumps(result)


def hostkey_accept(context: Context, vmuuid: str, fingerprint: str) -> str:
    """Pin the key that the guest shows now, in place of any other, if it has this fingerprint.

    From then on it counts as this VM's key, even if another VM claims the same host key or address.

    :raises HostKeyChanged: the guest shows a key with another fingerprint.
    """
    vm = running_here(context, vmuuid)
    with greet(context, vm, pin_of(vm)[0], {}) as guest:
        shown, where = guest.host_key, guest.where
    compare(shown, fingerprint, where)
    context.sessions.run(lambda session: _pin(session, vm, shown.base64, shown.fingerprint))
    log.info("VM %s: its SSH host key %s at %s was accepted", vm.label, shown.fingerprint, where)
    return DONE


def others(context: Context, vm: VMRecord, guest: "Guest") -> "Tuple[OtherVM, ...]":
    """Find the other running VMs that report the address of the guest's answer, or have its host key pinned."""
    met = Peer(guest.address, guest.host_key.fingerprint)
    found = context.access.other_vms.holders(met.address, met.host_key)
    return claimants_of(OtherVM.of(vm), met, found)[:MOST_NAMED]


def _pin(session: Session, vm: VMRecord, base64: str, fingerprint: str) -> None:
    # Keys that a clone carried in must not become this VM's own together with the pin.
    now = xapi_vm.adopt(session, xapi_vm.record(session, vm.uuid))
    # The decision first: the monitor tries again as soon as it sees the pin.
    xapi_vm.put(session, now, {keys.ACCEPTED: fingerprint, keys.HOST_KEY: base64, keys.OWNER: vm.uuid})


def running_here(context: Context, vm_uuid: str) -> VMRecord:
    """Read the VM from XAPI.

    :raises ArgumentError: it is a template, a snapshot or a control domain.
    :raises VMNotRunning, VMElsewhere: it does not run, or not on this host.
    """
    from xscontainer.access.opener import require_running_here

    vm = context.sessions.run(lambda session: xapi_vm.record(session, vm_uuid))
    if not vm.is_guest:
        raise ArgumentError(f"{vm.label} is a template, a snapshot or a control domain, not a VM.")
    require_running_here(vm, context.this_host_ref())
    return vm


def pin_of(vm: VMRecord) -> "Tuple[Optional[HostKey], bool]":
    """Return the host key that is pinned for the VM, and whether the pin can be read."""
    from xscontainer.engine.ssh import hostkeys

    text = vm.other_config.get(keys.HOST_KEY) if vm.is_owner else None
    try:
        return (hostkeys.parse_pin(text) if text else None), True
    except HostKeyUnreadable:
        return None, False


def greet(context: Context, vm: VMRecord, pinned: "Optional[HostKey]", changes: "Dict[str, str]") -> "Guest":
    """Connect to the guest's SSH server without a login.

    :param changes: to be treated as if they were in the VM's other_config; "" means no change.
    """
    from xscontainer.engine.ssh.login import Guest

    config = dict(vm.other_config, **{key: value for key, value in changes.items() if value})
    reach = Reach.of(config, context.settings)
    if reach.mode != SSH:
        raise ModeUnsupported(f"The VM {vm.label} is reached over TLS and has no SSH host key.",
                              "Its certificate is checked against the CA that its other_config names.")
    where = context.access.addresses(vm._replace(other_config=config), reach)
    return Guest(where, reach.port, context.settings.guest, pinned, reach.weak)


@contextlib.contextmanager
def met(context: Context, vm: VMRecord, confirmed: bool = False) -> "Iterator[Guest]":
    """Connect to the guest's SSH server without a login, and check that its host key is the pinned one, if any.

    :param confirmed: a person has confirmed the host key: a pin that cannot be read does not matter.
    :raises HostKeyUnreadable: the pin cannot be read.
    :raises HostKeyChanged: the guest shows another host key.
    """
    from xscontainer.access.opener import explain
    from xscontainer.engine.ssh import hostkeys

    pinned, readable = pin_of(vm)
    if not readable and not confirmed:
        raise HostKeyUnreadable(f"The pin of the VM {vm.label} is not a host key.",
                                f"Pin the key that the guest shows: xscontainer hostkey-accept {vm.uuid}")
    with greet(context, vm, pinned, {}) as guest:
        try:
            hostkeys.check(guest.host_key, pinned, guest.where)
        except HostKeyChanged as error:
            explain(context.access.other_vms, error, vm)
            raise
        yield guest


def compare(shown: "HostKey", fingerprint: str, where: str) -> None:
    """Compare a host key with the fingerprint that it should have.

    :raises HostKeyChanged: it has another one.
    """
    if shown.fingerprint != fingerprint.rstrip("="):
        raise HostKeyChanged(f"The SSH server at {where} shows the host key {shown}, not {fingerprint}.",
                             f"{compare_hint(shown.kind)}.")


# VM_ADMIN: dom0 connects to this address and port and returns the answer. The other way to name them is
# VM.other_config, which takes the same permission.
SHOW = Verb(
    "hostkey_show", hostkey_show, "Return the SSH host key that the guest shows now; change nothing.",
    (VM_UUID, Argument("address", any_text).optional(VM_ADMIN), Argument("port", any_text).optional(VM_ADMIN),
     Argument("mode", any_text, False)),
    EVERYONE, SEE, "hostkey-show", VM_HOST, PROBING,
    result="JSON `type`, `fingerprint`, `base64`, `address`, `pinned`, `pinned_fingerprint`, `matches`; if there are "
           "any, `claimed_by`: other running VMs that report the address or have the host key (`uuid`, `name`, "
           "`pinned`)")
ACCEPT = Verb(
    "hostkey_accept", hostkey_accept,
    "Pin the host key that the guest shows now, if it has this fingerprint, even where another VM has that key.",
    (VM_UUID, FINGERPRINT), VM_ADMIN, CHANGE, "hostkey-accept", VM_HOST, PROBING)
VERBS = (SHOW, ACCEPT)
