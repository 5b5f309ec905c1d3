"""Lay out the files of the packages as on a host."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from typing import Callable, List, Match, Tuple, Union

from rpm.pack.tools import BuildError

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FILES = os.path.join(ROOT, "rpm", "files")
# Equal to PRIVATE_DIRECTORY in xapi-plugins/xscontainer.
PRIVATE = "usr/lib/xscontainer"
COMPLETION = "usr/share/bash-completion/completions/xscontainer"
TEMPLATES = "usr/share/xapi/vm-templates"
GUEST_CONFIG = "usr/share/xscontainer/guest-config"
# Files for guests; the VM templates in templates/ are a package of their own.
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
    ("LICENSE", PRIVATE + "/LICENSE", 0o644),
    ("README.md", PRIVATE + "/README.md", 0o644),
    ("SECURITY.md", PRIVATE + "/SECURITY.md", 0o644),
    ("docs/man/xscontainer.1", "usr/share/man/man1/xscontainer.1", 0o644),
    ("docs/man/xscontainer-monitor.8", "usr/share/man/man8/xscontainer-monitor.8", 0o644),
    ("docs/man/xscontainer-prepare-vm.8", "usr/share/man/man8/xscontainer-prepare-vm.8", 0o644),
    ("docs/man/xscontainer.conf.5", "usr/share/man/man5/xscontainer.conf.5", 0o644),
]


def lay_out(stage: str, version: str) -> None:
    """Put everything except the carried libraries into ``stage``, the root of a host's file system."""
    for source, place, mode in PLACES:
        path = os.path.join(stage, place)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        shutil.copyfile(os.path.join(ROOT, source), path)
        os.chmod(path, mode)
    package = os.path.join(stage, PRIVATE, "xscontainer")
    shutil.copytree(
        os.path.join(ROOT, "xscontainer"), package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "simulator"))
    init = os.path.join(package, "__init__.py")
    _replace(init, r'(?m)^__version__ = "[^"]+"$', f'__version__ = "{version}"')
    _replace(init, r'(?m)^__commit__ = "\$Format:%H\$"$|^__commit__ = "([0-9a-f]{40})"$',
             lambda found: f'__commit__ = "{found.group(1) or commit()}"')
    docs = os.path.join(ROOT, "docs")
    shutil.copytree(docs, os.path.join(stage, PRIVATE, "docs"), ignore=lambda directory, names: [
        name for name in names if not name.endswith(".md")])
    lay_out_guest_config(stage)
    _settings(stage)


def _settings(stage: str) -> None:
    """Put the sample of the settings into ``stage``, with a log file: dom0's journal is small and not kept."""
    path = os.path.join(stage, "etc", "xscontainer", "xscontainer.conf")
    os.makedirs(os.path.dirname(path))
    shutil.copyfile(os.path.join(ROOT, "rpm", "xscontainer.conf"), path)
    _replace(path, r"(?m)^#log_file =$", f"log_file = {LOG_FILE}")


def commit() -> str:
    """Return the commit of this checkout, 40 hexadecimal digits; without git the placeholder."""
    command = ["git", "-C", ROOT, "rev-parse", "--verify", "HEAD"]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
    except OSError:
        return "$Format:%H$"
    return done.stdout.decode("ascii", "replace").strip() or "$Format:%H$"


def _replace(path: str, pattern: str, text: "Union[str, Callable[[Match[str]], str]]") -> None:
    with open(path, encoding="utf-8") as file:
        content, count = re.subn(pattern, text, file.read())
    if count != 1:
        raise BuildError(f"{path} has {count} lines like {pattern}")
    with open(path, "w", encoding="utf-8") as file:
        file.write(content)


def lay_out_completion(stage: str) -> None:
    """Put the completion for bash into ``stage``, from the carried library argcomplete.

    If the library is that of a newer interpreter, which this one cannot import, this interpreter's own makes it.

    :raises BuildError: when there is no such library.
    """
    if not os.path.isdir(os.path.join(stage, PRIVATE, "argcomplete")):
        raise BuildError("the completion for bash cannot be made: the pack carries no argcomplete")
    program = ("import sys; sys.path.insert(0, sys.argv[1]); from xscontainer.cli.completion import scripts; "
               "sys.stdout.write(scripts.script('bash'))")
    for options, place in (("-ISB", os.path.join(stage, PRIVATE)), ("-IB", ROOT)):
        made = subprocess.run([sys.executable, options, "-c", program, place],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
        if not made.returncode:
            break
    else:
        raise BuildError(f"the completion for bash cannot be made: {made.stderr.decode('utf-8', 'replace')}")
    path = os.path.join(stage, COMPLETION)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(made.stdout)


def lay_out_guest_config(stage: str, source: str = GUEST_CONFIG_SOURCE) -> None:
    """Put the files for guests into ``stage``; the directory exists even if there are none."""
    place = os.path.join(stage, GUEST_CONFIG)
    if os.path.isdir(source):
        shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "templates"))
    else:
        os.makedirs(place)


def lay_out_templates(stage: str, source: str = TEMPLATES_SOURCE) -> str:
    """Put every VM template below ``source`` into ``stage`` and return their common digest, "" if there is none.

    :raises BuildError: when two have the same name, or one is invalid JSON: XAPI would import none after it.
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
    """Give all files the same rights and times, independent of the builder and the time of the build."""
    for directory, _, names in os.walk(stage):
        os.chmod(directory, 0o755)
        for name in names:
            path = os.path.join(directory, name)
            executable = name.endswith(".so") or ".so." in name or os.stat(path).st_mode & 0o100
            os.chmod(path, 0o755 if executable else 0o644)
            os.utime(path, (epoch_seconds, epoch_seconds))
        os.utime(directory, (epoch_seconds, epoch_seconds))
