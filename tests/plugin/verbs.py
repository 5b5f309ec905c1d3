"""Verbs that tests add to the table."""

from typing import Any, Callable

from xscontainer.core.arguments import any_text, uuid
from xscontainer.core.verb import ANY_HOST, EVERYONE, NO_COMMAND, OPERATE, Argument, Verb


def made(name: str, action: Callable[..., str], *arguments: str, **more: Any) -> Verb:
    """A row with these arguments, all required.

    :param more: other fields of the row.
    """
    rows = tuple(Argument(each, uuid if each.endswith("uuid") else any_text) for each in arguments)
    return Verb(name, action, "Test.", more.pop("rows", rows), EVERYONE, OPERATE, NO_COMMAND + "a test's",
                more.pop("place", ANY_HOST), **more)
