"""Decode JSON and XML from guests and from other_config within bounds of depth and memory.

The decoders of the standard library recurse: with CPython 3.12.2 and newer a document of 9 KB nested 4500 levels deep
overruns the 512 KiB stack of a thread and ends the process. So the depth is checked before anything is decoded. The
memory that a decoded document takes (up to 95 times its bytes) is estimated from its bytes first, too.
"""

import json
import re
from typing import Any, Union
from xml.etree import ElementTree
from xml.parsers import expat

MOST_DEPTH = 100  # levels; the answers of engines have about ten
MOST_COST = 24 << 20  # bytes of memory that one decoded document may take, by estimate
MOST_DIGITS = 40  # of a number in JSON; turning long ones into an int takes quadratic time

# The memory that a decoded document takes at most beside its text, bytes for each such character. Measured on CPython
# 3.6, where an empty dict takes 240 bytes and a string with escapes is joined from as many pieces.
_COSTS = ((b"{", 200), (b"[", 50), (b",", 80), (b":", 100), (b"\\", 140))
_MOST_EACH = 128  # bytes of memory for any byte of a valid document at most
_SLICE = 65536
_ASCII = bytes(range(0x80))
_NARROW = bytes(range(0xF0))  # bytes of characters that take at most 2 bytes each in a string
_WIDE_ESCAPE = re.compile(rb"\\u[dD][89abAB]")
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)) - set(b'[]{}"'))


class TooCostly(ValueError):
    """The document would take more memory than allowed.

    :ivar estimate: how much, bytes.
    """

    def __init__(self, estimate: int) -> None:
        super().__init__("it is too large")
        self.estimate = estimate


class TooDeep(ValueError):
    def __init__(self) -> None:
        super().__init__(f"it is nested deeper than {MOST_DEPTH} levels")


def cost(body: bytes) -> int:
    """Return the bytes of memory that decoding this JSON takes at most, its text included; never too low."""
    width = _width(body)
    return len(body) * width * 2 + sum(each * body.count(character) for character, each in _COSTS)


def check_cost(body: bytes, most: int = MOST_COST) -> None:
    """:raises TooCostly: decoding this JSON may take more than ``most`` bytes."""
    if len(body) * _MOST_EACH > most:
        estimate = cost(body)
        if estimate > most:
            raise TooCostly(estimate)


def _width(body: bytes) -> int:
    """Return the bytes for each character in a string of this text: one wide character widens all the others."""
    beyond = body.translate(None, _ASCII)
    if beyond.translate(None, _NARROW) or _WIDE_ESCAPE.search(body):
        return 4
    return 2 if beyond or b"\\u" in body else 1


def check_depth(body: bytes) -> None:
    """:raises TooDeep: a decoder would recurse deeper than MOST_DEPTH while it reads this JSON, valid or not."""
    if body.count(b"[") + body.count(b"{") <= MOST_DEPTH:
        return
    nest = _brackets(body)
    for depth in range(MOST_DEPTH + 1):
        left = nest.replace(b"[]", b"")
        if len(left) == len(nest):
            # Each round removed the innermost pairs. The remaining brackets have no counterpart.
            if depth + nest.count(b"[") > MOST_DEPTH:
                break
            return
        nest = left
    raise TooDeep()


def _brackets(body: bytes) -> bytes:
    """Return the brackets outside of strings, in their order, all as square ones."""
    if b"\\" in body:
        # Backslashes stand only in strings: at any other one the decoder stops.
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    # A string without brackets is two quotes now, and goes. So do the adjacent quotes of two strings with no bracket
    # between them, which merges the two strings.
    nest = body.translate(_ONE_KIND, _OTHERS).replace(b'""', b"")
    if b'"' not in nest:
        return nest
    found, inside = [], 0
    for start in range(0, len(nest), _SLICE):
        pieces = nest[start:start + _SLICE].split(b'"')
        found.append(b"".join(pieces[inside::2]))
        inside ^= (len(pieces) - 1) & 1
    return b"".join(found)


def _bounded_int(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError("a number has too many digits")
    return int(digits)


DECODER = json.JSONDecoder(parse_int=_bounded_int)


def json_from(body: Union[bytes, str], most_cost: int = MOST_COST) -> Any:
    """Return the value of a JSON document; bytes are UTF-8.

    :raises ValueError: it is not valid JSON, or a number has more than MOST_DIGITS digits.
    :raises TooDeep, TooCostly: nothing was decoded.
    """
    raw = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    check_cost(raw, most_cost)
    check_depth(raw)
    return DECODER.decode(raw.decode("utf-8", "replace"))


class _Levels:
    """Counts the levels of an XML document while expat reads it, without building elements."""

    def __init__(self) -> None:
        self._depth = 0
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.EntityDeclHandler = self._refuse

    def check(self, text: str) -> None:
        self._parser.Parse(text, True)

    def _start(self, name: str, attributes: object) -> None:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise TooDeep()

    def _end(self, name: str) -> None:
        self._depth -= 1

    @staticmethod
    def _refuse(*_: object) -> None:
        raise ValueError("it declares entities")


def xml_from(text: str) -> ElementTree.Element:
    """Return the root of an XML document. It may declare no entities.

    Elements are freed and written recursively, hence the limit of their depth.

    :raises ValueError: it is not well-formed, or it declares entities. TooDeep.
    """
    try:
        _Levels().check(text)
        return ElementTree.fromstring(text)
    except (expat.ExpatError, ElementTree.ParseError, UnicodeError) as error:
        raise ValueError(f"it is not well-formed XML: {error}") from error
