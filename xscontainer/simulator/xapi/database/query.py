"""The expressions of get_all_records_where: field "name" = "value", and, or, not, true, false, brackets."""

import re
from typing import Any, Callable, Dict, List

from xscontainer.simulator.xapi.wire.failures import XapiError

Test = Callable[[Dict[str, Any]], bool]
_TOKEN = re.compile(r'\s*(?:(field|and|or|not|true|false|=|\(|\))|"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\.)*)\')')


def _split(text: str) -> List[str]:
    """Return the words; strings get a leading quote."""
    out, at = [], 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if not match:
            raise XapiError("INVALID_VALUE", text, 'Failure("lexing: empty token")')
        quoted = match.group(2) if match.group(2) is not None else match.group(3)
        out.append(match.group(1) or '"' + quoted)
        at = match.end()
    return out


def stored_text(value: Any) -> str:
    """Return a value as XAPI's database stores it, which is what expressions compare."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "(" + " ".join("'{}'".format(v) for v in value) + ")"
    if isinstance(value, dict):
        return "(" + " ".join("('{}' '{}')".format(k, v) for k, v in value.items()) + ")"
    return str(value)


class _Parser:
    def __init__(self, text: str, fields: Dict[str, str]) -> None:
        self._text = text
        self._fields = fields
        self._words = _split(text)

    def whole(self) -> Test:
        test = self._or()
        if self._words:
            self._fail()
        return test

    def _fail(self) -> None:
        raise XapiError("INVALID_VALUE", self._text, "Stdlib.Parsing.Parse_error")

    def _next(self) -> str:
        if not self._words:
            self._fail()
        return self._words.pop(0)

    def _or(self) -> Test:
        left = self._and()
        while self._words[:1] == ["or"]:
            self._words.pop(0)
            left = _either(left, self._and())
        return left

    def _and(self) -> Test:
        left = self._one()
        while self._words[:1] == ["and"]:
            self._words.pop(0)
            left = _both(left, self._one())
        return left

    def _one(self) -> Test:
        word = self._next()
        if word == "not":
            return _negate(self._one())
        if word == "(":
            test = self._or()
            if self._next() != ")":
                self._fail()
            return test
        if word in ("true", "false"):
            return (lambda _v: True) if word == "true" else (lambda _v: False)
        left = self._operand(word)
        if self._next() != "=":
            self._fail()
        right = self._operand(self._next())
        return lambda values: left(values) == right(values)

    def _operand(self, word: str) -> Callable[[Dict[str, Any]], str]:
        if word == "field":
            name = self._next()[1:]
            if name not in self._fields:
                raise XapiError("INTERNAL_ERROR", "missing field", name, "")
            field = self._fields[name]
            return lambda values: stored_text(values[field])
        if not word.startswith('"'):
            self._fail()
        return lambda _values: word[1:]


def _either(left: Test, right: Test) -> Test:
    return lambda values: left(values) or right(values)


def _both(left: Test, right: Test) -> Test:
    return lambda values: left(values) and right(values)


def _negate(test: Test) -> Test:
    return lambda values: not test(values)


# The database's names of fields in a namespace: "name__label" for name_label.


def _database_name(field: str) -> str:
    if field in ("name_label", "name_description"):
        return "name__" + field[5:]
    return field


def compile_query(text: str, fields: List[str]) -> Test:
    """Return the test of an expression for a record's values; `fields` are the fields of its class."""
    return _Parser(text, {_database_name(f): f for f in fields}).whole()
