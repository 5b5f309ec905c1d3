"""Config drives: what a new VM is told when it first starts."""

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Iterator, List

from xscontainer import cloudconfig, hostlock
from xscontainer.actions import DONE
from xscontainer.actions.context import Context
from xscontainer.errors import ArgumentError, DriveBusy, KeyPairError, NotConfigDrive
from xscontainer.xapi import disk, task
from xscontainer.xapi.session import Session

if TYPE_CHECKING:
    from xscontainer.cloudconfig import HostKey

BASE = "base_template_name"  # in other_config of what was made from a template

# A config drive takes less than 2 MiB; what others made may be larger, what is larger than this is something else.
LARGEST_DRIVE = 33554432
DOWNLOAD_SECONDS = 60.0
WAITING_SECONDS = 60.0

# The daemon's memory is bounded, and a call holds all of a drive.
_reading = threading.Lock()

def get_config_drive_default(context: Context, templateuuid: str) -> str:
    """``True`` and the configuration that goes with a template (guest-config/defaults.json)."""
    from xscontainer.configdrive import defaults

    return DONE + defaults.configuration(context.sessions.run(lambda session: _labels(session, templateuuid)),
                                         defaults.directory())


def _labels(session: Session, template_uuid: str) -> "List[str]":
    """A template's own name, and those of the one it was made from."""
    record = session.xenapi.VM.get_record(session.xenapi.VM.get_by_uuid(template_uuid))
    return [record["name_label"], record.get("reference_label") or "", record["other_config"].get(BASE, "")]


def create_config_drive(context: Context, vmuuid: str, sruuid: str, configuration: str,
                        datasource: str = "configdrive") -> str:
    """``True`` and the uuid of the disk with a VM's configuration, which takes the place of any other.

    :param configuration: with placeholders; ``%BR%`` is a newline.
    :param datasource: "configdrive", or "nocloud" for guests whose cloud-init knows only that one.
    """
    template = given_template(configuration)
    with _one_at_a_time(context, vmuuid):
        return DONE + _replace(context, vmuuid, sruuid, template, datasource)


def _replace(context: Context, vmuuid: str, sruuid: str, template: str, datasource: str) -> str:
    from xscontainer.configdrive import placing

    site = context.forwarding.run(lambda session: placing.look(session, vmuuid, sruuid))
    undo = placing.Undo(context.forwarding)
    try:
        with context.forwarding.lease() as session:
            with task.running(
                    session, f"Config drive of {site.vm.name}", "", {task.VM: vmuuid}) as progress:
                progress(0.1, "making the config drive")
                uuid = placing.place(session, undo, site, template, public_key(context), new_host_key,
                                     context.settings.xapi.socket, datasource, progress)
            undo.forget()
            placing.clear(session, site)
    finally:
        undo.all()
    return uuid


@contextlib.contextmanager
def _one_at_a_time(context: Context, vm_uuid: str) -> "Iterator[None]":
    """Two calls for one VM would each replace the drive that they found. All of them come to one host.

    :raises DriveBusy: the other one takes too long.
    """
    directory = os.path.dirname(context.settings.daemon.socket)
    # Few files, whatever comes and goes; VMs that share one wait for each other.
    with hostlock.held(directory, f"drive-{vm_uuid[:2]}.lock", WAITING_SECONDS) as held:
        if not held:
            raise DriveBusy("Another call is making a config drive for this VM.", "Repeat the call in a moment.")
        yield


def given_template(configuration: str) -> str:
    """A configuration as callers without newlines give it.

    :raises ArgumentError: there is nothing in it.
    """
    template = configuration.replace(cloudconfig.NEWLINE, "\n")
    if not template.strip():
        raise ArgumentError("The configuration is empty.", "get_config_drive_default gives one to begin with.")
    return template


def public_key(context: Context) -> str:
    """Base64 of the pool's public key.

    :raises KeyPairError: it is of a kind that configurations do not expect.
    """
    key = context.access.pool_key.private()
    if key.get_name() != "ssh-rsa":
        raise KeyPairError("The pool's SSH key is not an RSA key, which the placeholders for it stand for.")
    return key.get_base64()


def new_host_key() -> "HostKey":
    """An SSH host key for a guest."""
    from xscontainer.engine import guestkey

    return cloudconfig.HostKey(*guestkey.new_host_key())


def get_config_drive_configuration(context: Context, vdiuuid: str) -> str:
    """``True`` and the configuration that a config drive was made from, with its placeholders.

    Drives that do not hold that give what the guest gets.

    :raises NotConfigDrive: the disk is not marked as a config drive, or holds no configuration.
    :raises DriveBusy: others are being read for too long.
    """
    from xscontainer.configdrive import image, placing

    with context.forwarding.lease() as session:
        vdi = session.xenapi.VDI.get_record(session.xenapi.VDI.get_by_uuid(vdiuuid))
        marked = (vdi["other_config"], *(session.xenapi.VBD.get_other_config(vbd) for vbd in vdi["VBDs"]))
        if not any(placing.is_marked(config) for config in marked):
            raise NotConfigDrive(f"The disk {vdiuuid} is not marked as a config drive.")
        size = int(vdi["virtual_size"])
        if size > LARGEST_DRIVE:
            raise NotConfigDrive(f"The disk {vdiuuid} is too large for a config drive: {size} bytes.")
        with _one_reader():
            content = disk.download(session, context.settings.xapi.socket, vdiuuid, size, DOWNLOAD_SECONDS)
            try:
                return DONE + image.template_in(content)
            except ValueError as error:
                raise NotConfigDrive(f"The disk {vdiuuid} is no config drive: {error}.") from error


@contextlib.contextmanager
def _one_reader() -> "Iterator[None]":
    """:raises DriveBusy: others take too long."""
    if not _reading.acquire(timeout=WAITING_SECONDS):
        raise DriveBusy("Other calls are reading config drives.", "Repeat the call in a moment.")
    try:
        yield
    finally:
        _reading.release()
