"""``xscontainer drive``: config drives, which tell a VM what to be when it first starts."""

import argparse
import sys
from typing import Any

from xscontainer import keys
from xscontainer.cli import calling, finding, progress
from xscontainer.errors import ArgumentError
from xscontainer.settings import Settings
from xscontainer.vmrecord import NULL_REF
from xscontainer.xapi import disk
from xscontainer.xapi.session import Session


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "drive", help="config drives: defaults, making, reading back",
        description="A config drive tells a VM what to be when it first starts: cloud-init, Ignition and "
                    "coreos-cloudinit read it.")
    parts = parser.add_subparsers(title="commands", dest="part", metavar="COMMAND")
    parts.required = True
    default = parts.add_parser("default", help="print the configuration that goes with a template")
    default.add_argument("template", metavar="TEMPLATE", help="name or uuid")
    default.set_defaults(run=_default)
    show = parts.add_parser("show", help="print the configuration that a VM's config drive was made from")
    show.add_argument("vm", metavar="VM", help="name or uuid")
    show.set_defaults(run=_show)
    write = parts.add_parser("write", help="give a VM a config drive, in place of any other")
    write.add_argument("vm", metavar="VM", help="name or uuid")
    write.add_argument("file", metavar="FILE", help="the configuration with its placeholders; - for standard input")
    write.add_argument("--sr", metavar="SR", help="storage repository, name or uuid (default: the pool's)")
    write.add_argument("--datasource", choices=("configdrive", "nocloud"), default="configdrive",
                       help="what the guest's cloud-init looks for (default: configdrive)")
    write.set_defaults(run=_write)


def _default(options: argparse.Namespace, settings: Settings) -> int:
    with calling.logged_in(settings) as session:
        template = finding.template(session, options.template)
        _print(calling.call(session, settings, "get_config_drive_default", templateuuid=template))
    return 0


def _show(options: argparse.Namespace, settings: Settings) -> int:
    with calling.logged_in(settings) as session:
        vdi = _drive_of(session, finding.vm(session, options.vm))
        _print(calling.call(session, settings, "get_config_drive_configuration", vdiuuid=vdi))
    return 0


def _drive_of(session: Session, vm_uuid: str) -> str:
    """The disk (uuid) that is a VM's config drive.

    :raises ArgumentError: it has none.
    """
    for drive in disk.drives(session, session.xenapi.VM.get_by_uuid(vm_uuid)):
        if drive.kind == "Disk" and drive.vdi != NULL_REF:
            vdi = session.xenapi.VDI.get_record(drive.vdi)
            marks = (config.get(keys.CONFIG_DRIVE, "") for config in (drive.other_config, vdi["other_config"]))
            if any(map(keys.is_true, marks)):
                return str(vdi["uuid"])
    raise ArgumentError(f"The VM {vm_uuid} has no config drive.")


def _write(options: argparse.Namespace, settings: Settings) -> int:
    configuration = finding.configuration(options.file)
    with calling.logged_in(settings) as session:
        vm, sr = finding.vm(session, options.vm), finding.storage(session, options.sr)
        vdi = progress.call(session, settings, "create_config_drive", {
            "vmuuid": vm, "sruuid": sr, "configuration": configuration, "datasource": options.datasource})
        seen = _is_seen(session, vm, vdi)
    print(f"The config drive is the disk {vdi}." + ("" if seen else " The VM sees it when it starts next."))
    return 0


def _is_seen(session: Session, vm_uuid: str, vdi_uuid: str) -> bool:
    """Whether the guest has the disk by now."""
    vdi = session.xenapi.VDI.get_by_uuid(vdi_uuid)
    return any(drive.attached for drive in disk.drives(session, session.xenapi.VM.get_by_uuid(vm_uuid))
               if drive.vdi == vdi)


def _print(text: str) -> None:
    """Byte for byte: it is to be edited and given back."""
    sys.stdout.buffer.write(text.encode("utf-8"))
    sys.stdout.buffer.flush()
