"""Build the supplemental pack from this tree.

    python -m rpm.pack [--target 3.6] [--sign-key KEY] [--version V] [--output dist]

In the output directory are then the ISO, the public key, the pack's tree (a yum repository as well) and a
sample .repo file for it.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from typing import List, NamedTuple, Optional

from rpm.pack import carried, medium, packages, payload, signing, tools
from rpm.pack.release import LABEL, TARGETS, TEMPLATES, Release, check_version
from rpm.pack.tools import BuildError
from xscontainer import __version__


class Built(NamedTuple):
    """``installed_size``: bytes, by RPM's count."""

    release: Release
    iso: str
    tree: str
    key: str
    installed_size: int


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m rpm.pack", description="Build the supplemental pack.")
    parser.add_argument("--target", choices=sorted(TARGETS), default="3.6", help="dom0's Python (default: 3.6)")
    parser.add_argument("--version", default=__version__, help="another version than the tree's")
    parser.add_argument("--platform-version", help="what dom0 must provide as platform-version; none: anything")
    parser.add_argument("--sign-key", metavar="KEY", help="a file with a secret key, or a name in your keyring; "
                                                          "default: a new key to throw away")
    parser.add_argument("--output", default="dist", help="directory for what is built (default: dist)")
    parser.add_argument("--wheels", default="build/wheels", help="directory that keeps downloads")
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
    print(f"{built.key}: the key it is signed with" + ("" if options.sign_key else ", to be thrown away"))
    return 0


def source_date() -> int:
    """Seconds since the epoch that everything built bears: the commit's, or what the environment says."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if given:
        return int(given)
    command = ["git", "-C", payload.ROOT, "log", "-1", "--format=%ct"]
    try:
        told = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60).stdout
    except OSError:
        told = b""
    # Without git: the file that changes with each version.
    return int(told or os.path.getmtime(os.path.join(payload.ROOT, "xscontainer", "__init__.py")))


def build(release: Release, signer: signing.Signer, output: str, wheels: str,
          templates: str = payload.TEMPLATES_SOURCE) -> Built:
    """:param templates: directory of the VM templates.

    :raises BuildError: a step failed.
    """
    os.umask(0o022)
    os.makedirs(output, exist_ok=True)
    tree = os.path.join(os.path.abspath(output), release.name)
    shutil.rmtree(tree, ignore_errors=True)
    rpms = os.path.join(tree, "Packages")
    os.makedirs(rpms)
    with tempfile.TemporaryDirectory(prefix="xpack-") as scratch:
        size = _payload(release, scratch, rpms, wheels) + _templates(release, scratch, rpms, templates)
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
    return Built(release, iso, tree, signer.export(output), size)


def _payload(release: Release, scratch: str, rpms: str, wheels: str) -> int:
    """Build the package xscontainer; its installed size in bytes by RPM's count."""
    requirements = os.path.join(payload.ROOT, "requirements", release.target.requirements)
    stage = os.path.join(scratch, "stage")
    private = os.path.join(stage, payload.PRIVATE)
    os.makedirs(private)
    libraries = carried.unpack(_wheels(requirements, release, wheels), requirements, private)
    payload.lay_out(stage, release.version)
    with open(os.path.join(private, "carried.cdx.json"), "w", encoding="utf-8") as file:
        file.write(carried.bill_of_materials(libraries, release))
    payload.settle(stage, release.epoch_seconds)
    licences = sorted({f"({library.licence})" if " " in library.licence else library.licence for library in libraries})
    built = packages.build(LABEL, release, stage, scratch, rpms,
                           {"licence": " AND ".join(["BSD-2-Clause"] + licences), "arch": "x86_64"})
    return int(packages.query(built, "%{SIZE}", release.epoch_seconds))


def _templates(release: Release, scratch: str, rpms: str, source: str) -> int:
    """Build the package of VM templates; its installed size in bytes by RPM's count."""
    stage = os.path.join(scratch, "templates")
    digest = payload.lay_out_templates(stage, source)
    payload.settle(stage, release.epoch_seconds)
    built = packages.build(TEMPLATES, release, stage, scratch, rpms,
                           {"templates": str(int(bool(digest))), "templates_digest": digest or "none"})
    return int(packages.query(built, "%{SIZE}", release.epoch_seconds))


def _wheels(requirements: str, release: Release, kept: str) -> str:
    """A directory with exactly the pinned wheels; downloads are kept and compared with the hashes each time."""
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
