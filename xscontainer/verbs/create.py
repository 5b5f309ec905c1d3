"""A VM with containers, out of a template in one call."""

import contextlib
import json
import re
import time
from functools import partial
from typing import Any, Dict, Iterator, Mapping, NamedTuple, Pattern

from xscontainer import keys
from xscontainer.configdrive import site
from xscontainer.configdrive.undo import Undo
from xscontainer.core.arguments import (
    CONFIGURATION,
    DATASOURCE,
    SR_UUID,
    TEMPLATE_UUID,
    WAIT,
    any_text,
    printable,
    uuid,
)
from xscontainer.core.target import check
from xscontainer.core.verb import CHANGE, LONG, STORAGE_HOST, VM_ADMIN, Argument, Verb
from xscontainer.errors import ArgumentError, CalledOff, XapiError
from xscontainer.settings import Settings
from xscontainer.verbs import DONE, drives, leftovers, registration
from xscontainer.verbs.cancellation import CancellableProgress
from xscontainer.verbs.context import Context
from xscontainer.xapi import longcall, provision, task, unfinished
from xscontainer.xapi import vm as xapi_vm
from xscontainer.xapi.session import Session

MOST_VCPUS = 64
DEADLINE = 690.0  # s for the whole call; the caller waits a little longer
MOST_WAIT = 600  # s
POLL_FIRST, POLL_MOST = 0.1, 2.0  # s between two checks for the first list

DEFAULT_USER = "core"  # of the default configurations

_BYTES = re.compile(r"[0-9]{1,15}\Z")
_SMALL = re.compile(r"[0-9]{1,4}\Z")


class Wish(NamedTuple):
    """The checked arguments of one call.

    :ivar memory: bytes; 0: as the template has it.
    :ivar vcpus: 0: as the template has it.
    :ivar wait: seconds for the first list.
    """

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


def create(context: Context, **given: str) -> str:
    """Create a VM; returns ``True`` and JSON: the VM, its config drive and whether its list is published.

    The VM is cloned, gets a config drive with the pinned key of its guest, is registered and started. If one of these
    steps fails, nothing of the VM is left. A guest that then needs longer than the deadline is not a failure.

    :param given: the arguments of the row CREATE. ``configuration`` is for the config drive (default: the
        template's), ``imageuuid`` a disk to copy and boot from (default: the template has one), ``username`` the user
        that the configuration lets log in with the pool's key.
    """
    wish = wished(context.settings, given)
    until = time.monotonic() + DEADLINE
    with leftovers.making(context) as by, _undoing(context) as undo, context.forwarding.lease() as session, \
            task.running(session, f"Creating {wish.name}") as progress:
        watch = CancellableProgress(context, progress)
        made = _make(context, session, undo, wish, watch, until, by)
        undo.forget()
        made.update(_published(session, made["vm"], min(wish.wait, until - time.monotonic()), watch))
    return DONE + json.dumps(made)


@contextlib.contextmanager
def _undoing(context: Context) -> "Iterator[Undo]":
    """Collect the steps to undo; undo them at the end of the block unless they are forgotten."""
    undo = Undo(context.forwarding)
    try:
        yield undo
    finally:
        undo.all()


def wished(settings: Settings, given: "Mapping[str, str]") -> Wish:
    """Check the arguments of :func:`create` as far as that needs no XAPI.

    :param given: the arguments by name, checked by the row CREATE.
    :raises ArgumentError: one of them is wrong.
    """
    configuration, username = given.get("configuration", ""), given.get("username", "")
    wish = Wish(given["name"], given["templateuuid"], given["sruuid"], given["networkuuid"],
                given.get("imageuuid", ""), configuration, given.get("datasource", "configdrive"), username,
                _number("memory", given.get("memory", ""), _BYTES, 1 << 44),
                _number("vcpus", given.get("vcpus", ""), _SMALL, MOST_VCPUS),
                _number("wait", given.get("wait", "300"), _SMALL, MOST_WAIT))
    check({keys.USERNAME: username}, {keys.USERNAME: "The argument 'username'"}, settings)
    if configuration:
        drives.given_template(configuration)
    return wish


def _number(argument: str, text: str, pattern: "Pattern[str]", most: int) -> int:
    if text and (not pattern.match(text) or int(text) > most):
        raise ArgumentError(f"The argument '{argument}' must be a whole number up to {most}.")
    return int(text or 0)


def _make(context: Context, session: Session, undo: Undo, wish: Wish, progress: CancellableProgress, until: float,
          by: unfinished.Making) -> "Dict[str, Any]":
    """Make the VM and start it; returns its uuid, its name, its config drive and its host key."""
    from xscontainer.configdrive import placement  # here: it imports pycdlib, which takes 0.1 s

    xapi = session.xenapi
    template_ref = xapi.VM.get_by_uuid(wish.template)
    template = xapi.VM.get_record(template_ref)
    if not template["is_a_template"] or template["is_a_snapshot"]:
        raise ArgumentError(f"{template['name_label']!r} is not a template.")
    sr_ref, network_ref = xapi.SR.get_by_uuid(wish.sr), xapi.network.get_by_uuid(wish.network)
    image_ref = xapi.VDI.get_by_uuid(wish.image) if wish.image else ""
    provision.check_bootable(session, template_ref, bool(image_ref))
    configuration = wish.configuration or drives.get_config_drive_default(context, wish.template)[len(DONE):]

    progress(0.05, "cloning the template")
    # Under a passing name at first, by which the VM is found even if XAPI's answer is lost.
    passing = unfinished.passing_name(wish.name, by.id)
    undo.add(f"the VM {passing!r}", lambda session: provision.remove_named(session, passing))
    vm_ref = provision.clone(session, template_ref, passing, until, progress.check)
    undo.add(f"the VM {wish.name!r}", lambda session: provision.remove(session, vm_ref))
    unfinished.mark(session, "VM", vm_ref, by)
    xapi.VM.set_name_label(vm_ref, wish.name)
    mark = partial(unfinished.mark, session, "VDI", by=by)
    progress(0.1, "copying the template's disks")
    for vdi in provision.move_disks(session, vm_ref, sr_ref, until, mark, progress.check, unfinished.DISK):
        unfinished.unmark(session, "VDI", vdi)
    size = provision.provision(session, vm_ref, wish.sr, bool(image_ref), until, progress.check)
    if image_ref:
        progress(0.1, "copying the image")
        vdi = provision.copied(session, image_ref, provision.Copy(sr_ref, unfinished.DISK, size), until, mark,
                                progress.check)
        provision.image_disk(session, vm_ref, vdi, size, f"{wish.name} 0", until)
        unfinished.unmark(session, "VDI", vdi)
    _furnish(session, vm_ref, wish, network_ref)
    _name_user(context, session, vm_ref, wish)

    progress(0.3, "making its config drive")
    vm_uuid = xapi.VM.get_uuid(vm_ref)
    found = site.read(session, vm_uuid, wish.sr)
    if wish.image:
        found = found._replace(may_have_booted=False)
    content = placement.Content(drives.given_template(configuration), drives.public_key(context),
                                drives.new_host_key, wish.layout)
    drive = placement.place(session, undo, found, content)
    placement.clear(session, found)  # a template that the pool's users made may bring a config drive along
    registration.register(context, vm_uuid)

    progress(0.4, "starting it")
    unfinished.unmark(session, "VM", vm_ref)  # a VM that may have started is never removed as a left-over
    pinned = xapi_vm.record(session, vm_uuid).other_config.get(keys.HOST_KEY, "")
    longcall.run(session, "VM.start", vm_ref, False, False, until=until, progress=progress.check)
    return {"vm": vm_uuid, "name": wish.name, "config_drive": drive, "host_key": pinned}


def _furnish(session: Session, vm_ref: str, wish: Wish, network_ref: str) -> None:
    """Set memory and processors, add a network interface."""
    xapi = session.xenapi
    provision.add_interface(session, vm_ref, network_ref)
    if wish.memory:
        xapi.VM.set_memory(vm_ref, str(wish.memory))
    if wish.vcpus:
        # In this order XAPI takes both numbers, whatever the template has.
        xapi.VM.set_VCPUs_at_startup(vm_ref, "1")
        xapi.VM.set_VCPUs_max(vm_ref, str(wish.vcpus))
        xapi.VM.set_VCPUs_at_startup(vm_ref, str(wish.vcpus))


def _name_user(context: Context, session: Session, vm_ref: str, wish: Wish) -> None:
    """Write the user to log in as into other_config, unless it is the usual one."""
    user = wish.username or ("" if wish.configuration else DEFAULT_USER)
    if user and user != context.settings.ssh.user:
        xapi_vm.put_key(session, vm_ref, keys.USERNAME, user, present=True)


def _published(session: Session, vm_uuid: str, seconds: float, progress: CancellableProgress) -> "Dict[str, Any]":
    """Call :func:`_shown`; an error becomes the status, because the caller must learn the uuid of the running VM."""
    try:
        progress(0.5, "waiting for the first list")
        return _shown(session, vm_uuid, seconds, progress)
    except (XapiError, CalledOff) as error:
        return {"published": False, "status": json.dumps({"code": error.code, "message": error.message})}


def _shown(session: Session, vm_uuid: str, seconds: float, progress: CancellableProgress) -> "Dict[str, Any]":
    """Wait for the VM's first list; returns whether it is published, and the status that stands instead."""
    started = time.monotonic()
    pause = POLL_FIRST
    vm_ref = session.xenapi.VM.get_by_uuid(vm_uuid)
    while True:
        config = session.xenapi.VM.get_other_config(vm_ref)
        passed = time.monotonic() - started
        if keys.PS in config or passed >= seconds:
            return {"published": keys.PS in config, "status": config.get(keys.STATUS, "")}
        progress(0.5 + 0.5 * passed / seconds)
        time.sleep(min(pause, seconds - passed))
        pause = min(pause * 1.5, POLL_MOST)


CREATING = 700.0  # s that a new VM may take: the copy of an image and the guest's own installation

CREATE = Verb(
    "create", create, "Create and start a VM with containers from a template.",
    (TEMPLATE_UUID, Argument("name", printable), SR_UUID, Argument("networkuuid", uuid), CONFIGURATION.optional(),
     Argument("imageuuid", uuid, False), Argument("username", any_text, False),
     Argument("memory", any_text, False, form="bytes"), Argument("vcpus", any_text, False), DATASOURCE,
     WAIT._replace(form=f"seconds, at most {MOST_WAIT}")),
    VM_ADMIN, CHANGE, "create", STORAGE_HOST, LONG, CREATING,
    "JSON `vm`, `name`, `config_drive`, `host_key`, `published`, `status`")
VERBS = (CREATE,)
