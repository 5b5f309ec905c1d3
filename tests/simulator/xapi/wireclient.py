"""A client that sends given bytes and returns the answer's bytes, for comparing wire behaviour."""

import http.client
import json
import socket
from typing import Any, Dict, List, NamedTuple, Optional, Tuple
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from xscontainer.simulator.xapi import SimHost

DEADLINE = 60.0


class Response(NamedTuple):
    """An HTTP answer; `headers` has lower-case names."""

    status: int
    headers: Dict[str, str]
    body: bytes


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=DEADLINE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(self._path)


def connect(host: SimHost, local: bool) -> socket.socket:
    """Return a connected socket to the host's xapi."""
    if local:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(DEADLINE)
        sock.connect(host.socket_path)
        return sock
    return socket.create_connection(("127.0.0.1", host.tcp_port), DEADLINE)


def xml_value(value: Any) -> str:
    """Return a parameter as an XML-RPC client sends it: strings typed, numbers as <int> or <double>."""
    if value is None:
        return "<value><nil/></value>"
    if isinstance(value, bool):
        return "<value><boolean>{}</boolean></value>".format(int(value))
    if isinstance(value, int):
        return "<value><int>{}</int></value>".format(value)
    if isinstance(value, float):
        return "<value><double>{!r}</double></value>".format(value)
    if isinstance(value, list):
        return "<value><array><data>{}</data></array></value>".format("".join(map(xml_value, value)))
    if isinstance(value, dict) and list(value) == ["$dateTime"]:
        return "<value><dateTime.iso8601>{}</dateTime.iso8601></value>".format(value["$dateTime"])
    if isinstance(value, dict):
        members = "".join(
            "<member><name>{}</name>{}</member>".format(escape(k), xml_value(v)) for k, v in value.items()
        )
        return "<value><struct>{}</struct></value>".format(members)
    return "<value><string>{}</string></value>".format(escape(value))


def xml_body(method: str, params: List[Any]) -> bytes:
    """Return an XML-RPC request body."""
    return "<?xml version='1.0'?><methodCall><methodName>{}</methodName><params>{}</params></methodCall>".format(
        escape(method), "".join("<param>{}</param>".format(xml_value(p)) for p in params)
    ).encode()


def json_body(method: str, params: List[Any]) -> bytes:
    """Return a JSON-RPC 2.0 request body."""
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}).encode()


def decode(node: ElementTree.Element) -> Any:
    """Decode a <value> by its tag: untyped is a string, <i4> a number, a date its text."""
    if not len(node):
        return node.text or ""
    child = node[0]
    if child.tag == "struct":
        return {(m.find("name").text or ""): decode(m.find("value")) for m in child}  # type: ignore
    if child.tag == "array":
        return [decode(v) for v in child.find("data")]  # type: ignore[union-attr]
    text = child.text or ""
    if child.tag in ("int", "i4"):
        return int(text)
    if child.tag == "boolean":
        return text == "1"
    return float(text) if child.tag == "double" else text


def decode_body(response: Response, path: str) -> Any:
    """Return the answer as the recordings show it."""
    if response.status != 200 or "content-type" not in response.headers:
        return {"http_status": response.status, "body": response.body.decode("utf-8", "replace")}
    if path == "/jsonrpc":
        try:
            return json.loads(response.body.decode())
        except UnicodeDecodeError:
            return {"http_status": 200, "body": response.body.decode("utf-8", "replace")}
    root = ElementTree.fromstring(response.body)
    return decode(root.find("params/param/value"))  # type: ignore[arg-type]


class Client:
    """One connection to a host's socket or TCP port."""

    def __init__(self, host: SimHost, local: bool = True) -> None:
        self._connection = (
            _UnixConnection(host.socket_path)
            if local
            else http.client.HTTPConnection("127.0.0.1", host.tcp_port, timeout=DEADLINE)
        )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_exc: Any) -> None:
        self.close()

    def post(self, path: str, body: bytes, content_type: str) -> Response:
        """Send one request and read its answer."""
        self._connection.request("POST", path, body, {"Content-Type": content_type})
        answer = self._connection.getresponse()
        data = answer.read()
        return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, data)

    def xml(self, method: str, params: List[Any]) -> Tuple[Any, Response]:
        """Make an XML-RPC call; return the decoded answer and the answer itself."""
        response = self.post("/", xml_body(method, params), "text/xml")
        return decode_body(response, "/"), response

    def json(self, method: str, params: List[Any]) -> Tuple[Any, Response]:
        """Make a JSON-RPC call."""
        response = self.post("/jsonrpc", json_body(method, params), "application/json")
        return decode_body(response, "/jsonrpc"), response

    def call(self, method: str, *params: Any) -> Any:
        """Return the value of an XML-RPC call that must succeed."""
        reply, _response = self.xml(method, list(params))
        assert reply["Status"] == "Success", reply
        return reply["Value"]


def raw_exchange(host: SimHost, local: bool, request: bytes, deadline: float) -> Optional[Response]:
    """Send raw bytes and read one answer; return None if none comes within `deadline` seconds."""
    sock = connect(host, local)
    try:
        sock.sendall(request)
        sock.settimeout(deadline)
        try:
            answer = http.client.HTTPResponse(sock, method=request.split(b" ", 1)[0].decode("latin-1"))
            answer.begin()
            if request.startswith(b"HEAD"):
                answer.length = int(answer.headers["content-length"])
                return Response(
                    answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.fp.read(answer.length)
                )
            return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        except socket.timeout:
            return None
    finally:
        sock.close()
