"""The product fills a configuration in as guest-config/README.md says."""

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
from xscontainer import cloudconfig

TEXTS = [f"cloud-config/{name}" for name in CLOUD_CONFIGS] + [f"ignition/{name}" for name in IGNITIONS]
OLD = ("VMNAMETOHOSTNAME", "CONTAINERRSAPUB", "HINEXISTS", "HIN")


def values(case: Case, host_key: HostKey) -> cloudconfig.Values:
    mac = MAC if case.internal_network else ""
    key = cloudconfig.HostKey(host_key.public, host_key.private) if case.host_key else None
    return cloudconfig.Values(HOSTNAME, POOL_KEY, mac, key)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", TEXTS)
def test_every_default_comes_out_as_documented(name: str, case: Case, host_key: HostKey) -> None:
    text = read(name)
    assert cloudconfig.substitute(text, values(case, host_key)) == fill(text, case, host_key)
    assert cloudconfig.wants_host_key(text) and cloudconfig.wants_internal_network(text)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", TEXTS)
def test_the_older_spellings_come_out_alike(name: str, case: Case, host_key: HostKey) -> None:
    old = read(name).replace("%XSENDHINEXISTS%", "%ENDHINEXISTS%")
    for word in OLD:
        old = old.replace(f"%XS{word}%", f"%{word}%")
    assert old != read(name)
    assert cloudconfig.substitute(old, values(case, host_key)) == fill(read(name), case, host_key)
