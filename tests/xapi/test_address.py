"""Addresses of servers as people write them."""

import pytest

from xscontainer.errors import ArgumentError
from xscontainer.xapi.address import Address, parse


@pytest.mark.parametrize("text, host, port, written", [
    ("host1", "host1", 443, "host1:443"),
    ("Host1.Example.COM:8443", "host1.example.com", 8443, "host1.example.com:8443"),
    ("host_1.", "host_1.", 443, "host_1.:443"),
    ("10.0.0.1", "10.0.0.1", 443, "10.0.0.1:443"),
    ("https://10.0.0.1:444/", "10.0.0.1", 444, "10.0.0.1:444"),
    (" 2001:db8::1 ", "2001:db8::1", 443, "[2001:db8::1]:443"),
    ("[2001:DB8::1]", "2001:db8::1", 443, "[2001:db8::1]:443"),
    ("[fe80::1%eth0]:8443", "fe80::1%eth0", 8443, "[fe80::1%eth0]:8443"),
])
def test_an_address_is_read(text: str, host: str, port: int, written: str) -> None:
    assert parse(text) == Address(host, port)
    assert str(parse(text)) == written
    assert parse(written) == parse(text)


@pytest.mark.parametrize("text", [
    "", " ", ":443", "host:", "host:0", "host:65536", "host:port", "host:999999", "-host", "host-", "a..b",
    "http://host", "root@host", "host/path", "host name", "host\r\nX: y", "10.0.0", "256.1.1.1", "[10.0.0.1]", "[host]",
    "[::1", "::1]", "[::1]x", "[::1]:", "1::2::3", "[fe80::1%]", "[fe80::1%a b]", "\u0438\u043c\u044f", "x" * 64,
    "x." * 127 + "xx"])
def test_another_text_is_no_address(text: str) -> None:
    with pytest.raises(ArgumentError, match="is not the address of a server"):
        parse(text)
