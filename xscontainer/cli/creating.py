"""``xscontainer create``: a VM with containers, out of a template."""

import argparse
import contextlib
import json
import os
import re
from typing import Any, Dict, Iterator, Optional

from xscontainer import calls, keys
from xscontainer.actions import creating as action
from xscontainer.cli import calling, finding, progress
from xscontainer.cli.columns import neutral
from xscontainer.cli.telling import say
from xscontainer.errors import ArgumentError, StorageElsewhere, XapiError
from xscontainer.reach import check
from xscontainer.settings import Settings
from xscontainer.xapi import disk, making, storage
from xscontainer.xapi.session import Session

NOT_LISTED = 3

# s in which a system's image is uploaded: 20 GB at 20 MB/s.
UPLOAD_SECONDS = 1000.0
SECTOR = 512

_WHERE = "Run this on a host that the storage is attached to."
_SIZE = re.compile(r"([0-9]{1,12})([KMGT]?)(i?B)?\Z")
_FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# How files begin that are no raw image: (bytes, name).
_OTHER_FORMATS = ((b"QFI\xfb", "qcow2"), (b"KDMV", "VMDK"), (b"conectix", "VHD"), (b"vhdxfile", "VHDX"),
                  (b"\x1f\x8b", "gzip"), (b"\xfd7zXZ", "xz"), (b"BZh", "bzip2"), (b"PK\x03\x04", "zip"))


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "create", help="make a VM with containers out of a template",
        description="Clones a template, gives the VM a disk, a network and a config drive, starts it and waits until "
                    "its containers are listed. If that fails before the VM has started, nothing is left of it.",
        epilog=f"Exit code: 0 listed, {NOT_LISTED} started but nothing is listed yet; otherwise as for every command.")
    parser.add_argument("name", metavar="NAME", help="of the new VM")
    parser.add_argument("--template", required=True, metavar="TEMPLATE", help="name or uuid")
    parser.add_argument("--network", required=True, metavar="NETWORK", help="name or uuid")
    parser.add_argument("--sr", metavar="SR", help="storage repository, name or uuid (default: the pool's)")
    parser.add_argument("--image", metavar="IMAGE",
                        help="what it boots: a file with a raw image, which is uploaded, or the name or uuid of a "
                             "disk, which is copied; not for a template that has a disk of its own")
    parser.add_argument("--configuration", metavar="FILE",
                        help="for the config drive (default: the template's); - for standard input")
    parser.add_argument("--datasource", choices=("configdrive", "nocloud"), default="configdrive",
                        help="what the guest's cloud-init looks for (default: configdrive)")
    parser.add_argument("-u", "--user", help="whom the configuration lets in with the pool's key")
    parser.add_argument("--memory", metavar="SIZE", type=_size, help="such as 4G (default: the template's)")
    parser.add_argument("--vcpus", metavar="N", help="how many virtual CPUs (default: the template's)")
    parser.add_argument("--wait", metavar="SECONDS", help="for the first list (default: 300)")
    parser.set_defaults(run=_run)


def _size(text: str) -> str:
    found = _SIZE.match(text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 4G")
    return str(int(found.group(1)) * _FACTORS[found.group(2)])


def _run(options: argparse.Namespace, settings: Settings) -> int:
    check({keys.USERNAME: options.user or ""}, {keys.USERNAME: "-u"}, settings)
    with calling.logged_in(settings) as session:
        arguments = {
            "name": options.name, "templateuuid": finding.template(session, options.template),
            "networkuuid": finding.uuid(session, "network", options.network, "network"),
            "sruuid": finding.storage(session, options.sr), "datasource": options.datasource}
        if options.configuration is not None:
            arguments["configuration"] = finding.configuration(options.configuration)
        more = {"username": options.user, "memory": options.memory, "vcpus": options.vcpus, "wait": options.wait}
        arguments.update({name: value for name, value in more.items() if value is not None})
        # Here as well: an image may take a quarter of an hour.
        action.wished(settings, **{name: calls.checked(name, value) for name, value in arguments.items()})
        template = session.xenapi.VM.get_by_uuid(arguments["templateuuid"])
        making.check_bootable(session, template, options.image is not None)
        with _image(session, settings, options.image, arguments["sruuid"]) as image:
            if image:
                arguments["imageuuid"] = image
            made = json.loads(progress.call(session, settings, "create", arguments))
    return _tell(made)


@contextlib.contextmanager
def _image(session: Session, settings: Settings, image: "Optional[str]", sr_uuid: str) -> "Iterator[str]":
    """The uuid of the disk with the image, "" without one. One that was uploaded goes at the end: copies stay."""
    if image is None:
        yield ""
        return
    if not os.path.exists(image):
        yield _disk(session, image)
        return
    vdi = _uploaded(session, settings, image, sr_uuid)
    try:
        yield str(session.xenapi.VDI.get_uuid(vdi))
    finally:
        disk.destroy(session, vdi)


def _disk(session: Session, image: str) -> str:
    try:
        return finding.uuid(session, "VDI", image, "disk")
    except ArgumentError as error:
        if "/" in image:
            raise ArgumentError(f"There is no file {image}.") from error
        raise


def _uploaded(session: Session, settings: Settings, path: str, sr_uuid: str) -> str:
    """The ref of a new disk with a file's content."""
    sr = session.xenapi.SR.get_by_uuid(sr_uuid)
    if calling.this_host(session, settings) not in storage.attached_hosts(session, sr):
        raise StorageElsewhere(f"The storage repository {storage.label(session, sr)} is not attached to this host.",
                               _WHERE)
    try:
        with open(path, "rb") as stream:
            size = _raw_size(path, stream.read(SECTOR), os.fstat(stream.fileno()).st_size)
            stream.seek(0)
            progress.on_stderr("uploading the image")
            vdi = disk.create(session, sr, size, os.path.basename(path))
            try:
                uuid = session.xenapi.VDI.get_uuid(vdi)
                disk.upload(session, settings.xapi.socket, uuid, stream, size, UPLOAD_SECONDS)
            except BaseException:
                disk.destroy(session, vdi)
                raise
    except StorageElsewhere as error:
        raise StorageElsewhere(error.message, _WHERE) from error
    except OSError as error:
        raise ArgumentError(f"{path} cannot be read: {error.strerror or error}.") from error
    return vdi


def _raw_size(path: str, beginning: bytes, size: int) -> int:
    for magic, name in _OTHER_FORMATS:
        if beginning.startswith(magic):
            raise ArgumentError(f"{path} is a file in the format {name}, not a raw image.",
                                "Convert it first: qemu-img convert -O raw.")
    if size == 0 or size % SECTOR:
        raise ArgumentError(f"{path} is no raw image: its size, {size} bytes, is no multiple of {SECTOR}.")
    return size


def _tell(made: "Dict[str, Any]") -> int:
    try:
        print(f"The VM {neutral(str(made['name']))} ({neutral(str(made['vm']))}) was made and started.")
        if made["published"]:
            print("Its containers are listed: xscontainer list.")
            return 0
        say("xscontainer: Nothing is listed yet. A first start that installs packages may take minutes; "
            "'xscontainer diagnose' says what is missing.")
        return NOT_LISTED
    except KeyError as error:
        raise XapiError(f"The plugin's answer cannot be read: {error} is missing.") from error
