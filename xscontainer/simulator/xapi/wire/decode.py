"""Requests from bytes: XML-RPC and JSON-RPC calls, refused as XAPI's own parsers refuse them."""

import json
import re
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple
from xml.parsers import expat

from xscontainer.simulator.xapi.wire.failures import HttpError, ocaml_string
from xscontainer.simulator.xapi.wire.values import Time

_SCALARS = "int/i8/i4/boolean/double/string/dateTime.iso8601/array/struct/nil"


class Request(NamedTuple):
    """One call; `version` and `identity` are those of JSON-RPC (version "" means 1)."""

    method: str
    params: List[Any]
    version: str = ""
    identity: Any = None


class Node:
    """An element: its name, its text (joined), its child elements."""

    __slots__ = ("name", "text", "children")

    def __init__(self, name: str) -> None:
        self.name = name
        self.text: List[str] = []
        self.children: List[Node] = []


class XmlError(Exception):
    """Text that is not XML: `text` in XAPI's words, `position` as line:column, `line` alone."""

    def __init__(self, text: str, line: int, column: int) -> None:
        super().__init__(text)
        self.text = text
        self.line = line
        self.position = "{}:{}".format(line, column)


def parse_xml(body: bytes, trailing_ok: bool = False) -> Node:
    """Return the root element of `body`; with `trailing_ok` text after it is ignored."""
    top = Node("")
    stack = [top]
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True

    def start(name: str, _attributes: Dict[str, str]) -> None:
        node = Node(name)
        stack[-1].children.append(node)
        stack.append(node)

    def end(_name: str) -> None:
        stack.pop()

    def text(data: str) -> None:
        stack[-1].text.append(data)

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        if not (trailing_ok and top.children and len(stack) == 1):
            raise _xml_error(body, error) from None
    return top.children[0]


def _xml_error(body: bytes, error: expat.ExpatError) -> XmlError:
    """Translate expat's error to XAPI's words."""
    line, column = error.lineno, error.offset + 1
    if not body.strip():
        return XmlError("unexpected end of input", 1, 1)
    if not body.lstrip().startswith(b"<"):
        return XmlError("expected root element", 1, 1)
    if error.code in (3, 5):  # no element found, unclosed token
        return XmlError("unexpected end of input", line, column)
    if error.code == 14:  # reference to an invalid character number
        rows = body.split(b"\n")
        match = re.match(rb"&(#\w+);", rows[line - 1][error.offset :])
        name = match.group(1).decode() if match else "#"
        return XmlError("illegal character reference ({})".format(name), line, column + len(name) + 2)
    return XmlError("malformed character stream", line, column)


def _refuse(*expected: str) -> HttpError:
    return HttpError(500, "Xmlrpc.Parse_error({}, _)".format(", ".join(ocaml_string(e) for e in expected)))


def value_of(node: Node) -> Any:
    """Return the content of a <value>."""
    if not node.children:
        return "".join(node.text)
    child = node.children[0]
    reader = _READERS.get(child.name)
    if reader is None:
        raise _refuse("open_tag({})".format(child.name), "open_tag({})".format(_SCALARS))
    return reader(child)


def _struct(node: Node) -> Dict[str, Any]:
    out = {}
    for member in node.children:
        name, value = member.children[0], member.children[1]
        key = "".join(name.text)
        if not key:
            raise _refuse("open_tag(value)", "close_tag(name)")
        out[key] = value_of(value)
    return out


def _int(node: Node) -> int:
    return int("".join(node.text))


_READERS: Dict[str, Callable[[Node], Any]] = {
    "string": lambda n: "".join(n.text),
    "int": _int,
    "i4": _int,
    "i8": _int,
    "boolean": lambda n: "".join(n.text).strip() == "1",
    "double": lambda n: float("".join(n.text)),
    "dateTime.iso8601": lambda n: Time("".join(n.text)),
    "array": lambda n: [value_of(v) for v in n.children[0].children],
    "struct": _struct,
    "nil": lambda n: None,
}


def xml_call(body: bytes) -> Request:
    """Return the call in an XML-RPC request body."""
    try:
        root = parse_xml(body)
    except XmlError as error:
        raise HttpError(500, "Xmlm.Error({}, {})".format(error.position, ocaml_string(error.text))) from None
    if root.name != "methodCall":
        raise _refuse("open_tag({})".format(root.name), "open_tag(methodCall)")
    parts = {child.name: child for child in root.children}
    name = "".join(parts["methodName"].text) if "methodName" in parts else ""
    if not name:
        raise _refuse("open_tag(params)", "open_tag(methodCall)")
    if "params" not in parts:
        raise _refuse("close_tag", "open_tag")
    try:
        return Request(name, [value_of(p.children[0]) for p in parts["params"].children])
    except (IndexError, ValueError):
        raise _refuse("close_tag", "open_tag") from None


_LONE = re.compile("[\ud800-\udbff](?![\udc00-\udfff])")
_ESCAPED = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])")


def json_call(body: bytes) -> Request:
    """Return the call in a JSON-RPC request body, version 2.0 or 1."""
    text = body.decode("utf-8", "surrogateescape")
    lone = _ESCAPED.search(text)
    if lone:
        _json_refuse(
            (lone.end(), len(text)),
            "Missing escape sequence representing low surrogate for code point beyond U+FFFF {}".format(
                _near(text, lone.end())
            ),
        )
    try:
        data = json.loads(text, strict=False)
    except ValueError as error:
        _json_syntax(text, getattr(error, "pos", 0))
    if not isinstance(data, dict):
        _malformed("Invalid request body")
    if "method" not in data:
        _malformed("Required field method is missing")
    if not isinstance(data.get("id"), (int, str)):
        _malformed("Invalid field 'id' in request body")
    params = data.get("params", [])
    if isinstance(params, dict):
        # Of named parameters XAPI uses the session only.
        params = [params.get("session_id", "")]
    return Request(str(data["method"]), params, str(data.get("jsonrpc", "")), data["id"])


def invalid_utf8(value: Any) -> Optional[str]:
    """Return the first string in `value` that was not UTF-8 on the wire, None if all were."""
    if isinstance(value, str):
        return value if re.search("[\udc80-\udcff]", value) else None
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for found in map(invalid_utf8, items) if found is not None), None)


def _malformed(text: str) -> None:
    raise HttpError(500, "Jsonrpc.Malformed_method_request({})".format(ocaml_string(text)))


def _near(text: str, at: int) -> str:
    """Return what XAPI's JSON parser shows of the place where it stopped: its look-ahead, quoted."""
    return "'{}'".format(text[at : at + 33])


def _json_refuse(place: Tuple[int, int], text: str) -> None:
    raise HttpError(
        500,
        "Yojson__Common.Json_error({})".format(
            ocaml_string("Line 1, bytes {}-{}:\n{}".format(place[0], place[1], text))
        ),
    )


def _json_syntax(text: str, at: int) -> None:
    if not text.strip():
        raise HttpError(500, 'Yojson__Common.Json_error("Blank input data")')
    if at >= len(text.rstrip()):
        _json_refuse((len(text) - 1, len(text)), "Unexpected end of input")
    _json_refuse((at + 1, at + 35), "Expected string or identifier but found {}".format(_near(text, at + 1)))
