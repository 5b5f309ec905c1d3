"""Lay out the package xscontainer as on a host. The build of the pack and the source package both use it.

    python3 -m rpm.pack.stage --target 3.6 --version V --wheels DIRECTORY --into DIRECTORY
"""

import argparse
import os
import shutil
import sys
import tempfile
from typing import List, NamedTuple, Optional

from rpm.pack import carried, payload
from rpm.pack.release import TARGETS, Release
from rpm.pack.tools import BuildError


class Staged(NamedTuple):
    """The content of a package that was laid out.

    :ivar licence: SPDX expression of all files.
    :ivar bill: the SBOM, CycloneDX in JSON; it is also one of the files.
    """

    licence: str
    bill: str


def stage(release: Release, wheels: str, directory: str) -> Staged:
    """Put the package's files into ``directory``, the root of a host's file system.

    :param wheels: directory with the pinned wheels; other files in it are ignored.
    :raises BuildError: when a wheel is missing, or is not the pinned one.
    """
    requirements = os.path.join(payload.ROOT, "requirements", release.target.requirements)
    private = os.path.join(directory, payload.PRIVATE)
    os.makedirs(private)
    with tempfile.TemporaryDirectory(prefix="xwheels-") as only:
        for name in os.listdir(wheels):
            if name.endswith(".whl"):
                shutil.copy(os.path.join(wheels, name), only)
        libraries = carried.unpack(only, requirements, private)
    payload.lay_out(directory, release.version)
    payload.lay_out_completion(directory)
    bill = carried.bill_of_materials(libraries, release)
    with open(os.path.join(private, "carried.cdx.json"), "w", encoding="utf-8") as file:
        file.write(bill)
    payload.settle(directory, release.epoch_seconds)
    licences = sorted({f"({library.licence})" if " " in library.licence else library.licence for library in libraries})
    return Staged(" AND ".join(["BSD-2-Clause"] + licences), bill)


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m rpm.pack.stage", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", choices=sorted(TARGETS), required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--wheels", required=True)
    parser.add_argument("--into", required=True)
    options = parser.parse_args(arguments)
    release = Release(options.version, TARGETS[options.target], "none", "", int(os.environ["SOURCE_DATE_EPOCH"]))
    try:
        os.umask(0o022)
        stage(release, options.wheels, options.into)
    except BuildError as error:
        print(f"rpm.pack.stage: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
