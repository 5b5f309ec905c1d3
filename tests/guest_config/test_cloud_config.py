"""The cloud-configs are valid, and set up a guest correctly."""

import subprocess
from pathlib import Path
from typing import Any, Dict, List

import pytest
import yaml

from tests.guest_config.filling import CASES, CLOUD_CONFIGS, HOSTNAME, MAC, POOL_KEY, Case, HostKey, fill, read
from tests.need import need_program
from xscontainer.settings import SSHSettings

FULL, BARE = Case(True, True), Case(False, False)
# Size of one argument that XAPI's plugin interface accepts, less some room for the rest of the call.
MOST_BYTES = 32768


def filled(name: str, case: Case, host_key: HostKey) -> Dict[str, Any]:
    return yaml.safe_load(fill(read(f"cloud-config/{name}"), case, host_key))


def ask_cloud_init(path: Path) -> "subprocess.CompletedProcess[bytes]":
    command = [need_program("cloud-init"), "schema", "--config-file", str(path)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)


@pytest.mark.parametrize("name", CLOUD_CONFIGS)
def test_cloud_init_accepts_the_file_with_and_without_values(name: str, host_key: HostKey, tmp_path: Path) -> None:
    given = read(f"cloud-config/{name}")
    for number, text in enumerate([given, fill(given, FULL, host_key), fill(given, BARE, host_key)]):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        told = ask_cloud_init(path)
        assert told.returncode == 0 and told.stdout.startswith(b"Valid"), told.stdout.decode()


def test_cloud_inits_schema_check_finds_an_error(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(read("cloud-config/ubuntu.yaml").replace("  - docker.io", "  docker.io: {}"))
    told = ask_cloud_init(path)
    assert told.returncode != 0 and b"packages" in told.stdout


@pytest.mark.parametrize("name", CLOUD_CONFIGS)
def test_the_file_is_plain_text_that_fits_into_a_call(name: str) -> None:
    text = read(f"cloud-config/{name}")
    assert text.startswith("#cloud-config\n") and text.endswith("\n")
    assert len(text) < MOST_BYTES
    assert "%BR%" not in text
    for line in text.splitlines():
        assert line == line.rstrip() and "\t" not in line and len(line) <= 120


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", CLOUD_CONFIGS)
def test_no_placeholder_is_left(name: str, case: Case, host_key: HostKey) -> None:
    text = fill(read(f"cloud-config/{name}"), case, host_key)
    assert "%XS" not in text and "HIN%" not in text
    assert yaml.safe_load(text)["hostname"] == HOSTNAME
    assert (MAC in text) == case.internal_network
    assert (host_key.public in text) == case.host_key


@pytest.mark.parametrize("name", CLOUD_CONFIGS)
def test_the_pools_key_opens_only_the_account_that_may_use_the_engine(name: str, host_key: HostKey) -> None:
    assert fill(read(f"cloud-config/{name}"), FULL, host_key).count(POOL_KEY) == 1
    config = filled(name, FULL, host_key)
    accounts = [user for user in config["users"] if isinstance(user, dict)]
    assert [account["name"] for account in accounts] == [SSHSettings().user]
    account = accounts[0]
    assert account["groups"] == "docker" and account["lock_passwd"] is True and "sudo" not in account
    # The group is made before the account, as a system group, so that the engine's package uses it.
    assert ["groupadd", "--system", "--force", "docker"] in config["bootcmd"]
    (line,) = account["ssh_authorized_keys"]
    assert line == f"restrict,port-forwarding ssh-rsa {POOL_KEY}"


def test_cloud_init_parses_the_line_of_the_pools_key() -> None:
    """cloud-init runs in its own interpreter, which its installation names."""
    program = Path(need_program("cloud-init")).read_text().splitlines()[0]
    assert program.startswith("#!")
    code = (
        "import sys; from cloudinit.ssh_util import AuthKeyLineParser; "
        "key = AuthKeyLineParser().parse(sys.argv[1]); "
        "print(key.options, key.keytype, key.base64, key.valid(), sep='|')"
    )
    line = f"restrict,port-forwarding ssh-rsa {POOL_KEY}"
    command = program[2:].split() + ["-c", code, line]
    told = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=True).stdout.decode().strip()
    assert told.split("|")[:3] == ["restrict,port-forwarding", "ssh-rsa", POOL_KEY] and not told.endswith("|False")


@pytest.mark.parametrize("name", CLOUD_CONFIGS)
def test_the_host_key_is_complete_or_absent(name: str, host_key: HostKey) -> None:
    keys = filled(name, Case(False, True), host_key)["ssh_keys"]
    assert keys == {"ed25519_private": host_key.private, "ed25519_public": host_key.public}
    assert "ssh_keys" not in filled(name, BARE, host_key)


def test_sshd_starts_with_the_host_key_and_forwards_to_the_engine(host_key: HostKey, tmp_path: Path) -> None:
    """The configurations rely on the defaults of sshd, and set nothing of it."""
    path = tmp_path / "ssh_host_ed25519_key"
    path.write_text(filled("ubuntu.yaml", Case(False, True), host_key)["ssh_keys"]["ed25519_private"])
    path.chmod(0o600)
    command = [need_program("sshd", "openssh-server"), "-T", "-f", "/dev/null", "-h", str(path)]
    told = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30)
    assert told.returncode == 0, told.stderr.decode()
    lines = told.stdout.decode().splitlines()
    assert f"hostkey {path}" in lines
    assert "allowstreamlocalforwarding yes" in lines and "disableforwarding no" in lines


@pytest.mark.parametrize("name", CLOUD_CONFIGS)
def test_the_host_internal_network_never_takes_the_default_route(name: str, host_key: HostKey) -> None:
    with_it, without = (filled(name, Case(internal, False), host_key) for internal in (True, False))
    added = [file for file in with_it["write_files"] if file not in without["write_files"]]
    assert added
    for file in added:
        assert MAC in file["content"]
        if file["path"].endswith(".network"):
            assert "UseRoutes=no" in file["content"] and "UseGateway=no" in file["content"]
        else:
            assert file["path"].endswith(".nmconnection") and file["permissions"] == "0600"
            assert "never-default=true" in file["content"]
    assert len(with_it["runcmd"]) > len(without["runcmd"])


def shell_texts(config: Dict[str, Any]) -> "List[str]":
    """Return everything that a shell of the guest runs: scripts, and commands that are no list."""
    scripts = [file["content"] for file in config["write_files"] if file["content"].startswith("#!")]
    assert all(file["permissions"] == "0755" for file in config["write_files"] if file["content"] in scripts)
    return scripts + ["#!/bin/sh\n" + command + "\n" for command in config["runcmd"] if isinstance(command, str)]


@pytest.mark.parametrize("name", CLOUD_CONFIGS)
def test_shellcheck_accepts_the_scripts_of_the_guest(name: str, host_key: HostKey, tmp_path: Path) -> None:
    texts = shell_texts(filled(name, FULL, host_key))
    assert texts
    for text in texts:
        path = tmp_path / "script"
        path.write_text(text)
        told = subprocess.run([need_program("shellcheck"), "--shell=sh", "--exclude=SC1091", str(path)],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
        assert told.returncode == 0, told.stdout.decode()


@pytest.mark.parametrize("name", CLOUD_CONFIGS)
def test_every_script_that_is_run_is_written_first(name: str, host_key: HostKey) -> None:
    config = filled(name, FULL, host_key)
    written = {file["path"] for file in config["write_files"]}
    run = {command[0] for command in config["runcmd"] if isinstance(command, list) and command[0].startswith("/")}
    assert run and run <= written
