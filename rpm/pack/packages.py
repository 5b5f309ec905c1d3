"""Build RPMs that rpm 4.11 can read."""

import os
import shutil
from typing import Dict, Mapping

from rpm.pack.payload import ROOT
from rpm.pack.release import EPOCH, Release
from rpm.pack.tools import environment, run

SPECS = os.path.join(ROOT, "rpm", "spec")
# Payload and digests that rpm 4.11 knows. Nothing is stripped or compiled, and the headers name nothing of this
# machine. Level 2 of xz: level 6 takes three times as long to build and makes the ISO a tenth smaller.
MACROS = {
    "_binary_payload": "w2.xzdio",
    "_source_filedigest_algorithm": "8",
    "_binary_filedigest_algorithm": "8",
    "_build_id_links": "none",
    "_buildhost": "localhost",
    "__os_install_post": "%{nil}",
    "debug_package": "%{nil}",
    "use_source_date_epoch_as_buildtime": "1",
    "clamp_mtime_to_source_date_epoch": "1",
    "source_date_epoch_from_changelog": "0",
}


def build(name: str, release: Release, stage: str, scratch: str, output: str, more: Mapping[str, str]) -> str:
    """Build rpm/spec/``name``.spec and return the path of the RPM in ``output``.

    :param stage: directory with the package's files, laid out as on a host; "" if it has none.
    :param more: further macros, without the prefix ``pack_``.
    :raises BuildError: when rpmbuild fails.
    """
    top = os.path.join(scratch, "rpmbuild-" + name)
    macros: Dict[str, str] = dict(MACROS, _topdir=top, _dbpath=os.path.join(top, "db"))
    macros.update(pack_version=release.version, pack_release=release.release, pack_epoch=EPOCH,
                  pack_python=release.target.python, pack_stage=stage or "none")
    macros.update({"pack_" + key: value for key, value in more.items()})
    command = ["rpmbuild", "-bb", "--quiet", "--target", "noarch" if "arch" not in more else more["arch"]]
    for key, value in sorted(macros.items()):
        command += ["--define", f"{key} {value}"]
    run(command + [os.path.join(SPECS, name + ".spec")], environment(release.epoch_seconds, {"HOME": scratch}))
    ((directory, _, (built,)),) = [entry for entry in os.walk(os.path.join(top, "RPMS")) if entry[2]]
    path = os.path.join(output, built)
    shutil.move(os.path.join(directory, built), path)
    return path


def query(path: str, form: str, epoch_seconds: int) -> str:
    return run(["rpm", "-qp", "--nosignature", "--qf", form, path], environment(epoch_seconds))
