"""A pack is installed, run, upgraded and removed in an empty dom0."""

import re
import stat
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Iterator, List

import pytest

from rpm.pack.release import LABEL
from tests.need import need
from tests.pack.conftest import OLDER, Packs
from tests.pack.dom0 import UNIT, Dom0
from tests.pack.pool import pool_of
from tests.waiting import until
from xscontainer import __version__, keys
from xscontainer.simulator.engines.real import RealEngine
from xscontainer.simulator.guests import OpenSSHGuest
from xscontainer.simulator.world import World

pytestmark = [pytest.mark.real, pytest.mark.limit(300)]
@pytest.fixture
def world(dom0: Dom0) -> Iterator[World]:
    missing = RealEngine.missing() or OpenSSHGuest.missing()
    need(not missing, missing)
    with pool_of(dom0) as made:
        yield made


def key_pair(world: World) -> "List[str]":
    """Return the values of the secrets that the pool's other_config names."""
    secrets = {str(record["uuid"]): str(record["value"]) for record in world.pool.records("secret").values()}
    (pool,) = world.pool.records("pool").values()
    return [secrets[pool["other_config"][key]] for key in (keys.PRIVATE_SECRET, keys.PUBLIC_SECRET)]


def check_bugtool(dom0: Dom0, world: World) -> None:
    """Check that the commands of bugtool run, its files exist, and neither holds the pool's private key."""
    collect = ElementTree.parse(str(dom0.path("etc/xensource/bugtool/xscontainer/stuff.xml"))).getroot()
    collected = [dom0.path(name).read_bytes() for name in (collect.findtext("files") or "").split()
                 if not name.endswith(".gz")]
    for command in collect.findall("command"):
        done = dom0.run(*(command.text or "").split())
        assert done.returncode == 0, done.stderr
        collected.append(done.stdout)
    assert b"hadoop" in b"".join(collected)
    private = max(key_pair(world)[0].splitlines(), key=len).encode()
    assert not [text for text in collected if private in text or b"PRIVATE KEY" in text]


def test_a_pack_is_installed_upgraded_and_removed_on_a_booted_host(dom0: Dom0, world: World, packs: Packs) -> None:
    older, current = packs.older, packs.current
    uuid = current.release.uuid

    # Installed: the service starts by itself and publishes.
    begun = time.monotonic()
    dom0.precheck(older.tree, older.key)
    dom0.apply(older.tree, older.key)
    installed = time.monotonic() - begun
    assert dom0.systemctl() == [f"preset {UNIT}", "daemon-reload", f"--no-block restart {UNIT}"]
    listed = world.wait_published("classic", lambda found: len(found) == 2)
    print(f"installed after {installed:.1f} s, published after {time.monotonic() - begun:.1f} s")
    assert listed["tomcat"].status == "Up (Paused)"
    assert dom0.installed() == [f"{name} {OLDER}" for name in (
        "control-xscontainer", "update-xscontainer", "xscontainer", "xscontainer-guest-templates")]
    stamp = dom0.path("var/update/applied/" + older.release.uuid)
    assert stamp.read_text() == Path(older.tree, "update.xml").read_text()
    assert "allow_loopback" in dom0.path("etc/xscontainer/xscontainer.conf").read_text()

    # Upgraded: settings and lists stay, and the new release runs.
    list_before, pid = world.vm("classic").other_config[keys.PS], dom0.monitor_pid()
    dom0.apply(current.tree, current.key)
    assert dom0.systemctl() == ["daemon-reload", "daemon-reload", f"--no-block try-restart {UNIT}"]
    until(lambda: dom0.monitor_pid() not in (0, pid), "the monitor was not restarted")
    assert f"xscontainer {__version__}" in dom0.installed()
    # XAPI lists both releases, like for other packs.
    assert dom0.path("var/update/applied/" + uuid).exists() and stamp.exists()
    assert world.vm("classic").other_config[keys.PS] == list_before
    assert "allow_loopback" in dom0.path("etc/xscontainer/xscontainer.conf").read_text()
    assert dom0.run("/usr/bin/xscontainer", "--version").stdout.decode().split()[1] == __version__
    until(lambda: world.call(0, "start", vmuuid=world.vm("classic").uuid, container="hadoop") == "True")
    check_bugtool(dom0, world)
    dom0.systemctl()

    # Removed: no file and no published list is left; the administrator's settings stay.
    output = dom0.remove()
    assert "xe vm-param-remove uuid=VM param-name=other-config param-key=KEY" in output
    assert "xe secret-destroy uuid=SECRET" in output
    assert keys.PS not in output, "they were removed"
    # The output names keys by their prefix. Marks of a VM's disks stay with the disks.
    kept = {value for name, value in vars(keys).items() if name.isupper() and isinstance(value, str)}
    assert all(key.startswith("xscontainer-") for key in kept - set(keys.PUBLISHED) - {keys.CONFIG_DRIVE})
    assert dom0.systemctl()[:2] == [f"--no-reload disable {UNIT}", f"stop {UNIT}"]
    assert not dom0.monitor_pid()
    config = world.vm("classic").other_config
    assert not set(keys.PUBLISHED) & set(config)
    assert config[keys.MONITOR] == "True" and keys.HOST_KEY in config
    assert len(key_pair(world)) == 2
    # RPM keeps the administrator's file, which existed before the package.
    left = {path.name for path in dom0.root.rglob("*xscontainer*")
            if "/w/" not in str(path) and "/site-packages/" not in str(path)}
    assert left <= {LABEL, "xscontainer.conf", "xscontainer.conf.rpmsave", "xscontainer.conf.rpmnew"}
    assert not any(dom0.path(name).exists() for name in ("usr/lib/xscontainer", "usr/bin/xscontainer",
                                                         "etc/xapi.d/plugins/xscontainer", "var/log/xscontainer.log"))
    assert dom0.installed() == []

    # Installed again, with the settings that RPM has saved.
    saved = dom0.path("etc/xscontainer/xscontainer.conf.rpmsave")
    saved.rename(saved.with_suffix(""))
    dom0.apply(current.tree, current.key)
    world.wait_published("classic", lambda found: len(found) == 2)


def test_the_programs_run_with_only_the_files_of_the_pack(dom0: Dom0, world: World, packs: Packs) -> None:
    dom0.apply(packs.current.tree, packs.current.key)
    world.wait_published("classic", lambda found: len(found) == 2)
    needed = dom0.copy_libraries(list(dom0.path("usr/lib/xscontainer").rglob("*.so")))
    assert {re.sub(r"[.-].*", "", name) for name in needed} <= {"libc", "libm", "libdl", "librt", "libpthread",
                                                              "libgcc_s", "libutil", "ld", "libffi"}
    vm = world.vm("classic").uuid
    # With the daemon, then without it: then the plugin's own process imports all libraries.
    assert world.call(0, "get_inspect", vmuuid=vm, object="hadoop").startswith("True<?xml")
    world.call(0, "unpause", vmuuid=vm, container="tomcat")
    world.wait_published("classic", lambda found: found["tomcat"].status == "Up")
    dom0.stop_monitor()
    assert world.call(0, "pause", vmuuid=vm, container="tomcat") == "True"
    assert world.call(0, "get_top", vmuuid=vm, object="hadoop").startswith("True<?xml")
    listed = dom0.run("/usr/bin/xscontainer", "list")
    assert listed.returncode == 0 and b"hadoop" in listed.stdout, listed.stderr
    for program in ("/usr/bin/xscontainer", "/usr/sbin/xscontainer-monitor", "/usr/sbin/xscontainer-prepare-vm"):
        told = dom0.run(program, "--help")
        assert told.returncode == 0 and told.stdout.startswith(b"usage: "), told
    assert not dom0.path("decoys").exists(), dom0.path("decoys").read_text()
    assert "Traceback" not in dom0.path("var/log/xscontainer.log").read_text()
    # dom0's Python cannot import the pack's modules.
    seen = dom0.run("/usr/bin/python3", "-c", "import importlib.util as u, sys; print(sys.path, u.find_spec('nacl'))")
    assert b"/usr/lib/xscontainer" not in seen.stdout and b"None" in seen.stdout


def test_bytecode_is_compiled_once_for_the_hosts_interpreter(dom0: Dom0, packs: Packs) -> None:
    dom0.apply(packs.current.tree, packs.current.key)
    compiled = list(dom0.path("usr/lib/xscontainer").rglob("*.cpython-36.pyc"))
    sources = list(dom0.path("usr/lib/xscontainer").rglob("*.py"))
    assert len(compiled) == len(sources) > 300
    # Without settings the shipped ones are installed.
    conf = dom0.path("etc/xscontainer/xscontainer.conf")
    assert "log_file = /var/log/xscontainer.log\n" in conf.read_text()
    assert stat.S_IMODE(conf.stat().st_mode) == 0o644
    loaded = dom0.run("/usr/bin/python3", "-IS", "-c", "import sys; sys.path.insert(0, '/usr/lib/xscontainer')\n"
                                                       "from xscontainer import settings; print(settings.load())")
    assert b"warnings=[]" in loaded.stdout, loaded.stdout + loaded.stderr


@pytest.mark.parametrize("there", ["", "chroot"])
def test_in_an_installers_root_the_service_is_enabled_and_not_started(dom0: Dom0, packs: Packs, there: str) -> None:
    if there:
        dom0.path(there).touch()
    dom0.precheck(packs.current.tree, packs.current.key)
    dom0.apply(packs.current.tree, packs.current.key)
    assert dom0.systemctl() == [f"preset {UNIT}", "daemon-reload", f"--no-block try-restart {UNIT}"]
    assert dom0.path("enabled").exists() and not dom0.monitor_pid()
    dom0.remove()
    assert not dom0.path("enabled").exists()
