"""VM templates in a pack are installed, and imported by dom0's own program when they changed."""

import json
import subprocess
from pathlib import Path
from typing import Callable, Dict, Iterator, List

import pytest

from rpm.pack import payload
from rpm.pack.__main__ import _templates
from rpm.pack.release import TARGETS, TEMPLATES, Release
from rpm.pack.tools import BuildError
from tests.need import need_program
from tests.pack.dom0 import EPOCH_SECONDS, Dom0

pytestmark = [pytest.mark.real, pytest.mark.limit(300)]
PLACE = "usr/share/xapi/vm-templates"
LINUX = {"uuid": "8ee3f3b4-2a0e-4a4e-9c1d-0e3f0f1d2c3b", "reference_label": "container-linux",
         "name_label": "Container Linux", "derived_from": "base-linux-uefi.json", "min_memory": "1G"}
WRAPPER = """#!/bin/sh
echo imported >> /imports
test ! -e /import-fails
"""


@pytest.fixture
def host() -> Iterator[Dom0]:
    with Dom0(None) as made:
        wrapper = made.path("usr/bin/create-guest-templates-wrapper")
        wrapper.write_text(WRAPPER)
        wrapper.chmod(0o755)
        made.path("xapi-is-active").touch()
        yield made


@pytest.fixture
def install(host: Dom0, tmp_path: Path) -> "Callable[[str, Dict[str, object]], List[str]]":
    """Return a function that installs a release with these templates, and returns the imports and messages since."""

    def installed(version: str, templates: "Dict[str, object]") -> List[str]:
        source, scratch, rpms = (tmp_path / f"{name}-{version}" for name in ("source", "scratch", "rpms"))
        for directory in (source, scratch, rpms):
            directory.mkdir()
        for name, content in templates.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_text(json.dumps(content))
        release = Release(version, TARGETS["3.6"], "3.4.0", "KEY", EPOCH_SECONDS)
        _templates(release, str(scratch), str(rpms), str(source))
        subprocess.run([need_program("createrepo_c"), "-q", str(rpms)], check=True, timeout=60)
        output = host.dnf("install", TEMPLATES, conf="[main]\nreposdir=/dev/null\nbest=1\n[t]\nname=t\n"
                                                     f"baseurl=file://{rpms}\ngpgcheck=0\n")
        told = ["told"] if "not imported" in output and "/usr/bin/create-guest-templates-wrapper" in output else []
        return imports(host) + told

    return installed


def imports(host: Dom0) -> "List[str]":
    log = host.path("imports")
    told = log.read_text().split() if log.exists() else []
    log.write_text("")
    return told


def test_changed_templates_are_imported_once(
        host: Dom0, install: "Callable[[str, Dict[str, object]], List[str]]") -> None:
    assert install("1", {}) == [], "no templates, no import"
    # With any name, and in any directory below.
    assert install("2", {"container-linux.json": LINUX, "more/other.json": LINUX, "README.md": {}}) == ["imported"]
    assert sorted(path.name for path in host.path(PLACE).iterdir()) == ["container-linux.json", "other.json"]
    assert json.loads(host.path(PLACE + "/container-linux.json").read_text()) == LINUX
    assert install("3", {"container-linux.json": LINUX, "more/other.json": LINUX}) == [], "the same ones"
    changed = dict(LINUX, min_memory="2G")
    assert install("4", {"container-linux.json": changed, "more/other.json": LINUX}) == ["imported"]
    host.dnf("remove", TEMPLATES, conf="[main]\nreposdir=/dev/null\n")
    assert imports(host) == [] and not list(host.path(PLACE).glob("*"))
    assert not list(host.path("var/lib").glob("xscontainer*"))


def test_a_failed_import_is_repeated_by_the_next_upgrade(
        host: Dom0, install: "Callable[[str, Dict[str, object]], List[str]]") -> None:
    host.path("import-fails").touch()
    assert install("1", {"a.json": LINUX}) == ["imported", "told"]
    host.path("import-fails").unlink()
    assert install("2", {"a.json": LINUX}) == ["imported"]
    assert install("3", {"a.json": LINUX}) == []


@pytest.mark.parametrize("there", ["", "chroot"])
def test_without_a_running_xapi_the_command_for_the_import_is_printed(
        host: Dom0, install: "Callable[[str, Dict[str, object]], List[str]]", there: str) -> None:
    host.path("xapi-is-active").unlink()
    if there:
        host.path(there).touch()
    assert install("1", {"a.json": LINUX}) == ["told"]
    # The next release imports them.
    if there:
        host.path(there).unlink()
    host.path("xapi-is-active").touch()
    assert install("2", {"a.json": LINUX}) == ["imported"]


def test_a_template_that_would_block_others_is_not_packed(tmp_path: Path) -> None:
    (tmp_path / "source/one").mkdir(parents=True)
    (tmp_path / "source/a.json").write_text("{")
    with pytest.raises(BuildError, match="a.json"):
        payload.lay_out_templates(str(tmp_path / "stage"), str(tmp_path / "source"))
    (tmp_path / "source/a.json").write_text("{}")
    (tmp_path / "source/one/a.json").write_text("{}")
    with pytest.raises(BuildError, match="two templates"):
        payload.lay_out_templates(str(tmp_path / "other"), str(tmp_path / "source"))


def test_guest_config_is_packed_without_the_templates(tmp_path: Path) -> None:
    (tmp_path / "source/templates").mkdir(parents=True)
    (tmp_path / "source/templates/a.json").write_text("{}")
    (tmp_path / "source/cloud").mkdir()
    (tmp_path / "source/cloud/user-data").write_text("#cloud-config\n")
    payload.lay_out_guest_config(str(tmp_path / "stage"), str(tmp_path / "source"))
    place = tmp_path / "stage" / payload.GUEST_CONFIG
    assert [str(path.relative_to(place)) for path in sorted(place.rglob("*"))] == ["cloud", "cloud/user-data"]
    payload.lay_out_guest_config(str(tmp_path / "empty"), str(tmp_path / "absent"))
    assert list((tmp_path / "empty" / payload.GUEST_CONFIG).iterdir()) == []
