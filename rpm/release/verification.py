"""Verify that a release was built from this tree: signature, checksums, and a comparison with a rebuild."""

import os
import re
import tempfile
from typing import Dict, Iterator, List

from rpm.pack import packages, signing, tools
from rpm.pack.__main__ import build, source_date
from rpm.pack.release import LABEL, TARGETS, Release
from rpm.pack.tools import BuildError
from rpm.release import artifacts

# Digests of a package that do not depend on its signature.
_DIGESTS = "%{SHA256HEADER} %{PAYLOADDIGEST}"


def verify(directory: str, wheels: str) -> "Iterator[str]":
    """Check the release in ``directory`` and yield a line for each check that passes.

    :raises BuildError: when a check fails.
    """
    names = _signed_sums(directory)
    yield f"{artifacts.SUMS}: the signature and {len(names)} checksums are correct"
    isos = sorted(name for name in names if name.endswith(".iso"))
    if not isos:
        raise BuildError(f"{artifacts.SUMS} names no ISO")
    for name in isos:
        yield from _compare(directory, name, names, wheels)


def _signed_sums(directory: str) -> List[str]:
    """Check signature and checksums; return the names of the files.

    :raises BuildError: when the signature is not by the key beside it, or a file has another checksum.
    """
    path = os.path.join(directory, artifacts.SUMS)
    with signing.keyring() as home:
        environ = tools.environment(0, {"GNUPGHOME": home})
        tools.run(["gpg", "--batch", "--import", os.path.join(directory, signing.RELEASE_KEY)], environ)
        tools.run(["gpg", "--batch", "--verify", path + ".asc", path], environ)
    with open(path, encoding="ascii") as file:
        lines = re.findall(r"(?m)^([0-9a-f]{64})  ([^/\n]+)$", file.read())
    for wanted, name in lines:
        if artifacts.digest(os.path.join(directory, name)) != wanted:
            raise BuildError(f"{name} is not the released file: its SHA-256 differs")
    return [name for _, name in lines]


def _compare(directory: str, iso: str, names: List[str], wheels: str) -> "Iterator[str]":
    """Rebuild the content of an ISO and compare."""
    match = re.match(rf"{LABEL}-(.+)-(cp\d+)\.iso\Z", iso)
    target = next((found for found in TARGETS.values() if match and found.tag == match.group(2)), None)
    if match is None or target is None:
        raise BuildError(f"{iso} is not the ISO of a known target")
    release = Release(match.group(1), target, target.platform_version or "none", signing.RELEASE_KEY, source_date())
    with tempfile.TemporaryDirectory(prefix="xverify-") as scratch, signing.signer(None) as signer:
        theirs = os.path.join(scratch, "theirs")
        tools.run(["xorriso", "-osirrox", "on", "-indev", os.path.join(directory, iso), "-extract", "/", theirs],
                  tools.environment(0))
        built = build(release, signer, os.path.join(scratch, "ours"), wheels)
        ours, given = (_digests(os.path.join(tree, "Packages")) for tree in (built.tree, theirs))
        if ours != given:
            wrong = sorted(name for name in set(ours) | set(given) if ours.get(name) != given.get(name))
            raise BuildError(f"{iso}: this tree builds other packages: {', '.join(wrong)}")
        yield f"{iso}: header and payload of {len(ours)} packages equal those of this tree"
        again = os.path.join(scratch, "again")
        os.mkdir(again)
        archive = artifacts.source_archive(release, again)
        bill = release.name + ".cdx.json"
        with open(os.path.join(directory, bill), encoding="utf-8") as file:
            same = file.read() == built.staged.bill
        source = os.path.basename(archive)
        if not same or bill not in names:
            raise BuildError(f"{bill} differs from the SBOM of this tree")
        if source not in names or artifacts.digest(archive) != artifacts.digest(os.path.join(directory, source)):
            raise BuildError(f"{source} differs from the source archive of this tree")
        yield f"{bill}, {source}: equal to those of this tree"


def _digests(directory: str) -> "Dict[str, str]":
    """Return the digests of each package that do not depend on its signature."""
    return {name: packages.query(os.path.join(directory, name), _DIGESTS, 0) for name in sorted(os.listdir(directory))}
