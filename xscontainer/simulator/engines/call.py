"""One request to an engine, as its handlers see it, and the ways to answer."""

import json
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from xscontainer.simulator.engines.container import Version
from xscontainer.simulator.engines.store import ApiError
from xscontainer.simulator.engines.wire import Connection, Request


class Identity(NamedTuple):
    """The product and versions that an engine reports.

    :param version: the product's version.
    :param api_version: the newest API version it speaks.
    :param min_api_version: the oldest it accepts.
    :param product: "Engine" is Docker; "Podman Engine" has podman's own stats, too.
    """

    version: str = "20.10.24"
    api_version: str = "1.41"
    min_api_version: str = "1.12"
    name: str = "guest"
    git_commit: str = "5d6db84"
    product: str = "Engine"


def version_tuple(text: str) -> Version:
    """Return "1.41" as (1, 41). A part that is no number counts as 0."""
    return tuple(int(part) if part.isdigit() else 0 for part in text.split("."))


class Call(NamedTuple):
    """One request, with its version and the part of the path that names the object."""

    request: Request
    connection: Connection
    version: Version
    name: str

    def flag(self, key: str) -> bool:
        """Return a boolean query parameter as engines read it."""
        return self.request.query.get(key, "").lower().strip() not in ("", "0", "no", "false", "none")

    def json(self) -> Any:
        """Return the body, decoded.

        :raises ApiError: 400.
        """
        if not self.request.body:
            return {}
        try:
            return json.loads(self.request.body.decode("utf-8"))
        except ValueError as error:
            raise ApiError(400, f"invalid character in JSON: {error}") from error


Route = Tuple[str, str, Callable[[Call], None]]
"""(method, pattern of the path, handler)"""


def send(call: Call, value: Any, status: int = 200) -> None:
    call.connection.answer(status, json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n")


def seconds(call: Call) -> Optional[float]:
    text = call.request.query.get("t", "")
    if not text:
        return None
    try:
        return float(int(text))
    except ValueError as error:
        raise ApiError(500, f'strconv.Atoi: parsing "{text}": invalid syntax') from error


def filters_of(query: Dict[str, str]) -> Dict[str, List[str]]:
    """Return the filters parameter, which has two forms."""
    if not query.get("filters"):
        return {}
    try:
        given = json.loads(query["filters"])
        return {str(key): [str(value) for value in values] for key, values in given.items()}
    except (ValueError, AttributeError, TypeError) as error:
        first = query["filters"][:1]
        raise ApiError(500, f"invalid character '{first}' looking for beginning of value") from error
