"""The wire form of a plugin call: XAPI passes a methodCall and reads a methodResponse.

The methodCall of XML-RPC is ``function(session, {name: value})``. The methodResponse holds a Success or a Failure.
"""

import re
import xmlrpc.client
from typing import Dict, List, Tuple

from xscontainer.core.arguments import shown
from xscontainer.errors import ArgumentError, cause

# Arguments that a host adds when it hands a call on; the CLI sets CALL, too.
HOPS = "xscontainer-hops"  # how often the call was handed on
SECONDS = "xscontainer-seconds"  # s until the call must be answered
CALL = "xscontainer-call-uuid"  # the id of the call; also a key in other_config of its tasks
SCRIPT_STEP = "run the script on the CD in the VM"  # the step of a task in which a person must run it
_FUNCTION = re.compile(rb"<methodName>\s*([A-Za-z0-9_.-]{1,64})\s*</methodName>")
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_FORBIDDEN_RAW = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")


def function_of(argument: bytes) -> str:
    """Read the name of the function for the log; "" if it cannot be read. Raises nothing."""
    found = _FUNCTION.search(argument[:4096])
    return found.group(1).decode("ascii") if found else ""


def decode(argument: bytes) -> "Tuple[str, str, Dict[str, str]]":
    """Read function, session (a ref) and arguments from a methodCall.

    :raises ArgumentError: the bytes are not a methodCall of a plugin.
    """
    # From clients of JSON-RPC XAPI accepts control characters, and writes them into XML, which forbids them.
    argument = _FORBIDDEN_RAW.sub("\ufffd".encode(), argument)
    try:
        # As text, so that the document cannot choose its encoding. Without a document type there are no entities,
        # which could grow without bound.
        text = argument.decode("utf-8")
        if "<!DOCTYPE" in text:
            raise ValueError("a document type is not allowed")
        parameters, function = xmlrpc.client.loads(text)
    except Exception as error:
        # The parser lets the errors of its parts through: expat's, binascii's and decimal's among them.
        why = shown(cause(error))
        raise ArgumentError(f"The plugin's argument is not an XML-RPC call: {why}.") from error
    if not function:
        raise ArgumentError("The plugin's argument names no function.")
    if len(parameters) != 2 or not isinstance(parameters[1], dict):
        raise ArgumentError("A plugin call takes a session and a map of arguments.")
    for name, value in parameters[1].items():
        if not isinstance(value, str):
            raise ArgumentError(f"The argument {shown(name)} is not a string.")
    return function, str(parameters[0]), parameters[1]


def success(value: str) -> bytes:
    """Make the methodResponse of a call that returns ``value``."""
    return _response("Success", "Value", _string(value))


def failure(description: "List[str]") -> bytes:
    """Make the methodResponse of a call that failed.

    :param description: [CODE, parameter, ...]; XAPI requires a code.
    """
    return _response("Failure", "ErrorDescription",
                     b"<value><array><data>", *map(_string, description), b"</data></array></value>")


def _response(status: str, name: str, *value: bytes) -> bytes:
    # As bytes: one wide character would make each copy of a long text four times as large.
    return b"".join((
        b"<?xml version='1.0'?>\n<methodResponse><params><param><value><struct><member><name>Status</name>",
        _string(status), f"</member><member><name>{name}</name>".encode("ascii"), *value,
        b"</member></struct></value></param></params></methodResponse>\n"))


def _string(text: str) -> bytes:
    # xmlrpc.client.dumps keeps control characters, and a bare CR, which a parser reads as a newline.
    raw = _FORBIDDEN.sub("\ufffd", text).encode("utf-8")
    raw = raw.replace(b"&", b"&amp;").replace(b"<", b"&lt;").replace(b">", b"&gt;").replace(b"\r", b"&#13;")
    return b"<value><string>%s</string></value>" % raw
