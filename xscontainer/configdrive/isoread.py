"""Read one file from an ISO 9660 image that anybody may have made.

The reader follows one path and reads each byte at most once, so even a malformed image costs no more than its size.
"""

import struct
from typing import Dict, Iterator, NamedTuple, Optional, Tuple

SECTOR = 2048
FIRST_DESCRIPTOR = 16
MOST_DESCRIPTORS = 32
LARGEST_FILE = 1048576  # bytes; a configuration with its values filled in may be so large
LARGEST_DIRECTORY = 1048576

_PRIMARY, _SUPPLEMENTARY, _TERMINATOR = 1, 2, 255
_JOLIET = (b"%/@", b"%/C", b"%/E")
_IS_DIRECTORY = 2


class _Extent(NamedTuple):
    start: int  # bytes from the image's beginning
    size: int
    is_directory: bool


class _Entry(NamedTuple):
    name: str
    extent: _Extent


def file_in(image: bytes, path: str) -> "Optional[bytes]":
    """Return a file's content; None if the image has no such file.

    Names are those of Joliet, Rock Ridge or ISO 9660 itself, in this order of preference. Letter case does not count.

    :param path: without a leading slash.
    :raises ValueError: when the image is not an ISO 9660 file system, or is damaged.
    """
    try:
        return _file_in(image, path)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ValueError("the file system on it is damaged") from error


def _file_in(image: bytes, path: str) -> "Optional[bytes]":
    found, joliet = _root(image)
    for word in path.lower().split("/"):
        if not found.is_directory:
            return None
        matching = (entry.extent for entry in _entries(image, found, joliet) if entry.name.lower() == word)
        inner = next(matching, None)
        if inner is None:
            return None
        found = inner
    if found.is_directory:
        return None
    return _content(image, found, LARGEST_FILE)


def _root(image: bytes) -> "Tuple[_Extent, bool]":
    """Return the root directory, and True if its names are Joliet's."""
    roots: Dict[bool, _Extent] = {}
    for number in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + MOST_DESCRIPTORS):
        descriptor = image[number * SECTOR:(number + 1) * SECTOR]
        if len(descriptor) < SECTOR or descriptor[1:6] != b"CD001" or descriptor[0] == _TERMINATOR:
            break
        if descriptor[0] == _PRIMARY:
            roots.setdefault(False, _extent(descriptor[156:190]))
        elif descriptor[0] == _SUPPLEMENTARY and descriptor[88:91] in _JOLIET:
            roots.setdefault(True, _extent(descriptor[156:190]))
    if not roots:
        raise ValueError("there is no ISO 9660 file system on it")
    joliet = True in roots
    return roots[joliet], joliet


def _extent(record: bytes) -> _Extent:
    sector, = struct.unpack_from("<I", record, 2)
    size, = struct.unpack_from("<I", record, 10)
    return _Extent(sector * SECTOR, size, bool(record[25] & _IS_DIRECTORY))


def _content(image: bytes, extent: _Extent, most: int) -> bytes:
    if extent.size > most or extent.start + extent.size > len(image):
        raise ValueError("the file system on it is damaged")
    return image[extent.start:extent.start + extent.size]


def _entries(image: bytes, directory: _Extent, joliet: bool) -> "Iterator[_Entry]":
    content = _content(image, directory, LARGEST_DIRECTORY)
    at = 0
    while at < len(content):
        length = content[at]
        if length == 0:  # records do not cross the end of a sector
            at = (at // SECTOR + 1) * SECTOR
            continue
        record = content[at:at + length]
        at += length
        bare = record[33:33 + record[32]]
        if bare not in (b"\0", b"\1"):  # the directory itself and its parent
            yield _Entry(_name(record, bare, joliet), _extent(record))


def _name(record: bytes, bare: bytes, joliet: bool) -> str:
    if joliet:
        name = bare.decode("utf-16-be", "replace")
    else:
        name = _rock_ridge(record[33 + len(bare) + (1 - len(bare) % 2):]) or bare.decode("ascii", "replace")
    return name.split(";")[0].rstrip(".")


def _rock_ridge(fields: bytes) -> str:
    """Return the name in the system use fields of a directory record, "" if there is none."""
    at, name = 0, b""
    while at + 4 <= len(fields) and fields[at + 2] >= 4:
        if fields[at:at + 2] == b"NM":
            name += fields[at + 5:at + fields[at + 2]]
        at += fields[at + 2]
    return name.decode("utf-8", "replace")
