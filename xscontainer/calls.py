"""A plugin call as it is written: what XAPI hands over, and what it reads.

It hands over an XML-RPC methodCall ``function(session, {name: value})``, and reads a methodResponse with a Success
or a Failure.
"""

import re
import xmlrpc.client
from typing import Dict, List, Tuple

from xscontainer.errors import ArgumentError
from xscontainer.vmrecord import UUID

LONGEST_NAME = 255  # of a container, or a new VM
DATASOURCES = ("configdrive", "nocloud")  # configdrive.image.LAYOUTS, which would load pycdlib here
_SWITCHES = {"finish": ("yes", "status"), "force": ("yes",), "remove": ("yes",),
             "generatecerts": ("yes",)}
SCRIPT_STEP = "run the script on the CD in the VM"  # the step of a task in which a person has to
LONGEST_SHOWN = 100  # of what a caller gave us, in an error text

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}=?\Z")
_SECONDS = re.compile(r"[0-9]{0,4}\Z")
_CONTAINER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_FORBIDDEN_RAW = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")


def decode(argument: bytes) -> "Tuple[str, str, Dict[str, str]]":
    """Function, session (a ref) and arguments of a methodCall.

    :raises ArgumentError: it is none, or not one of a plugin.
    """
    # Through JSON-RPC XAPI accepts control characters, and passes them on where XML forbids them.
    argument = _FORBIDDEN_RAW.sub("\ufffd".encode(), argument)
    try:
        # As text: expat then takes no other encoding from the document. Without a document type
        # there are no entities that could grow.
        text = argument.decode("utf-8")
        if "<!DOCTYPE" in text:
            raise ValueError("a document type is not allowed")
        parameters, function = xmlrpc.client.loads(text)
    except Exception as error:
        # The parser raises whatever its parts raise: expat's, binascii's and decimal's errors among them.
        why = shown(str(error) or type(error).__name__)
        raise ArgumentError(f"The plugin's argument is no XML-RPC call: {why}.") from error
    if not function:
        raise ArgumentError("The plugin's argument names no function.")
    if len(parameters) != 2 or not isinstance(parameters[1], dict):
        raise ArgumentError("A plugin call takes a session and a map of arguments.")
    for name, value in parameters[1].items():
        if not isinstance(value, str):
            raise ArgumentError(f"The argument {shown(name)} is no string.")
    return function, str(parameters[0]), parameters[1]


def checked(name: str, value: str) -> str:
    """An argument's value as actions take it: uuids in lower case.

    :raises ArgumentError: it is not of the form that arguments of this name have.
    """
    if name.endswith(("uuid", "secret")):
        lowered = value.strip().lower()
        if not UUID.match(lowered):
            # Whoever gives the secret itself instead must not find it in a log.
            given = "" if name.endswith("secret") else f", not {shown(value)}"
            raise ArgumentError(f"The argument '{name}' must be a uuid{given}.")
        return lowered
    if name in ("container", "object") and (len(value) > LONGEST_NAME or not _CONTAINER.match(value)):
        raise ArgumentError(f"The argument '{name}' must be a container's id or name, not {shown(value)}.")
    if name == "fingerprint" and not _FINGERPRINT.match(value):
        raise ArgumentError(f"The argument '{name}' must be as ssh-keygen -l prints it, SHA256:..., "
                            f"not {shown(value)}.")
    if name in _SWITCHES and value not in _SWITCHES[name]:
        raise ArgumentError(f"The argument '{name}' must be {' or '.join(_SWITCHES[name])}, not {shown(value)}.")
    if name == "wait" and not _SECONDS.match(value):
        raise ArgumentError(f"The argument '{name}' must be whole seconds, not {shown(value)}.")
    if name == "name" and not (value.strip() and value.isprintable() and len(value) <= LONGEST_NAME):
        raise ArgumentError(f"The argument '{name}' must be 1 to {LONGEST_NAME} printable characters, "
                            f"not {shown(value)}.")
    if name == "datasource" and value not in DATASOURCES:
        raise ArgumentError(f"The argument '{name}' must be one of {', '.join(DATASOURCES)}, not {shown(value)}.")
    return value


def shown(text: str, most: int = LONGEST_SHOWN) -> str:
    """What a caller gave us, as it may stand in a log or an error text: ASCII, quoted, at most so many characters."""
    return ascii(text if len(text) <= most else text[:most] + "...")


def success(value: str) -> bytes:
    """The methodResponse of a call that gives ``value``."""
    return _response("Success", "Value", _string(value))


def failure(description: "List[str]") -> bytes:
    """The methodResponse of a call that failed.

    :param description: [CODE, parameter, ...]; XAPI cannot read one without a code.
    """
    return _response("Failure", "ErrorDescription",
                     f"<value><array><data>{''.join(map(_string, description))}</data></array></value>")


def _response(status: str, name: str, value: str) -> bytes:
    return ("<?xml version='1.0'?>\n<methodResponse><params><param><value><struct>"
            f"<member><name>Status</name>{_string(status)}</member><member><name>{name}</name>{value}</member>"
            "</struct></value></param></params></methodResponse>\n").encode("utf-8")


def _string(text: str) -> str:
    # xmlrpc.client.dumps leaves control characters in, and a bare CR, which a parser takes for a newline.
    text = _FORBIDDEN.sub("\ufffd", text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")
    return f"<value><string>{text}</string></value>"
