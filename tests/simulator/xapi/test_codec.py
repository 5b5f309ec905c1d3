"""The simulator's own XML and JSON against the standard library's."""

import json
import xmlrpc.client
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xscontainer.simulator.xapi.database.query import compile_query
from xscontainer.simulator.xapi.wire import decode, encode
from xscontainer.simulator.xapi.wire.failures import HttpError
from xscontainer.simulator.xapi.wire.values import ILLEGAL

# Texts that XML carries unchanged: no control characters, and no CR, which a parser turns into LF.
_text = st.text().map(lambda text: ILLEGAL.sub("", text).replace("\r", ""))
_scalars = st.one_of(_text, st.booleans(), st.integers(-(2**31), 2**31 - 1), st.floats(-1e6, 1e6).map(round))
_values = st.recursive(
    _scalars, lambda inner: st.one_of(st.lists(inner), st.dictionaries(_text.filter(bool), inner)), max_leaves=20
)


def _as_strings(value: Any) -> Any:
    """Return a value with integers as strings, as XAPI sends them."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return [_as_strings(v) for v in value]
    if isinstance(value, dict):
        return {k: _as_strings(v) for k, v in value.items()}
    return value


@given(_values)
def test_the_standard_library_reads_xml_answers(value: Any) -> None:
    """Integers are sent as strings."""
    (answer,), _method = xmlrpc.client.loads(encode.xml_success(value).decode())
    assert answer == {"Status": "Success", "Value": _as_strings(value)}


@given(_values)
def test_the_standard_library_reads_json_answers(value: Any) -> None:
    """Integers are sent as numbers."""
    assert json.loads(encode.json_success("2.0", 1, value).decode()) == {"jsonrpc": "2.0", "result": value, "id": 1}


@given(st.text("aZ09._-\u00e9", min_size=1), st.lists(_values))
def test_requests_of_the_standard_library_s_xml_client_are_decoded(method: str, params: Any) -> None:
    body = xmlrpc.client.dumps(tuple(params), method).encode()
    request = decode.xml_call(body)
    assert (request.method, request.params) == (method, params)


@given(st.text(min_size=1).filter(lambda t: t.isprintable()), st.lists(_values))
def test_json_requests_of_both_versions_are_decoded(method: str, params: Any) -> None:
    for version in ({"jsonrpc": "2.0"}, {}):
        body = json.dumps(dict(version, method=method, params=params, id=3)).encode()
        request = decode.json_call(body)
        assert (request.method, request.params, request.identity) == (method, params, 3)


@given(st.binary())
def test_malformed_bodies_are_http_errors(body: bytes) -> None:
    for parse in (decode.xml_call, decode.json_call):
        with pytest.raises(HttpError):
            parse(body)


@pytest.mark.parametrize(
    "text, expected",
    [
        ('field "name__label" = "a"', True),
        ("field 'name__label' = 'b'", False),
        ('not field "name__label" = "b" and field "is_a_template" = "false"', True),
        ('(field "name__label" = "b" or true) and not false', True),
        ('field "tags" = "(\'x\')"', True),
        ('"a" = "a"', True),
    ],
)
def test_query_expressions_select_records(text: str, expected: bool) -> None:
    """The expressions are those of get_all_records_where."""
    values = {"name_label": "a", "is_a_template": False, "tags": ["x"]}
    assert compile_query(text, list(values))(values) is expected
