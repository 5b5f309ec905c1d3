"""XAPI's JSON-RPC: requests as bytes, answers as results or errors."""

import json
from typing import Any, List, Tuple

from xscontainer.errors import ObjectGone, XapiError, XapiSessionLost, XapiUnavailable

# xapi answers HTTP 500 to a larger body, without a word about why. (xapi: Http_svr)
MOST_BODY_BYTES = 307200

# XAPI's error code -> our class; XapiError for all others.
_CLASSES = {
    "SESSION_INVALID": XapiSessionLost,
    "HANDLE_INVALID": ObjectGone,
    "UUID_INVALID": ObjectGone,
    "HOST_STILL_BOOTING": XapiUnavailable,
    "HOST_HAS_NO_MANAGEMENT_IP": XapiUnavailable,
    "HOST_OFFLINE": XapiUnavailable,
    "HOST_IS_SLAVE": XapiUnavailable,
    "CANNOT_CONTACT_HOST": XapiUnavailable,
}


def failure(details: "List[str]", method: str) -> XapiError:
    """Return the exception for an ErrorDescription of XAPI."""
    code, parameters = details[0], [str(detail) for detail in details[1:]]
    text = f"XAPI refused {method}: {code}"
    if parameters:
        text += f" ({', '.join(parameters)})"
    return _CLASSES.get(code, XapiError)(f"{text}.", details=[code] + parameters)


def encode(method: str, params: "Tuple[Any, ...]", serial: int) -> bytes:
    """Return the body of a request.

    :raises XapiError: the body is larger than XAPI accepts.
    """
    body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": serial},
                      ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    if len(body) > MOST_BODY_BYTES:
        raise XapiError(f"A call of {method} takes {len(body)} bytes; XAPI accepts {MOST_BODY_BYTES}.",
                        details=["REQUEST_TOO_LARGE", method, str(len(body))])
    return body


def decode(method: str, status: int, answer: bytes) -> Any:
    """Return the result in an answer.

    :param status: of HTTP.
    :raises XapiError: XAPI refused the call. XapiUnavailable: the answer is no JSON-RPC.
    """
    try:
        decoded = json.loads(answer.decode("utf-8", "replace")) if status == 200 else None
    except (ValueError, RecursionError):
        decoded = None
    if not isinstance(decoded, dict) or not ("result" in decoded or "error" in decoded):
        raise XapiUnavailable(f"XAPI answered {method} with HTTP status {status} and no JSON-RPC reply.")
    error = decoded.get("error")
    if isinstance(error, dict):
        data = error.get("data")
        raise failure([str(error.get("message", ""))] + (data if isinstance(data, list) else []), method)
    if error:  # where xapi fails to read the request at all, it does not answer in the form of JSON-RPC 2.0
        raise failure([str(word) for word in error] if isinstance(error, list) else [str(error)], method)
    return decoded["result"]
