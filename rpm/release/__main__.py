"""Build a release, or verify one.

    python -m rpm.release build --sign-key KEY [--target 3.6 ...] [--output dist]
    python -m rpm.release verify [--output dist]

``build`` writes into the output directory an ISO, an SBOM and a source package for each target, the public key, the
source archive, SHA256SUMS and its detached signature. ``verify`` checks the signature and the checksums, rebuilds
everything and compares the parts that are equal in two builds of one commit.
"""

import argparse
import os
import shutil
import sys
import tempfile
from typing import List, Optional

from rpm.pack import signing, tools
from rpm.pack.__main__ import Built, build, source_date
from rpm.pack.release import TARGETS, Release
from rpm.pack.signing import Signer
from rpm.pack.tools import BuildError
from rpm.release import artifacts, conditions, verification


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m rpm.release", description="Build a release, or verify one.")
    parser.add_argument("act", choices=["build", "verify"])
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), dest="targets",
                        help="dom0's Python, more than once for more packs (default: 3.6)")
    parser.add_argument("--sign-key", metavar="KEY", default="",
                        help="a file with a secret key, or a name in your keyring")
    parser.add_argument("--output", default="dist", help="directory of the release (default: dist)")
    parser.add_argument("--wheels", default="build/wheels",
                        help="directory that keeps downloads (default: build/wheels)")
    options = parser.parse_args(arguments)
    try:
        tools.provide()
        if options.act == "verify":
            for line in verification.verify(options.output, options.wheels):
                print(line)
        else:
            for name in publish(options.targets or ["3.6"], options.sign_key, options.output, options.wheels):
                print(os.path.join(options.output, name))
    except BuildError as error:
        print(f"make {'release' if options.act == 'build' else 'verify'}: {error}", file=sys.stderr)
        return 1
    return 0


def publish(targets: List[str], sign_key: str, output: str, wheels: str) -> List[str]:
    """Build everything into ``output`` and return the names of the files, the checksums and their signature last.

    :raises BuildError: when the tree may not be released, or a step fails; ``output`` is unchanged then.
    """
    tree = conditions.read_tree()
    found = conditions.hindrances(tree, sign_key)
    if found:
        raise BuildError("this tree cannot be released.\n" + "\n".join("  " + line for line in found))
    with tempfile.TemporaryDirectory(prefix="xrelease-") as scratch, signing.signer(sign_key) as signer:
        made = os.path.join(scratch, "made")
        os.mkdir(made)
        names: List[str] = []
        for target in targets:
            release = Release(tree.version, TARGETS[target], TARGETS[target].platform_version or "none",
                              signer.key_file, source_date())
            built = build(release, signer, os.path.join(scratch, target), wheels)
            names += _gather(built, signer, made, os.path.join(scratch, target))
        names = sorted(set(names))
        artifacts.checksums(made, names, signer)
        os.makedirs(output, exist_ok=True)
        names += [artifacts.SUMS, artifacts.SUMS + ".asc"]
        for name in names:
            shutil.move(os.path.join(made, name), os.path.join(output, name))
    return names


def _gather(built: Built, signer: Signer, made: str, scratch: str) -> List[str]:
    """Put the files of one target into the directory ``made`` and return their names."""
    release = built.release
    for path in (built.iso, built.key):
        shutil.copy(path, made)
    archive = artifacts.source_archive(release, made)
    bill = os.path.join(made, release.name + ".cdx.json")
    with open(bill, "w", encoding="utf-8") as file:
        file.write(built.staged.bill)
    package = artifacts.source_package(release, archive, built.wheels, built.staged.licence, made, scratch)
    signer.sign_packages([package])
    return [os.path.basename(path) for path in (built.iso, built.key, archive, bill, package)]


if __name__ == "__main__":
    sys.exit(main())
