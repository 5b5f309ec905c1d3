"""A list read member by member equals the list of json.loads, for any split of its bytes."""

import json
from typing import Any, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.test_bounded import values
from xscontainer.core import bounded, json_list


def read(body: bytes, pieces: "List[int]" = ()) -> "List[Any]":  # type: ignore[assignment]
    found: List[Any] = []
    reader = json_list.ListReader(found.append)
    start = 0
    for size in pieces:
        reader.feed(body[start:start + size])
        start += size
    reader.feed(body[start:])
    reader.end()
    assert reader.held == 0
    return found


SPACES = st.text(st.sampled_from(" \t\r\n"), max_size=3)


@given(st.lists(values(15), max_size=8), st.booleans(), st.lists(st.integers(0, 40), max_size=30), SPACES,
       st.sampled_from([None, 1]))
def test_every_valid_list_is_read_as_json_loads_does(members: "List[Any]", escaped: bool, pieces: "List[int]",
                                                     space: str, indent: Any) -> None:
    text = json.dumps(members, ensure_ascii=escaped, indent=indent, separators=("," + space, space + ":"))
    body = (space + text + space).encode("utf-8", "replace")
    assert read(body, pieces) == json.loads(body.decode("utf-8"))


@given(st.lists(values(5), max_size=4), st.binary(max_size=6), st.integers(0, 200),
       st.lists(st.integers(0, 20), max_size=10))
def test_input_that_json_loads_refuses_is_refused(members: "List[Any]", noise: bytes, at: int,
                                                  pieces: "List[int]") -> None:
    valid = json.dumps(members).encode()
    body = valid[:at] + noise + valid[at + 1:]
    try:
        expected = json.loads(body.decode("utf-8", "surrogateescape"))
    except ValueError:
        expected = None
    if isinstance(expected, list):
        assert read(body, pieces) == expected
    else:
        with pytest.raises(ValueError, match="."):
            read(body, pieces)


class Counting:
    def __init__(self) -> None:
        self.members = 0
        self.reader = json_list.ListReader(self._take)
        self.most = 0

    def _take(self, member: Any) -> None:
        self.members += 1

    def feed(self, piece: bytes, times: int) -> None:
        for _ in range(times):
            self.reader.feed(piece)
            self.most = max(self.most, self.reader.held)


@pytest.mark.parametrize("begin, piece", [
    (b"[", b" " * 65536), (b'["', b"x" * 65536), (b'["', b"\\n" * 32768), (b"[1", b"0" * 65536),
    (b"[{", b'"a":1,' * 9000), (b'[{"a":[', b"{}," * 20000), (b"[", b"[" * 65536), (b"", b"\n" * 65536),
    (b"[1]", b" " * 65536), (b"[", b'"a",' * 16384),
], ids=range(10))
def test_no_more_than_one_member_is_ever_kept(begin: bytes, piece: bytes) -> None:
    counting = Counting()
    try:
        counting.feed(begin, 1)
        counting.feed(piece, 300)
    except ValueError:
        pass
    assert counting.most <= json_list.MOST_MEMBER + 65536


def test_a_member_within_the_bounds_may_be_large() -> None:
    """Example: a media server that publishes ten thousand ports for IPv4 and IPv6."""
    port = {"IP": "0.0.0.0", "PrivatePort": 10000, "PublicPort": 10000, "Type": "udp"}
    members = [{"Id": "a", "Ports": [port] * 20000}, {"Id": "b"}]
    body = json.dumps(members).encode()
    assert 1 << 20 < len(body) < json_list.MOST_MEMBER and read(body, [1000] * 1500) == members


def test_a_number_split_between_two_pieces_is_one_number() -> None:
    for cut in range(1, 14):
        assert read(b"[123,45.5e+2]", [cut]) == [123, 4550.0]


def test_a_member_that_nests_too_deep_ends_the_list() -> None:
    with pytest.raises(bounded.TooDeep):
        read(b"[1," + b"[" * 5000 + b"]" * 5000 + b"]")
