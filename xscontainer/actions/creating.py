"""A VM with containers, out of a template in one call."""

import json
import re
import time
import uuid
from typing import Any, Dict, NamedTuple, Pattern

from xscontainer import keys
from xscontainer.actions import DONE, drives, registration
from xscontainer.actions.context import Context
from xscontainer.errors import ArgumentError, XapiError
from xscontainer.reach import check
from xscontainer.settings import Settings
from xscontainer.xapi import longcall, making, task
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session

MOST_VCPUS = 64
# s for all: who calls us waits a little longer.
DEADLINE = 690.0
MOST_WAIT = 600  # s
LOOK_FIRST, LOOK_MOST = 0.1, 2.0  # s between two looks for the first list

# The user of our default configurations.
DEFAULT_USER = "core"

_BYTES = re.compile(r"[0-9]{1,15}\Z")
_SMALL = re.compile(r"[0-9]{1,4}\Z")


class Wish(NamedTuple):
    """What is asked for, checked. ``memory`` in bytes; 0 (so ``vcpus``): as the template has it."""

    name: str
    template: str
    sr: str
    network: str
    image: str
    configuration: str
    layout: str
    username: str
    memory: int
    vcpus: int
    wait: int


def create(context: Context, templateuuid: str, name: str, sruuid: str, networkuuid: str, configuration: str = "",
           imageuuid: str = "", username: str = "", memory: str = "", vcpus: str = "", datasource: str = "configdrive",
           wait: str = "300") -> str:
    """``True`` and JSON: the new VM's uuid, that of its config drive, and whether its containers are shown by now.

    The VM is made, given its config drive with the key of its guest pinned, registered and started. If any of
    that fails nothing of it is left. A guest that then needs longer than the deadline is no failure.

    :param configuration: for the config drive; "": the template's default.
    :param imageuuid: a disk with a system to boot, which is copied; "": the template has one of its own.
    :param username: whom the configuration lets in with the pool's key.
    :param memory: bytes. :param wait: seconds for the first list.
    """
    from xscontainer.configdrive import placing

    wish = wished(context.settings, templateuuid, name, sruuid, networkuuid, configuration, imageuuid, username, memory,
                  vcpus, datasource, wait)
    until = time.monotonic() + DEADLINE
    undo = placing.Undo(context.forwarding)
    try:
        with context.forwarding.lease() as session, task.running(session, f"Creating {wish.name}") as progress:
            made = _make(context, session, undo, wish, progress, until)
            undo.forget()
            made.update(_published(session, made["vm"], min(wish.wait, until - time.monotonic()), progress))
    finally:
        undo.all()
    return DONE + json.dumps(made)


def wished(settings: Settings, templateuuid: str, name: str, sruuid: str, networkuuid: str, configuration: str = "",
           imageuuid: str = "", username: str = "", memory: str = "", vcpus: str = "", datasource: str = "configdrive",
           wait: str = "300") -> Wish:
    """The arguments of :func:`create`, checked as far as that takes no XAPI.

    :raises ArgumentError: what is wrong with them.
    """
    wish = Wish(name, templateuuid, sruuid, networkuuid, imageuuid, configuration, datasource, username,
                _number("memory", memory, _BYTES, 1 << 44), _number("vcpus", vcpus, _SMALL, MOST_VCPUS),
                _number("wait", wait, _SMALL, MOST_WAIT))
    check({keys.USERNAME: username}, {keys.USERNAME: "The argument 'username'"}, settings)
    if configuration:
        drives.given_template(configuration)
    return wish


def _number(argument: str, text: str, pattern: "Pattern[str]", most: int) -> int:
    if text and (not pattern.match(text) or int(text) > most):
        raise ArgumentError(f"The argument '{argument}' must be a whole number up to {most}.")
    return int(text or 0)


def _make(context: Context, session: Session, undo: Any, wish: Wish, progress: task.Progress,
          until: float) -> "Dict[str, Any]":
    """Up to a VM that runs; what is told of it."""
    from xscontainer.configdrive import placing

    xapi = session.xenapi
    template_ref = xapi.VM.get_by_uuid(wish.template)
    template = xapi.VM.get_record(template_ref)
    if not template["is_a_template"] or template["is_a_snapshot"]:
        raise ArgumentError(f"{template['name_label']!r} is no template.")
    sr_ref, network_ref = xapi.SR.get_by_uuid(wish.sr), xapi.network.get_by_uuid(wish.network)
    image_ref = xapi.VDI.get_by_uuid(wish.image) if wish.image else ""
    making.check_bootable(session, template_ref, bool(image_ref))
    configuration = wish.configuration or drives.get_config_drive_default(context, wish.template)[len(DONE):]

    progress(0.05, "cloning the template")
    # Under a name of its own at first, by which it is found even if the answer is lost.
    passing = f"{wish.name} ({uuid.uuid4()})"
    undo.add(f"the VM {passing!r}", lambda session: making.remove_named(session, passing))
    vm_ref = making.clone(session, template_ref, passing, sr_ref, until)
    undo.add(f"the VM {wish.name!r}", lambda session: making.remove(session, vm_ref))
    xapi.VM.set_name_label(vm_ref, wish.name)
    _furnish(session, vm_ref, wish, sr_ref, network_ref, image_ref, progress, until)
    _name_user(context, session, vm_ref, wish)

    progress(0.3, "making its config drive")
    vm_uuid = xapi.VM.get_uuid(vm_ref)
    site = placing.look(session, vm_uuid, wish.sr)
    if wish.image:
        site = site._replace(may_have_booted=False)
    drive = placing.place(session, undo, site, drives.given_template(configuration), drives.public_key(context),
                          drives.new_host_key, context.settings.xapi.socket, wish.layout)
    placing.clear(session, site)  # what a template of the pool's own brought along
    registration.register(context, vm_uuid)

    progress(0.4, "starting it")
    pinned = xapi_vm.record(session, vm_uuid).other_config.get(keys.HOST_KEY, "")
    longcall.run(session, "VM.start", vm_ref, False, False, until=until)
    return {"vm": vm_uuid, "name": wish.name, "config_drive": drive, "host_key": pinned}


def _furnish(session: Session, vm_ref: str, wish: Wish, sr_ref: str, network_ref: str, image_ref: str,
             progress: task.Progress, until: float) -> None:
    """Disks, memory, a network."""
    xapi = session.xenapi
    size = making.provision(session, vm_ref, wish.sr, bool(image_ref), until)
    if image_ref:
        progress(0.1, "copying the image")
        making.image_disk(session, vm_ref, image_ref, sr_ref, size, f"{wish.name} 0", until)
    making.add_interface(session, vm_ref, network_ref)
    if wish.memory:
        xapi.VM.set_memory(vm_ref, str(wish.memory))
    if wish.vcpus:
        # In this order whichever of them the template has more of.
        xapi.VM.set_VCPUs_at_startup(vm_ref, "1")
        xapi.VM.set_VCPUs_max(vm_ref, str(wish.vcpus))
        xapi.VM.set_VCPUs_at_startup(vm_ref, str(wish.vcpus))


def _name_user(context: Context, session: Session, vm_ref: str, wish: Wish) -> None:
    """Say whom to log in as, where that is not what goes without saying."""
    user = wish.username or ("" if wish.configuration else DEFAULT_USER)
    if user and user != context.settings.ssh.user:
        xapi_vm.put_key(session, vm_ref, keys.USERNAME, user, present=True)


def _published(session: Session, vm_uuid: str, seconds: float, progress: task.Progress) -> "Dict[str, Any]":
    """As :func:`_shown`. The VM runs, and whoever asked for it has to know which one it is, whatever XAPI says now."""
    try:
        progress(0.5, "waiting for the first list")
        return _shown(session, vm_uuid, seconds, progress)
    except XapiError as error:
        return {"published": False, "status": json.dumps({"code": error.code, "message": error.message})}


def _shown(session: Session, vm_uuid: str, seconds: float, progress: task.Progress) -> "Dict[str, Any]":
    """Whether the VM's containers are shown, within so many seconds; if not, what is said instead."""
    begun = time.monotonic()
    pause = LOOK_FIRST
    vm_ref = session.xenapi.VM.get_by_uuid(vm_uuid)
    while True:
        config = session.xenapi.VM.get_other_config(vm_ref)
        passed = time.monotonic() - begun
        if keys.PS in config or passed >= seconds:
            return {"published": keys.PS in config, "status": config.get(keys.STATUS, "")}
        progress(0.5 + 0.5 * passed / seconds)
        time.sleep(min(pause, seconds - passed))
        pause = min(pause * 1.5, LOOK_MOST)
