"""Comparing answers with recorded ones, with placeholders for values that differ in each run."""

import re
from typing import Any, Dict, List, Tuple

PLACEHOLDER = re.compile(r"<(?:(ref|uuid|session|token):[^<>]+|session|time|kernel|trackid)>")
_REPEAT = re.compile(r"\{\$repeat (.) (?:x )?(\d+)\}")
_SHAPES = {
    "ref": r"(?:OpaqueRef|DummyRef):[^\"<\\]+?",
    "uuid": r"[0-9a-f]{8}-[0-9a-f-]{27}",
    "session": r"OpaqueRef:[0-9a-f-]{36}",
    "token": r"\d{20},\d{20}",
}
_FREE = {"<time>": r"[0-9TZ:.+-]+", "<kernel>": r"[^\"<]+", "<trackid>": r"[0-9a-f]+"}


class Mismatch(Exception):
    """The answer differs from the recorded one; the text says where."""


def expand(value: Any) -> Any:
    """Return a recorded value with its repetitions written out."""
    if isinstance(value, dict):
        if list(value) == ["$repeat"]:
            return value["$repeat"][0] * value["$repeat"][1]
        return {expand(k): expand(v) for k, v in value.items()}
    if isinstance(value, list):
        return [expand(v) for v in value]
    if isinstance(value, str) and "{$repeat" in value:
        return re.sub(r"\{\$repeat x (\d+)\}", lambda m: "x" * int(m.group(1)), value)
    return value


class Bindings:
    """The known values of placeholders."""

    def __init__(self) -> None:
        self.known: Dict[str, str] = {}

    def fill(self, value: Any) -> Any:
        """Return a recorded request with its placeholders replaced.

        :raises KeyError: a placeholder has no value yet.
        """
        if isinstance(value, dict):
            return {self.fill(k): self.fill(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self.fill(v) for v in value]
        if isinstance(value, str):
            return PLACEHOLDER.sub(lambda m: self.known[m.group(0)], value)
        return value

    def _pattern(self, expected: str) -> Tuple[str, List[str]]:
        out: List[str] = []
        names: List[str] = []
        at = 0
        for match in PLACEHOLDER.finditer(expected):
            out.append(re.escape(expected[at : match.start()]))
            at = match.end()
            name = match.group(0)
            if name in _FREE:
                out.append("(?:{})".format(_FREE[name]))
            elif name in self.known:
                out.append(re.escape(self.known[name]))
            elif name in names:
                out.append("(?P=p{})".format(names.index(name)))
            else:
                out.append("(?P<p{}>{})".format(len(names), _SHAPES[match.group(1) or "session"]))
                names.append(name)
        out.append(re.escape(expected[at:]))
        return "".join(out), names

    def text(self, expected: str, actual: str) -> bool:
        """Return whether a text fits; bind the references in it."""
        if "<" not in expected:
            return expected == actual
        pattern, names = self._pattern(expected)
        match = re.match("(?:{})$".format(pattern), actual, re.S)
        if not match or match.end() != len(actual):
            return False
        for number, name in enumerate(names):
            self.known[name] = match.group("p{}".format(number))
        return True

    def same(self, expected: Any, actual: Any, where: str = "") -> None:
        """Raise Mismatch unless the answer fits the recorded one; lists of references have no order."""
        if isinstance(expected, str) and isinstance(actual, str):
            if not self.text(expected, actual):
                raise Mismatch("{}: {!r:.300} is not {!r:.300}".format(where, actual, expected))
        elif type(expected) is not type(actual):
            raise Mismatch("{}: {!r:.300} is not {!r:.300}".format(where, actual, expected))
        elif isinstance(expected, dict):
            self._same_map(expected, actual, where)
        elif isinstance(expected, list):
            self._same_list(expected, actual, where)
        elif expected != actual:
            raise Mismatch("{}: {!r} is not {!r}".format(where, actual, expected))

    def _known_key(self, key: str) -> str:
        return PLACEHOLDER.sub(lambda m: self.known.get(m.group(0), m.group(0)), key)

    def _same_map(self, expected: Dict[str, Any], actual: Dict[str, Any], where: str) -> None:
        left = dict(actual)
        unknown = []
        for key, value in expected.items():
            name = self._known_key(key)
            if name in left:
                self.same(value, left.pop(name), "{}.{}".format(where, key))
            elif PLACEHOLDER.search(name):
                unknown.append((key, value))
            else:
                raise Mismatch("{}: no {}".format(where, key))
        for key, value in unknown:
            self._bind_member(key, value, left, where)
        if left:
            raise Mismatch("{}: {} should not be there".format(where, list(left)[:5]))

    def _bind_member(self, key: str, value: Any, left: Dict[str, Any], where: str) -> None:
        """Bind a placeholder that is a key to the first member that fits."""
        for name in list(left):
            before = dict(self.known)
            try:
                self.same(key, name, where)
                self.same(value, left[name], "{}.{}".format(where, key))
            except Mismatch:
                self.known = before
                continue
            del left[name]
            return
        raise Mismatch("{}: nothing fits {} ({!r:.200})".format(where, key, value))

    def _same_list(self, expected: List[Any], actual: List[Any], where: str) -> None:
        if len(expected) != len(actual):
            raise Mismatch("{}: {} items, not {}: {!r:.300}".format(where, len(actual), len(expected), actual))
        if expected and all(isinstance(e, str) and PLACEHOLDER.match(e) for e in expected):
            self._same_map({e: "" for e in expected}, {a: "" for a in actual}, where)
            return
        for number, (left, right) in enumerate(zip(expected, actual)):
            self.same(left, right, "{}[{}]".format(where, number))
