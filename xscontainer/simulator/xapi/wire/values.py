"""Values on the wire: XAPI's types, the check of received values, and what may be stored."""

import re
from functools import lru_cache
from typing import Any, Callable, Dict, List, Tuple

from xscontainer.simulator.xapi.wire.failures import failure, internal

NULL = "OpaqueRef:NULL"
EPOCH = "19700101T00:00:00Z"
ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MAP = re.compile(r"\((.+) -> (.+)\) map$")


class Time(str):
    """A date in XAPI's notation (19700101T00:00:00Z, UTC): a dateTime in XML-RPC, a string in JSON-RPC."""

    __slots__ = ()


class WireInt(int):
    """An integer that XML-RPC sends as <i4>; XAPI's own integers are sent as strings."""


class WireString(str):
    """A number that is sent as text in JSON-RPC, too."""

    __slots__ = ()


def show(value: Any) -> str:
    """Return a received value as XAPI's messages show it: S(a), I(1), B(true), {k:S(v)} ..."""
    if value is None:
        return "N"
    if isinstance(value, bool):
        return "B({})".format("true" if value else "false")
    if isinstance(value, int):
        return "I({})".format(value)
    if isinstance(value, float):
        return "F({:g})".format(value)
    if isinstance(value, Time):
        return "D({})".format(value)
    if isinstance(value, list):
        return "[" + ";".join(show(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ";".join("{}:{}".format(k, show(v)) for k, v in value.items()) + "}"
    return "S({})".format(value)


def clean(text: str) -> str:
    """Return `text` up to the first character that XML 1.0 forbids, as XAPI's database stores keys and values."""
    match = ILLEGAL.search(text)
    return text[: match.start()] if match else text


def check_storable(value: Any) -> None:
    """Refuse strings with characters that XML 1.0 forbids, anywhere in a field's new value."""
    if isinstance(value, str):
        if ILLEGAL.search(value):
            raise internal("Db_exn.Invalid_value")
    elif isinstance(value, dict):
        for key, item in value.items():
            check_storable(key)
            check_storable(item)
    elif isinstance(value, list):
        for item in value:
            check_storable(item)


def clean_all(value: Any) -> Any:
    """Return a copy of a field's value with every string cut as the database does on creation."""
    if isinstance(value, Time):
        return value
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(k): clean_all(v) for k, v in value.items()}
    if isinstance(value, list):
        return [clean_all(v) for v in value]
    return value


def _string(value: Any) -> str:
    if type(value) is not str:  # pylint: disable=unidiomatic-typecheck
        raise failure("Expected string, got '{}'".format(show(value)))
    return value


def _int(value: Any) -> int:
    if type(value) is int:  # pylint: disable=unidiomatic-typecheck
        return value
    text = _string(value)
    if not re.match(r"-?\d+$", text):
        raise failure("Int64.of_string")
    return int(text)


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise failure("Expected bool, got '{}'".format(show(value)))
    return value


def _float(value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    try:
        return float(_string(value))
    except ValueError:
        raise failure("float_of_string") from None


def _time(value: Any) -> Time:
    if isinstance(value, str):
        return Time(value)
    raise failure("Expected datetime, got '{}'".format(show(value)))


def _record(value: Any) -> Dict[str, Any]:
    if not isinstance(value, dict):
        raise failure("bad __structure")
    return value


def _set(inner: Callable[[Any], Any]) -> Callable[[Any], List[Any]]:
    def check(value: Any) -> List[Any]:
        if not isinstance(value, list):
            raise failure("Expecting Rpc.Enum, but found '{}'".format(show(value)))
        return [inner(v) for v in value]

    return check


def _map(key: Callable[[Any], Any], inner: Callable[[Any], Any]) -> Callable[[Any], Dict[Any, Any]]:
    def check(value: Any) -> Dict[Any, Any]:
        if not isinstance(value, dict):
            raise failure("Expecting Rpc.Dict, but found '{}'".format(show(value)))
        return {key(k): inner(v) for k, v in value.items()}

    return check


def _enum(values: Tuple[str, ...], ignore_case: bool) -> Callable[[Any], str]:
    by_key = {v.lower() if ignore_case else v: v for v in values}

    def check(value: Any) -> str:
        text = _string(value)
        found = by_key.get(text.lower() if ignore_case else text)
        if found is None:
            raise failure("Unknown tag/contents")
        return found

    return check


_PLAIN = {"string": _string, "int": _int, "bool": _bool, "float": _float, "datetime": _time}
_ZERO: Dict[str, Any] = {"string": "", "int": 0, "bool": False, "float": 0.0, "datetime": Time(EPOCH)}


class Types:
    """The checkers of one data model (`enums`: enumeration -> its values), made once per type."""

    def __init__(self, enums: Dict[str, List[str]]) -> None:
        self._enums = enums
        self.checker: Callable[[str], Callable[[Any], Any]] = lru_cache(maxsize=None)(self._make)

    def _make(self, kind: str) -> Callable[[Any], Any]:
        """Return the function that turns a received value of type `kind` into a stored one, or raises XapiError."""
        if kind in _PLAIN:
            return _PLAIN[kind]
        match = _MAP.match(kind)
        if match:
            return _map(self.checker(match.group(1)), self.checker(match.group(2)))
        if kind.endswith(" set"):
            return _set(self.checker(kind[:-4]))
        if kind.startswith("enum "):
            return _enum(tuple(self._enums[kind[5:]]), kind == "enum cls")
        if kind.endswith(" record"):
            return _record
        return _string

    def zero(self, kind: str) -> Any:
        """Return the value of a field of type `kind` that has no default."""
        if kind in _ZERO:
            return _ZERO[kind]
        if kind.endswith(" map"):
            return {}
        if kind.endswith(" set"):
            return []
        if kind.startswith("enum "):
            return self._enums[kind[5:]][0]
        return NULL if kind.endswith(" ref") else ""
