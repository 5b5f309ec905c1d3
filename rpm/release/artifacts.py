"""Make the files of a release beside the packs: source archive, source package and checksums."""

import gzip
import hashlib
import os
import re
import shutil
from typing import List

from rpm.pack import payload, tools
from rpm.pack.packages import MACROS
from rpm.pack.payload import ROOT
from rpm.pack.release import EPOCH, LABEL, Release
from rpm.pack.signing import Signer

SUMS = "SHA256SUMS"
_SPEC = os.path.join(ROOT, "rpm", "spec", LABEL + ".spec")


def source_archive(release: Release, directory: str, root: str = ROOT) -> str:
    """Write HEAD as a reproducible tar.gz and return its path.

    :raises BuildError: when git fails.
    """
    name = f"{LABEL}-{release.version}"
    path = os.path.join(directory, name + ".tar.gz")
    plain = path[:-len(".gz")]
    tools.run(["git", "-C", root, "archive", "--format=tar", f"--prefix={name}/", "-o", os.path.abspath(plain), "HEAD"],
              tools.environment(release.epoch_seconds))
    try:
        with open(plain, "rb") as source, open(path, "wb") as raw:
            # The header has neither file name nor time.
            with gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
                shutil.copyfileobj(source, packed)
    finally:
        os.unlink(plain)
    return path


def source_package(release: Release, archive: str, wheels: str, licence: str, directory: str, scratch: str) -> str:
    """Make the source RPM from the archive and the carried wheels; ``rpmbuild --rebuild`` builds the package from it.

    :param wheels: directory with exactly the pinned wheels.
    :param licence: SPDX expression of all that the package holds.
    :raises BuildError: when rpmbuild fails.
    """
    top = os.path.join(scratch, "rpmbuild-source")
    sources = os.path.join(top, "SOURCES")
    os.makedirs(sources)
    names = [os.path.basename(archive)] + sorted(os.listdir(wheels))
    for name in names:
        shutil.copy(archive if name == names[0] else os.path.join(wheels, name), os.path.join(sources, name))
    spec = os.path.join(top, LABEL + ".spec")
    with open(_SPEC, encoding="utf-8") as file:
        text = file.read()
    with open(spec, "w", encoding="utf-8") as file:
        file.write(source_spec(text, release, names, licence))
    payload.settle(sources, release.epoch_seconds)
    command = ["rpmbuild", "-bs", "--quiet", "--define", f"_topdir {top}", "--define", f"_dbpath {top}/db"]
    for key, value in sorted(MACROS.items()):
        command += ["--define", f"{key} {value}"]
    tools.run(command + [spec], tools.environment(release.epoch_seconds, {"HOME": scratch}))
    (built,) = os.listdir(os.path.join(top, "SRPMS"))
    return shutil.move(os.path.join(top, "SRPMS", built), os.path.join(directory, built))


def source_spec(text: str, release: Release, names: List[str], licence: str) -> str:
    """Return the spec for the source package, with values for its macros and an %install that uses the sources.

    :param text: the spec that the pack's build uses.
    :param names: the sources, the archive first.
    """
    values = dict(MACROS, pack_version=release.version, pack_release=release.release, pack_epoch=EPOCH,
                  pack_python=release.target.python, pack_licence=licence, pack_stage="%{_builddir}/stage")
    values["source_date"] = str(release.epoch_seconds)
    head = [f"%global {key} {value}" for key, value in sorted(values.items())]
    sources = [f"Source{number}: {name}" for number, name in enumerate(names)]
    lay_out = (f"%prep\n%setup -q -n {LABEL}-%{{version}}\n\n%build\n"
               "SOURCE_DATE_EPOCH=%{source_date} python3 -m rpm.pack.stage --target %{pack_python} "
               "--version %{version} --wheels %{_sourcedir} --into %{pack_stage}\n\n%install\n")
    text = re.sub(r"(?m)^(Summary: .*)$", lambda found: found.group(1) + "\n" + "\n".join(sources), text, count=1)
    return "\n".join(head) + "\n" + text.replace("%install\n", lay_out, 1)


def checksums(directory: str, names: List[str], signer: Signer) -> str:
    """Write SHA256SUMS for these files, in the format of sha256sum -c, and its signature; return its path."""
    path = os.path.join(directory, SUMS)
    with open(path, "w", encoding="ascii") as file:
        for name in sorted(names):
            file.write(f"{digest(os.path.join(directory, name))}  {name}\n")
    signer.sign_file(path)
    return path


def digest(path: str) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            found.update(piece)
    return found.hexdigest()
