"""The Ignition configurations are valid, also by the published schema, and set up a guest correctly."""

import base64
import configparser
import json
import re
import subprocess
from pathlib import Path
from typing import Any, Dict, List
from urllib.parse import unquote

import jsonschema
import pytest

from tests.guest_config.filling import CASES, HOSTNAME, IGNITIONS, MAC, POOL_KEY, ROOT, Case, HostKey, fill, read
from tests.need import need_program
from xscontainer.settings import SSHSettings

SCHEMA = json.loads((ROOT / "tests" / "data" / "ignition" / "v3_3.json").read_text())
FULL, BARE = Case(True, True), Case(False, False)


def filled(name: str, case: Case, host_key: HostKey) -> Dict[str, Any]:
    return json.loads(fill(read(f"ignition/{name}"), case, host_key))


def files(config: Dict[str, Any]) -> "Dict[str, Dict[str, Any]]":
    return {file["path"]: file for file in config["storage"]["files"]}


def content(file: Dict[str, Any]) -> str:
    """Return the content of a data: URL."""
    found = re.match(r"data:(;base64)?,(.*)\Z", file["contents"]["source"], re.DOTALL)
    assert found is not None
    return base64.b64decode(found.group(2), validate=True).decode() if found.group(1) else unquote(found.group(2))


def ask_ignition(text: str, directory: Path) -> "subprocess.CompletedProcess[bytes]":
    path = directory / "config.ign"
    path.write_text(text)
    command = [need_program("ignition-validate", "ignition"), str(path)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", IGNITIONS)
def test_ignition_and_its_schema_accept_the_file(name: str, case: Case, host_key: HostKey, tmp_path: Path) -> None:
    text = fill(read(f"ignition/{name}"), case, host_key)
    assert "%XS" not in text
    jsonschema.Draft4Validator(SCHEMA).validate(json.loads(text))
    told = ask_ignition(text, tmp_path)
    # ignition-validate only warns about unknown keys, and the schema allows them.
    assert told.returncode == 0 and told.stdout == b"", told.stdout.decode()


def test_ignition_and_its_schema_find_an_error(host_key: HostKey, tmp_path: Path) -> None:
    config = filled("flatcar.ign", FULL, host_key)
    config["storage"]["files"][0]["mode"] = "0600"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft4Validator(SCHEMA).validate(config)
    assert ask_ignition(json.dumps(config), tmp_path).returncode != 0
    config = filled("flatcar.ign", FULL, host_key)
    config["systemd"]["units"][0]["enable"] = True
    assert b"enable" in ask_ignition(json.dumps(config), tmp_path).stdout


@pytest.mark.parametrize("name", IGNITIONS)
def test_the_version_is_one_that_both_systems_read(name: str, host_key: HostKey) -> None:
    assert filled(name, BARE, host_key)["ignition"] == {"version": "3.3.0"}
    jsonschema.Draft4Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", IGNITIONS)
def test_the_pools_key_opens_only_the_account_that_may_use_the_engine(name: str, host_key: HostKey) -> None:
    config = filled(name, FULL, host_key)
    (account,) = config["passwd"]["users"]
    assert account["name"] == SSHSettings().user and account["groups"] == ["docker"]
    assert account["sshAuthorizedKeys"] == [f"restrict,port-forwarding ssh-rsa {POOL_KEY}"]
    assert json.dumps(config).count(POOL_KEY) == 1


@pytest.mark.parametrize("name", IGNITIONS)
def test_the_host_key_is_complete_or_absent(name: str, host_key: HostKey) -> None:
    place = "/etc/ssh/ssh_host_ed25519_key"
    file = files(filled(name, Case(False, True), host_key))[place]
    assert content(file) == host_key.private and file["mode"] == 0o600 and file["overwrite"] is True
    assert place not in files(filled(name, BARE, host_key))


@pytest.mark.parametrize("name", IGNITIONS)
def test_the_host_name_is_set_and_the_engine_is_enabled(name: str, host_key: HostKey) -> None:
    config = filled(name, BARE, host_key)
    assert content(files(config)["/etc/hostname"]) == HOSTNAME
    enabled = [unit["name"] for unit in config["systemd"]["units"] if unit.get("enabled")]
    assert {"docker.service", "xen-guest-agent.service"} <= set(enabled)


@pytest.mark.parametrize("name", IGNITIONS)
def test_the_host_internal_network_never_takes_the_default_route(name: str, host_key: HostKey) -> None:
    with_it, without = (files(filled(name, Case(internal, False), host_key)) for internal in (True, False))
    (path,) = set(with_it) - set(without)
    text = content(with_it[path])
    ini = configparser.ConfigParser(strict=True)
    ini.optionxform = str  # type: ignore[assignment,method-assign]
    ini.read_string(text)
    if path.endswith(".network"):
        assert ini["Match"]["MACAddress"] == MAC and ini["DHCPv4"]["UseRoutes"] == "no"
    else:
        assert ini["ethernet"]["mac-address"] == MAC and ini["ipv4"]["never-default"] == "true"
        assert with_it[path]["mode"] == 0o600


def own_units(config: Dict[str, Any]) -> "List[Dict[str, Any]]":
    return [unit for unit in config["systemd"]["units"] if "contents" in unit]


@pytest.mark.parametrize("name", IGNITIONS)
def test_systemd_accepts_the_units(name: str, host_key: HostKey, tmp_path: Path) -> None:
    units = own_units(filled(name, BARE, host_key))
    assert units
    for unit in units:
        # The guest's programs are missing here; all other messages of systemd count.
        text = re.sub(r"(?m)^(Exec\w+=-?)/\S+", r"\1/bin/true", unit["contents"])
        text = text.replace("docker.service", "basic.target")
        path = tmp_path / unit["name"]
        path.write_text(text)
        told = subprocess.run([need_program("systemd-analyze", "systemd"), "verify", "--man=no", str(path)],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
        lines = [line for line in told.stdout.decode().splitlines() if unit["name"] in line]
        assert told.returncode == 0 and lines == [], told.stdout.decode()
