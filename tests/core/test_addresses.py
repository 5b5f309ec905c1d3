"""Tests of which addresses of a guest are used, and in which order."""

import ipaddress
import re
from typing import Dict, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xscontainer.core import addresses
from xscontainer.core.addresses import MOST_CANDIDATES, MOST_FIELD, candidates, judge, left

NETWORKS = {"0/ip": "10.0.0.5", "0/ipv4/0": "10.0.0.5", "0/ipv6/0": "2001:db8::5", "1/ip": "169.254.0.7",
            "2/ip": "192.168.1.5", "0/ipv4/1": "10.0.0.6"}


def test_addresses_are_ordered_by_preference() -> None:
    assert candidates(NETWORKS).usable == ("10.0.0.5", "10.0.0.6", "192.168.1.5", "2001:db8::5", "169.254.0.7")
    assert candidates(NETWORKS, prefer_internal=True).usable[0] == "169.254.0.7"
    assert candidates(NETWORKS, last_good="2001:db8::5").usable[:2] == ("2001:db8::5", "10.0.0.5")
    assert candidates(NETWORKS, last_good="2001:db8::5", prefer_internal=True).usable[:2] == (
        "2001:db8::5", "169.254.0.7")


def test_a_last_good_address_that_is_not_reported_is_not_used() -> None:
    assert candidates({"0/ip": "10.0.0.5"}, last_good="10.9.9.9").usable == ("10.0.0.5",)


@pytest.mark.parametrize("address", [
    "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "224.0.0.1", "239.1.2.3", "ff02::1",
    "::ffff:224.0.0.1", "64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "2002:7f00:1::", "2002:a00:1:5::9", "::7f00:1",
    "::10.0.0.1", "64:ff9b::224.0.0.1", "64:ff9b::169.254.0.1", "255.255.255.255", "fe80::1", "fe80::1%eth0",
    "::1%lo", "2001:db8::1%eth0",
    "169.254.0.1", "::ffff:169.254.0.1", "10.0.0.1", "::ffff:10.0.0.1", "2001:DB8:0:0::99",
    "2001:db8::99%1", "::ffff:10.0.0.1%2",
    "nonsense", "10.0.0.5;rm", "10.0.0.5/", "10.0.0.5/24/8", "10.0.0.1/24", "10.0.0", "1" * 5000, "-oProxyCommand=x"])
def test_addresses_that_may_not_be_used_are_refused(address: str) -> None:
    found = candidates({"0/ip": address}, forbidden=frozenset(["10.0.0.1", "2001:db8::99"]))
    assert found.usable == ()
    assert len(found.refused) == 1 and len(found.refused[0][0]) <= 64 and found.refused[0][1]


@pytest.mark.parametrize("field, usable", [
    ("10.0.0.5 10.0.0.6", ("10.0.0.5", "10.0.0.6")), ("10.0.0.5,10.0.0.6", ("10.0.0.5", "10.0.0.6")),
    (" 10.0.0.5,\r\n 10.0.0.6\n", ("10.0.0.5", "10.0.0.6")), ("10.0.0.5/24", ("10.0.0.5",)),
    ("2001:db8::5/64\t10.0.0.5/8", ("10.0.0.5", "2001:db8::5")),
    ("10.0.0.6 10.0.0.5 10.0.0.6", ("10.0.0.6", "10.0.0.5")),
    ("10.0.0.5 nonsense", ("10.0.0.5",)), (",", ()), ("", ()), ("  ", ())])
def test_several_addresses_in_one_field_are_split(field: str, usable: Tuple[str, ...]) -> None:
    assert candidates({"0/ip": field}).usable == usable
    assert not left({"0/ip": field, "1/ip": "192.168.1.1"}, usable[-1] if usable else "192.168.1.1")


def test_each_address_in_a_field_is_checked_by_itself() -> None:
    found = candidates({"0/ip": "10.0.0.1/24 127.0.0.1,10.0.0.5 224.0.0.1"}, forbidden=["10.0.0.1"])
    assert found.usable == ("10.0.0.5",)
    assert [text for text, _ in found.refused] == ["10.0.0.1", "127.0.0.1", "224.0.0.1"]


def test_a_field_is_read_up_to_a_limit() -> None:
    many = " ".join(f"10.0.{number // 250}.{number % 250 + 1}" for number in range(5000))
    assert len(candidates({"0/ip": many}).usable) <= MOST_CANDIDATES
    assert candidates({"0/ip": " " * 10 ** 6 + "10.0.0.5"}).usable == ()
    assert candidates({"0/ip": " " * (MOST_FIELD - 8) + "10.0.0.55"}).usable == (), "half an address"


@pytest.mark.parametrize("value", ["<b>x</b>", "\x1b[31mred", "a\u202eb", "\x00", "é", "10.0.0.5\u2028x",
                                   "`id`", "$(id)"])
def test_an_invalid_address_is_quoted_with_safe_characters_only(value: str) -> None:
    for text, _ in candidates({"0/ip": value}).refused + judge([value]).refused:
        assert re.match(r"[0-9A-Za-z.:%/_?-]{1,45}\Z", text)


@pytest.mark.parametrize("address", ["64:ff9b::10.0.0.2", "2002:a00:2::1", "::10.0.0.2", "2001:db8::7f00:1"])
def test_an_embedded_ipv4_address_is_checked(address: str) -> None:
    assert judge([address], forbidden=["10.0.0.1"]).usable == (str(ipaddress.ip_address(address)),)


def test_loopback_is_accepted_where_it_is_allowed() -> None:
    networks = {"0/ip": "127.7.0.2", "0/ipv6/0": "::1"}
    assert candidates(networks, allow_loopback=True).usable == ("127.7.0.2", "::1")
    assert candidates({"0/ip": "224.0.0.1"}, allow_loopback=True).usable == ()


@pytest.mark.parametrize("key", ["0/mac", "ip", "x/ip", "0/ip/1", "0/ipv4/", "0/ipv5/0", "٣/ip", "0/ip\n", "99999/ip"])
def test_other_keys_of_the_map_are_ignored(key: str) -> None:
    assert candidates({key: "10.0.0.5"}) == ((), ())


def test_the_number_of_candidates_is_bounded() -> None:
    many = {f"{number}/ip": f"10.{number // 250}.0.{number % 250 + 1}" for number in range(5000)}
    bad = {f"{number}/ipv4/0": "127.0.0.1" + "0" * number for number in range(5000)}
    found = candidates({**many, **bad})
    assert len(found.usable) == MOST_CANDIDATES and len(found.refused) == MOST_CANDIDATES
    assert found.usable[0] == "10.0.0.1"


@pytest.mark.parametrize("address", [
    "127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "fe80::1",
    "fe80::1%eth0", "169.254.0.1", "10.0.0.1", "::ffff:10.0.0.1", "2001:DB8:0:0::99", "2001:db8::1%eth0", "web", ""])
def test_a_chosen_address_is_checked_like_a_reported_one(address: str) -> None:
    forbidden = frozenset(["10.0.0.1", "2001:db8::99"])
    found = judge([address, "10.0.0.5"], forbidden)
    assert found.usable == ("10.0.0.5",)
    assert len(found.refused) == 1 and found.refused[0][1]
    assert bool(judge([address], forbidden, allow_loopback=True).usable) is (address in (
        "127.0.0.1", "::1", "::ffff:127.0.0.1"))


def test_chosen_addresses_keep_their_order() -> None:
    given = ["2001:db8::5", "10.0.0.6", "10.0.0.5", "2001:DB8::5"]
    assert judge(given).usable == ("2001:db8::5", "10.0.0.6", "10.0.0.5")
    assert judge(given, last_good="10.0.0.5").usable == ("10.0.0.5", "2001:db8::5", "10.0.0.6")
    assert len(judge([f"10.0.{number // 250}.{number % 250 + 1}" for number in range(500)]).usable) == MOST_CANDIDATES


ADDRESS = st.one_of(
    st.ip_addresses().map(str), st.text(max_size=20),
    st.sampled_from(["127.0.0.1", "::1", "10.0.0.1", "::ffff:10.0.0.1", "169.254.0.9", " 10.0.0.7 "]))
KEY = st.one_of(
    st.tuples(st.integers(0, 9), st.sampled_from(["ip", "ipv4/0", "ipv4/1", "ipv6/0"])).map("{0[0]}/{0[1]}".format),
    st.text(max_size=8))


@given(st.dictionaries(KEY, ADDRESS), ADDRESS, st.booleans(), st.booleans())
def test_any_map_gives_only_allowed_addresses(networks: Dict[str, str], last_good: str, prefer: bool,
                                              loopback: bool) -> None:
    """Any input of a guest results in valid, allowed addresses only, each of them once."""
    forbidden = frozenset(["10.0.0.1"])
    found = candidates(networks, forbidden, last_good, prefer, loopback)
    assert len(set(found.usable)) == len(found.usable)
    for text in found.usable:
        address = ipaddress.ip_address(text)
        plain = getattr(address, "ipv4_mapped", None) or address
        assert str(address) == text and "%" not in text
        assert str(plain) not in forbidden
        assert not plain.is_multicast and not plain.is_unspecified
        assert loopback or not plain.is_loopback
    if last_good in found.usable:
        assert found.usable[0] == last_good
    v4 = [text for text in found.usable if ":" not in text and not text.startswith("169.254.") and text != last_good]
    v6 = [text for text in found.usable if ":" in text and text != last_good]
    if v4 and v6:
        assert found.usable.index(v4[-1]) < found.usable.index(v6[0])


def test_the_first_interfaces_of_thousands_are_kept() -> None:
    many: "Dict[str, object]" = {f"{vif}/ipv4/{index}": "10.0.0.1" for vif in range(100) for index in range(100)}
    many.update({"0/ip": "192.0.2.1", "7/ip": "x" * 100000, "0/ipv6/0": "2001:db8::1", "secret": "no", "1/ip": 5})
    kept = addresses.bounded(many)
    assert len(kept) == addresses.MOST_FIELDS and max(map(len, kept.values())) == addresses.MOST_FIELD
    assert kept["0/ip"] == "192.0.2.1" and kept["0/ipv6/0"] == "2001:db8::1"
    assert addresses.bounded({"0/ip": "192.0.2.1", "1/ipv4/0": "a b"}) == {"0/ip": "192.0.2.1", "1/ipv4/0": "a b"}
