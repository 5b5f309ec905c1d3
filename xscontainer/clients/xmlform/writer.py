"""Escape the text of one document."""

import re

from xscontainer.sanitize import REPLACED, SPACE

ENTITY_BUDGET = 900
DECLARATION = '<?xml version="1.0" ?>'

_AWKWARD = re.compile(f"[&<\r{REPLACED}]|\\]\\]>")
_LOOK_ALIKE = {"<": "\u2039", "]]>": "]]\u203a", '"': "\u201d"}


class Writer:
    """Escapes the text of one document and counts the entities a client counts.

    :param budget: how many of them the document may hold; negative: any number.
    """

    def __init__(self, budget: int = ENTITY_BUDGET) -> None:
        self.budget = budget

    def text(self, value: str) -> str:
        """Return ``value`` as character data."""
        if _AWKWARD.search(value) is None:
            return value
        return _AWKWARD.sub(self._escape, value.replace("\r\n", "\n"))

    def attribute(self, value: str) -> str:
        """Return ``value`` for use between double quotes. Line ends and tabs become spaces, as in a parser."""
        value = re.sub("[\t\r\n]", " ", value.replace("\r\n", "\n"))
        return re.sub('"', self._escape, self.text(value))

    def _escape(self, match: "re.Match[str]") -> str:
        found = match.group()
        if found == "&":
            return "&amp;"
        if found == "\r":
            return "\n"
        if found not in _LOOK_ALIKE:
            return "\ufffd"
        if self.budget == 0:
            return _LOOK_ALIKE[found]
        self.budget -= 1
        return {"<": "&lt;", "]]>": "]]&gt;", '"': "&quot;"}[found]

    def element(self, name: str, value: str) -> str:
        """Return ``<name>value</name>`` without space around the value: one client trims it, the other keeps it."""
        escaped = self.text(value.strip(SPACE))
        return f"<{name}>{escaped}</{name}>" if escaped else f"<{name}/>"
