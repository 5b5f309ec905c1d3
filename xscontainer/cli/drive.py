"""``xscontainer drive``: print and write config drives."""

import argparse
import sys
from typing import Any

from xscontainer import keys
from xscontainer.cli import lookup, plugin_call
from xscontainer.cli.ui import progress
from xscontainer.core.vm_record import NULL_REF
from xscontainer.errors import ArgumentError
from xscontainer.settings import Settings
from xscontainer.xapi import disk
from xscontainer.xapi.session import Session


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "drive",
        description="Print and write config drives. A config drive holds the configuration that cloud-init, Ignition "
                    "or coreos-cloudinit applies when a VM starts for the first time.")
    parts = parser.add_subparsers(title="commands", dest="part", metavar="COMMAND")
    parts.required = True
    default = parts.add_parser("default", help="print the default configuration for a template")
    default.add_argument("template", metavar="TEMPLATE", help="name or uuid of the template")
    default.set_defaults(run=_default)
    show = parts.add_parser("show", help="print the configuration that a VM's config drive was made from")
    show.add_argument("vm", metavar="VM", help="name or uuid of the VM")
    show.set_defaults(run=_show)
    write = parts.add_parser("write", help="write a config drive for a VM, or replace its config drive")
    write.add_argument("vm", metavar="VM", help="name or uuid of the VM")
    write.add_argument("file", metavar="FILE",
                       help="file with the configuration, which may hold placeholders; - for standard input")
    write.add_argument("--sr", metavar="SR", help="name or uuid of the storage repository (default: the pool's)")
    write.add_argument("--datasource", choices=("configdrive", "nocloud"), default="configdrive",
                       help="data source of the guest's cloud-init (default: configdrive)")
    write.set_defaults(run=_write)


def _default(options: argparse.Namespace, settings: Settings) -> int:
    from xscontainer.verbs import drives  # here for start-up time, see cli/__init__.py

    with plugin_call.logged_in(options, settings) as session:
        template = lookup.template(session, options.template)
        _print(plugin_call.call(session, settings, drives.DEFAULT, templateuuid=template))
    return 0


def _show(options: argparse.Namespace, settings: Settings) -> int:
    from xscontainer.verbs import drives

    with plugin_call.logged_in(options, settings) as session:
        vdi = _drive_of(session, lookup.vm(session, options.vm))
        _print(plugin_call.call(session, settings, drives.READ, vdiuuid=vdi))
    return 0


def _drive_of(session: Session, vm_uuid: str) -> str:
    """Return the uuid of the disk that is the VM's config drive.

    :raises ArgumentError: when the VM has none.
    """
    vm = session.xenapi.VM.get_by_uuid(vm_uuid)
    for drive in disk.drives(session, vm):
        if drive.kind == "Disk" and drive.vdi != NULL_REF:
            vdi = session.xenapi.VDI.get_record(drive.vdi)
            marks = (config.get(keys.CONFIG_DRIVE, "") for config in (drive.other_config, vdi["other_config"]))
            if any(map(keys.is_true, marks)):
                return str(vdi["uuid"])
    raise ArgumentError(f"The VM {session.xenapi.VM.get_name_label(vm)!r} ({vm_uuid}) has no config drive.",
                        "Write one: xscontainer drive write.")


def _write(options: argparse.Namespace, settings: Settings) -> int:
    from xscontainer.verbs import drives

    configuration = lookup.configuration(options.file)
    with plugin_call.logged_in(options, settings) as session:
        vm, sr = lookup.vm(session, options.vm), lookup.storage(session, options.sr)
        vdi = progress.call(session, settings, drives.CREATE, {
            "vmuuid": vm, "sruuid": sr, "configuration": configuration, "datasource": options.datasource})
        seen = _is_seen(session, vm, vdi)
    print(f"The config drive is the disk {vdi}." + ("" if seen else " The VM sees it after its next start."))
    return 0


def _is_seen(session: Session, vm_uuid: str, vdi_uuid: str) -> bool:
    """Return True if the guest already has the disk."""
    vdi = session.xenapi.VDI.get_by_uuid(vdi_uuid)
    return any(drive.attached for drive in disk.drives(session, session.xenapi.VM.get_by_uuid(vm_uuid))
               if drive.vdi == vdi)


def _print(text: str) -> None:
    """Print every byte unchanged: users edit the text and write it back."""
    sys.stdout.buffer.write(text.encode("utf-8"))
    sys.stdout.buffer.flush()
