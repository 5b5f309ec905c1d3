"""The system that ``xscontainer create`` boots: a disk of the pool, or a file that is uploaded."""

import contextlib
import os
from typing import Iterator, Optional

from xscontainer.cli import lookup, plugin_call
from xscontainer.cli.ui import progress
from xscontainer.errors import ArgumentError, NotFound, StorageElsewhere
from xscontainer.settings import Settings
from xscontainer.xapi import disk, storage
from xscontainer.xapi.endpoint import Endpoint
from xscontainer.xapi.session import Session

UPLOAD_SECONDS = 1000.0  # s to upload a system's image: 20 GB at 20 MB/s
LOWEST_RATE = 1e6  # bytes/s of an upload that takes longer
SECTOR = 512  # bytes

_WHERE = "Run this on a host that the storage is attached to."
# First bytes of a file that is not a raw image -> the format's name.
_OTHER_FORMATS = ((b"QFI\xfb", "qcow2"), (b"KDMV", "VMDK"), (b"conectix", "VHD"), (b"vhdxfile", "VHDX"),
                  (b"\x1f\x8b", "gzip"), (b"\xfd7zXZ", "xz"), (b"BZh", "bzip2"), (b"PK\x03\x04", "zip"))


@contextlib.contextmanager
def given(session: Session, settings: Settings, image: "Optional[str]", sr_uuid: str) -> "Iterator[str]":
    """Yield the uuid of the disk with the image, "" without an image.

    A file is uploaded into a disk, which is destroyed at the end: the VM has a copy.

    :param image: path of a file, or name or uuid of a disk.
    :param sr_uuid: the storage repository to upload a file to.
    :raises ArgumentError: when there is no such file or disk, or the file is no raw image.
    :raises StorageElsewhere: when the storage repository is not attached to this host.
    """
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
        return lookup.uuid(session, "VDI", image, "disk")
    except NotFound as error:
        if "/" in image:
            raise ArgumentError(f"There is no file {image}.") from error
        raise


def _uploaded(session: Session, settings: Settings, path: str, sr_uuid: str) -> str:
    """Upload a file into a new disk and return the disk's ref."""
    sr = session.xenapi.SR.get_by_uuid(sr_uuid)
    endpoint = _endpoint(session, settings, sr)
    try:
        with open(path, "rb") as stream:
            size = _raw_size(path, stream.read(SECTOR), os.fstat(stream.fileno()).st_size)
            stream.seek(0)
            progress.on_stderr("uploading the image")
            vdi = disk.create(session, sr, size, os.path.basename(path))
            try:
                uuid = session.xenapi.VDI.get_uuid(vdi)
                disk.upload(session, uuid, stream, size, max(UPLOAD_SECONDS, size / LOWEST_RATE), endpoint=endpoint)
            except BaseException:
                disk.destroy(session, vdi)
                raise
    except StorageElsewhere as error:
        raise StorageElsewhere(error.message, _WHERE) from error
    except OSError as error:
        raise ArgumentError(f"{path} cannot be read: {error.strerror or error}.") from error
    return vdi


def _endpoint(session: Session, settings: Settings, sr: str) -> Endpoint:
    """Return XAPI of a host that the storage repository is attached to: only such a host can write to it.

    :raises StorageElsewhere: it is not attached to this host. From another machine any host of the pool will do.
    """
    from xscontainer.xapi.https import HttpsServer  # here for start-up time: it imports ssl

    attached = storage.attached_hosts(session, sr)
    if isinstance(session.endpoint, HttpsServer):
        (record,) = session.xenapi.pool.get_all_records().values()
        if record["master"] in attached:
            return session.endpoint
        if attached:
            return session.endpoint.at(session.xenapi.host.get_address(min(attached)))
    elif plugin_call.this_host(session, settings) in attached:
        return session.endpoint
    where = "this host" if session.endpoint.is_local else "any host"
    raise StorageElsewhere(f"The storage repository {storage.label(session, sr)} is not attached to {where}.",
                           _WHERE if session.endpoint.is_local else "Attach it to a host of the pool.")


def _raw_size(path: str, beginning: bytes, size: int) -> int:
    for magic, name in _OTHER_FORMATS:
        if beginning.startswith(magic):
            raise ArgumentError(f"{path} has the format {name}; a raw image is needed.",
                                "Convert it first: qemu-img convert -O raw.")
    if size == 0 or size % SECTOR:
        raise ArgumentError(f"{path} is not a raw image: its size of {size} bytes is not a multiple of {SECTOR}.")
    return size
