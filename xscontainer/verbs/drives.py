"""The verbs for config drives, which configure a VM at its first start."""

import contextlib
import os
from typing import TYPE_CHECKING, Iterator, List

from xscontainer.configdrive import site
from xscontainer.configdrive.undo import Undo
from xscontainer.core import cloud_config
from xscontainer.core.arguments import CONFIGURATION, DATASOURCE, SR_UUID, TEMPLATE_UUID, VM_UUID, uuid
from xscontainer.core.verb import CHANGE, EVERYONE, LONG, SEE, STORAGE_HOST, VM_ADMIN, Argument, Verb
from xscontainer.core.verb import READ as READ_CLASS
from xscontainer.errors import ArgumentError, DriveBusy, KeyPairError, NotConfigDrive
from xscontainer.host import hostlock
from xscontainer.verbs import DONE
from xscontainer.verbs.cancellation import CancellableProgress
from xscontainer.verbs.context import Context
from xscontainer.xapi import disk, task
from xscontainer.xapi.session import Session

if TYPE_CHECKING:
    from xscontainer.core.cloud_config import HostKey

BASE = "base_template_name"  # key in other_config of a VM that was made from a template

# A config drive takes less than 2 MiB. Other tools make larger ones, but a disk above this size is no config drive.
LARGEST_DRIVE = 33554432  # bytes
DOWNLOAD_SECONDS = 60.0
WAITING_SECONDS = 60.0


def get_config_drive_default(context: Context, templateuuid: str) -> str:
    """Return ``True`` and the default configuration of a template (guest-config/defaults.json)."""
    from xscontainer.configdrive import defaults

    return DONE + defaults.configuration(context.sessions.run(lambda session: _labels(session, templateuuid)),
                                         defaults.directory())


def _labels(session: Session, template_uuid: str) -> "List[str]":
    """The names of a template and of the template that it was made from."""
    record = session.xenapi.VM.get_record(session.xenapi.VM.get_by_uuid(template_uuid))
    return [record["name_label"], record.get("reference_label") or "", record["other_config"].get(BASE, "")]


def create_config_drive(context: Context, vmuuid: str, sruuid: str, configuration: str,
                        datasource: str = "configdrive") -> str:
    """Make a config drive, in place of the VM's old ones; returns ``True`` and the uuid of the new disk.

    :param configuration: with placeholders; ``%BR%`` is a newline.
    :param datasource: "configdrive", or "nocloud" for guests whose cloud-init knows only that.
    """
    template = given_template(configuration)
    with _one_at_a_time(context, vmuuid):
        return DONE + _replace(context, vmuuid, sruuid, template, datasource)


def _replace(context: Context, vmuuid: str, sruuid: str, template: str, datasource: str) -> str:
    from xscontainer.configdrive import placement  # here: it imports pycdlib, which takes 0.1 s

    found = context.forwarding.run(lambda session: site.read(session, vmuuid, sruuid))
    undo = Undo(context.forwarding)
    content = placement.Content(template, public_key(context), new_host_key, datasource)
    try:
        with context.forwarding.lease() as session:
            with task.running(
                    session, f"Config drive of {found.vm.name}", "", {task.VM: vmuuid}) as shown:
                progress = CancellableProgress(context, shown)
                progress(0.1, "making the config drive")
                uuid = placement.place(session, undo, found, content, progress)
            undo.forget()
            placement.clear(session, found)
    finally:
        undo.all()
    return uuid


@contextlib.contextmanager
def _one_at_a_time(context: Context, vm_uuid: str) -> "Iterator[None]":
    """Exclude other calls for the VM: each would replace the drive that it found. All of them come to one host.

    :raises DriveBusy: the other call takes too long.
    """
    directory = os.path.dirname(context.settings.daemon.socket)
    # At most 256 files; VMs that share one wait for each other.
    with hostlock.held(directory, f"drive-{vm_uuid[:2]}.lock", WAITING_SECONDS) as held:
        if not held:
            raise DriveBusy(f"Another call is making a config drive for the VM {vm_uuid}.",
                            "Repeat the call in a moment.")
        yield


def given_template(configuration: str) -> str:
    """Put newlines into a configuration: callers who cannot send them write ``%BR%``.

    :raises ArgumentError: the configuration is empty.
    """
    template = configuration.replace(cloud_config.NEWLINE, "\n")
    if not template.strip():
        raise ArgumentError("The configuration is empty.", "Start from the one that get_config_drive_default returns.")
    return template


def public_key(context: Context) -> str:
    """The pool's public key in base64.

    :raises KeyPairError: it is not an RSA key, as configurations expect.
    """
    key = context.access.pool_key.private()
    if key.get_name() != "ssh-rsa":
        raise KeyPairError("The pool's SSH key is not an RSA key, as the placeholders in configurations require.")
    return key.get_base64()


def new_host_key() -> "HostKey":
    """Make an SSH host key for a guest."""
    from xscontainer.engine.ssh import keypair

    return cloud_config.HostKey(*keypair.new_host_key())


def get_config_drive_configuration(context: Context, vdiuuid: str) -> str:
    """Return ``True`` and the configuration that a config drive was made from, with its placeholders.

    For a drive without that it is the configuration that the guest gets.

    :raises NotConfigDrive: the disk is not marked as a config drive, or holds no configuration.
    :raises DriveBusy: other calls read drives for too long.
    """
    from xscontainer.configdrive import image  # here: it imports pycdlib, which takes 0.1 s

    with context.forwarding.lease() as session:
        vdi = session.xenapi.VDI.get_record(session.xenapi.VDI.get_by_uuid(vdiuuid))
        marked = (vdi["other_config"], *(session.xenapi.VBD.get_other_config(vbd) for vbd in vdi["VBDs"]))
        if not any(site.is_marked(config) for config in marked):
            raise NotConfigDrive(f"The disk {vdiuuid} is not marked as a config drive.")
        size = int(vdi["virtual_size"])
        if size > LARGEST_DRIVE:
            raise NotConfigDrive(f"The disk {vdiuuid} is too large for a config drive: it has {size} bytes.")
        with _one_reader(context):
            content = disk.download(session, vdiuuid, size, DOWNLOAD_SECONDS)
            try:
                return DONE + image.template_in(content)
            except ValueError as error:
                raise NotConfigDrive(f"The disk {vdiuuid} cannot be read as a config drive: {error}.") from error


@contextlib.contextmanager
def _one_reader(context: Context) -> "Iterator[None]":
    """Read one drive at a time.

    :raises DriveBusy: other calls take too long.
    """
    if not context.drive_reader.acquire(timeout=WAITING_SECONDS):
        raise DriveBusy("Other calls are reading config drives.", "Repeat the call in a moment.")
    try:
        yield
    finally:
        context.drive_reader.release()


FILLING = 180.0  # s that a disk may take to be made and filled, or read

DEFAULT = Verb("get_config_drive_default", get_config_drive_default, "Return the default configuration of a template.",
               (TEMPLATE_UUID,), EVERYONE, SEE, "drive default", result="the configuration, with its placeholders")
CREATE = Verb("create_config_drive", create_config_drive, "Replace the config drive of a VM.",
              (VM_UUID, SR_UUID, CONFIGURATION, DATASOURCE), VM_ADMIN, CHANGE, "drive write", STORAGE_HOST, LONG,
              FILLING, "uuid of the new disk")
# VM_ADMIN: the configuration may hold passwords, and those who may read the disk see them, too.
READ = Verb("get_config_drive_configuration", get_config_drive_configuration,
            "Return the configuration that a config drive was made from.", (Argument("vdiuuid", uuid),), VM_ADMIN,
            READ_CLASS, "drive show", STORAGE_HOST, LONG, FILLING,
            "the configuration as it was given, with its placeholders")
VERBS = (DEFAULT, CREATE, READ)
