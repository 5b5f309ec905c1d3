"""The set-up: which Python it takes, when it installs, and that everything it installs is pinned."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

import pytest

from tests.setup import parts, prepare
from tests.setup.prepare import Interpreter, SetupFailed

VERSION = "{}.{}".format(*sys.version_info[:2])
OWN = f"python{VERSION}"


def script(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(("#!/bin/sh",) + lines) + "\n")
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is the whole PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.setattr(prepare, "find", lambda name: str(directory / name) if (directory / name).exists() else "")
    return directory


def test_an_interpreter_is_what_really_runs(programs: Path) -> None:
    script(programs / OWN, f'exec "{sys.executable}" "$@"')
    found = prepare.look_up(OWN)
    assert found is not None and found.version == sys.version_info[:2]
    script(programs / OWN, "echo 'not switched on' >&2", "exit 127")
    assert prepare.look_up(OWN) is None
    assert prepare.look_up("python3.5") is None


def test_a_name_that_runs_another_version_is_not_taken(programs: Path) -> None:
    script(programs / "python3.5", f'exec "{sys.executable}" "$@"')
    assert prepare.look_up("python3.5") is None


def test_pyenv_stands_in_for_what_path_lacks_with_its_newest_release(programs: Path, tmp_path: Path) -> None:
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
    with pytest.raises(SetupFailed, match="no python3.5"):
        prepare.choose(["python3.5", "current"], strict=True)


def test_an_installation_is_noted_only_when_it_succeeded_and_stale_when_its_inputs_change(tmp_path: Path) -> None:
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


def test_a_failing_step_is_told(capfd: "pytest.CaptureFixture[str]") -> None:
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


def test_cloud_init_is_installed_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    off = tmp_path / "cloud" / "cloud-init.disabled"
    monkeypatch.setattr(parts, "CLOUD_INIT_OFF", str(off))
    monkeypatch.setattr(parts, "POLICY", str(tmp_path / "policy-rc.d"))
    switched: List[bool] = []

    def run(*_: object) -> bool:
        switched.append(off.exists())
        return True

    monkeypatch.setattr(parts, "_run", run)
    assert parts.apt_install(["socat"]) and switched == [False, False]
    assert parts.apt_install(["cloud-init"]) and switched[2:] == [True, True]


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
        assert re.match(r"[A-Za-z0-9_-]+==[0-9.]+\Z", line), f"{name}: {line} is not one exact release"
        package, _, release = line.partition("==")
        assert package.lower() not in found
        found[package.lower()] = release
    return found


@pytest.mark.parametrize("name", ["py36.txt", "current.txt"])
def test_everything_is_pinned_and_what_the_package_needs_is_there(name: str) -> None:
    needed: List[str] = []
    setup_cfg = (prepare.ROOT / "setup.cfg").read_text()
    for block in re.findall(r"(?m)^(?:install_requires|test) =\n((?:    .+\n)+)", setup_cfg):
        needed += [line.split()[0].lower() for line in block.splitlines()]
    assert {"paramiko", "docker", "pytest"} <= set(needed)
    assert set(needed + ["pip", "setuptools"]) <= set(pinned(name))


def test_the_linters_are_pinned() -> None:
    assert {"ruff", "mypy", "vermin"} <= set(pinned("lint.txt"))


def test_this_suite_runs_with_the_pinned_releases() -> None:
    import docker
    import paramiko

    name = Interpreter(sys.executable, (sys.version_info[0], sys.version_info[1])).requirements.name
    assert pinned(name)["paramiko"] == paramiko.__version__
    assert pinned(name)["docker"] == docker.__version__
