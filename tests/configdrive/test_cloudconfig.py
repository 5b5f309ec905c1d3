"""Placeholders are replaced as guest-config/README.md says."""

import base64
import json
import re
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from xscontainer.core import cloud_config
from xscontainer.core.cloud_config import HostKey, Values, substitute
from xscontainer.errors import ArgumentError

KEY = HostKey("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFake",
              "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1r+/=\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
VALUES = Values("web-1", "AAAAB3Nza+/C1yc2E=", "00:16:3e:01:02:03", KEY)
BARE = Values("web-1", "AAAA")


@pytest.mark.parametrize("old, new, value", [
    ("%VMNAMETOHOSTNAME%", "%XSVMNAMETOHOSTNAME%", "web-1"),
    ("%CONTAINERRSAPUB%", "%XSCONTAINERRSAPUB%", "AAAAB3Nza+/C1yc2E="),
    ("%HIN%", "%XSHIN%", "00:16:3e:01:02:03"),
    ("%XSHOSTKEYPUBLIC%", "%XSHOSTKEYPUBLIC%", KEY.public),
    ("%XSHOSTKEYPRIVATEBASE64%", "%XSHOSTKEYPRIVATEBASE64%", base64.b64encode(KEY.private.encode()).decode()),
    ("%XSHOSTKEYPRIVATEJSON%", "%XSHOSTKEYPRIVATEJSON%", KEY.private.replace("\n", "\\n")),
])
def test_both_spellings_of_a_placeholder_are_replaced(old: str, new: str, value: str) -> None:
    assert substitute(f"a {old}{new} z {old}", VALUES) == f"a {value}{value} z {value}"


@pytest.mark.parametrize("begin, end", [
    ("%XSHINEXISTS%", "%XSENDHINEXISTS%"), ("%HINEXISTS%", "%ENDHINEXISTS%"),
    ("%XSHOSTKEYEXISTS%", "%XSENDHOSTKEYEXISTS%"),
])
def test_parts_are_kept_or_removed_as_a_whole(begin: str, end: str) -> None:
    template = f"1\n{begin}\n2\n{end}\n3{begin}4{end}5"
    assert substitute(template, VALUES) == "1\n\n2\n\n345"
    assert substitute(template, BARE) == "1\n\n35"


@pytest.mark.parametrize("text", [
    "%h %20 50% 100%% %% %XSVMNAMETOHOSTNAME", "XSVMNAMETOHOSTNAME%", "%xsvmnametohostname%", "%XSHINEXISTS% alone",
    "%XSENDHINEXISTS%%XSHINEXISTS%", "%BR%", "%XSUNKNOWN%", "",
])
def test_other_percent_signs_are_not_changed(text: str) -> None:
    assert substitute(text, VALUES) == text


def test_values_are_not_searched_for_placeholders() -> None:
    assert substitute("%XSHIN%XSHIN%", VALUES) == "00:16:3e:01:02:03XSHIN%"
    # Text between markers is searched for placeholders like the rest of the configuration.
    assert substitute("%%XSHINEXISTS%XSHIN%XSENDHINEXISTS%%", VALUES) == "00:16:3e:01:02:03"


def test_without_a_network_or_key_their_values_are_empty() -> None:
    assert substitute("[%XSHIN%%XSHOSTKEYPUBLIC%%XSHOSTKEYPRIVATEJSON%%XSHOSTKEYPRIVATEBASE64%]", BARE) == "[]"


@given(st.text())
def test_every_vm_name_gives_a_valid_host_name(name: str) -> None:
    assert re.match(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z", cloud_config.hostname(name, "vm"))


@pytest.mark.parametrize("name, expected", [
    ("Web Server #1", "web-server-1"), ("Café", "cafe"), ("日本", "vm"), ("", "vm"), ("-a-", "a"), ("a" * 70, "a" * 63),
    ("a" * 62 + "-b", "a" * 62), ("x\"\n: y", "x-y"), ("10.0.0.1", "10-0-0-1"),
])
def test_a_host_name_is_made_of_the_vm_name(name: str, expected: str) -> None:
    assert cloud_config.hostname(name, "vm") == expected


@given(st.text(), st.booleans(), st.booleans())
def test_no_value_changes_the_structure_of_a_document(name: str, network: bool, key: bool) -> None:
    words = ("%XSVMNAMETOHOSTNAME%", "%XSCONTAINERRSAPUB%", "%XSHIN%", "%XSHOSTKEYPUBLIC%", "%XSHOSTKEYPRIVATEBASE64%",
             "%XSHOSTKEYPRIVATEJSON%")
    values = Values(cloud_config.hostname(name, "vm"), VALUES.public_key, VALUES.internal_mac if network else "",
                    KEY if key else None)
    document = substitute("{" + ",".join(f'"k{n}":"{word}"' for n, word in enumerate(words)) + "}", values)
    read = json.loads(document)
    assert list(read) == [f"k{n}" for n in range(len(words))]
    assert read["k5"] == (KEY.private if key else "")
    assert yaml.safe_load(document) == read


@pytest.mark.parametrize("values", [
    BARE._replace(hostname="a\nb"), BARE._replace(hostname=""), BARE._replace(public_key='A"'),
    BARE._replace(public_key=""), BARE._replace(internal_mac="zz"),
    BARE._replace(host_key=KEY._replace(public="a b\nc")), BARE._replace(host_key=KEY._replace(private="x")),
])
def test_values_with_quotes_or_newlines_are_refused(values: Values) -> None:
    with pytest.raises(ValueError):
        substitute("", values)


def test_the_size_of_the_result_is_bounded() -> None:
    big = VALUES._replace(public_key="A" * 4000)
    with pytest.raises(ArgumentError):
        substitute("%HIN%%CONTAINERRSAPUB%" * 6000, big)
    assert len(substitute("%CONTAINERRSAPUB%" * 100, big)) == 400000


def test_hostile_configurations_take_no_longer_than_long_ones() -> None:
    started = time.monotonic()
    for text in ("%XSHINEXISTS%" * 10000, "%XSHINEXISTS%" * 10000 + "%XSENDHINEXISTS%", "%XSENDHINEXISTS%" * 8000,
                 "%" * 130000):
        substitute(text, BARE)
    assert time.monotonic() - started < 5


def test_the_repr_of_a_host_key_hides_the_private_half() -> None:
    assert "OPENSSH" not in repr(KEY) + repr(VALUES)


def test_the_placeholders_that_a_configuration_uses_are_found() -> None:
    assert cloud_config.wants_host_key("x %XSHOSTKEYPRIVATEJSON%")
    assert cloud_config.wants_host_key("%XSHOSTKEYPRIVATEBASE64%")
    assert not cloud_config.wants_host_key("%XSHOSTKEYPUBLIC% %XSHOSTKEYEXISTS%")
    for word in ("%HIN%", "%XSHIN%", "%HINEXISTS%", "%XSHINEXISTS%"):
        assert cloud_config.wants_internal_network(word)
    assert not cloud_config.wants_internal_network("%XSENDHINEXISTS%")
