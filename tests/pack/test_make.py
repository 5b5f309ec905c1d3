"""The command that builds a pack: its arguments, and a pack that it made."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import List, NamedTuple

import pytest

from rpm.pack import __main__ as command
from rpm.pack import payload, tools
from rpm.pack.payload import ROOT
from rpm.pack.release import TARGETS
from rpm.pack.tools import BuildError
from tests.need import need_program
from tests.pack.conftest import WHEELS, Packs, rpm_files, run
from tests.pack.dom0 import EPOCH_SECONDS, Dom0
from tests.pack.test_shape import ALL, query
from xscontainer import __version__

pytestmark = [pytest.mark.real, pytest.mark.limit(300)]
NAME = f"xscontainer-{__version__}-cp36"


class Made(NamedTuple):
    """The output of a command, and the directory with its pack."""

    output: str
    directory: Path

    @property
    def tree(self) -> Path:
        return self.directory / NAME

    @property
    def key(self) -> str:
        return str(self.directory / "RPM-GPG-KEY-xscontainer-throwaway")


def carried_out(argv: "List[str]", directory: Path, **environ: str) -> Made:
    for program, package in tools.NEEDED:
        need_program(program, package)
    # Variables of the make that runs the tests must not reach this one.
    given = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL")}
    done = subprocess.run(argv, env=dict(given, **environ), cwd=str(directory.parent), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=280)
    output = done.stdout.decode()
    assert done.returncode == 0, output[-3000:]
    return Made(output, directory)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Build a pack with make, for another platform than the default one."""
    directory = tmp_path_factory.mktemp("made") / "out"
    return carried_out([need_program("make"), "-s", "-C", ROOT, "pack", f"PYTHON={sys.executable}",
                        f"ARGS=--output '{directory}' --platform-version=8.9"], directory)


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Build the pack of the other tests again, in another process and directory."""
    directory = tmp_path_factory.mktemp("again") / "dist"
    return carried_out([sys.executable, "-m", "rpm.pack", "--wheels", WHEELS], directory,
                       PYTHONPATH=ROOT, SOURCE_DATE_EPOCH=str(EPOCH_SECONDS))


def test_make_pack_builds_a_pack_that_installs(made: Made, python36: str) -> None:
    told = re.search(rf"(?m)^(.*/{NAME}\.iso): ([0-9.]+) MB, ([0-9.]+) MB installed, uuid ([0-9a-f-]+), "
                     r"built in \d+ s$", made.output)
    assert told, made.output
    iso, uuid = Path(told.group(1)), told.group(4)
    assert iso == Path(f"{made.tree}.iso")
    assert abs(iso.stat().st_size / 1e6 - float(told.group(2))) < 0.06 and iso.stat().st_size <= 40e6
    assert f"{made.key}: the key it is signed with, a throw-away key" in made.output
    with Dom0(python36, platform_version="8.9") as host:
        host.precheck(str(made.tree), made.key)
        host.apply(str(made.tree), made.key)
        assert host.path("var/update/applied/" + uuid).exists()
        assert host.run("/usr/bin/xscontainer", "--version").stdout.decode().split()[1] == __version__
        compiled = host.on_disk() / 1e6
    page = Path(ROOT, "docs", "performance.md").read_text()
    for row, value in (("size of the ISO", iso.stat().st_size / 1e6),
                       ("installed, by RPM's count", float(told.group(3))),
                       ("installed, with compiled Python files", compiled)):
        said = re.search(rf"(?m)^\| {row} \| ([0-9.]+) MB", page)
        assert said and abs(float(said.group(1)) / value - 1) < 0.1, (row, value)


def test_the_pack_requires_the_named_platform_version(made: Made) -> None:
    with Dom0(None) as host:
        assert "platform-version = 8.9" in host.precheck(str(made.tree), made.key, check=False)


def test_all_files_of_the_pack_have_the_time_of_the_commit(made: Made) -> None:
    (payload_rpm,) = made.tree.glob("Packages/xscontainer-[0-9]*.rpm")
    assert int(query(payload_rpm, "--qf", "%{BUILDTIME}")) == command.source_date()


def test_two_builds_differ_only_in_signatures(packs: Packs, again: Made) -> None:
    for name in ALL:
        one, two = (query(rpm_files(tree, name), "--qf", "%{SHA256HEADER} %{PAYLOADDIGEST}")
                    for tree in (packs.current.tree, str(again.tree)))
        assert one == two and len(one) > 100
    assert (again.tree / "update.xml").read_text() == Path(packs.current.tree, "update.xml").read_text()
    assert f"uuid {packs.current.release.uuid}," in again.output


def test_another_version_or_target_has_another_uuid(packs: Packs) -> None:
    assert packs.current.release.uuid != packs.older.release.uuid
    other = packs.current.release._replace(target=TARGETS["3.12"])
    assert other.uuid != packs.current.release.uuid


def git(directory: Path, *words: str) -> None:
    environ = dict(os.environ, GIT_AUTHOR_DATE="@86400 +0000", GIT_COMMITTER_DATE="@86400 +0000")
    subprocess.run([need_program("git"), "-C", str(directory), "-c", "user.name=n", "-c", "user.email=e", *words],
                   env=environ, stdout=subprocess.DEVNULL, check=True, timeout=60)


def test_the_time_is_the_given_one_else_the_commits_else_the_trees(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "ROOT", str(tmp_path))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "")
    version = tmp_path / "xscontainer/__init__.py"
    version.parent.mkdir()
    version.write_text("")
    os.utime(str(version), (7, 7))
    assert command.source_date() == 7
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "one")
    assert command.source_date() == 86400
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "5")
    assert command.source_date() == 5


class Machine:
    """The installed packages of Debian, and the right to install more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, may: bool, works: bool = True) -> None:
        self.there, self._works = {"gnupg", "rpm"}, works
        self.asked: List[List[str]] = []
        packages = dict(tools.NEEDED)
        monkeypatch.setattr(tools.parts, "find", lambda program: program if packages[program] in self.there else "")
        monkeypatch.setattr(tools.parts, "can_install", lambda: may)
        monkeypatch.setattr(tools.parts, "apt_install", self._install)

    def _install(self, packages: "List[str]") -> None:
        self.asked.append(packages)
        if self._works:
            self.there.update(packages)


def test_the_build_installs_only_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, may=True)
    tools.provide()
    assert machine.asked == [["createrepo-c", "xorriso"]]
    tools.provide()
    assert len(machine.asked) == 1
    machine = Machine(monkeypatch, may=True, works=False)
    with pytest.raises(BuildError, match="createrepo-c xorriso"):
        tools.provide()


def test_the_build_names_missing_packages_that_it_may_not_install(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: "pytest.CaptureFixture[str]") -> None:
    machine = Machine(monkeypatch, may=False)
    assert command.main(["--output", str(tmp_path / "out")]) == 1
    assert "createrepo-c xorriso" in capsys.readouterr().err and machine.asked == []


def test_a_version_that_xapi_cannot_read_is_refused(tmp_path: Path) -> None:
    assert command.main(["--version", "1-2", "--output", str(tmp_path / "out")]) == 1


def test_make_pack_passes_key_and_target_on() -> None:
    done = run(need_program("make"), "-n", "-C", ROOT, "pack", "SIGN_KEY=a key", "TARGET=3.12")
    assert b"-m rpm.pack" in done.stdout and b"--target '3.12' --sign-key 'a key'" in done.stdout
