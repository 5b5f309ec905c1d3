"""The files of a release, and their verification by somebody else."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Iterator, List, NamedTuple

import pytest

from rpm.pack import signing, tools
from rpm.pack.payload import ROOT
from tests.need import need_program
from tests.pack.conftest import WHEELS
from xscontainer import __version__

pytestmark = [pytest.mark.real, pytest.mark.limit(300)]


class Checkout(NamedTuple):
    """A repository with a copy of this tree, and a key for its releases."""

    root: Path
    key: str

    def git(self, *arguments: str) -> str:
        settings = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(self.root)] + settings + list(arguments)
        return subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60).stdout.decode()

    def release(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run([sys.executable, "-m", "rpm.release"] + list(arguments) + ["--wheels", WHEELS],
                              cwd=str(self.root), env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              universal_newlines=True, timeout=280)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    for program, package in tools.NEEDED + [("git", "git")]:
        need_program(program, package)
    directory = tmp_path_factory.mktemp("release")
    root = directory / "tree"
    left_out = shutil.ignore_patterns(".git", ".venv", "build", "dist", "node_modules", "__pycache__", "*.egg-info",
                                      ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, str(root), ignore=left_out)
    changelog = root / "CHANGELOG.md"
    changelog.write_text(f"# Changelog\n\n## {__version__} - 2026-11-30\n\n- The first one.\n")
    with signing.keyring() as home:
        signing.generate(home)
        key = directory / "secret.asc"
        secret = ["gpg", "--homedir", home, "--batch", "--armor", "--export-secret-keys"]
        key.write_bytes(subprocess.run(secret, stdout=subprocess.PIPE, check=True, timeout=60).stdout)
        made = Checkout(root, str(key))
        made.git("init", "-q")
        made.git("add", "-A")
        made.git("commit", "-q", "-m", "all")
        made.git("tag", "v" + __version__)
        yield made


def commit_in(init: bytes) -> str:
    """Return the commit that a built package names."""
    found = re.search(r'(?m)^__commit__ = "(.+)"$', init.decode())
    assert found
    return found.group(1)


@pytest.fixture(scope="module")
def released(checkout: Checkout) -> Path:
    done = checkout.release("build", "--sign-key", checkout.key)
    assert done.returncode == 0, done.stdout
    return checkout.root / "dist"


def sums(released: Path) -> List[str]:
    return re.findall(r"(?m)^[0-9a-f]{64}  (.+)$", (released / "SHA256SUMS").read_text())


def test_a_release_has_everything_that_users_download(released: Path) -> None:
    name = f"xscontainer-{__version__}"
    assert sorted(path.name for path in released.iterdir()) == sorted([
        "RPM-GPG-KEY-xscontainer", "SHA256SUMS", "SHA256SUMS.asc", f"{name}-cp36.cdx.json", f"{name}-cp36.iso",
        f"{name}-1.cp36.src.rpm", f"{name}.tar.gz"])
    assert sorted(sums(released)) == sorted(path.name for path in released.iterdir() if "SHA256" not in path.name)
    bill = json.loads((released / f"{name}-cp36.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX" and "paramiko" in [found["name"] for found in bill["components"]]
    with gzip.open(str(released / f"{name}.tar.gz")) as packed, tarfile.open(fileobj=packed) as archive:
        assert f"{name}/xscontainer/__init__.py" in archive.getnames()


def test_a_user_verifies_a_release_as_documented(released: Path) -> None:
    with signing.keyring() as home:
        environ = tools.environment(0, {"GNUPGHOME": home})
        for command in ("gpg --import RPM-GPG-KEY-xscontainer", "gpg --verify SHA256SUMS.asc SHA256SUMS",
                        "sha256sum -c SHA256SUMS"):
            subprocess.run(command.split(), cwd=str(released), env=environ, check=True, timeout=60)


def test_the_source_package_rebuilds_the_package_on_the_iso(checkout: Checkout, released: Path, tmp_path: Path) -> None:
    (source,) = released.glob("*.src.rpm")
    top = tmp_path / "top"
    environ = dict(os.environ, HOME=str(tmp_path))
    done = subprocess.run(["rpmbuild", "--rebuild", "--define", f"_topdir {top}", "--define", f"_dbpath {tmp_path}/db",
                           "--target", "x86_64", str(source)],
                          env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=250)
    assert done.returncode == 0, done.stdout.decode()[-3000:]
    (rebuilt,) = (top / "RPMS" / "x86_64").iterdir()
    extracted = tmp_path / "iso"
    (iso,) = released.glob("*.iso")
    subprocess.run(["xorriso", "-osirrox", "on", "-indev", str(iso), "-extract", "/", str(extracted)],
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=100)
    (given,) = (extracted / "Packages").glob("xscontainer-[0-9]*.rpm")
    subprocess.run(["rpm2archive", str(given)], check=True, timeout=60)  # writes a file beside it
    with tarfile.open(f"{given}.tgz") as archive:
        init = archive.extractfile("./usr/lib/xscontainer/xscontainer/__init__.py")
        assert init is not None and commit_in(init.read()) == checkout.git("rev-parse", "HEAD").strip()
    form = "[%{FILENAMES} %{FILEDIGESTS} %{FILEMODES} %{FILEMTIMES}\n]%{NAME} %{EPOCH} %{VERSION} %{RELEASE} %{LICENSE}"
    told = [subprocess.run(["rpm", "-qp", "--nosignature", "--qf", form, str(path)], stdout=subprocess.PIPE, check=True,
                           timeout=60).stdout.decode() for path in (rebuilt, given)]
    assert told[0] == told[1]


def test_a_release_is_verified_by_a_rebuild(checkout: Checkout, released: Path) -> None:
    done = checkout.release("verify")
    assert done.returncode == 0, done.stdout
    assert "4 packages" in done.stdout and "source archive" not in done.stdout


@pytest.mark.parametrize("name", ["SHA256SUMS", "SHA256SUMS.asc", f"xscontainer-{__version__}.tar.gz"])
def test_a_changed_file_fails_the_verification(name: str, checkout: Checkout, released: Path,
                                                             tmp_path: Path) -> None:
    changed = tmp_path / "dist"
    shutil.copytree(str(released), str(changed))
    data = bytearray((changed / name).read_bytes())
    data[len(data) // 2] ^= 1
    (changed / name).write_bytes(bytes(data))
    done = checkout.release("verify", "--output", str(changed))
    assert done.returncode == 1, done.stdout


def test_another_tree_fails_the_verification(checkout: Checkout, released: Path, tmp_path: Path) -> None:
    other = Checkout(tmp_path / "other", checkout.key)
    shutil.copytree(str(checkout.root), str(other.root), ignore=shutil.ignore_patterns("__pycache__"))
    with open(str(other.root / "xscontainer" / "keys.py"), "a") as file:
        file.write("# changed\n")
    other.git("commit", "-q", "-a", "-m", "changed", "--date", "2026-11-30T00:00:00Z")
    done = other.release("verify")
    assert done.returncode == 1 and "other packages" in done.stdout, done.stdout


def test_a_tree_with_changes_is_not_released(checkout: Checkout, released: Path, tmp_path: Path) -> None:
    notes = checkout.root / "notes.txt"
    notes.write_text("x")
    try:
        done = checkout.release("build", "--sign-key", checkout.key, "--output", str(tmp_path / "out"))
    finally:
        notes.unlink()
    assert done.returncode == 1 and "notes.txt" in done.stdout
    assert not (tmp_path / "out").exists()
