"""The command as pip installs it, on a machine without the pack and without XAPI's own libraries."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest

from tests.cli.server_scene import ROOT, Scene, scene
from tests.system.conftest import _leaves_nothing_behind  # noqa: F401 - one pool serves the whole module

pytestmark = pytest.mark.real
# Programs import these on a host only, or in tests only.
ABSENT = ("XenAPI", "XenAPIPlugin", "pytest", "hypothesis", "jsonschema", "yaml")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("s")) as made:
        made.add_vm("here", "nginx")
        yield made


def installed(directory: Path) -> Path:
    """Install the sources into a directory, without its libraries, which the tests' environment has."""
    sources, target = directory / "sources", directory / "target"
    sources.mkdir()
    for name in ("setup.py", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(str(ROOT / name), str(sources / name))
    shutil.copytree(str(ROOT / "xscontainer"), str(sources / "xscontainer"),
                    ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-W", "ignore", "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation",
                    "--no-index", "--target", str(target), str(sources)], check=True, timeout=100,
                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for name in ABSENT:
        (target / f"{name}.py").write_text("raise ImportError('this machine has no ' + __name__)\n")
    return target


def test_the_installed_command_works_on_another_machine(made: Scene, tmp_path: Path) -> None:
    target = installed(tmp_path)
    script = target / "bin" / "xscontainer"
    for words, said in ((("ps",), "nginx"), (("diagnose", "here"), "ADDRESS_UNKNOWN")):
        done = subprocess.run([sys.executable, "-W", "ignore", str(script), *made.as_root(), *words], cwd=str(tmp_path),
                              env=made.environment(PYTHONPATH=str(target)), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
        assert said in done.stdout.decode(), done.stdout.decode()
    loaded = subprocess.run(
        [sys.executable, "-c", "import xscontainer; print(xscontainer.__file__)"], cwd=str(tmp_path), check=True,
        env=made.environment(PYTHONPATH=str(target)), stdout=subprocess.PIPE)
    assert os.path.dirname(loaded.stdout.decode().strip()) == str(target / "xscontainer")
