"""The product replaces placeholders as guest-config/README.md says."""

import pytest

from tests.guest_config.filling import (
    CASES,
    CLOUD_CONFIGS,
    HOSTNAME,
    IGNITIONS,
    MAC,
    POOL_KEY,
    Case,
    HostKey,
    fill,
    read,
)
from xscontainer.core import cloud_config

TEXTS = [f"cloud-config/{name}" for name in CLOUD_CONFIGS] + [f"ignition/{name}" for name in IGNITIONS]
OLD = ("VMNAMETOHOSTNAME", "CONTAINERRSAPUB", "HINEXISTS", "HIN")


def values(case: Case, host_key: HostKey) -> cloud_config.Values:
    mac = MAC if case.internal_network else ""
    key = cloud_config.HostKey(host_key.public, host_key.private) if case.host_key else None
    return cloud_config.Values(HOSTNAME, POOL_KEY, mac, key)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", TEXTS)
def test_every_default_is_filled_in_as_documented(name: str, case: Case, host_key: HostKey) -> None:
    text = read(name)
    assert cloud_config.substitute(text, values(case, host_key)) == fill(text, case, host_key)
    assert cloud_config.wants_host_key(text) and cloud_config.wants_internal_network(text)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", TEXTS)
def test_the_older_spellings_give_the_same_result(name: str, case: Case, host_key: HostKey) -> None:
    old = read(name).replace("%XSENDHINEXISTS%", "%ENDHINEXISTS%")
    for word in OLD:
        old = old.replace(f"%XS{word}%", f"%{word}%")
    assert old != read(name)
    assert cloud_config.substitute(old, values(case, host_key)) == fill(read(name), case, host_key)
