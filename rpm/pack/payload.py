"""The files of the package xscontainer, laid out as on a host."""

import hashlib
import json
import os
import re
import shutil
from typing import List, Tuple

from rpm.pack.tools import BuildError

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FILES = os.path.join(ROOT, "rpm", "files")
# As PRIVATE_DIRECTORY in xapi-plugins/xscontainer.
PRIVATE = "usr/lib/xscontainer"
TEMPLATES = "usr/share/xapi/vm-templates"
GUEST_CONFIG = "usr/share/xscontainer/guest-config"
# What goes into guests, and below templates/ the VM templates, which are a package of their own.
GUEST_CONFIG_SOURCE = os.path.join(ROOT, "guest-config")
TEMPLATES_SOURCE = os.path.join(GUEST_CONFIG_SOURCE, "templates")
LOG_FILE = "/var/log/xscontainer.log"

# (source in the tree, place on the host, mode)
PLACES: List[Tuple[str, str, int]] = [
    ("xapi-plugins/xscontainer", "etc/xapi.d/plugins/xscontainer", 0o755),
    ("rpm/files/xscontainer", "usr/bin/xscontainer", 0o755),
    ("rpm/files/xscontainer-monitor", "usr/sbin/xscontainer-monitor", 0o755),
    ("rpm/files/xscontainer-prepare-vm", "usr/sbin/xscontainer-prepare-vm", 0o755),
    ("rpm/files/xscontainer-monitor.service", "usr/lib/systemd/system/xscontainer-monitor.service", 0o644),
    ("rpm/files/80-xscontainer.preset", "usr/lib/systemd/system-preset/80-xscontainer.preset", 0o644),
    ("rpm/files/logrotate", "etc/logrotate.d/xscontainer", 0o644),
    ("rpm/files/bugtool.xml", "etc/xensource/bugtool/xscontainer.xml", 0o644),
    ("rpm/files/bugtool-stuff.xml", "etc/xensource/bugtool/xscontainer/stuff.xml", 0o644),
    ("rpm/files/XenAPI.py", PRIVATE + "/XenAPI.py", 0o644),
    ("LICENSE", PRIVATE + "/LICENSE", 0o644),
    ("README.md", PRIVATE + "/README.md", 0o644),
]


def lay_out(stage: str, version: str) -> None:
    """Put all but the carried libraries into ``stage``, the root of a host's file system."""
    for source, place, mode in PLACES:
        path = os.path.join(stage, place)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        shutil.copyfile(os.path.join(ROOT, source), path)
        os.chmod(path, mode)
    package = os.path.join(stage, PRIVATE, "xscontainer")
    shutil.copytree(
        os.path.join(ROOT, "xscontainer"), package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "simulator"))
    _replace(os.path.join(package, "__init__.py"), r'(?m)^__version__ = "[^"]+"$', f'__version__ = "{version}"')
    lay_out_guest_config(stage)
    _settings(stage)


def _settings(stage: str) -> None:
    """The sample, but for the one key whose default does not suit dom0: its journal is small and not kept."""
    path = os.path.join(stage, "etc", "xscontainer", "xscontainer.conf")
    os.makedirs(os.path.dirname(path))
    shutil.copyfile(os.path.join(ROOT, "rpm", "xscontainer.conf"), path)
    _replace(path, r"(?m)^#log_file =$", f"log_file = {LOG_FILE}")


def _replace(path: str, pattern: str, text: str) -> None:
    with open(path, encoding="utf-8") as file:
        content, count = re.subn(pattern, text, file.read())
    if count != 1:
        raise BuildError(f"{path} has {count} lines like {pattern}")
    with open(path, "w", encoding="utf-8") as file:
        file.write(content)


def lay_out_guest_config(stage: str, source: str = GUEST_CONFIG_SOURCE) -> None:
    """Put what goes into guests into ``stage``; the directory is there even if there is nothing yet."""
    place = os.path.join(stage, GUEST_CONFIG)
    if os.path.isdir(source):
        shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "templates"))
    else:
        os.makedirs(place)


def lay_out_templates(stage: str, source: str = TEMPLATES_SOURCE) -> str:
    """Put every VM template below ``source`` into ``stage``; the digest of them all, "" if there is none.

    :raises BuildError: two have one name, or one is no JSON: XAPI would import none of those that follow it.
    """
    place, digest = os.path.join(stage, TEMPLATES), hashlib.sha256()
    os.makedirs(place)
    paths = sorted(os.path.join(directory, name) for directory, _, names in os.walk(source)
                   for name in names if name.endswith(".json"))
    for path in paths:
        copy = os.path.join(place, os.path.basename(path))
        if os.path.exists(copy):
            raise BuildError(f"{source} holds two templates {os.path.basename(path)}")
        with open(path, "rb") as file:
            content = file.read()
        try:
            json.loads(content.decode("utf-8"))
        except ValueError as error:
            raise BuildError(f"{path}: {error}") from error
        digest.update(f"{os.path.basename(path)} {len(content)}\n".encode() + content)
        shutil.copyfile(path, copy)
    return digest.hexdigest() if paths else ""


def settle(stage: str, epoch_seconds: int) -> None:
    """Same owner rights and times whoever builds, and whenever."""
    for directory, _, names in os.walk(stage):
        os.chmod(directory, 0o755)
        for name in names:
            path = os.path.join(directory, name)
            executable = name.endswith(".so") or ".so." in name or os.stat(path).st_mode & 0o100
            os.chmod(path, 0o755 if executable else 0o644)
            os.utime(path, (epoch_seconds, epoch_seconds))
        os.utime(directory, (epoch_seconds, epoch_seconds))
