"""A pack replaces an installed one: an older release, or a pack of another origin with the same names."""

import subprocess
from pathlib import Path

import pytest

from tests.pack.conftest import Packs
from tests.pack.dom0 import UNIT, Dom0, build_rpm
from tests.waiting import until
from xscontainer import __version__

pytestmark = [pytest.mark.real, pytest.mark.limit(300)]

HEAD = """
Name: {name}
Version: 9.9.9
Release: 1
Summary: another package of the name
License: none
BuildArch: noarch
AutoReqProv: no
"""
# Like a supplemental pack of another origin, with versions that this pack never has.
PAYLOAD = HEAD.format(name="xscontainer") + """
%description
%files
/etc/xapi.d/plugins/xscontainer
/usr/lib/python2.7
/usr/lib/systemd/system/xscontainer-monitor.service
%attr(0755,root,root) /usr/sbin/xscontainer-monitor
%preun
if [ $1 -eq 0 ]; then systemctl stop xscontainer-monitor.service; fi
"""
UPDATE = HEAD.format(name="update-xscontainer") + """
Provides: 11111111-2222-3333-4444-555555555555
Requires: xscontainer >= 9.9.9-1
%description
%files
"""
CONTROL = HEAD.format(name="control-xscontainer") + "%description\n%files\n"


@pytest.fixture
def replaced(dom0: Dom0, tmp_path: Path) -> Dom0:
    """Return a dom0 with a pack of another origin."""
    stage, nothing, repository = (tmp_path / name for name in ("stage", "nothing", "repo"))
    for name in ("etc/xapi.d/plugins/xscontainer", "usr/lib/python2.7/site-packages/xscontainer/api.py",
                 f"usr/lib/systemd/system/{UNIT}"):
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        (stage / name).write_text("theirs\n")
    (stage / "usr/sbin").mkdir()
    (stage / "usr/sbin/xscontainer-monitor").write_text("#!/bin/sh\nexec sleep 1000\n")
    nothing.mkdir()
    repository.mkdir()
    for spec, files in ((PAYLOAD, stage), (UPDATE, nothing), (CONTROL, nothing)):
        build_rpm(spec, files, repository)
    subprocess.run(["createrepo_c", "-q", str(repository)], check=True, timeout=60)
    dom0.dnf("install", "xscontainer", "update-xscontainer", "control-xscontainer",
             conf=f"[main]\nreposdir=/dev/null\n[o]\nname=o\nbaseurl=file://{repository}\ngpgcheck=0\n")
    assert len(dom0.installed()) == 3
    dom0.path("xapi-is-active").touch()
    return dom0


def program_of(dom0: Dom0) -> bytes:
    """Return the command line of the running monitor; empty if none runs."""
    pid = dom0.monitor_pid()
    return Path(f"/proc/{pid}/cmdline").read_bytes() if pid else b""


@pytest.mark.parametrize("runs", [True, False])
def test_the_pack_replaces_another_pack_of_the_same_name(replaced: Dom0, packs: Packs, runs: bool) -> None:
    if runs:
        replaced.run("/usr/bin/systemctl", "start", UNIT)
        until(lambda: b"sleep" in program_of(replaced), "theirs does not run")
    replaced.systemctl()
    replaced.precheck(packs.current.tree, packs.current.key)
    replaced.apply(packs.current.tree, packs.current.key)
    assert replaced.installed() == [f"{name} {__version__}" for name in (
        "control-xscontainer", "update-xscontainer", "xscontainer", "xscontainer-guest-templates")]
    assert replaced.path("var/update/applied/" + packs.current.release.uuid).exists()
    assert not replaced.path("usr/lib/python2.7").exists()
    assert "theirs" not in replaced.path(f"usr/lib/systemd/system/{UNIT}").read_text()
    assert "theirs" not in replaced.path("etc/xapi.d/plugins/xscontainer").read_text()
    # The state of the other service does not matter for ours.
    assert f"preset {UNIT}" in replaced.systemctl() and replaced.path("enabled").exists()
    until(lambda: b"/usr/sbin/xscontainer-monitor" in program_of(replaced) and b"python3" in program_of(replaced),
          "ours does not run")


def test_an_upgrade_does_not_start_a_service_that_was_disabled(dom0: Dom0, packs: Packs) -> None:
    dom0.path("xapi-is-active").touch()
    dom0.apply(packs.older.tree, packs.older.key)
    until(dom0.monitor_pid, "the service did not start")
    for verb in ("disable", "stop"):
        dom0.run("/usr/bin/systemctl", verb, UNIT)
    dom0.systemctl()
    dom0.apply(packs.current.tree, packs.current.key)
    assert f"xscontainer {__version__}" in dom0.installed()
    assert not [line for line in dom0.systemctl() if line.split()[0] in ("preset", "enable") or " restart" in line]
    assert not dom0.path("enabled").exists() and not dom0.monitor_pid()
