"""Failures of a simulated call: XAPI's, and those of its HTTP server."""

from typing import List


class XapiError(Exception):
    """An API failure; `description` is XAPI's ErrorDescription: the code, then its parameters, all strings."""

    def __init__(self, *description: str) -> None:
        super().__init__(*description)
        self.description: List[str] = list(description)


class HttpError(Exception):
    """A request that is no call: answered with `status` and XAPI's page around `text` (already escaped if HTML)."""

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text


class Dropped(Exception):
    """The connection ends without an answer (a crash, or an injected fault)."""


def internal(text: str) -> XapiError:
    """Return INTERNAL_ERROR with `text`, as XAPI reports an exception of its own."""
    return XapiError("INTERNAL_ERROR", text)


def ocaml_string(text: str) -> str:
    """Return `text` as OCaml's %S prints it, which XAPI's errors use."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def failure(text: str) -> XapiError:
    """Return INTERNAL_ERROR as XAPI reports OCaml's Failure exception."""
    return internal("Failure({})".format(ocaml_string(text)))
