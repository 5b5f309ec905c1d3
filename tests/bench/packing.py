"""Measure the supplemental pack: its size, the time to build it, and the time from installation to the first list."""

import os
import tempfile
import time
from pathlib import Path
from typing import Optional

from rpm.pack import tools
from rpm.pack.__main__ import Built, build, source_date
from rpm.pack.payload import ROOT
from rpm.pack.release import TARGETS, Release
from rpm.pack.signing import signer
from tests.bench.figures import Report
from tests.pack.dom0 import Dom0, prefix_of
from tests.pack.pool import pool_of
from tests.setup.parts import find
from xscontainer import __version__
from xscontainer.simulator.engines.real import RealEngine
from xscontainer.simulator.guests import OpenSSHGuest

INTERPRETER = "3.6"


def measure_pack(report: Report) -> None:
    report.title("The supplemental pack, and a dom0 that has nothing else")
    why_not = _missing()
    if why_not:
        report.note("the pack", f"not measured: {why_not}")
        return
    with tempfile.TemporaryDirectory(prefix="xsb") as directory:
        begun = time.monotonic()
        built = _build(directory)
        report.figure("build, wheels being there", time.monotonic() - begun, "s", 60)
        report.figure("ISO", os.path.getsize(built.iso) / 1e6, "MB", 40)
        report.figure("installed, by RPM's count", built.installed_size / 1e6, "MB", 40)
        with Dom0(prefix_of(INTERPRETER)) as dom0, pool_of(dom0) as world:
            begun = time.monotonic()
            dom0.precheck(built.tree, built.key)
            dom0.apply(built.tree, built.key)
            installed = time.monotonic() - begun
            world.wait_published("classic")
            report.figure("install -> first docker_ps, real sshd and dockerd", time.monotonic() - begun, "s", 10)
            report.note("of that dnf, twice", f"{installed:10.4g} s")
            report.figure("installed, on the disk with what Python compiles", dom0.on_disk() / 1e6, "MB", 50)


def _missing() -> Optional[str]:
    if os.geteuid():
        return "it needs root, for chroot"
    absent = [program for program in ["dnf", "busybox"] + [name for name, _ in tools.NEEDED] if not find(program)]
    if absent:
        return f"there is no {', '.join(absent)} here"
    if not prefix_of(INTERPRETER):
        return f"there is no CPython {INTERPRETER} here"
    return RealEngine.missing() or OpenSSHGuest.missing() or None


def _build(directory: str) -> Built:
    with signer(None) as signing:
        release = Release(__version__, TARGETS[INTERPRETER], TARGETS[INTERPRETER].platform_version,
                          signing.key_file, source_date())
        return build(release, signing, directory, str(Path(ROOT, "build", "wheels")))
