"""Parsing the output of a plugin as XAPI does it."""

from typing import Dict

from xscontainer.simulator.xapi.wire.decode import Node, XmlError, parse_xml
from xscontainer.simulator.xapi.wire.failures import XapiError, internal, ocaml_string

_TYPES = {
    "int": "int",
    "i4": "int",
    "boolean": "boolean",
    "array": "array",
    "struct": "struct",
    "nil": "nil",
    "double": "double",
    "string": "string",
}


def plugin_failure(*parts: str) -> XapiError:
    return XapiError("XENAPI_PLUGIN_FAILURE", *parts)


def _type_error(text: str) -> XapiError:
    return internal("XMLRPC.RunTimeTypeError({}, _)".format(ocaml_string(text)))


def _kind(value: Node) -> str:
    return _TYPES.get(value.children[0].name, value.children[0].name) if value.children else "string"


def _unbox(value: Node, kind: str) -> Node:
    if _kind(value) != kind:
        raise _type_error("unbox: Element={} should contain '{}'".format(_kind(value), kind))
    return value.children[0] if value.children else value


def _text(value: Node) -> str:
    """Return a string; XAPI's parser drops one of white space only."""
    text = "".join(_unbox(value, "string").text)
    return text if text.strip() else ""


def _members(value: Node) -> Dict[str, Node]:
    struct = _unbox(value, "struct")
    return {"".join(m.children[0].text): m.children[1] for m in struct.children}


def parse_reply(output: str) -> str:
    """Return the value in a plugin's output; raise XAPI's error for any other output."""
    try:
        root = parse_xml(output.encode("utf-8", "surrogateescape"), trailing_ok=True)
    except XmlError as error:
        where = "{} line {}".format(error.text, error.line)
        raise plugin_failure("failed to parse plugin output", output, where) from None
    try:
        if root.children[0].name == "fault":
            fault = _members(root.children[0].children[0])
            raise plugin_failure("fault", "".join(fault["faultCode"].children[0].text), _text(fault["faultString"]))
        members = _members(root.children[0].children[0].children[0])
        status = _text(members["Status"]) if "Status" in members else ""
        if status == "Success":
            return _text(members["Value"])
        if status == "Failure":
            description = [_text(v) for v in _unbox(members["ErrorDescription"], "array").children[0].children]
            if not description:
                raise _type_error("Empty array of error strings")
            raise XapiError(*description)
    except (IndexError, KeyError):
        pass
    raise _type_error("Status")
