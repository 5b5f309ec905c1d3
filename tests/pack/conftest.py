"""Packs of this release and an older one, built once, and a dom0 to install them in."""

import os
import subprocess
from pathlib import Path
from typing import Iterator, NamedTuple

import pytest

from rpm.pack import signing, tools
from rpm.pack.__main__ import Built, build
from rpm.pack.payload import ROOT
from rpm.pack.release import TARGETS, Release
from tests.need import need, need_program
from tests.pack.dom0 import EPOCH_SECONDS, Dom0, prefix_of
from xscontainer import __version__

OLDER = "0.0.9"
WHEELS = os.path.join(ROOT, "build", "wheels")


class Packs(NamedTuple):
    """Two packs.

    :ivar home: gpg's directory with the key of both.
    """

    current: Built
    older: Built
    home: str


@pytest.fixture(scope="session")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Packs]:
    for program, package in tools.NEEDED:
        need_program(program, package)
    directory = tmp_path_factory.mktemp("packs")
    with signing.signer(None) as signer:
        def made(version: str, place: str) -> Built:
            release = Release(version, TARGETS["3.6"], "3.4.0", signer.key_file, EPOCH_SECONDS)
            return build(release, signer, str(directory / place), WHEELS)

        yield Packs(made(__version__, "current"), made(OLDER, "older"), signer.home)


def python_of(version: str) -> str:
    """Return the prefix of a CPython, for a dom0."""
    prefix = prefix_of(version)
    need(prefix, f"CPython {version} (python{version} on PATH, or from pyenv)")
    return prefix


@pytest.fixture(scope="session")
def python36() -> str:
    return python_of("3.6")


@pytest.fixture
def dom0(python36: str) -> Iterator[Dom0]:
    with Dom0(python36) as made:
        yield made


def run(*argv: str, **more: object) -> "subprocess.CompletedProcess[bytes]":
    """Run a program and capture standard output and standard error together."""
    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=100, **more)  # type: ignore


def rpm_files(tree: str, name: str) -> Path:
    (found,) = Path(tree, "Packages").glob(f"{name}-[0-9]*.rpm")
    return found


__all__ = ["Packs", "Built", "run", "rpm_files", "dom0", "packs", "python36", "python_of"]
