"""Which addresses of a guest are contacted, and in which order."""

import ipaddress
from typing import Dict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xscontainer.addresses import MOST_CANDIDATES, candidates, judge

NETWORKS = {"0/ip": "10.0.0.5", "0/ipv4/0": "10.0.0.5", "0/ipv6/0": "2001:db8::5", "1/ip": "169.254.0.7",
            "2/ip": "192.168.1.5", "0/ipv4/1": "10.0.0.6"}


def test_the_order() -> None:
    assert candidates(NETWORKS).usable == ("10.0.0.5", "10.0.0.6", "192.168.1.5", "2001:db8::5", "169.254.0.7")
    assert candidates(NETWORKS, prefer_internal=True).usable[0] == "169.254.0.7"
    assert candidates(NETWORKS, last_good="2001:db8::5").usable[:2] == ("2001:db8::5", "10.0.0.5")
    assert candidates(NETWORKS, last_good="2001:db8::5", prefer_internal=True).usable[:2] == (
        "2001:db8::5", "169.254.0.7")


def test_what_worked_but_is_reported_no_more_is_not_used() -> None:
    assert candidates({"0/ip": "10.0.0.5"}, last_good="10.9.9.9").usable == ("10.0.0.5",)


@pytest.mark.parametrize("address", [
    "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "224.0.0.1", "239.1.2.3", "ff02::1",
    "::ffff:224.0.0.1", "64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "2002:7f00:1::", "2002:a00:1:5::9", "::7f00:1",
    "::10.0.0.1", "64:ff9b::224.0.0.1", "64:ff9b::169.254.0.1", "255.255.255.255", "fe80::1", "fe80::1%eth0",
    "::1%lo", "2001:db8::1%eth0",
    "169.254.0.1", "::ffff:169.254.0.1", "10.0.0.1", "::ffff:10.0.0.1", "2001:DB8:0:0::99",
    "2001:db8::99%1", "::ffff:10.0.0.1%2",
    "nonsense", "10.0.0.5; rm -rf /", "10.0.0.5/24", "10.0.0", "1" * 5000, "10.0.0.5\n10.0.0.6", "-oProxyCommand=x"])
def test_what_is_never_contacted(address: str) -> None:
    found = candidates({"0/ip": address}, forbidden=frozenset(["10.0.0.1", "2001:db8::99"]))
    assert found.usable == ()
    assert len(found.refused) == 1 and len(found.refused[0][0]) <= 64 and found.refused[0][1]


@pytest.mark.parametrize("address", ["64:ff9b::10.0.0.2", "2002:a00:2::1", "::10.0.0.2", "2001:db8::7f00:1"])
def test_an_ipv4_address_inside_another_is_judged_as_such(address: str) -> None:
    assert judge([address], forbidden=["10.0.0.1"]).usable == (str(ipaddress.ip_address(address)),)


def test_loopback_where_it_is_allowed() -> None:
    networks = {"0/ip": "127.7.0.2", "0/ipv6/0": "::1"}
    assert candidates(networks, allow_loopback=True).usable == ("127.7.0.2", "::1")
    assert candidates({"0/ip": "224.0.0.1"}, allow_loopback=True).usable == ()


@pytest.mark.parametrize("key", ["0/mac", "ip", "x/ip", "0/ip/1", "0/ipv4/", "0/ipv5/0", "٣/ip", "0/ip\n", "99999/ip"])
def test_other_keys_of_the_map(key: str) -> None:
    assert candidates({key: "10.0.0.5"}) == ((), ())


def test_no_more_than_bounded() -> None:
    many = {f"{number}/ip": f"10.{number // 250}.0.{number % 250 + 1}" for number in range(5000)}
    bad = {f"{number}/ipv4/0": "127.0.0.1" + "0" * number for number in range(5000)}
    found = candidates({**many, **bad})
    assert len(found.usable) == MOST_CANDIDATES and len(found.refused) == MOST_CANDIDATES
    assert found.usable[0] == "10.0.0.1"


@pytest.mark.parametrize("address", [
    "127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "fe80::1",
    "fe80::1%eth0", "169.254.0.1", "10.0.0.1", "::ffff:10.0.0.1", "2001:DB8:0:0::99", "2001:db8::1%eth0", "web", ""])
def test_what_was_chosen_is_judged_as_what_was_reported(address: str) -> None:
    forbidden = frozenset(["10.0.0.1", "2001:db8::99"])
    found = judge([address, "10.0.0.5"], forbidden)
    assert found.usable == ("10.0.0.5",)
    assert len(found.refused) == 1 and found.refused[0][1]
    assert bool(judge([address], forbidden, allow_loopback=True).usable) is (address in (
        "127.0.0.1", "::1", "::ffff:127.0.0.1"))


def test_the_order_of_what_was_chosen_is_kept() -> None:
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
def test_any_map(networks: Dict[str, str], last_good: str, prefer: bool, loopback: bool) -> None:
    """Whatever a guest writes: what comes out are addresses, each once, and none that is forbidden."""
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
