"""Other ways to install and remove a pack: a .repo file, XAPI's own removal, other interpreters."""

import functools
import os
import subprocess
import xmlrpc.client
from pathlib import Path
from typing import Callable, Iterator

import pytest

from rpm.pack import signing
from rpm.pack.__main__ import Built, build
from rpm.pack.release import TARGETS, Release
from tests.pack.conftest import WHEELS, Packs, python_of
from tests.pack.dom0 import EPOCH_SECONDS, UNIT, Dom0
from xscontainer import __version__

pytestmark = [pytest.mark.real, pytest.mark.limit(300)]


@pytest.mark.parametrize("asked", [True, False])
def test_xapis_record_is_removed_only_when_xapi_removes_the_pack(packs: Packs, asked: bool) -> None:
    uuid = packs.current.release.uuid
    with Dom0(None) as host:
        host.apply(packs.current.tree, packs.current.key)
        stamp = host.path("var/update/applied/" + uuid)
        assert stamp.exists()
        if asked:
            host.path("var/update/" + uuid).mkdir()
            host.path(f"var/update/{uuid}/.remove").touch()
        host.remove()
        assert stamp.exists() is not asked
        # The command of docs/install.md.
        found = subprocess.run(f"""grep -l 'name-label="xscontainer"' {stamp.parent}/*""", shell=True, timeout=60,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode().split()
        assert found == ([] if asked else [str(stamp)])


def test_the_pack_is_installed_by_a_disabled_repo_file(dom0: Dom0, packs: Packs) -> None:
    sample = os.path.join(os.path.dirname(packs.current.tree), "xscontainer.repo")
    dom0.enable_second_way(sample, packs.current.tree, packs.current.key)
    conf = f"[main]\nreposdir={dom0.path('etc/yum.repos.d')}\n"
    assert "no enabled repositories" in dom0.dnf("install", "xscontainer", conf=conf, check=False)
    dom0.dnf("install", "--enablerepo=xscontainer", "xscontainer", conf=conf)
    assert dom0.installed() == [f"xscontainer {__version__}"]
    assert not dom0.path("var/update").exists(), "xe update-list would show it"
    assert dom0.run("/usr/bin/xscontainer", "--version").stdout.decode().split()[1] == __version__
    assert dom0.systemctl() == [f"preset {UNIT}", "daemon-reload", f"--no-block try-restart {UNIT}"]
    # An upgrade in the same way, and then by a pack.
    dom0.dnf("remove", "xscontainer", conf=conf)
    dom0.enable_second_way(sample, packs.older.tree, packs.older.key)
    dom0.dnf("install", "--enablerepo=xscontainer", "xscontainer", conf=conf)
    dom0.apply(packs.current.tree, packs.current.key)
    assert f"xscontainer {__version__}" in dom0.installed()
    assert dom0.path("var/update/applied/" + packs.current.release.uuid).exists()


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Built]]:
    """Return the pack for a newer interpreter, built once."""
    with signing.signer(None) as signer:
        @functools.lru_cache(maxsize=None)
        def made(version: str) -> Built:
            release = Release(__version__, TARGETS[version], "none", signer.key_file, EPOCH_SECONDS)
            return build(release, signer, str(tmp_path_factory.mktemp("newer")), WHEELS)

        yield made


def test_a_pack_for_another_interpreter_is_refused_and_the_right_one_accepted(
        dom0: Dom0, packs: Packs, newer: "Callable[[str], Built]") -> None:
    wrong = newer("3.11")
    for step in (dom0.precheck, dom0.install_alone, dom0.apply):
        assert "python(abi) = 3.11" in step(wrong.tree, wrong.key, check=False)
        assert dom0.installed() == []
    dom0.precheck(packs.current.tree, packs.current.key)
    dom0.apply(packs.current.tree, packs.current.key)
    assert dom0.run("/usr/bin/xscontainer", "--version").stdout.decode().split()[1] == __version__


def test_packs_of_one_version_for_two_interpreters_are_two_packages(packs: Packs) -> None:
    # Otherwise a package manager would treat them as equal and do nothing.
    names = [path.name for path in Path(packs.current.tree, "Packages").iterdir()]
    assert len(names) == 4 and all(f"-{__version__}-1.cp36." in name for name in names)


@pytest.mark.parametrize("version", ["3.11", "3.12"])
def test_packs_for_newer_interpreters_run_in_a_dom0_that_has_them(
        version: str, newer: "Callable[[str], Built]") -> None:
    prefix, built = python_of(version), newer(version)
    with Dom0(prefix, version=version) as made:
        made.precheck(built.tree, built.key)
        made.apply(built.tree, built.key)
        compiled = list(made.path("usr/lib/xscontainer").rglob(f"*.cpython-{version.replace('.', '')}.pyc"))
        assert len(compiled) > 300
        assert made.run("/usr/bin/xscontainer", "--version").stdout.decode().split()[1] == __version__
        # All carried libraries, also those in C; then the code of daemon and plugin.
        code = ("import sys; sys.path.insert(0, '/usr/lib/xscontainer')\n"
                "import bcrypt, cryptography.hazmat.bindings._rust, docker, nacl.bindings, paramiko, pycdlib\n"
                "import xscontainer.service.daemon, xscontainer.plugin.dispatch; print('all', docker.__file__)\n")
        told = made.run("/usr/bin/python3", "-IS", "-c", code)
        assert told.stdout.startswith(b"all /usr/lib/xscontainer/"), told.stderr
        call = xmlrpc.client.dumps(("OpaqueRef:NULL", {"vmuuid": "x"}), "get_top")
        answer = made.run("/etc/xapi.d/plugins/xscontainer", call)
        assert b"ErrorDescription" in answer.stdout and b"PLUGIN_INCOMPLETE" not in answer.stdout, answer
        assert not made.path("decoys").exists(), made.path("decoys").read_text()
