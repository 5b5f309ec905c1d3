"""Showing and accepting the SSH host key of a VM's guest."""

import json
from typing import TYPE_CHECKING, Dict, Optional, Tuple

from xscontainer import keys
from xscontainer.actions import DONE
from xscontainer.actions.context import Context
from xscontainer.errors import ArgumentError, HostKeyChanged, HostKeyUnreadable, ModeUnsupported
from xscontainer.fingerprint import compare_hint
from xscontainer.reach import SSH, Reach, check
from xscontainer.vmrecord import VMRecord
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session

if TYPE_CHECKING:
    # Importing these loads paramiko.
    from xscontainer.engine.hostkeys import HostKey
    from xscontainer.engine.login import Guest


def hostkey_show(context: Context, vmuuid: str, address: str = "", port: str = "", mode: str = "") -> str:
    """What the guest shows now and what is pinned, as JSON; nothing is written.

    :param mode: "ssh" to look at a VM that is reached over TLS up to now.
    """
    wishes = {keys.ADDRESS: address, keys.SSH_PORT: port}
    check(wishes, {keys.ADDRESS: "The argument 'address'", keys.SSH_PORT: "The argument 'port'"}, context.settings)
    vm = running_here(context, vmuuid)
    pinned, readable = pin_of(vm)
    with greet(context, vm, pinned, {**wishes, keys.MODE: mode}) as guest:
        shown, where = guest.host_key, guest.where
    return DONE + json.dumps({
        "type": shown.kind, "fingerprint": shown.fingerprint, "base64": shown.base64, "address": where,
        "pinned": pinned is not None or not readable, "pinned_fingerprint": pinned.fingerprint if pinned else "",
        "matches": pinned is not None and pinned.blob == shown.blob})


def hostkey_accept(context: Context, vmuuid: str, fingerprint: str) -> str:
    """Pin the key that the guest shows now, in place of any other, if this is its fingerprint.

    :raises HostKeyChanged: it is another one's.
    """
    vm = running_here(context, vmuuid)
    with greet(context, vm, pin_of(vm)[0], {}) as guest:
        shown, where = guest.host_key, guest.where
    compare(shown, fingerprint, where)
    context.sessions.run(lambda session: _pin(session, vm, shown.base64))
    return DONE


def _pin(session: Session, vm: VMRecord, base64: str) -> None:
    # What a clone carried in must not pass for its own along with the pin.
    now = xapi_vm.adopt(session, xapi_vm.record(session, vm.uuid))
    xapi_vm.put(session, now, {keys.HOST_KEY: base64, keys.OWNER: vm.uuid})


def running_here(context: Context, vm_uuid: str) -> VMRecord:
    """The VM as XAPI knows it now.

    :raises ArgumentError: it is a template or the like. VMNotRunning, VMElsewhere: it is not here to be reached.
    """
    from xscontainer.access import require_running_here

    vm = context.sessions.run(lambda session: xapi_vm.record(session, vm_uuid))
    if not vm.is_guest:
        raise ArgumentError(f"{vm.label} is a template, a snapshot or a control domain, not a VM.")
    require_running_here(vm, context.this_host_ref())
    return vm


def pin_of(vm: VMRecord) -> "Tuple[Optional[HostKey], bool]":
    """The host key that is pinned for the VM, and whether what is pinned can be read."""
    from xscontainer.engine import hostkeys

    text = vm.other_config.get(keys.HOST_KEY) if vm.is_owner else None
    try:
        return (hostkeys.parse_pin(text) if text else None), True
    except HostKeyUnreadable:
        return None, False


def greet(context: Context, vm: VMRecord, pinned: "Optional[HostKey]", changes: "Dict[str, str]") -> "Guest":
    """The guest's SSH server, met but not logged in to.

    :param changes: of the VM's other_config, as if they were made; "" for none.
    """
    from xscontainer.engine.login import Guest

    config = dict(vm.other_config, **{key: value for key, value in changes.items() if value})
    reach = Reach.of(config, context.settings)
    if reach.mode != SSH:
        raise ModeUnsupported(f"VM {vm.label} is reached over TLS, where there is no SSH host key.",
                              "Its certificate is checked against the CA that its other_config names.")
    where = context.access.addresses(vm._replace(other_config=config), reach)
    return Guest(where, reach.port, context.settings.ssh, pinned)


def compare(shown: "HostKey", fingerprint: str, where: str) -> None:
    """:raises HostKeyChanged: the fingerprint is not that of the key shown."""
    if shown.fingerprint != fingerprint.rstrip("="):
        raise HostKeyChanged(f"The SSH server at {where} shows the host key {shown}, not {fingerprint}.",
                             f"{compare_hint(shown.kind)}.")
