"""The files of the package xscontainer, laid out as on a host."""

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
LOG_FILE = "/var/log/xscontainer.log"

# (source in the tree, place on the host, mode)
PLACES: List[Tuple[str, str, int]] = [
    ("xapi-plugins/xscontainer", "etc/xapi.d/plugins/xscontainer", 0o755),
    ("rpm/files/xscontainer", "usr/bin/xscontainer", 0o755),
    ("rpm/files/xscontainer-monitor", "usr/sbin/xscontainer-monitor", 0o755),
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


def lay_out_templates(stage: str) -> int:
    """Put the guest templates, if there are any yet, into ``stage``; how many."""
    source, place = os.path.join(ROOT, "guest-config", "vm-templates"), os.path.join(stage, TEMPLATES)
    os.makedirs(place)
    names = sorted(name for name in os.listdir(source) if name.endswith(".json")) if os.path.isdir(source) else []
    for name in names:
        shutil.copyfile(os.path.join(source, name), os.path.join(place, name))
    return len(names)


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
