"""The scripts in the cloud-configs, run in a root of their own whose package managers only record their calls."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Callable, List, NamedTuple, Sequence

import pytest
import yaml

from tests.guest_config.filling import Case, fill, read
from tests.need import need, need_program

XEN_PROJECT = "etc/apt/sources.list.d/xen-guest-agent.list"
XEN_PROJECT_RPM = "etc/yum.repos.d/xen-guest-agent.repo"
# Stands for apt-get and dnf: /has lists the packages of the distribution, /foreign those of an added repository.
MANAGER = """#!/bin/sh
echo "$(basename "$0") $*" >> /notes
for word; do last=$word; done
case " $* " in
    *" install "*)
        grep -qx -- "$last" /has && exit 0
        if [ -e /{deb} ] || [ -e /{rpm} ]; then grep -qx -- "$last" /foreign && exit 0; fi
        exit 100 ;;
esac
""".format(deb=XEN_PROJECT, rpm=XEN_PROJECT_RPM)
NOTE = '#!/bin/sh\necho "$(basename "$0") $*" >> /notes\n'


class Outcome(NamedTuple):
    status: int
    notes: List[str]
    root: Path

    def has(self, path: str) -> bool:
        return (self.root / path).exists()


Run = Callable[..., Outcome]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return ``run(file, script, managers, has, foreign)``, which runs a script in a guest with those packages."""
    need(os.geteuid() == 0, "root, for chroot")
    busybox = need_program("busybox", "busybox-static")
    root = tmp_path / "root"
    for directory in ("bin", "etc/apt/sources.list.d", "etc/yum.repos.d", "dev"):
        (root / directory).mkdir(parents=True)
    shutil.copy(busybox, str(root / "bin" / "busybox"))
    subprocess.run([str(root / "bin" / "busybox"), "--install", "-s", str(root / "bin")], check=True, timeout=30)
    for link in (root / "bin").iterdir():
        if link.is_symlink():
            link.unlink()
            link.symlink_to("busybox")

    def program(name: str, text: str) -> None:
        path = root / "bin" / name
        if path.is_symlink():
            path.unlink()
        path.write_text(text)
        path.chmod(0o755)

    def run_it(file: str, script: str, managers: Sequence[str], has: Sequence[str] = (), foreign: Sequence[str] = (),
               system: str = "debian", programs: Sequence[str] = ()) -> Outcome:
        config = yaml.safe_load(fill(read(f"cloud-config/{file}"), Case(False, False)))
        (text,) = [entry["content"] for entry in config["write_files"] if entry["path"].endswith("/" + script)]
        for name in managers:
            program(name, MANAGER)
        for name in ("systemctl",) + tuple(programs):
            program(name, NOTE)
        program("modprobe", "#!/bin/sh\nexit 1\n")
        program(script, text)
        (root / "etc" / "os-release").write_text(f"ID={system}\n")
        (root / "has").write_text("".join(name + "\n" for name in has))
        (root / "foreign").write_text("".join(name + "\n" for name in foreign))
        done = subprocess.run([need_program("chroot"), str(root), "/bin/" + script], env={"PATH": "/bin"},
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=60)
        notes = root / "notes"
        return Outcome(done.returncode, notes.read_text().splitlines() if notes.exists() else [], root)

    return run_it


DEBIANS = ["debian.yaml", "ubuntu.yaml", "generic.yaml"]


@pytest.mark.parametrize("file", DEBIANS)
def test_the_distributions_own_agent_is_preferred(run: Run, file: str) -> None:
    done = run(file, "install-guest-agent", ["apt-get"], has=["xen-guest-agent"], foreign=["xen-guest-agent"])
    assert done.status == 0 and len(done.notes) == 1
    assert not done.has(XEN_PROJECT)


@pytest.mark.parametrize("file", DEBIANS)
def test_the_xen_projects_agent_is_the_fallback(run: Run, file: str) -> None:
    done = run(file, "install-guest-agent", ["apt-get"], has=["xe-guest-utilities"], foreign=["xen-guest-agent"])
    assert done.status == 0
    (line,) = (done.root / XEN_PROJECT).read_text().splitlines()
    assert line.startswith("deb [trusted=yes] https://gitlab.com/api/v4/projects/xen-project%252Fxen-guest-agent/")
    assert line.endswith("/deb-amd64/ release/")


def test_the_last_fallback_of_ubuntu_is_its_older_agent(run: Run) -> None:
    done = run("ubuntu.yaml", "install-guest-agent", ["apt-get"], has=["xe-guest-utilities"])
    assert done.status == 0 and done.notes[-1].endswith("install xe-guest-utilities")
    assert not done.has(XEN_PROJECT), "a repository that does not answer would break every later update"


@pytest.mark.parametrize("file, manager, left", [
    ("debian.yaml", "apt-get", XEN_PROJECT), ("ubuntu.yaml", "apt-get", XEN_PROJECT),
    ("generic.yaml", "apt-get", XEN_PROJECT), ("almalinux-rocky.yaml", "dnf", XEN_PROJECT_RPM),
    ("generic.yaml", "dnf", XEN_PROJECT_RPM),
])
def test_no_agent_anywhere_is_a_failure_and_leaves_no_repository(run: Run, file: str, manager: str, left: str) -> None:
    done = run(file, "install-guest-agent", [manager])
    assert done.status != 0 and done.notes
    assert not done.has(left)


@pytest.mark.parametrize("file", ["almalinux-rocky.yaml", "generic.yaml"])
def test_epels_agent_is_installed_and_started(run: Run, file: str) -> None:
    done = run(file, "install-guest-agent", ["dnf"], has=["epel-release", "xe-guest-utilities-latest"])
    assert done.status == 0
    assert done.notes[-1] == "systemctl enable --now xe-linux-distribution.service"
    assert not done.has(XEN_PROJECT_RPM)


def test_the_xen_projects_agent_is_installed_without_epel(run: Run) -> None:
    done = run("almalinux-rocky.yaml", "install-guest-agent", ["dnf"], foreign=["xen-guest-agent"])
    assert done.status == 0 and done.has(XEN_PROJECT_RPM)


@pytest.mark.parametrize("manager, system, package", [
    ("apt-get", "debian", "docker.io"), ("zypper", "opensuse-leap", "docker"), ("dnf", "fedora", "moby-engine"),
    ("dnf", "rocky", "docker-ce"),
])
def test_the_engine_is_installed_by_the_present_manager(run: Run, manager: str, system: str, package: str) -> None:
    done = run("generic.yaml", "install-engine", [manager], has=[package], system=system)
    assert done.status == 0
    assert any(note.startswith(manager) and note.endswith(" install " + package) for note in done.notes)
    assert done.notes[-1] == "systemctl enable --now docker.service"
    if package == "docker-ce":
        text = (done.root / "etc/yum.repos.d/docker-ce-stable.repo").read_text()
        assert "/centos/$releasever/$basearch/stable" in text and "gpgcheck=1" in text


def test_a_present_engine_is_kept(run: Run) -> None:
    done = run("generic.yaml", "install-engine", ["apt-get"], programs=["dockerd"])
    assert done.status == 0 and done.notes == ["systemctl enable --now docker.service"]
