"""The default configuration for each template."""

import json
import re
from typing import Dict, List

import pytest

from tests.guest_config.filling import CLOUD_CONFIGS, GUEST_CONFIG, IGNITIONS, placeholders, read

RULES: List[Dict[str, str]] = json.loads(read("defaults.json"))
TEXTS = [f"cloud-config/{name}" for name in CLOUD_CONFIGS] + [f"ignition/{name}" for name in IGNITIONS]
DOCUMENTED = set(re.findall(r"`%([A-Z][A-Z0-9]*)%`", read("README.md")))
HOST = re.compile(r"\b(?:[a-z0-9-]+\.)+(?:com|io|org|net|dev|cloud)\b(?=[/\s\"']|$)")
# Hosts of a distribution, of Docker, or of the Xen Project.
LIVING = {"download.docker.com", "docker.io", "gitlab.com"}


def default_of(name_label: str) -> str:
    """Return the file of the first rule that matches the name in lower case."""
    return next(rule["file"] for rule in RULES if re.search(rule["match"], name_label.lower()))


def test_the_last_rule_matches_all_and_every_file_has_a_rule() -> None:
    assert [set(rule) for rule in RULES] == [{"match", "file"}] * len(RULES)
    assert RULES[-1]["match"] == "" and all(rule["match"] for rule in RULES[:-1])
    assert sorted(rule["file"] for rule in RULES) == sorted(TEXTS)
    assert all((GUEST_CONFIG / rule["file"]).is_file() for rule in RULES)


@pytest.mark.parametrize(
    "name, file",
    [
        ("CoreOS", "ignition/flatcar.ign"),
        ("Flatcar Container Linux", "ignition/flatcar.ign"),
        ("Fedora CoreOS", "ignition/fedora-coreos.ign"),
        ("my FCOS 44", "ignition/fedora-coreos.ign"),
        ("Ubuntu Noble Numbat 24.04", "cloud-config/ubuntu.yaml"),
        ("Debian Bookworm 12", "cloud-config/debian.yaml"),
        ("AlmaLinux 9", "cloud-config/almalinux-rocky.yaml"),
        ("Alma Linux 10", "cloud-config/almalinux-rocky.yaml"),
        ("Rocky Linux 9", "cloud-config/almalinux-rocky.yaml"),
        ("CentOS Stream 9", "cloud-config/almalinux-rocky.yaml"),
        ("Red Hat Enterprise Linux 9", "cloud-config/almalinux-rocky.yaml"),
        ("RHEL 10", "cloud-config/almalinux-rocky.yaml"),
        ("Oracle Linux 8", "cloud-config/almalinux-rocky.yaml"),
        ("Other install media", "cloud-config/generic.yaml"),
        ("Fedora Server", "cloud-config/generic.yaml"),
        ("", "cloud-config/generic.yaml"),
    ],
)
def test_a_template_gets_the_configuration_of_its_guest_system(name: str, file: str) -> None:
    assert default_of(name) == file


@pytest.mark.parametrize("name", sorted(path.name for path in (GUEST_CONFIG / "templates").glob("*.json")))
def test_every_template_of_the_pack_has_its_own_default(name: str) -> None:
    template = json.loads(read(f"templates/{name}"))
    assert default_of(template["name_label"]) != RULES[-1]["file"]


@pytest.mark.parametrize("name", TEXTS)
def test_every_placeholder_is_documented(name: str) -> None:
    used = {word for word, _ in placeholders(read(name)) if not re.match(r"[0-9A-F]{2}\Z", word)}
    assert used and used <= DOCUMENTED, used - DOCUMENTED
    for part in ("HIN", "HOSTKEY"):
        markers = re.findall("%XS(END)?{}EXISTS%".format(part), read(name))
        assert markers and markers == ["", "END"] * (len(markers) // 2)


@pytest.mark.parametrize("name", TEXTS)
def test_downloads_come_only_from_maintained_hosts(name: str) -> None:
    text = read(name)
    assert set(HOST.findall(text)) <= LIVING
    assert not re.search(r"etcd|fleet|quay\.io|rancher|coreos\.com|core-os", text)
    assert "http://" not in text


def test_an_abandoned_host_is_found() -> None:
    for line in ("image: quay.io/coreos/etcd", "discovery: https://discovery.etcd.io/x", 'curl "get.docker.com"'):
        assert not set(HOST.findall(line)) <= LIVING


def test_the_readme_names_every_file() -> None:
    assert set(re.findall(r"^\| `([a-z-]+/\S+)` \|", read("README.md"), re.MULTILINE)) == set(TEXTS)
