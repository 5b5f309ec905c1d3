"""How a simulated call fails: as XAPI does it, or as its HTTP server does it."""

from typing import List


class XapiError(Exception):
    """An API failure; `description` is XAPI's ErrorDescription: the code, then its parameters, all strings."""

    def __init__(self, *description: str) -> None:
        super().__init__(*description)
        self.description: List[str] = list(description)


class HttpError(Exception):
    """A request that never becomes a call; `status` with XAPI's page around `text` (already escaped if HTML)."""

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text


class Dropped(Exception):
    """The connection ends without an answer (a crash, or an injected fault)."""


def internal(text: str) -> XapiError:
    """INTERNAL_ERROR with `text`, XAPI's wrapping of an exception of its own."""
    return XapiError("INTERNAL_ERROR", text)


def ocaml_string(text: str) -> str:
    """`text` as OCaml's %S prints it (XAPI's errors show values so)."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def failure(text: str) -> XapiError:
    """INTERNAL_ERROR as XAPI reports OCaml's Failure exception."""
    return internal("Failure({})".format(ocaml_string(text)))
