"""An image for a real engine, built in memory from the machine's static busybox: no registry, no download."""

import io
import os
import struct
import tarfile

from xscontainer.simulator.engines.errors import NotAvailable
from xscontainer.simulator.engines.processes import find_program

APPLETS = ("sh", "sleep", "true", "false", "echo", "cat", "ls", "ps", "kill", "top", "yes", "head", "test", "printf")
_PT_INTERP = 3


def is_static(path: str) -> bool:
    """Return whether a 64-bit ELF program runs without a dynamic loader."""
    with open(path, "rb") as program:
        head = program.read(64)
        if head[:5] != b"\x7fELF\x02":
            return False
        offset, = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        program.seek(offset)
        table = program.read(size * count)
    return all(struct.unpack_from("<I", table, index * size)[0] != _PT_INTERP for index in range(count))


def busybox_tar() -> bytes:
    """Return a root file system as tar: /bin/busybox, links for its applets, and a shell's directories.

    :raises NotAvailable: no static busybox on this machine.
    """
    path = find_program("busybox")
    if path is None or not is_static(path):
        raise NotAvailable("no static busybox on PATH (Debian: busybox-static)")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in ("bin", "tmp", "etc", "proc", "dev", "sys"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(directory)
        with open(path, "rb") as program:
            busybox = tarfile.TarInfo("bin/busybox")
            busybox.mode, busybox.size = 0o755, os.fstat(program.fileno()).st_size
            tar.addfile(busybox, program)
        for applet in APPLETS:
            link = tarfile.TarInfo("bin/" + applet)
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return stream.getvalue()
