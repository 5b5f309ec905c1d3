"""Make and read the ISO 9660 image of a config drive.

There are two layouts: cloud-init, Ignition and coreos-cloudinit recognise the kind of a drive by its label, and an
image has one label. All of them accept ``config-2``.
"""

import io
import json
from typing import Mapping, NamedTuple, Set

import pycdlib

from xscontainer.configdrive import isoread

CONFIG_DRIVE, NO_CLOUD = "configdrive", "nocloud"
LAYOUTS = (CONFIG_DRIVE, NO_CLOUD)
_LABELS = {CONFIG_DRIVE: "config-2", NO_CLOUD: "cidata"}

# Layout -> path of the configuration with its placeholders, which lies beside the one for the guest.
_TEMPLATES = {CONFIG_DRIVE: "openstack/latest/user_data.template", NO_CLOUD: "user-data.template"}
_USER_DATA = {CONFIG_DRIVE: "openstack/latest/user_data", NO_CLOUD: "user-data"}

_FILE_MODE = 0o100400  # only root of the guest may read the files


class Identity(NamedTuple):
    """The VM that the drive is for. Programs that act once for each machine remember its uuid."""

    uuid: str
    hostname: str
    name: str


def make(template: str, user_data: str, identity: Identity, layout: str = CONFIG_DRIVE) -> bytes:
    """Return the image.

    :param template: the configuration with its placeholders, kept for :func:`template_in`.
    :param user_data: the configuration for the guest.
    :param layout: one of LAYOUTS.
    """
    files = {_TEMPLATES[layout]: template.encode("utf-8"), _USER_DATA[layout]: user_data.encode("utf-8")}
    if layout == CONFIG_DRIVE:
        # Without public_keys: guests would give them to an account with all rights. Only the configuration
        # decides who may log in.
        files["openstack/latest/meta_data.json"] = _json({
            "uuid": identity.uuid, "hostname": identity.hostname, "name": identity.name,
            "launch_index": 0, "public_keys": {}})
    else:
        # JSON is valid YAML.
        files["meta-data"] = _json({"instance-id": identity.uuid, "local-hostname": identity.hostname})
    return write(files, _LABELS[layout])


def template_in(image: bytes) -> str:
    """Return the configuration with its placeholders; of foreign drives the one for the guest.

    :raises ValueError: when the image is not a config drive.
    """
    for paths in (_TEMPLATES, _USER_DATA):
        for path in paths.values():
            found = isoread.file_in(image, path)
            if found is not None:
                return found.decode("utf-8", "replace")
    raise ValueError("there is no configuration on it")


def _json(content: "Mapping[str, object]") -> bytes:
    return json.dumps(content, indent=1, sort_keys=True).encode("ascii") + b"\n"


def write(files: "Mapping[str, bytes]", label: str) -> bytes:
    """Return an ISO 9660 image with the extensions Rock Ridge and Joliet, which both keep the names.

    :param files: relative path -> content; paths must be distinct in upper case.
    :param label: up to 16 characters.
    """
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, sys_ident="LINUX", vol_ident=label, joliet=3, rock_ridge="1.09")
    try:
        made: Set[str] = set()
        for path, content in files.items():
            *above, name = path.split("/")
            for depth in range(1, len(above) + 1):
                _add_directory(iso, "/".join(above[:depth]), made)
            iso.add_fp(io.BytesIO(content), len(content), _plain(path, ".;1"), rr_name=name, joliet_path=f"/{path}",
                       file_mode=_FILE_MODE)
        image = io.BytesIO()
        iso.write_fp(image)
    finally:
        iso.close()
    return image.getvalue()


def _add_directory(iso: pycdlib.PyCdlib, path: str, made: "Set[str]") -> None:
    if path not in made:
        iso.add_directory(_plain(path), rr_name=path.split("/")[-1], joliet_path=f"/{path}")
        made.add(path)


def _plain(path: str, ending: str = "") -> str:
    """Return the path in the letters that ISO 9660 itself allows."""
    plain = "/" + path.upper().replace("-", "_")
    return plain + (ending.lstrip(".") if "." in plain.split("/")[-1] else ending)
