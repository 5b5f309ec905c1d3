"""The set-up chooses a Python, installs when it must, and installs only pinned packages."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, Set

import pytest

from tests.need import need
from tests.setup import parts, prepare
from tests.setup.prepare import Interpreter, SetupFailed
from xscontainer.simulator.engines import trial
from xscontainer.simulator.engines.real import RealEngine

VERSION = "{}.{}".format(*sys.version_info[:2])
OWN = f"python{VERSION}"


def script(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(("#!/bin/sh",) + lines) + "\n")
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that is the whole PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.setattr(prepare, "find", lambda name: str(directory / name) if (directory / name).exists() else "")
    return directory


def test_an_interpreter_has_the_version_that_it_reports(programs: Path) -> None:
    script(programs / OWN, f'exec "{sys.executable}" "$@"')
    found = prepare.look_up(OWN)
    assert found is not None and found.version == sys.version_info[:2]
    script(programs / OWN, "echo 'not switched on' >&2", "exit 127")
    assert prepare.look_up(OWN) is None
    assert prepare.look_up("python3.5") is None


def test_a_program_with_another_version_than_its_name_is_ignored(programs: Path) -> None:
    script(programs / "python3.5", f'exec "{sys.executable}" "$@"')
    assert prepare.look_up("python3.5") is None


def test_the_newest_release_of_pyenv_is_used_if_path_has_none(programs: Path, tmp_path: Path) -> None:
    for release in ("9", "10", "10-dev"):
        script(tmp_path / "versions" / f"{VERSION}.{release}" / "bin" / "python", f'exec "{sys.executable}" "$@"')
    script(programs / "pyenv", f'echo "{tmp_path}"')
    script(programs / OWN, "exit 127")
    assert prepare._from_pyenv(VERSION) == str(tmp_path / "versions" / f"{VERSION}.10" / "bin" / "python")
    found = prepare.look_up(OWN)
    assert found is not None and found.version == sys.version_info[:2]


def test_an_absent_interpreter_is_replaced_for_a_user_and_fails_under_ci(programs: Path) -> None:
    script(programs / "python3", f'exec "{sys.executable}" "$@"')
    chosen = prepare.choose(["python3.5", "current"], strict=False)
    assert [interpreter.version for interpreter in chosen] == [sys.version_info[:2]]
    with pytest.raises(SetupFailed, match="no working python3.5"):
        prepare.choose(["python3.5", "current"], strict=True)


def test_an_installation_is_recorded_on_success_and_stale_when_its_inputs_change(tmp_path: Path) -> None:
    pinned = tmp_path / "pinned.txt"
    pinned.write_text("a==1\n")

    class Elsewhere(Interpreter):
        venv = tmp_path

    interpreter = Elsewhere(sys.executable, (3, 6))
    with pytest.raises(SetupFailed), prepare._stamp(interpreter, "package", [pinned]) as stamp:
        assert stamp.stale
        raise SetupFailed("on purpose")
    with prepare._stamp(interpreter, "package", [pinned]) as stamp:
        assert stamp.stale
    assert not prepare._stamp(interpreter, "package", [pinned]).stale
    pinned.write_text("a==2\n")
    assert prepare._stamp(interpreter, "package", [pinned]).stale


def test_a_failed_step_is_reported(capfd: "pytest.CaptureFixture[str]") -> None:
    with pytest.raises(SetupFailed, match="exit status 3"):
        prepare.run([sys.executable, "-c", "print('its output'); raise SystemExit(3)"])
    out, err = capfd.readouterr()
    assert out == "" and "its output" in err


def test_services_stay_off_only_while_packages_are_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(parts, "POLICY", str(policy))
    with parts._no_services():
        assert subprocess.run([str(policy)], timeout=10).returncode == 101
    assert not policy.exists()
    script(policy, "exit 0")
    with parts._no_services():
        assert subprocess.run([str(policy)], timeout=10).returncode == 0
    assert policy.exists()


def test_a_policy_that_a_killed_set_up_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text(parts.POLICY_TEXT)
    monkeypatch.setattr(parts, "POLICY", str(policy))
    with parts._no_services():
        assert subprocess.run(["sh", str(policy)], timeout=10).returncode == 101
    assert not policy.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_policy_is_removed_when_the_set_up_is_killed(
        number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(parts, "POLICY", str(policy))
    before = signal.getsignal(number)
    with pytest.raises(SystemExit), parts._no_services():
        os.kill(os.getpid(), number)
        signal.pause()
    assert not policy.exists() and signal.getsignal(number) is before


def test_cloud_init_is_installed_without_its_services(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "POLICY", str(tmp_path / "policy-rc.d"))
    monkeypatch.setattr(parts, "how_much", lambda *_: "")
    ran: List[List[str]] = []

    def run(argv: List[str], *_: object) -> bool:
        ran.append(argv)
        return True

    monkeypatch.setattr(parts, "_run", run)
    assert parts.apt_install(["socat"]) and not any("path-exclude" in word for word in ran[-1])
    assert parts.apt_install(["cloud-init"])
    assert any(word.endswith("path-exclude=/lib/systemd/system/cloud-*") for word in ran[-1])


def test_servers_are_found_outside_a_users_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable))
    assert parts.find("no-such-program-at-all") == ""
    assert os.access(parts.find(os.path.basename(sys.executable)), os.X_OK)
    sbin = [directory for directory in ("/usr/sbin", "/sbin") if os.path.isdir(directory)]
    program = next(name for name in sorted(os.listdir(sbin[0])) if os.access(os.path.join(sbin[0], name), os.X_OK))
    assert parts.find(program)


def pinned(name: str) -> Dict[str, str]:
    found = {}
    for line in prepare.pins(prepare.REQUIREMENTS / name):
        assert re.match(r'[A-Za-z0-9_-]+==[0-9.]+(; python_version < "3.7")?\Z', line), \
            f"{name}: {line} is not one exact release"
        package, _, release = line.partition(";")[0].partition("==")
        assert package.lower() not in found
        found[package.lower()] = release
    return found


@pytest.mark.parametrize("name", ["py36.txt", "current.txt"])
def test_everything_is_pinned_and_the_requirements_are_complete(name: str) -> None:
    needed: List[str] = []
    setup_cfg = (prepare.ROOT / "setup.cfg").read_text()
    for block in re.findall(r"(?m)^(?:install_requires|test) =\n((?:    .+\n)+)", setup_cfg):
        needed += [line.split()[0].lower() for line in block.splitlines()]
    assert {"paramiko", "docker", "pytest"} <= set(needed)
    assert set(needed + ["pip", "setuptools"]) <= set(pinned(name))


def test_the_linters_are_pinned() -> None:
    assert {"ruff", "mypy", "vermin"} <= set(pinned("lint.txt"))


def test_the_suite_runs_with_the_pinned_releases() -> None:
    import docker
    import paramiko

    name = Interpreter(sys.executable, (sys.version_info[0], sys.version_info[1])).requirements.name
    assert pinned(name)["paramiko"] == paramiko.__version__
    assert pinned(name)["docker"] == docker.__version__


# --- only what the chosen tests need (real: each collects the suite in a process of its own, which takes seconds)


def test_arguments_after_two_dashes_belong_to_pytest() -> None:
    assert prepare.split(["test", "python3.6", "--", "-k", "a or b"]) == (["test", "python3.6"], ["-k", "a or b"])
    assert prepare.split(["lint"]) == (["lint"], [])


def chosen(*arguments: str) -> Set[str]:
    return set(prepare.ask(sys.executable, "tests.setup.chosen", list(arguments)))


def packages(programs: Set[str], monkeypatch: pytest.MonkeyPatch) -> Set[str]:
    """Return the packages to install for the chosen tests on a machine without any of them."""
    monkeypatch.setattr(parts, "PARTS", [part._replace(present=lambda: False) for part in parts.PARTS])
    return set(parts.missing(programs))


@pytest.mark.real
def test_a_unit_test_needs_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = chosen("tests/test_settings.py", "tests/core/test_pacing.py")
    assert needed == set() and packages(needed, monkeypatch) == set()


@pytest.mark.real
@pytest.mark.parametrize("arguments, wanted, unwanted", [
    (["tests/engine/test_ssh.py"], {"openssh-server"}, {"mono-mcs", "nodejs", "cloud-init", "dnf"}),
    (["tests/engine/test_ssh.py", "-n", "2", "-m", "not real"], set(), {"docker.io", "mono-mcs", "nodejs", "dnf"}),
    (["tests/clients/test_xmlform.py"], {"nodejs", "npm", "mono-mcs"}, {"docker.io", "podman", "dnf", "cloud-init"}),
    (["tests/pack/test_shape.py"], {"rpm", "createrepo-c", "genisoimage"}, {"cloud-init", "shellcheck"}),
    (["tests/guest_config/test_ignition.py"], {"ignition", "systemd"}, {"docker.io", "podman", "dnf"}),
    (["tests/configdrive/test_image.py", "-k", "label"], {"xorriso", "genisoimage", "cloud-init"},
     {"podman", "mono-mcs"}),
], ids=lambda value: value[-1] if isinstance(value, list) else "")
def test_chosen_tests_install_only_what_they_need(arguments: List[str], wanted: Set[str], unwanted: Set[str],
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    planned = packages(chosen(*arguments), monkeypatch)
    assert wanted <= planned and not unwanted & planned, planned


@pytest.mark.real
def test_a_choice_that_pytest_refuses_needs_no_program() -> None:
    assert chosen("tests/no_such_file.py") == set()


@pytest.mark.real
def test_the_whole_suite_needs_every_part() -> None:
    named = chosen("tests")
    assert [part.package for part in parts.PARTS if not named & set(part.programs)] == []


# Part of every Debian, or installed before anything else.
ESSENTIAL = {"bash", "blkid", "chattr", "chroot", "getent", "make", "nologin", "setpriv", "sleep", "unshare"}


def test_each_program_that_a_test_needs_is_installed_by_a_part() -> None:
    """A missing part would be noticed only on a fresh machine."""
    installed = {program for part in parts.PARTS for program in part.programs}
    for path in sorted((prepare.ROOT / "tests").rglob("*.py")):
        named = set(re.findall(r"""need_program\(["']([\w-]+)["']""", path.read_text(encoding="utf-8")))
        assert named <= installed | ESSENTIAL, path


@pytest.mark.real
def test_make_test_fast_runs_every_test_without_a_server() -> None:
    """conftest.py stops servers in tests without the mark; this test checks which tests make test-fast selects."""
    makefile = (prepare.ROOT / "Makefile").read_text()
    recipe = makefile[makefile.index("\ntest-fast:"):makefile.index("\nlint:")]
    assert "$(PREPARE) fast" in recipe and "-m 'not real'" in recipe
    assert parts.SERVERS not in chosen("tests", "-m", "not real")


def test_the_number_and_size_of_packages_is_printed_before_the_installation(tmp_path: Path) -> None:
    told = ("3 upgraded, 516 newly installed, 0 to remove and 9 not upgraded.\nNeed to get 218 MB of archives.\n"
            "After this operation, 774 MB of additional disk space will be used.\n")
    script(tmp_path / "apt-get", f"cat <<'EOF'\n{told}EOF", "exit 1")
    assert parts.how_much([str(tmp_path / "apt-get"), "install", "x"], {"PATH": os.environ["PATH"]}) == (
        "516 packages: 218 MB to download, 774 MB on disk")
    assert parts.how_much(["true"], dict(os.environ)) == "some packages: nothing to download, nothing more on disk"


# --- an engine that is installed and cannot run

NO_CGROUPS = "dockerd cannot run here: failed to start daemon: no cgroups"


@pytest.mark.real
def test_under_ci_an_engine_that_cannot_run_fails_once_before_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    need(not parts.missing() and parts.node_is_there(), "all parts")
    monkeypatch.setenv(trial.VARIABLE + "DOCKERD", NO_CGROUPS)
    with pytest.raises(SetupFailed, match=NO_CGROUPS):
        prepare.provide(sys.executable, [], strict=True)
    prepare.provide(sys.executable, [], strict=False)  # for a user, tests that need it are skipped


@pytest.mark.real
def test_skipped_tests_of_an_engine_are_one_line_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    need(RealEngine.absent() == "", RealEngine.absent())
    monkeypatch.setenv(trial.VARIABLE + "DOCKERD", NO_CGROUPS)
    monkeypatch.delenv("CI", raising=False)
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
                           "tests/simulator/engines/test_real.py", "tests/engine/test_real_engine.py"],
                          cwd=str(prepare.ROOT), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=100)
    text = done.stdout.decode()
    assert done.returncode == 0 and "passed" not in text and " error" not in text, text
    assert re.findall(r"^SKIPPED \[\d+\] \S+: (.*)$", text, re.MULTILINE) == [NO_CGROUPS], text


@pytest.mark.real
def test_an_engine_is_tried_once_for_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    need(RealEngine.absent() == "", RealEngine.absent())
    monkeypatch.setenv(trial.VARIABLE + "DOCKERD", "")
    monkeypatch.delenv(trial.VARIABLE + "DOCKERD")
    tried: List[str] = []

    def try_it(program: str, make: object) -> str:
        tried.append(program)
        return NO_CGROUPS

    monkeypatch.setattr(trial, "_tried", try_it)
    assert [RealEngine.missing() for _ in range(3)] == [NO_CGROUPS] * 3 and tried == ["dockerd"]
    assert NO_CGROUPS in prepare.ask(sys.executable, "tests.setup.probe", [])
