"""Build the supplemental pack from this tree.

    python -m rpm.pack [--target 3.6] [--sign-key KEY] [--version V] [--output dist]

The output directory then holds the ISO, the public key, the pack's tree (which is a yum repository too) and a sample
.repo file for the tree.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from typing import List, NamedTuple, Optional, Tuple

from rpm.pack import carried, medium, packages, payload, signing, tools
from rpm.pack.release import LABEL, TARGETS, TEMPLATES, Release, check_version
from rpm.pack.stage import Staged, stage
from rpm.pack.tools import BuildError
from xscontainer import __version__


class Built(NamedTuple):
    """A pack that was built.

    :ivar iso, tree, key: paths.
    :ivar installed_size: bytes, as RPM counts them.
    :ivar wheels: directory with the wheels of the carried libraries.
    """

    release: Release
    iso: str
    tree: str
    key: str
    installed_size: int
    wheels: str
    staged: Staged


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m rpm.pack", description="Build the supplemental pack.")
    parser.add_argument("--target", choices=sorted(TARGETS), default="3.6", help="dom0's Python (default: 3.6)")
    parser.add_argument("--version", default=__version__, help="version of the pack (default: the tree's)")
    parser.add_argument("--platform-version", help="version that dom0 must provide as platform-version; none: any")
    parser.add_argument("--sign-key", metavar="KEY", help="a file with a secret key, or a name in your keyring; "
                                                          "default: a new throw-away key")
    parser.add_argument("--output", default="dist", help="directory for the pack (default: dist)")
    parser.add_argument("--wheels", default="build/wheels",
                        help="directory that keeps downloads (default: build/wheels)")
    options = parser.parse_args(arguments)
    begun = time.monotonic()
    try:
        wrong = check_version(options.version)
        if wrong:
            raise BuildError(wrong)
        tools.provide()
        with signing.signer(options.sign_key) as signer:
            target = TARGETS[options.target]
            release = Release(options.version, target, options.platform_version or target.platform_version or "none",
                              signer.key_file, source_date())
            built = build(release, signer, options.output, options.wheels)
    except BuildError as error:
        print(f"make pack: {error}", file=sys.stderr)
        return 1
    print(f"{built.iso}: {os.path.getsize(built.iso) / 1e6:.1f} MB, {built.installed_size / 1e6:.1f} MB installed, "
          f"uuid {release.uuid}, built in {time.monotonic() - begun:.0f} s")
    print(f"{built.key}: the key it is signed with" + ("" if options.sign_key else ", a throw-away key"))
    return 0


def source_date() -> int:
    """Return the time of all files in the pack, seconds since the epoch: SOURCE_DATE_EPOCH, or the commit's time."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if given:
        return int(given)
    command = ["git", "-C", payload.ROOT, "log", "-1", "--format=%ct"]
    try:
        printed = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60).stdout
    except OSError:
        printed = b""
    # Without git: the time of the file that changes with each version.
    return int(printed or os.path.getmtime(os.path.join(payload.ROOT, "xscontainer", "__init__.py")))


def build(release: Release, signer: signing.Signer, output: str, wheels: str,
          templates: str = payload.TEMPLATES_SOURCE) -> Built:
    """Build the pack into the directory ``output``.

    :param wheels: directory for downloaded wheels.
    :param templates: directory of the VM templates.
    :raises BuildError: when a step fails.
    """
    os.umask(0o022)
    os.makedirs(output, exist_ok=True)
    tree = os.path.join(os.path.abspath(output), release.name)
    shutil.rmtree(tree, ignore_errors=True)
    rpms = os.path.join(tree, "Packages")
    os.makedirs(rpms)
    with tempfile.TemporaryDirectory(prefix="xpack-") as scratch:
        kept = _wheels(release, wheels)
        staged, size = _payload(release, scratch, rpms, kept)
        size += _templates(release, scratch, rpms, templates)
        update = medium.update_xml(release, size)
        packages.build("control-" + LABEL, release, "", scratch, rpms, {"platform_version": release.platform_version})
        packages.build("update-" + LABEL, release, "", scratch, rpms,
                       {"uuid": release.uuid, "update_xml": update.replace("%", "%%")})
    signer.sign_packages(sorted(os.path.join(rpms, name) for name in os.listdir(rpms)))
    medium.make_repository(tree, release)
    signer.sign_file(os.path.join(tree, "repodata", "repomd.xml"))
    with open(os.path.join(tree, "update.xml"), "w", encoding="utf-8") as file:
        file.write(update + "\n")
    signer.sign_file(os.path.join(tree, "update.xml"))
    iso = tree + ".iso"
    medium.make_iso(tree, iso, release)
    with open(os.path.join(output, LABEL + ".repo"), "w", encoding="utf-8") as file:
        file.write(medium.repo_file(release))
    return Built(release, iso, tree, signer.export(output), size, kept, staged)


def _payload(release: Release, scratch: str, rpms: str, wheels: str) -> "Tuple[Staged, int]":
    """Build the package xscontainer; return its content and its installed size in bytes, as RPM counts."""
    directory = os.path.join(scratch, "stage")
    staged = stage(release, wheels, directory)
    built = packages.build(LABEL, release, directory, scratch, rpms, {"licence": staged.licence, "arch": "x86_64"})
    return staged, int(packages.query(built, "%{SIZE}", release.epoch_seconds))


def _templates(release: Release, scratch: str, rpms: str, source: str) -> int:
    """Build the package of VM templates; return its installed size in bytes, as RPM counts."""
    directory = os.path.join(scratch, "templates")
    digest = payload.lay_out_templates(directory, source)
    payload.settle(directory, release.epoch_seconds)
    built = packages.build(TEMPLATES, release, directory, scratch, rpms,
                           {"templates": str(int(bool(digest))), "templates_digest": digest or "none"})
    return int(packages.query(built, "%{SIZE}", release.epoch_seconds))


def _wheels(release: Release, kept: str) -> str:
    """Return a directory with exactly the pinned wheels; pip compares kept downloads with the hashes each time."""
    requirements = os.path.join(payload.ROOT, "requirements", release.target.requirements)
    directory = os.path.join(kept, release.target.tag)
    os.makedirs(directory, exist_ok=True)
    carried.fetch(requirements, release.target, directory)
    wanted = carried.pinned(requirements)
    for wheel in os.listdir(directory):
        name, version = wheel.split("-")[:2]
        if wanted.get(carried.canonical(name)) != version:
            os.unlink(os.path.join(directory, wheel))  # of an earlier pin
    return directory


if __name__ == "__main__":
    sys.exit(main())
