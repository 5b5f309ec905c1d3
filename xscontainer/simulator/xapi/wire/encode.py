"""Answers as bytes: XML-RPC and JSON-RPC, written directly, since they are a part of latency measurements.

A database row caches its fields encoded, so that one changed field of a hundred costs one encoding and a join.
"""

import json
import re
from typing import Any, Callable, Dict, List

from xscontainer.simulator.xapi.wire.values import ILLEGAL, Time, WireInt, WireString

_json_string = json.encoder.encode_basestring
_NEEDS = re.compile('[&<>"\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]')


def xml_text(text: str) -> str:
    """Return `text` escaped as XAPI does: four characters (a CR is sent raw), without what XML forbids."""
    if _NEEDS.search(text):
        text = ILLEGAL.sub("", text).replace("&", "&amp;")
        return text.replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    return text


def _xml_list(value: List[Any]) -> str:
    return "<value><array><data>" + "".join([xml(v) for v in value]) + "</data></array></value>"


def _xml_dict(value: Dict[Any, Any]) -> str:
    return "<value><struct>" + "".join([xml_member(k, v) for k, v in value.items()]) + "</struct></value>"


def xml_member(name: Any, value: Any) -> str:
    """Return one <member> of a struct."""
    return "<member><name>" + xml_text(str(name)) + "</name>" + xml(value) + "</member>"


_XML: Dict[type, Callable[[Any], str]] = {
    str: lambda v: "<value>" + xml_text(v) + "</value>",
    WireString: lambda v: "<value>" + xml_text(v) + "</value>",
    int: lambda v: "<value>" + str(v) + "</value>",
    bool: lambda v: "<value><boolean>" + ("1" if v else "0") + "</boolean></value>",
    float: lambda v: "<value><double>" + format(v, "g") + "</double></value>",
    Time: lambda v: "<value><dateTime.iso8601>" + v + "</dateTime.iso8601></value>",
    WireInt: lambda v: "<value><i4>" + str(int(v)) + "</i4></value>",
    list: _xml_list,
    dict: _xml_dict,
}


def xml(value: Any) -> str:
    """Return `value` as an XML-RPC <value>."""
    encoder = _XML.get(type(value))
    return encoder(value) if encoder else value.xml()


def json_text(text: str) -> str:
    """Return `text` as a JSON string, in UTF-8 but for control characters."""
    quoted = _json_string(text)
    return quoted.replace("\x7f", "\\u007f") if "\x7f" in quoted else quoted


def _json_list(value: List[Any]) -> str:
    return "[" + ",".join([to_json(v) for v in value]) + "]"


def _json_dict(value: Dict[Any, Any]) -> str:
    return "{" + ",".join([json_member(k, v) for k, v in value.items()]) + "}"


def json_member(name: Any, value: Any) -> str:
    """Return one member of an object, without its comma."""
    return json_text(str(name)) + ":" + to_json(value)


_JSON: Dict[type, Callable[[Any], str]] = {
    str: json_text,
    WireString: json_text,
    Time: json_text,
    int: str,
    WireInt: lambda v: str(int(v)),
    bool: lambda v: "true" if v else "false",
    float: repr,
    list: _json_list,
    dict: _json_dict,
    type(None): lambda v: "null",
}


def to_json(value: Any) -> str:
    """Return `value` as JSON."""
    encoder = _JSON.get(type(value))
    return encoder(value) if encoder else value.json()


_XML_HEAD = '<?xml version="1.0"?><methodResponse><params><param>'
_XML_TAIL = "</param></params></methodResponse>"
_XML_OK = (
    _XML_HEAD + "<value><struct><member><name>Status</name><value>Success</value></member><member><name>Value</name>"
)
_XML_FAIL = (
    _XML_HEAD + "<value><struct><member><name>Status</name><value>Failure</value></member>"
    "<member><name>ErrorDescription</name>"
)


def xml_success(value: Any) -> bytes:
    """Return the body of an XML-RPC answer."""
    return (_XML_OK + xml(value) + "</member></struct></value>" + _XML_TAIL).encode("utf-8", "surrogateescape")


def xml_failure(description: List[str]) -> bytes:
    """Return the body of an XML-RPC answer that is an API failure."""
    text = _XML_FAIL + _xml_list(description) + "</member></struct></value>" + _XML_TAIL
    return text.encode("utf-8", "surrogateescape")


def xml_bare(value: Any) -> bytes:
    """Return the body of an XML-RPC answer without XAPI's envelope (system.listMethods)."""
    return (_XML_HEAD + xml(value) + _XML_TAIL).encode()


def json_success(version: str, identity: Any, value: Any) -> bytes:
    """Return the body of a JSON-RPC answer; `version` is "2.0", or "" for version 1."""
    end = ',"id":' + json.dumps(identity) + "}"
    if version:
        return ('{"jsonrpc":"2.0","result":' + to_json(value) + end).encode("utf-8", "surrogateescape")
    return ('{"result":' + to_json(value) + ',"error":null' + end).encode("utf-8", "surrogateescape")


def json_failure(version: str, identity: Any, description: List[str]) -> bytes:
    """Return the body of a JSON-RPC answer that is an API failure."""
    end = ',"id":' + json.dumps(identity) + "}"
    if version:
        text = '{"jsonrpc":"2.0","error":{"code":1,"message":' + json_text(description[0])
        text += ',"data":' + _json_list(description[1:]) + "}"
    else:
        text = '{"result":null,"error":' + _json_list(description)
    return (text + end).encode("utf-8", "surrogateescape")
